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
	busy, onlyEvening := false, true
	for _, s := range shards {
		st, ok := p.Next(s)
		need := p.need(&s.Descriptor)
		needs := s.Task != nil || !need.none()
		busy = busy || needs
		onlyEvening = onlyEvening && !p.comesFirst(s, &need)
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
	if !p.paused {
		steps = append(steps, p.improve(settled, meta, busy, onlyEvening)...)
	}
	return steps, later
}

// improve decides and takes steps that nothing calls for but what could be better: shards
// spread over more places, and nodes that hold and bear the same. Replicas move only
// when no shard needs anything else: missing ones go first, and are themselves put where
// they are best. settled and meta are shards that need nothing; meta may be nil.
func (p *Plan) improve(settled []*Shard, meta *Shard, busy, onlyEvening bool) (steps []Step) {
	taken := map[shard.ID]bool{}
	moves := p.even && onlyEvening
	if moves {
		if meta != nil {
			settled = append(settled, meta)
		}
		steps = append(steps, p.spreadOut(settled, taken)...)
		if meta != nil {
			settled = settled[:len(settled)-1]
		}
		steps = append(steps, p.evenOut(settled, taken)...)
	}
	steps = append(steps, p.balance(settled, taken)...)
	if moves {
		steps = append(steps, p.coolDown(settled, taken)...)
	}
	// The meta shard's leader drives placement, and its move interrupts that: it
	// goes when there is nothing else to do, and only if moving others has not
	// evened the spread.
	if meta != nil && p.steps == 0 && !busy {
		if st, ok := p.spread(meta, false); ok {
			p.Take(&st)
			steps = append(steps, st)
		}
	}
	return steps
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
		return s.step(LeaveJoint), true
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
	if need.none() {
		if st, ok := p.split(s); ok {
			return st, true
		}
	}
	if s.Raised && !p.paused && d.ID != shard.MetaID {
		return p.spread(s, true)
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

// ComesFirst tells whether the shard needs something for which evening out waits.
func (p *Plan) ComesFirst(s *Shard) bool {
	need := p.need(&s.Descriptor)
	return p.comesFirst(s, &need)
}

// comesFirst: what has no leader is not helped by waiting, however long that lasts, and what
// finds no room is helped by evening out.
func (p *Plan) comesFirst(s *Shard, need *need) bool {
	return p.isLive(s.Leader) && (!need.none() && !p.roomless(s, need) || s.Task != nil && !s.Task.Auto)
}

// roomless tells whether the shard needs more voters than there are nodes that have room.
func (p *Plan) roomless(s *Shard, need *need) bool {
	return need.voters > p.usableLearners(&s.Descriptor) && p.roomiest(s, false) == nil
}

func (p *Plan) eligible(s *Shard) bool {
	return s.InFlight == nil && !s.Hold && p.isLive(s.Leader)
}
