package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// Spot is where a shard's voters are to be. The first node leads.
type Spot struct {
	Shard shard.ID
	Nodes []shard.NodeID
}

// Scatter draws new places for shards, as if they had none: as far apart as may be, where
// the least is held and borne, and where that leaves a choice at random. draw is a random
// number below n. Shards that may not move now are left out; Unscattered says why. The plan
// counts the spots as taken: ask it for nothing else.
func (p *Plan) Scatter(shards []*Shard, draw func(n int) int) (spots []Spot) {
	var free []*Shard
	for _, s := range shards {
		if p.Unscattered(s) != "" {
			continue
		}
		free = append(free, s)
		for _, r := range s.Descriptor.Replicas {
			p.hold(r.Node, -s.size(), -1)
		}
		p.lead(s.Leader, -s.load(), -1)
	}
	for i := len(free) - 1; i > 0; i-- {
		k := draw(i + 1)
		free[i], free[k] = free[k], free[i]
	}
	for _, s := range free {
		if nodes := p.spot(s, draw); len(nodes) > 0 {
			spots = append(spots, Spot{Shard: s.Descriptor.ID, Nodes: nodes})
		}
	}
	slices.SortFunc(spots, func(a, b Spot) int { return cmp.Compare(a.Shard, b.Shard) })
	return spots
}

// Unscattered says why a shard is not scattered, "" if it is.
func (p *Plan) Unscattered(s *Shard) string {
	d := &s.Descriptor
	need := p.need(d)
	switch {
	case s.Leader == 0 || !p.isLive(s.Leader):
		return "it has no leader that answers"
	case d.Joint() || voters(d) != len(d.Replicas):
		return "its members are changing"
	case !need.none():
		return "it needs other voters first"
	case len(d.Replicas) > p.hosts:
		return fmt.Sprintf("it has %d voters, and %d nodes serve", len(d.Replicas), p.hosts)
	}
	for _, r := range d.Replicas {
		if !p.isLive(r.Node) {
			return fmt.Sprintf("node %d with a voter of it does not answer", r.Node)
		}
	}
	return ""
}

// spot draws and counts the places of one shard; none if nodes lack room for it.
func (p *Plan) spot(s *Shard, draw func(n int) int) (nodes []shard.NodeID) {
	var chosen []shard.Replica
	for range s.Descriptor.Replicas {
		n := p.freest(s, chosen, draw(len(p.nodes)))
		if n == nil {
			for _, r := range chosen {
				p.hold(r.Node, -s.size(), -1)
			}
			return nil
		}
		chosen = append(chosen, shard.Replica{Node: n.id})
		p.hold(n.id, s.size(), 1)
	}
	leads := 0
	for i, r := range chosen {
		if p.node(r.Node).load < p.node(chosen[leads].Node).load {
			leads = i
		}
	}
	chosen[0], chosen[leads] = chosen[leads], chosen[0]
	p.lead(chosen[0].Node, s.load(), 1)
	for _, r := range chosen {
		nodes = append(nodes, r.Node)
	}
	return nodes
}

// freest is the host that is to have the next voter of a shard beside those chosen; of those
// that are equally good the first one after a number. A node that has a replica has room for it.
func (p *Plan) freest(s *Shard, chosen []shard.Replica, after int) (best *nodeCount) {
	bestApart := 0
	for i := range p.nodes {
		n := &p.nodes[(after+i)%len(p.nodes)]
		_, member := s.Descriptor.ReplicaOn(n.id)
		if !n.host() || !member && p.full(n, s.size()) || slices.ContainsFunc(chosen, func(r shard.Replica) bool { return r.Node == n.id }) {
			continue
		}
		apart := p.apartFrom(n, chosen, 0)
		if best == nil || p.roomier(n, best, apart-bestApart) {
			best, bestApart = n, apart
		}
	}
	return best
}

// At tells whether the shard is there already.
func (t *Spot) At(s *Shard) bool {
	if s.Leader != t.Nodes[0] || len(t.Nodes) != len(s.Descriptor.Replicas) {
		return false
	}
	return !slices.ContainsFunc(t.Nodes, func(n shard.NodeID) bool { _, there := s.Descriptor.ReplicaOn(n); return !there })
}
