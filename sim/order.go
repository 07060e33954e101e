package sim

import (
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// known is a revision that a client knew at some moment: whatever is called
// later is given a larger one.
type known struct {
	at    int64
	shard shard.ID
	rev   shard.Revision
	by    fmt.Stringer
}

// checkRevisionOrder refuses a write or a draw whose revision is not above every
// one that any client knew, of any shard, before it was called.
func (h *History) checkRevisionOrder(ops []*Op) error {
	learned := h.learned(ops)
	newest := make(map[shard.ID]*known)
	next := 0
	for _, o := range ops { // in order of call
		for ; next < len(learned) && learned[next].at < o.Call; next++ {
			k := &learned[next]
			if in := inOrder(k.shard, 0).shard; newest[in] == nil || newest[in].rev < k.rev {
				newest[in] = k
			}
		}
		if o.Outcome != done || o.Rev == 0 || o.Kind == shard.KindGet || o.Kind == shard.KindBatch {
			continue
		}
		if k := newest[inOrder(o.Shard, 0).shard]; k != nil && k.rev >= o.Rev {
			return fmt.Errorf("revisions do not follow real time: %d was known by %v before %v was called", k.rev, k.by, o)
		}
	}
	return nil
}

// learned is what clients came to know, in order of time.
func (h *History) learned(ops []*Op) []known {
	var all []known
	for _, o := range ops {
		if o.Outcome == done && o.Rev != 0 && o.Kind != shard.KindBatch {
			all = append(all, known{o.Return, o.Shard, o.Rev + max(o.Count, 1) - 1, o})
		}
	}
	for _, s := range h.snapshots {
		all = append(all, known{s.Return, s.Shard, s.At, s})
	}
	slices.SortStableFunc(all, func(a, b known) int { return int(a.at - b.at) })
	return all
}

// checkUnique refuses a revision that was given out twice: to two writes, or to
// a write and a draw. Writes of one call share theirs.
func (h *History) checkUnique(ops []*Op) error {
	given := make(map[revisionIn]*Op)
	for _, o := range ops {
		if o.Outcome != done || o.Rev == 0 || o.Kind == shard.KindGet || o.Kind == shard.KindBatch {
			continue
		}
		for r := o.Rev; r < o.Rev+max(o.Count, 1); r++ {
			in := inOrder(o.Shard, r)
			if first := given[in]; first != nil && first.Call != o.Call {
				return fmt.Errorf("revision %d was given out twice: %v and %v", r, first, o)
			}
			given[in] = o
		}
	}
	return nil
}
