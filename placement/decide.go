package placement

import "github.com/kiloraft/kiloraft/shard"

// Decide is the steps for a view, within limits.
func Decide(v View, limits Limits) []Step {
	steps, _ := NewPlan(v, limits).Decide(v.Shards)
	return steps
}

// Decide decides and takes the steps for shards that the plan has counted.
// later are the shards whose steps found no room among those in flight, in the
// order in which they should be asked for with Next when there is room.
func (p *Plan) Decide(shards []*Shard) (steps []Step, later []*Shard) {
	var byKind [TransferLeader + 1][]*Shard
	var settled []*Shard
	var meta *Shard
	busy := false
	for _, s := range shards {
		st, ok := p.Next(s)
		need := p.need(&s.Descriptor)
		needs := s.Task != nil || !need.none()
		busy = busy || needs
		switch {
		case ok:
			byKind[st.Kind] = append(byKind[st.Kind], s)
		case needs || !p.eligible(s):
		case s.Descriptor.ID == shard.MetaID:
			meta = s
		default:
			settled = append(settled, s)
		}
	}
	for _, some := range byKind {
		for _, s := range some {
			if p.Full() {
				later = append(later, s)
				continue
			}
			// Steps taken since may have made another one better, or none.
			if st, ok := p.Next(s); ok {
				p.Take(&st)
				steps = append(steps, st)
			}
		}
	}
	if p.paused {
		return steps, later
	}
	steps = append(steps, p.balance(settled)...)
	// The meta shard's leader drives placement, and its move interrupts that: it
	// goes when there is nothing else to do, and only if moving others has not
	// evened the spread.
	if meta != nil && p.steps == 0 && !busy {
		if st, ok := p.spread(meta, idleDiffMin); ok {
			p.Take(&st)
			steps = append(steps, st)
		}
	}
	if p.even && p.onlyEvening(shards) {
		steps = append(steps, p.evenOut(withoutSteps(settled, steps))...)
	}
	return steps, later
}

// onlyEvening tells whether no shard needs anything but what evens out: replicas
// that are missing go first, and are themselves put where there are the fewest.
func (p *Plan) onlyEvening(shards []*Shard) bool {
	for _, s := range shards {
		need := p.need(&s.Descriptor)
		if !need.none() || s.Task != nil && !s.Task.Auto {
			return false
		}
	}
	return true
}

// withoutSteps are the shards for which none of the steps is.
func withoutSteps(shards []*Shard, steps []Step) []*Shard {
	if len(steps) == 0 {
		return shards
	}
	taken := make(map[shard.ID]bool, len(steps))
	for i := range steps {
		taken[steps[i].Shard] = true
	}
	var rest []*Shard
	for _, s := range shards {
		if !taken[s.Descriptor.ID] {
			rest = append(rest, s)
		}
	}
	return rest
}

// Next is the step that the shard needs, whether or not there is room for it. The
// caller takes it, or not.
func (p *Plan) Next(s *Shard) (Step, bool) {
	if !p.eligible(s) {
		return Step{}, false
	}
	d := &s.Descriptor
	if d.Joint() {
		// Leaving is proposed by a leader that stays a voter: one that does not
		// would lead on without a vote. One that is outgoing has to go first.
		if r, ok := d.ReplicaOn(s.Leader); !ok || r.Role == shard.Outgoing {
			return Step{}, false
		}
		return Step{Kind: LeaveJoint, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader}, true
	}
	if st, ok := p.drain(s); ok {
		return st, true
	}
	if s.Task != nil {
		return p.task(s)
	}
	need := p.need(d)
	if !need.none() && (!p.paused || p.leaves(d)) {
		if st, ok := p.raise(s, &need); ok {
			return st, true
		}
	}
	if st, ok := p.tidy(s, &need); ok {
		return st, true
	}
	if s.Raised && !p.paused && d.ID != shard.MetaID {
		return p.spread(s, raisedDiffMin)
	}
	return Step{}, false
}

// leaves tells whether a member's node leaves: somebody asked for that.
func (p *Plan) leaves(d *shard.Descriptor) bool {
	for _, r := range d.Replicas {
		if n := p.node(r.Node); n != nil && n.state == shard.Leaving {
			return true
		}
	}
	return false
}

func (p *Plan) eligible(s *Shard) bool {
	return s.InFlight == nil && !s.Hold && p.isLive(s.Leader)
}

// balance decides and takes transfers that even out leaders: it asks each
// settled shard once, those of the node with the most leaders first.
func (p *Plan) balance(settled []*Shard) (steps []Step) {
	if len(settled) == 0 || !p.uneven() {
		return nil
	}
	byLeader := make(map[shard.NodeID][]*Shard, len(p.nodes))
	for _, s := range settled {
		byLeader[s.Leader] = append(byLeader[s.Leader], s)
	}
	for !p.Full() {
		from := p.mostLeaders(byLeader)
		if from == nil {
			return steps
		}
		rest := byLeader[from.id]
		s := rest[len(rest)-1]
		byLeader[from.id] = rest[:len(rest)-1]
		if st, ok := p.spread(s, idleDiffMin); ok {
			p.Take(&st)
			steps = append(steps, st)
		}
	}
	return steps
}

// mostLeaders is the node with the most leaders among those that lead a shard in
// byLeader, the smaller ID first; nil if none does.
func (p *Plan) mostLeaders(byLeader map[shard.NodeID][]*Shard) *load {
	var most *load
	for i := range p.nodes {
		if n := &p.nodes[i]; len(byLeader[n.id]) > 0 && (most == nil || n.leaders > most.leaders) {
			most = n
		}
	}
	return most
}
