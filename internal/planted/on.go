//go:build planted

package planted

import (
	"slices"
	"sync/atomic"
)

var chosen atomic.Value // Bug

// Choose switches one bug on and all others off; "" switches all off.
func Choose(b Bug) {
	if b != "" && !slices.Contains(Bugs(), b) {
		panic("no planted bug is called \"" + string(b) + "\"")
	}
	chosen.Store(b)
}

// On tells whether a bug is switched on.
func On(b Bug) bool { return chosen.Load() == b }
