package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/kiloraft/kiloraft/shard"
)

// seen is what porcupine knows of an operation beside its kind and value.
type seen struct {
	rev   shard.Revision // 0: unknown, or nothing was found
	after shard.Revision // of a write: the revision that it replaces; 0: the first
}

// tighten says of each write which revision it replaces, and narrows the time in
// which each operation on a key can have happened, by what its revision says: a
// version came after all calls that found a lower revision, and before all
// returns with a higher one. Every order of events that explains the history
// obeys this, so the verdict stays the same; but a process that was paused leaves
// dozens of operations open at a time, and the search for an order would try all
// their subsets.
//
// It refuses a history that leaves an operation no time at all. Deletes of unknown
// revision and reads that found nothing keep their times. Times are stretched, so
// that there is room between two for all writes of a key: what waited for long is
// carried out at once.
func tighten(history []porcupine.Operation) error {
	for i := range history {
		history[i].Call *= stretch
		if history[i].Return < never {
			history[i].Return *= stretch
		}
	}
	byRev := make([]*porcupine.Operation, 0, len(history))
	for i := range history {
		if revOf(&history[i]) != 0 {
			byRev = append(byRev, &history[i])
		}
	}
	slices.SortStableFunc(byRev, func(a, b *porcupine.Operation) int { return cmp.Compare(revOf(a), revOf(b)) })

	// From both sides: bounds of one revision are those of the ones beyond it,
	// which are whole before they are used.
	called := int64(-1)
	var before shard.Revision
	eachRevision(byRev, func(same []*porcupine.Operation) {
		write := int64(-1) // the call of the version itself
		for _, o := range same {
			if isWrite(o) {
				o.Output = seen{rev: revOf(o), after: before}
				before = revOf(o)
				o.Call = max(o.Call, called+1) // after the reads before it: they lose nothing by going first
				write = o.Call
			}
		}
		for _, o := range same {
			o.Call = max(o.Call, called, write)
			called = max(called, o.Call)
		}
	})
	returned := int64(math.MaxInt64)
	slices.Reverse(byRev)
	eachRevision(byRev, func(same []*porcupine.Operation) {
		next := returned
		for _, o := range same {
			o.Return = min(o.Return, returned)
			next = min(next, o.Return)
		}
		for _, o := range same {
			if isWrite(o) {
				o.Return = next
			}
		}
		returned = next
	})
	for _, o := range byRev {
		if o.Call > o.Return {
			return fmt.Errorf("no moment is left in which this can have happened: %v", o.Input)
		}
	}
	return nil
}

const (
	// never is when an operation returns of which nobody knows when it took effect.
	never = int64(1) << 60
	// stretch is more than the writes of one key; times stay far below never.
	stretch = int64(1) << 20
)

func revOf(o *porcupine.Operation) shard.Revision { return o.Output.(seen).rev }

func isWrite(o *porcupine.Operation) bool {
	k := o.Input.(*Op).Kind
	return k == shard.KindPut || k == shard.KindDelete
}

// eachRevision calls f with each run of operations of one revision.
func eachRevision(ops []*porcupine.Operation, f func([]*porcupine.Operation)) {
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && revOf(ops[n]) == revOf(ops[0]) {
			n++
		}
		f(ops[:n])
		ops = ops[n:]
	}
}
