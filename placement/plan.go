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
	// MovesMax bounds the moves under way that only even out replicas: each of them
	// costs a snapshot, and is in no hurry. Default 8.
	MovesMax int
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
	if l.MovesMax == 0 {
		l.MovesMax = 8
	}
	return l
}

// Plan counts what each node has, steps in flight included, and decides steps
// from it one shard at a time. Counts drift from the truth as leaders change by
// themselves: make a new plan for each new view. Not safe for concurrent use.
type Plan struct {
	limits   Limits
	nodes    []load // in order of ID
	hosts    int    // nodes that may be given replicas
	steps    int    // in flight
	moves    int    // tasks that even out
	settling bool
	paused   bool
	even     bool
}

type load struct {
	id       shard.NodeID
	live     bool
	dead     bool
	state    shard.NodeState
	replicas int // once all tasks are done
	leaders  int
	learners int // that their shards wait for
}

// host tells whether the node may be given replicas and leaders.
func (n *load) host() bool { return n.live && n.state == shard.Serving }

// NewPlan counts what is in v, which it does not keep.
func NewPlan(v View, limits Limits) *Plan {
	p := &Plan{limits: limits.withDefaults(), settling: v.Settling, paused: v.Paused, even: v.Even}
	for _, n := range v.Nodes {
		p.nodes = append(p.nodes, load{id: n.ID, live: n.Live, dead: n.Dead, state: n.State})
		if n.Live && n.State == shard.Serving {
			p.hosts++
		}
	}
	slices.SortFunc(p.nodes, func(a, b load) int { return cmp.Compare(a.id, b.id) })
	for _, s := range v.Shards {
		p.count(s)
	}
	return p
}

// count adds a shard, its task and its step in flight.
func (p *Plan) count(s *Shard) {
	d := &s.Descriptor
	needs := p.need(d)
	waits := needs.voters > 0 || s.Task != nil
	for _, r := range d.Replicas {
		if n := p.node(r.Node); n != nil {
			n.replicas++
			if waits && r.Role == shard.Learner {
				n.learners++
			}
		}
	}
	p.lead(s.Leader, +1)
	if t := s.Task; t != nil {
		p.countTask(d, t)
	}
	if st := s.InFlight; st != nil {
		if s.Task != nil && (st.Kind == AddLearner || st.Kind == RemoveLearner) {
			p.steps++ // counted with the task
			return
		}
		p.Take(st)
	}
}

// countTask counts what a task still has to do to nodes as done.
func (p *Plan) countTask(d *shard.Descriptor, t *Task) {
	if t.Auto {
		p.moves++
	}
	if _, there := d.ReplicaOn(t.From); there {
		p.hold(t.From, -1)
	}
	if _, there := d.ReplicaOn(t.To); !there {
		p.hold(t.To, +1)
	}
}

func (p *Plan) hold(id shard.NodeID, by int) {
	if n := p.node(id); n != nil {
		n.replicas += by
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

// isHost tells whether a node may be given replicas.
func (p *Plan) isHost(id shard.NodeID) bool {
	n := p.node(id)
	return n != nil && n.host()
}

// isGone tells whether a node's replicas are to go elsewhere. A dead node's are
// not while placement is paused: nobody asked for that.
func (p *Plan) isGone(id shard.NodeID) bool {
	n := p.node(id)
	return n != nil && (n.dead && !p.paused || n.state >= shard.Leaving)
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
		if n := p.node(st.Node); n != nil && !st.counted {
			n.replicas += by
			n.learners += by
		}
		if st.Task != nil {
			p.hold(st.Task.From, -by)
			p.moves += by
		}
	case RemoveLearner:
		if !st.counted {
			p.hold(st.Node, -by)
		}
	case Joint:
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
