// Package node may use goroutines, but no random order.
package node

import (
	_ "github.com/kiloraft/kiloraft/client"
	_ "github.com/kiloraft/kiloraft/internal/env/prod"   // want imports "is not for node/doc.go"
	_ "github.com/kiloraft/kiloraft/server"              // want imports "only rooms to its left"
	_ "github.com/kiloraft/kiloraft/storage/storagetest" // want imports "is test support"
)

func run(m map[int]int) {
	go func() {}()
	for range m { // want order "random order"
	}
}
