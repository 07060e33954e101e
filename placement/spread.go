package placement

import "github.com/kiloraft/kiloraft/shard"

// spread decides whether the shard's leader moves to the node among those of its
// caught-up voters that bears the least. Every move makes what two nodes bear more
// equal, so that moves come to an end. The leader of a shard that was just raised moves
// for any gain, others only beyond a tolerance.
func (p *Plan) spread(s *Shard, raised bool) (Step, bool) {
	from := p.node(s.Leader)
	if from == nil {
		return Step{}, false
	}
	to, _ := p.heir(s, nil)
	if to == nil {
		return Step{}, false
	}
	if worth := p.hands(from, to, s.load()) || raised && from.load-to.load >= 2*s.load(); !worth {
		return Step{}, false
	}
	return p.handOver(s, nil)
}

// uneven tells whether some node bears so much more than another that leaders could
// move without another reason.
func (p *Plan) uneven() bool {
	var least, most *nodeCount
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.host() {
			continue
		}
		if least == nil || n.load < least.load {
			least = n
		}
		if most == nil || n.load > most.load {
			most = n
		}
	}
	return most != nil && p.hands(most, least, leaderLoad)
}

// balance decides and takes transfers that even out what leaders bear: it asks each
// settled shard once, those of the node that bears the most first.
func (p *Plan) balance(settled []*Shard, taken map[shard.ID]bool) (steps []Step) {
	if len(settled) == 0 || !p.uneven() {
		return nil
	}
	byLeader := make([][]*Shard, len(p.nodes))
	for _, s := range settled {
		if i := p.index(s.Leader); i >= 0 && !taken[s.Descriptor.ID] {
			byLeader[i] = append(byLeader[i], s)
		}
	}
	for !p.Full() {
		from := p.mostLoaded(byLeader)
		if from < 0 {
			return steps
		}
		rest := byLeader[from]
		s := rest[len(rest)-1]
		byLeader[from] = rest[:len(rest)-1]
		p.looks++
		if st, ok := p.spread(s, false); ok {
			p.Take(&st)
			steps = append(steps, st)
			taken[s.Descriptor.ID] = true
		}
	}
	return steps
}

// mostLoaded is the node that bears the most among those that lead a shard in byLeader,
// the smaller ID first, by number; -1 if none does.
func (p *Plan) mostLoaded(byLeader [][]*Shard) int {
	most := -1
	for i := range p.nodes {
		if len(byLeader[i]) > 0 && (most < 0 || p.nodes[i].load > p.nodes[most].load) {
			most = i
		}
	}
	return most
}
