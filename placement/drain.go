package placement

import (
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// drain decides that the leader leaves a node that is to lead nothing.
func (p *Plan) drain(s *Shard) (Step, bool) {
	if n := p.node(s.Leader); n == nil || n.state == shard.Serving {
		return Step{}, false
	}
	return p.handOver(s, nil)
}

// handOver decides that the shard's leader moves to the voter that may lead and
// bears the least where it is, except to those in not.
func (p *Plan) handOver(s *Shard, not []shard.Replica) (Step, bool) {
	to, heir := p.heir(s, not)
	if to == nil {
		return Step{}, false
	}
	st := s.step(TransferLeader)
	st.Node, st.Replica = to.id, heir
	return st, true
}

// heir finds the caught-up voter, other than the leader and those in not, whose
// node serves and bears the least, the smaller ID first.
func (p *Plan) heir(s *Shard, not []shard.Replica) (to *nodeCount, id shard.ReplicaID) {
	for _, r := range s.Descriptor.Replicas {
		n := p.node(r.Node)
		if r.Role != shard.Voter || n == nil || !n.host() || n.id == s.Leader || !s.caughtUp(r.ID) || slices.Contains(not, r) {
			continue
		}
		if to == nil || n.load < to.load || n.load == to.load && n.id < to.id {
			to, id = n, r.ID
		}
	}
	return to, id
}
