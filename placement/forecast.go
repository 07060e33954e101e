package placement

import "github.com/kiloraft/kiloraft/shard"

// forecastStepsMax bounds what one shard is foretold: replicas are replaced one after
// the other, in four steps each.
const forecastStepsMax = 64

// Forecast carries out in thought what the shards need, one shard after the other and
// each to its end, as if every learner caught up at once and every step succeeded. It
// changes the shards, and counts in p. What a shard still needs then it will wait for:
// Explain says for what. Counts drift from the truth as other shards change, so that a
// forecast is what would be done now, and no promise.
func (p *Plan) Forecast(shards []*Shard) {
	for _, s := range shards {
		for range forecastStepsMax {
			s.catchUp()
			st, ok := p.Next(s)
			if !ok {
				break
			}
			p.Take(&st)
			done := s.after(&st)
			p.Finish(&st, done)
			if !done {
				break
			}
		}
	}
}

// catchUp has every member that is answered for have the leader's whole log.
func (s *Shard) catchUp() {
	for _, r := range s.Descriptor.Replicas {
		if p := s.progress(r.ID); p == nil {
			s.Progress = append(s.Progress, Progress{Replica: r.ID, Match: max(s.Commit, 1), Active: true})
		} else if p.Active && r.Role == shard.Learner {
			p.Match, p.Snapshot = max(s.Commit, 1), false
		}
	}
}

// after changes the shard as a step does; false: the step does not fit.
func (s *Shard) after(st *Step) bool {
	if st.Kind == TransferLeader {
		s.Leader = st.Node
		return true
	}
	m := st.Membership()
	d, err := m.Apply(&s.Descriptor)
	if err != nil {
		return false
	}
	s.Descriptor = d
	return true
}
