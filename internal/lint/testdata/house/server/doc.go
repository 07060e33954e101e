// Package server may do what it likes, but for the rooms beside it.
package server

import (
	"os"

	_ "github.com/kiloraft/kiloraft/internal/env/prod"
	_ "github.com/kiloraft/kiloraft/sim" // want imports "only rooms to its left"
)

func run(m map[int]int) {
	for range m {
		_ = os.Args
	}
}
