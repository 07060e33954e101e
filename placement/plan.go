package placement

import (
	"cmp"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// ReplicationFactor is how many voters every shard is to have.
const ReplicationFactor = 3

// Limits of what is under way at once. Zero fields take their defaults.
type Limits struct {
	// ReplicationFactor is how many voters a shard has when enough nodes live. Default ReplicationFactor.
	ReplicationFactor int
	// StepsMax bounds the steps in flight. Default 64.
	StepsMax int
	// LearnersMax is how many learners that have yet to be promoted a node may
	// have before no further shard gets its first learner there: each of them
	// costs a snapshot. Default 128.
	LearnersMax int
}

func (l Limits) withDefaults() Limits {
	if l.ReplicationFactor == 0 {
		l.ReplicationFactor = ReplicationFactor
	}
	if l.StepsMax == 0 {
		l.StepsMax = 64
	}
	if l.LearnersMax == 0 {
		l.LearnersMax = 128
	}
	return l
}

// Plan counts what each node has, steps in flight included, and decides steps
// from it one shard at a time. Counts drift from the truth as leaders change by
// themselves: make a new plan for each new view. Not safe for concurrent use.
type Plan struct {
	limits   Limits
	nodes    []load // in order of ID
	live     int
	steps    int // in flight
	settling bool
}

type load struct {
	id       shard.NodeID
	live     bool
	replicas int
	leaders  int
	learners int // that their shards wait for
}

// NewPlan counts what is in v, which it does not keep.
func NewPlan(v View, limits Limits) *Plan {
	p := &Plan{limits: limits.withDefaults(), settling: v.Settling}
	for _, n := range v.Nodes {
		p.nodes = append(p.nodes, load{id: n.ID, live: n.Live})
		if n.Live {
			p.live++
		}
	}
	slices.SortFunc(p.nodes, func(a, b load) int { return cmp.Compare(a.id, b.id) })
	for _, s := range v.Shards {
		p.count(s)
	}
	return p
}

// count adds a shard and its step in flight.
func (p *Plan) count(s *Shard) {
	waits := p.missing(&s.Descriptor) > 0
	for _, r := range s.Descriptor.Replicas {
		if n := p.node(r.Node); n != nil {
			n.replicas++
			if waits && r.Role == shard.Learner {
				n.learners++
			}
		}
	}
	p.lead(s.Leader, +1)
	if s.InFlight != nil {
		p.Take(s.InFlight)
	}
}

// node finds a node's counts; nil if the view does not have it.
func (p *Plan) node(id shard.NodeID) *load {
	i, ok := slices.BinarySearchFunc(p.nodes, id, func(n load, id shard.NodeID) int { return cmp.Compare(n.id, id) })
	if !ok {
		return nil
	}
	return &p.nodes[i]
}

func (p *Plan) isLive(id shard.NodeID) bool {
	n := p.node(id)
	return n != nil && n.live
}

func (p *Plan) lead(id shard.NodeID, by int) {
	if n := p.node(id); n != nil {
		n.leaders += by
	}
}

// Take counts a step that begins, as if it had succeeded.
func (p *Plan) Take(st *Step) {
	p.steps++
	p.effect(st, +1)
}

// Finish counts a step that has ended.
func (p *Plan) Finish(st *Step, succeeded bool) {
	p.steps--
	if !succeeded {
		p.effect(st, -1)
	}
}

func (p *Plan) effect(st *Step, by int) {
	switch st.Kind {
	case AddLearner:
		if n := p.node(st.Node); n != nil {
			n.replicas += by
			n.learners += by
		}
	case Promote:
		for _, r := range st.Promoted {
			if n := p.node(r.Node); n != nil {
				n.learners -= by
			}
		}
	case TransferLeader:
		p.lead(st.Leader, -by)
		p.lead(st.Node, +by)
	}
}

// Full tells whether as many steps are in flight as may be.
func (p *Plan) Full() bool { return p.steps >= p.limits.StepsMax }
