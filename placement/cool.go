package placement

import (
	"cmp"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// coolDown decides and takes moves of replicas of hot shards, from whose nodes none bears so
// much less than their leader's that leadership alone could even that out: the shard gets
// a voter on a node that bears little, and leadership goes there. What nodes hold
// stays as even as it has to be, so that no other move undoes it.
func (p *Plan) coolDown(settled []*Shard, taken map[shard.ID]bool) (steps []Step) {
	if !p.uneven() {
		return nil
	}
	var hot []*Shard
	for _, s := range settled {
		if !taken[s.Descriptor.ID] && s.load() >= 2*leaderLoad && p.couldCool(s) {
			hot = append(hot, s)
		}
	}
	slices.SortStableFunc(hot, func(a, b *Shard) int { return cmp.Compare(b.load(), a.load()) })
	for _, s := range hot {
		if p.Full() {
			break
		}
		p.looks++
		if from, to := p.cooler(s); to != nil && p.mayMove(s) {
			steps = append(steps, p.beginMove(s, Task{From: from.id, To: to.id, Lead: to.id, Why: "to even out what leaders bear"}))
			taken[s.Descriptor.ID] = true
		}
	}
	return steps
}

// couldCool tells whether some node bears so little that the shard's leader would move
// there, had it a voter.
func (p *Plan) couldCool(s *Shard) bool {
	from := p.node(s.Leader)
	if from == nil || !from.host() {
		return false
	}
	for i := range p.nodes {
		if n := &p.nodes[i]; n.host() && p.hands(from, n, s.load()) {
			return true
		}
	}
	return false
}

// cooler is the move of a voter that does not lead to the node that bears the least, if
// leadership is to follow it there; to is nil if there is none.
func (p *Plan) cooler(s *Shard) (from, to *nodeCount) {
	d := &s.Descriptor
	leads := p.node(s.Leader)
	for i := range p.nodes {
		target := &p.nodes[i]
		if !p.takesMove(target, d) || !p.hands(leads, target, s.load()) || to != nil && target.load >= to.load {
			continue
		}
		for _, r := range d.Replicas {
			source := p.node(r.Node)
			if source == nil || source == leads || source.moving >= p.limits.MovesMax || !p.admits(source, target, s.size()) ||
				p.gain(d, source, target) < 0 || p.wouldReturn(source, target, s.size()) {
				continue
			}
			if to != target || source.score() > from.score() {
				from, to = source, target
			}
		}
	}
	return from, to
}

// wouldReturn tells whether what nodes hold would be so uneven after a move that
// something moved back.
func (p *Plan) wouldReturn(from, to *nodeCount, size int64) bool {
	after, before := *to, *from
	after.size += size
	before.size -= size
	return p.moves(&after, &before, replicaBytes)
}
