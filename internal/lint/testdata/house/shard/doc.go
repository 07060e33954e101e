// Package shard breaks rules.
package shard
