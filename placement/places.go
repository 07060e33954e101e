package placement

import (
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// places are the different localities of nodes, by number, and how far they are from
// each other. Members of a shard are the better spread the larger the sum of the
// distances between any two of them is.
type places struct {
	names []shard.Locality
	apart []int // a row for each place
	// better remembers which combinations of places could be better ones.
	better map[placesKey]bool
}

// placesKey are the places of some replicas, in order, as far as they fit.
type placesKey [5]int16

func (p *places) distance(a, b int) int { return p.apart[a*len(p.names)+b] }

// locate numbers the localities of the plan's nodes.
func (p *Plan) locate(nodes []Node) {
	s := &p.places
	for _, v := range nodes {
		if !slices.Contains(s.names, v.Locality) {
			s.names = append(s.names, v.Locality)
		}
	}
	slices.Sort(s.names)
	for _, v := range nodes {
		p.node(v.ID).place, _ = slices.BinarySearch(s.names, v.Locality)
	}
	for _, a := range s.names {
		for _, b := range s.names {
			s.apart = append(s.apart, a.Distance(b))
		}
	}
	s.better = map[placesKey]bool{}
}

// located tells whether nodes are in different places.
func (p *Plan) located() bool { return len(p.places.names) > 1 }

// apartFrom is how far a node is from the members, but for the one on a node that is
// left out.
func (p *Plan) apartFrom(n *nodeCount, members []shard.Replica, but shard.NodeID) (sum int) {
	if !p.located() {
		return 0
	}
	for _, r := range members {
		if r.Node == but {
			continue
		}
		if m := p.node(r.Node); m != nil {
			sum += p.places.distance(n.place, m.place)
		}
	}
	return sum
}

// gain is what the shard's spread over places gains if from's replica moves to to;
// negative: it loses.
func (p *Plan) gain(d *shard.Descriptor, from, to *nodeCount) int {
	return p.apartFrom(to, d.Replicas, from.id) - p.apartFrom(from, d.Replicas, from.id)
}

// spreadOut decides and takes moves that have shards' replicas in more places.
func (p *Plan) spreadOut(settled []*Shard, taken map[shard.ID]bool) (steps []Step) {
	if !p.located() {
		return nil
	}
	for _, s := range settled {
		if p.Full() {
			break
		}
		if taken[s.Descriptor.ID] || !p.mayMove(s) || !p.couldSpread(&s.Descriptor) {
			continue
		}
		if from, to := p.widerMove(s); to != nil {
			steps = append(steps, p.beginMove(s, Task{From: from.id, To: to.id, Why: "to be in more places"}))
			taken[s.Descriptor.ID] = true
		}
	}
	return steps
}

// couldSpread tells whether a shard with members in its places could have them in
// better ones, whichever its nodes are.
func (p *Plan) couldSpread(d *shard.Descriptor) bool {
	var key placesKey
	if len(d.Replicas) > len(key) {
		return true
	}
	for i, r := range d.Replicas {
		if n := p.node(r.Node); n != nil {
			key[i] = int16(n.place) + 1
		}
	}
	slices.Sort(key[:])
	better, known := p.places.better[key]
	if !known {
		better = p.anyGain(d)
		p.places.better[key] = better
	}
	return better
}

// anyGain tells whether some host's place, whatever it holds, is better than that of
// some member.
func (p *Plan) anyGain(d *shard.Descriptor) bool {
	for _, r := range d.Replicas {
		from := p.node(r.Node)
		if from == nil {
			continue
		}
		for i := range p.nodes {
			if p.nodes[i].host() && p.gain(d, from, &p.nodes[i]) > 0 {
				return true
			}
		}
	}
	return false
}

// widerMove is the move of a replica that spreads the shard the most, from the node
// that has the most to the one that has the least; to is nil if there is none.
func (p *Plan) widerMove(s *Shard) (from, to *nodeCount) {
	d := &s.Descriptor
	best := 0
	for _, r := range d.Replicas {
		source := p.node(r.Node)
		if source == nil || source.moving >= p.limits.MovesMax {
			continue
		}
		for i := range p.nodes {
			target := &p.nodes[i]
			if !p.takesMove(target, d) || !p.admits(source, target, s.size()) {
				continue
			}
			gain := p.gain(d, source, target)
			if gain > best || gain == best && to != nil && (p.rather(s, source, from) || source == from && target.score() < to.score()) {
				from, to, best = source, target, gain
			}
		}
	}
	return from, to
}

// rather tells whether a replica moves off source rather than off from: because source
// holds more, or as much and does not lead.
func (p *Plan) rather(s *Shard, source, from *nodeCount) bool {
	if a, b := source.score(), from.score(); a != b {
		return a > b
	}
	return s.Leader == from.id && source != from
}
