// Package storagetest is for tests only.
package storagetest

import (
	"os"
	"testing"
)

// Check checks.
func Check(t *testing.T) { t.Log(os.Args) }
