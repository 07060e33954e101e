package placement

import (
	"cmp"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

const (
	// evenPairLooks bounds the shards that are looked at for one pair of nodes, and
	// evenLooks those in one decision. Where neither places nor sizes forbid it, the
	// first or second of them moves.
	evenPairLooks = 1 << 10
	evenLooks     = 1 << 20
)

// evening is the search for moves that even out what nodes hold.
type evening struct {
	plan   *Plan
	taken  map[shard.ID]bool
	byNode [][]*Shard      // shards with a voter on the node that may move, by number of node
	sorted []bool          // the largest first
	futile map[[2]int]bool // pairs of nodes between which nothing can move
	// useful: only moves from nodes that hold more than their share to some that hold
	// less. Others are the second choice.
	useful bool
	looks  int
}

// evenOut decides and takes moves of replicas from nodes that hold the most for their
// room to those that hold the least, as many as may be under way. Moves under way count
// as done. Large shards move first: that takes the fewest moves.
func (p *Plan) evenOut(settled []*Shard, taken map[shard.ID]bool) (steps []Step) {
	e := evening{plan: p, taken: taken, futile: map[[2]int]bool{}, useful: true}
	for !p.Full() {
		s, from, to := e.best(settled)
		if s == nil && e.useful && !p.anyMoving() {
			e.useful = false // places may forbid all others
			continue
		}
		if s == nil {
			break
		}
		steps = append(steps, p.beginMove(s, Task{From: from.id, To: to.id, Why: "to even out what nodes hold"}))
		taken[s.Descriptor.ID] = true
	}
	p.looks += e.looks
	return steps
}

// anyMoving tells whether a move that nobody asked for is under way.
func (p *Plan) anyMoving() bool {
	return slices.ContainsFunc(p.nodes, func(n nodeCount) bool { return n.moving > 0 })
}

// best finds the next move: from the fullest node to the emptiest one, between which
// there is one.
func (e *evening) best(settled []*Shard) (s *Shard, from, to *nodeCount) {
	p := e.plan
	mean := float64(p.meanSize)
	order := p.byScore()
	for i := len(order) - 1; i > 0; i-- {
		from := &p.nodes[order[i]]
		if e.useful && from.score() <= mean {
			break
		}
		if from.moving >= p.limits.MovesMax {
			continue
		}
		for _, k := range order[:i] {
			to := &p.nodes[k]
			if !p.moves(from, to, replicaBytes) || e.useful && to.score() >= mean {
				break // nor to any other that holds more
			}
			pair := [2]int{order[i], k}
			if to.moving >= p.limits.MovesMax || to.learners >= p.limits.LearnersMax || e.futile[pair] {
				continue
			}
			if s := e.movable(settled, order[i], k); s != nil {
				return s, from, to
			}
			e.futile[pair] = true
		}
	}
	return nil, nil, nil
}

// byScore are the hosts, by number, those that hold the least for their room first.
func (p *Plan) byScore() []int {
	order := make([]int, 0, len(p.nodes))
	for i := range p.nodes {
		if p.nodes[i].host() {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.nodes[a].score(), p.nodes[b].score()), cmp.Compare(a, b))
	})
	return order
}

// movable is the shard whose voter on from best moves to to: the largest one that fits
// between what from has too much and to too little, within the tolerance, or one that is not much smaller and
// that from does not lead, so that no leader has to move. Failing that it is the smallest
// that the tolerance admits.
func (e *evening) movable(settled []*Shard, from, to int) *Shard {
	p := e.plan
	source, target := &p.nodes[from], &p.nodes[to]
	shards := e.candidates(settled, from)
	excess := source.size - int64(float64(p.meanSize)*source.weight)
	lack := int64(float64(p.meanSize)*target.weight) - target.size
	fits := min(excess, lack)
	fits += min(fits, int64(p.tolerance))
	var led, tight *Shard
	// Those that are larger than what fits are passed over, but for the last of them.
	first, _ := slices.BinarySearchFunc(shards, fits, func(s *Shard, fits int64) int { return cmp.Compare(fits, s.size()) })
	for i := max(first-1, 0); i < len(shards) && i < first+evenPairLooks && e.looks < evenLooks; i++ {
		s := shards[i]
		e.looks++
		d := &s.Descriptor
		if _, member := d.ReplicaOn(target.id); member || e.taken[d.ID] || !p.moves(source, target, s.size()) || !p.admits(source, target, s.size()) ||
			p.gain(d, source, target) < 0 {
			continue
		}
		switch {
		case s.size() > fits:
			tight = s
		case led != nil && s.size() < led.size()/2:
			return led
		case s.Leader != source.id:
			return s
		case led == nil:
			led = s
		}
	}
	if led == nil {
		return tight
	}
	return led
}

// candidates are the shards of which a node has a voter that may move, the largest first.
// The meta shard stays: placement itself might move with it.
func (e *evening) candidates(settled []*Shard, node int) []*Shard {
	p := e.plan
	if e.byNode == nil {
		e.byNode, e.sorted = make([][]*Shard, len(p.nodes)), make([]bool, len(p.nodes))
		for _, s := range settled {
			if e.taken[s.Descriptor.ID] || !p.mayMove(s) {
				continue
			}
			for _, r := range s.Descriptor.Replicas {
				if i := p.index(r.Node); i >= 0 {
					e.byNode[i] = append(e.byNode[i], s)
				}
			}
		}
	}
	if !e.sorted[node] {
		slices.SortFunc(e.byNode[node], func(a, b *Shard) int {
			return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(b.Descriptor.ID, a.Descriptor.ID))
		})
		e.sorted[node] = true
	}
	return e.byNode[node]
}

// mayMove tells whether a replica of the shard may move without need: it has voters
// alone, and all of them answer, so that the move waits for none.
func (p *Plan) mayMove(s *Shard) bool {
	d := &s.Descriptor
	return voters(d) == len(d.Replicas) && !slices.ContainsFunc(d.Replicas, func(r shard.Replica) bool { return !p.answers(s, r) })
}

// takesMove tells whether a move to a node may begin now.
func (p *Plan) takesMove(n *nodeCount, d *shard.Descriptor) bool {
	if !n.host() || n.moving >= p.limits.MovesMax || n.learners >= p.limits.LearnersMax {
		return false
	}
	_, member := d.ReplicaOn(n.id)
	return !member
}

// beginMove takes the first step of a move that nobody asked for.
func (p *Plan) beginMove(s *Shard, t Task) Step {
	t.Auto = true
	st := p.addLearner(s, t.To)
	st.Task = &t
	p.Take(&st)
	return st
}
