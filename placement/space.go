package placement

import (
	"fmt"
	"math"
)

// reserveMax bounds the free space that a node keeps for itself, in bytes: a part of
// its disk is more than anybody needs where disks are large.
const reserveMax = 4 << 30

// used is the part of its disk that is used, in percent; 0: not known.
func (n *nodeCount) used() float64 {
	if n.capacity == 0 {
		return 0
	}
	return 100 * float64(n.capacity-n.available) / float64(n.capacity)
}

// low tells whether so much of the node's disk is used that replicas go elsewhere,
// if they can.
func (p *Plan) low(n *nodeCount) bool {
	return n.capacity > 0 && n.used() >= float64(p.limits.LowSpace)
}

// Full tells whether a disk has no room for another replica of a size: less would be
// free than the part that fullSpace, in percent, leaves, or than reserveMax.
func Full(capacity, available, size uint64, fullSpace int) bool {
	if capacity == 0 {
		return false
	}
	reserve := min(reserveMax, float64(capacity)*float64(100-fullSpace)/100)
	return float64(available)-float64(size) < reserve
}

// SpaceText says how much of a disk is free, "3 % of its disk free".
func SpaceText(capacity, available uint64) string {
	return fmt.Sprintf("%.0f %% of its disk free", 100*float64(available)/float64(max(capacity, 1)))
}

// full tells whether the node's disk has no room for another replica of a size,
// beside those that are on their way: not even for one that is missing.
func (p *Plan) full(n *nodeCount, size int64) bool {
	return Full(n.capacity, n.available, uint64(max(n.coming, 0)+size), p.limits.FullSpace)
}

// admits tells whether a replica may move between two nodes as far as their disks are
// concerned. One that is low on space takes it from one that is so no less: nodes may
// share a disk.
func (p *Plan) admits(from, to *nodeCount, size int64) bool {
	return !p.full(to, size) && (!p.low(to) || math.Floor(from.used()) >= math.Floor(to.used()))
}
