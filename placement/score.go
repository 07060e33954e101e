package placement

import "math"

// What replicas and leaders cost a node is one number each: one of what is stored,
// one of what is served. Their constants are what a replica or a leader costs that
// holds or does nothing: thousands of empty shards are a load too.
const (
	// replicaBytes is what a replica costs beside its data.
	replicaBytes = 1 << 20
	// leaderLoad is what a leader costs beside what it serves, in operations per second.
	leaderLoad = 20
)

// Estimates beyond these are not believed: sums of them cannot overflow.
const (
	shardBytesMax = 1 << 45
	shardLoadMax  = 1 << 40
)

// size is what a replica of the shard costs its node.
func (s *Shard) size() int64 { return replicaBytes + int64(min(s.Bytes, shardBytesMax)) }

// load is what leading the shard costs a node.
func (s *Shard) load() int64 {
	served := s.Load.Reads + s.Load.Writes
	if !(served > 0) { // negative, or not a number
		return leaderLoad
	}
	return leaderLoad + int64(min(math.Round(served), shardLoadMax))
}

// weigh gives nodes weights by the room that their disks offer: what is free, and
// what the store takes up already. What others have put on the disk is no room. The
// mean weight of hosts is 1, and so is that of a node whose disk is not known.
func (p *Plan) weigh(nodes []Node) {
	room := make([]float64, len(p.nodes))
	sum, known := 0.0, 0
	for _, v := range nodes {
		n := p.node(v.ID)
		if v.Capacity == 0 {
			continue
		}
		i := p.index(v.ID)
		room[i] = float64(min(v.Capacity, saturated(v.Available, v.Held)))
		if n.host() {
			sum += room[i]
			known++
		}
		n.capacity, n.available = v.Capacity, min(v.Available, v.Capacity)
	}
	for i := range p.nodes {
		p.nodes[i].weight = 1
		if p.nodes[i].capacity > 0 && sum > 0 {
			p.nodes[i].weight = max(room[i]*float64(known)/sum, weightMin)
		}
	}
}

// weightMin is the least weight of a node: however full its disk is.
const weightMin = 0.01

func saturated(a, b uint64) uint64 {
	if a+b < a {
		return math.MaxUint64
	}
	return a + b
}

// score is how much of its room the node's replicas take up, against the others.
func (n *nodeCount) score() float64 { return float64(n.size) / n.weight }

// measure takes the means over hosts of what they hold and bear, and the tolerances that
// follow from them.
func (p *Plan) measure(shards []*Shard) {
	if p.hosts == 0 {
		return
	}
	for i := range p.nodes {
		if n := &p.nodes[i]; n.host() {
			p.meanSize += n.size
			p.meanLoad += n.load
		}
	}
	p.meanSize /= int64(p.hosts)
	p.meanLoad /= int64(p.hosts)
	// The size of the shard in which a byte is on average.
	sum, squares := 1.0, 0.0
	for _, s := range shards {
		size := float64(s.size())
		sum += size
		squares += size * size
	}
	p.tolerance = min(2.5*squares/sum, typicalTolerance*float64(p.meanSize))
}

// A difference that is smaller than a tolerance moves nothing. It is a part of what
// would move, so that what one person moves of an even spread stays; a part of what
// nodes hold, so that estimates that waver move nothing to and fro; and as much as would
// move a shard of typical size, so that no crowd of small ones moves in its place.
const (
	sizeTolerance    = 0.02 // of the mean
	typicalTolerance = 0.1  // of the mean, at most
	loadTolerance    = 0.05
)

// moves tells whether a replica of a size is to move between two nodes to even them
// out: from still has more than to after that, and not only a little.
func (p *Plan) moves(from, to *nodeCount, size int64) bool {
	half := max(size/4, int64(sizeTolerance/2*float64(p.meanSize)))
	return from.score()-to.score() > p.tolerance && float64(from.size-size-half)/from.weight > float64(to.size+size+half)/to.weight
}

// hands tells the same of leadership.
func (p *Plan) hands(from, to *nodeCount, load int64) bool {
	return from.load-to.load-2*load >= max(load/2, int64(loadTolerance*float64(p.meanLoad)))
}
