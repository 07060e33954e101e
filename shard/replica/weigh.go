package replica

import (
	"github.com/kiloraft/kiloraft/shard"
)

// A delete-range is carried out on its group's turn, and every replica has to find
// the same keys. It cannot end early there: how many tombstones of before the floor
// lie between its keys differs from replica to replica, as each drops them when it
// comes to it, and a piece that ended after so many would be another piece on each.
//
// Invariant: the span of one that is proposed was walked by the leader, from a view
// and on a step of its own, in RangeStepsMax steps. When it is applied the leader
// walks no more than that and what was written there meanwhile; a follower
// besides what it has not dropped yet.
//
// The rule is about the whole span, and not about the keys that a first attempt
// removes: a later one looks in all of it for what earlier ones wrote. And the
// leader refuses instead of making the span smaller: it is by its fixed span that
// a later attempt, at another leader, finds just what an earlier one did.

// weigh lets a delete-range go on if its span is not too wide.
func (w *write) weigh(c *shard.Command) {
	span, above, retry := shard.Span{Start: c.Start, End: c.End}, shard.MaxRevision, c.Retry
	if retry {
		above = c.Birth // all versions since are looked at
	}
	w.r.store.cfg.Reads.Submit(func() {
		err := w.r.store.weigh(span, above)
		switch {
		case err == nil:
			w.r.draws.add(w)
			return
		case retry && err == shard.ErrRangeTooWide:
			// An earlier attempt may have been made when it was not.
			err = &shard.OutcomeLostError{Reason: "its range has become too wide to look for it"}
		}
		w.finish(shard.Response{Err: err})
	})
}

func (s *Store) weigh(span shard.Span, above shard.Revision) error {
	v := s.openView()
	steps, err := v.Walk(span, above, shard.RangeStepsMax+1)
	if err == nil {
		err = v.Close()
	} else {
		_ = v.Close()
	}
	switch {
	case err != nil:
		s.cfg.Logger.Error("reading what a delete-range passes", "error", err)
		return shard.ErrUnavailable
	case steps > shard.RangeStepsMax:
		return shard.ErrRangeTooWide
	}
	return nil
}
