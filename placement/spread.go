package placement

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
	from := p.node(s.Leader)
	if from == nil {
		return Step{}, false
	}
	to, _ := p.heir(s, nil)
	if to == nil || from.leaders-to.leaders < diffMin {
		return Step{}, false
	}
	return p.handOver(s, nil)
}

// uneven tells whether some node leads so many shards more than another that
// leaders move without another reason.
func (p *Plan) uneven() bool {
	first := true
	var least, most int
	for i := range p.nodes {
		if n := &p.nodes[i]; n.host() {
			if first {
				least, most, first = n.leaders, n.leaders, false
			}
			least, most = min(least, n.leaders), max(most, n.leaders)
		}
	}
	return most-least >= idleDiffMin
}
