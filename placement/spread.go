package placement

import "github.com/kiloraft/kiloraft/shard"

const (
	// raisedDiffMin is how many leaders more than another its node has when the
	// leader of a shard that was just raised moves there: any move that makes
	// the two more equal.
	raisedDiffMin = 2
	// idleDiffMin is the same for any other shard. It leaves alone what one
	// transfer by a person makes of an even spread.
	idleDiffMin = 3
)

// spread decides whether the shard's leader moves to the node among those of its
// caught-up voters that leads the fewest shards. Every move makes two nodes'
// counts more equal, so that moves come to an end.
func (p *Plan) spread(s *Shard, diffMin int) (Step, bool) {
	d := &s.Descriptor
	from := p.node(s.Leader)
	if from == nil {
		return Step{}, false
	}
	var to *load
	var heir shard.ReplicaID
	for _, r := range d.Replicas {
		n := p.node(r.Node)
		if r.Role != shard.Voter || n == nil || !n.live || n == from || !s.caughtUp(r.ID) {
			continue
		}
		if to == nil || n.leaders < to.leaders || n.leaders == to.leaders && n.id < to.id {
			to, heir = n, r.ID
		}
	}
	if to == nil || from.leaders-to.leaders < diffMin {
		return Step{}, false
	}
	return Step{Kind: TransferLeader, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Node: to.id, Replica: heir}, true
}

// uneven tells whether some live node leads so many shards more than another
// that leaders move without another reason.
func (p *Plan) uneven() bool {
	first := true
	var least, most int
	for i := range p.nodes {
		if n := &p.nodes[i]; n.live {
			if first {
				least, most, first = n.leaders, n.leaders, false
			}
			least, most = min(least, n.leaders), max(most, n.leaders)
		}
	}
	return most-least >= idleDiffMin
}
