package placement

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
)

// split decides that the shard is split where its leader wishes it. The right side gets
// the same nodes. A shard of which a learner is left waits: the learner would have
// to catch up twice.
func (p *Plan) split(s *Shard) (Step, bool) {
	d := &s.Descriptor
	if len(s.SplitAt) == 0 || d.ID == shard.MetaID || p.paused || voters(d) != len(d.Replicas) ||
		!d.Span.Contains(s.SplitAt) || bytes.Equal(s.SplitAt, d.Span.Start) {
		return Step{}, false
	}
	st := s.step(Split)
	st.SplitAt, st.Reason = s.SplitAt, s.SplitReason
	for _, r := range d.Replicas {
		st.members = append(st.members, r.Node)
	}
	return st, true
}
