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
// leads least where it is, except to those in not.
func (p *Plan) handOver(s *Shard, not []shard.Replica) (Step, bool) {
	to, heir := p.heir(s, not)
	if to == nil {
		return Step{}, false
	}
	return Step{Kind: TransferLeader, Shard: s.Descriptor.ID, Epoch: s.Descriptor.Epoch, Leader: s.Leader, Node: to.id, Replica: heir}, true
}

// heir finds the caught-up voter, other than the leader and those in not, whose
// node serves and leads the fewest shards, the smaller ID first.
func (p *Plan) heir(s *Shard, not []shard.Replica) (to *load, id shard.ReplicaID) {
	for _, r := range s.Descriptor.Replicas {
		n := p.node(r.Node)
		if r.Role != shard.Voter || n == nil || !n.host() || n.id == s.Leader || !s.caughtUp(r.ID) || slices.Contains(not, r) {
			continue
		}
		if to == nil || n.leaders < to.leaders || n.leaders == to.leaders && n.id < to.id {
			to, id = n, r.ID
		}
	}
	return to, id
}
