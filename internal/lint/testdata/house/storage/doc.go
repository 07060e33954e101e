// Package storage breaks rules, too.
package storage
