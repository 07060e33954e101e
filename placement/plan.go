package placement

import (
	"cmp"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

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
	// MovesMax bounds the moves under way that nobody asked for and that a node takes part
	// in, as their source or their target: each of them costs a snapshot, and is in no
	// hurry. What people ask for waits while so many learners are on their way to its
	// target. Default 8.
	MovesMax int
	// LowSpace is the use of a node's disk, in percent, from which on replicas go
	// elsewhere if they can, FullSpace that from which on none come at all. Defaults 80, 95.
	LowSpace, FullSpace int
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
	if l.LowSpace == 0 {
		l.LowSpace = 80
	}
	if l.FullSpace == 0 {
		l.FullSpace = 95
	}
	return l
}

// Plan counts what each node has, steps in flight included, and decides steps
// from it one shard at a time. Counts drift from the truth as leaders change by
// themselves: make a new plan for each new view. Not safe for concurrent use.
type Plan struct {
	limits   Limits
	nodes    []nodeCount // in order of ID
	hosts    int         // nodes that may be given replicas
	steps    int         // in flight
	settling bool
	paused   bool
	even     bool
	places   places

	meanSize, meanLoad int64   // over hosts, when the plan was made
	tolerance          float64 // of scores
	looks              int     // at shards, to even out: how much work that was
}

// nodeCount is what the plan counts of a node.
type nodeCount struct {
	id       shard.NodeID
	live     bool
	dead     bool
	state    shard.NodeState
	replicas int   // once all tasks are done
	size     int64 // that they cost
	leaders  int
	load     int64 // that they cost
	learners int   // that their shards wait for
	coming   int64 // size of them
	moving   int   // moves that nobody asked for and that it takes part in

	weight              float64 // of its room, 1 on average
	capacity, available uint64  // bytes of its disk; 0: not known
	place               int     // number of its locality
}

// host tells whether the node may be given replicas and leaders.
func (n *nodeCount) host() bool { return n.live && n.state == shard.Serving }

// NewPlan counts what is in v, which it does not keep.
func NewPlan(v View, limits Limits) *Plan {
	p := &Plan{limits: limits.withDefaults(), settling: v.Settling, paused: v.Paused, even: v.Even}
	for _, n := range v.Nodes {
		p.nodes = append(p.nodes, nodeCount{id: n.ID, live: n.Live, dead: n.Dead, state: n.State})
		if n.Live && n.State == shard.Serving {
			p.hosts++
		}
	}
	slices.SortFunc(p.nodes, func(a, b nodeCount) int { return cmp.Compare(a.id, b.id) })
	p.weigh(v.Nodes)
	p.locate(v.Nodes)
	for _, s := range v.Shards {
		p.count(s)
	}
	p.measure(v.Shards)
	return p
}

// count adds a shard, its task and its step in flight.
func (p *Plan) count(s *Shard) {
	d := &s.Descriptor
	waits := s.Task == nil && voters(d) != len(d.Replicas) && p.need(d).voters > 0
	for _, r := range d.Replicas {
		p.hold(r.Node, s.size(), 1)
		if r.Role == shard.Learner && (waits || s.Task != nil && r.Node == s.Task.To) {
			p.await(r.Node, s.size(), 1)
		}
	}
	p.lead(s.Leader, s.load(), 1)
	if s.Task != nil {
		p.countTask(s)
	}
	if st := s.InFlight; st != nil {
		if s.Task != nil && (st.Kind == AddLearner || st.Kind == RemoveLearner || st.Kind == TransferLeader && s.Task.Lead != 0) {
			p.steps++ // counted with the task
			if st.Kind == AddLearner {
				p.await(st.Node, s.size(), 1)
			}
			return
		}
		p.Take(st)
	}
}

// countTask counts what a task still has to do to nodes as done.
func (p *Plan) countTask(s *Shard) {
	d, t := &s.Descriptor, s.Task
	if t.Auto {
		p.move(t, 1)
	}
	if _, there := d.ReplicaOn(t.From); there {
		p.hold(t.From, -s.size(), -1)
	}
	if _, there := d.ReplicaOn(t.To); !there {
		p.hold(t.To, s.size(), 1)
	}
	if t.Lead != 0 {
		p.lead(s.Leader, -s.load(), -1)
		p.lead(t.Lead, s.load(), 1)
	}
}

func (p *Plan) hold(id shard.NodeID, size int64, replicas int) {
	if n := p.node(id); n != nil {
		n.size += size
		n.replicas += replicas
	}
}

func (p *Plan) lead(id shard.NodeID, load int64, leaders int) {
	if n := p.node(id); n != nil {
		n.load += load
		n.leaders += leaders
	}
}

// await counts learners that their shards wait for.
func (p *Plan) await(id shard.NodeID, size int64, learners int) {
	if n := p.node(id); n != nil {
		n.coming += size
		n.learners += learners
	}
}

// move counts a move that nobody asked for.
func (p *Plan) move(t *Task, by int) {
	for _, id := range []shard.NodeID{t.From, t.To} {
		if n := p.node(id); n != nil {
			n.moving += by
		}
	}
}

// index finds the number of a node; -1 if the view does not have it.
func (p *Plan) index(id shard.NodeID) int {
	// Most often no ID was ever left out.
	if i := int(id) - 1; i >= 0 && i < len(p.nodes) && p.nodes[i].id == id {
		return i
	}
	i, ok := slices.BinarySearchFunc(p.nodes, id, func(n nodeCount, id shard.NodeID) int { return cmp.Compare(n.id, id) })
	if !ok {
		return -1
	}
	return i
}

// node finds a node's counts; nil if the view does not have it.
func (p *Plan) node(id shard.NodeID) *nodeCount {
	if i := p.index(id); i >= 0 {
		return &p.nodes[i]
	}
	return nil
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
	size, load := int64(by)*st.size, int64(by)*st.load
	switch st.Kind {
	case AddLearner:
		if !st.counted {
			p.hold(st.Node, size, by)
		}
		p.await(st.Node, size, by)
		if t := st.Task; t != nil {
			p.hold(t.From, -size, -by)
			p.move(t, by)
			if t.Lead != 0 {
				p.lead(st.Leader, -load, -by)
				p.lead(t.Lead, load, by)
			}
		}
	case RemoveLearner:
		if !st.counted {
			p.hold(st.Node, -size, -by)
		}
	case Joint:
		for _, r := range st.Promoted {
			p.await(r.Node, -size, -by)
		}
	case Split:
		// Data and load are divided: what comes to them is a replica's and a leader's own cost.
		for _, id := range st.members {
			p.hold(id, int64(by)*replicaBytes, by)
		}
		p.lead(st.Leader, int64(by)*leaderLoad, by)
	case TransferLeader:
		if !st.counted {
			p.lead(st.Leader, -load, -by)
			p.lead(st.Node, load, by)
		}
	}
}

// Full tells whether as many steps are in flight as may be.
func (p *Plan) Full() bool { return p.steps >= p.limits.StepsMax }
