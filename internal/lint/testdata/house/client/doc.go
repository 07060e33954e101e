// Package client breaks rules of the facade.
package client
