package sim

import (
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// known is a revision that a client knew at some moment: whatever is called
// later is given a larger one.
type known struct {
	at  int64
	rev shard.Revision
	by  fmt.Stringer
}

// checkRevisionOrder refuses a write or a draw whose revision is not above every
// one that any client knew, of any shard, before it was called.
func (h *History) checkRevisionOrder(ops []*Op) error {
	learned := h.learned(ops)
	var newest *known
	next := 0
	for _, o := range ops { // in order of call
		for ; next < len(learned) && learned[next].at < o.Call; next++ {
			if k := &learned[next]; newest == nil || newest.rev < k.rev {
				newest = k
			}
		}
		if o.Outcome != done || o.Rev == 0 || o.Kind == shard.KindGet || o.Kind == shard.KindBatch {
			continue
		}
		if newest != nil && newest.rev >= o.Rev {
			return fmt.Errorf("revisions do not follow real time: %d was known by %v before %v was called", newest.rev, newest.by, o)
		}
	}
	return nil
}

// learned is what clients came to know, in order of time.
func (h *History) learned(ops []*Op) []known {
	var all []known
	for _, o := range ops {
		if o.Outcome == done && o.Rev != 0 && o.Kind != shard.KindBatch {
			all = append(all, known{o.Return, o.Rev + max(o.Count, 1) - 1, o})
		}
	}
	for _, s := range h.snapshots {
		all = append(all, known{s.Return, s.At, s})
	}
	slices.SortStableFunc(all, func(a, b known) int { return int(a.at - b.at) })
	return all
}

// checkUnique refuses a revision that was given out twice: to two writes, or to
// a write and a draw. Writes of one call share theirs.
func (h *History) checkUnique(ops []*Op) error {
	given := make(map[shard.Revision]*Op)
	for _, o := range ops {
		if o.Outcome != done || o.Rev == 0 || o.Kind == shard.KindGet || o.Kind == shard.KindBatch {
			continue
		}
		for r := o.Rev; r < o.Rev+max(o.Count, 1); r++ {
			if first := given[r]; first != nil && first.Call != o.Call {
				return fmt.Errorf("revision %d was given out twice: %v and %v", r, first, o)
			}
			given[r] = o
		}
	}
	return nil
}
