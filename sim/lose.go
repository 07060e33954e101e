package sim

import (
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Of what a node has on its disk a cluster can do without: as long as every shard has
// a majority without the nodes that have lost theirs. That is what the faults in this
// file see to; what else happens at the same time is not their concern.

// spared tells whether every shard has a majority without a node, and without those
// that have lost their disks before: in both halves of a joint configuration.
func (n *Nemesis) spared(node *Node) bool {
	if node.ID == 0 || n.damaged != nil {
		return false
	}
	without := append(slices.Clone(n.lost), node.ID)
	for _, d := range n.cluster.witness.newestDescriptors() {
		if !majorityWithout(&d, without, shard.Outgoing) || !majorityWithout(&d, without, shard.Incoming) || becomesPair(&d, node.ID) {
			return false
		}
	}
	return true
}

// becomesPair tells whether a node has a learner of a shard with a single voter. Its
// promotion may be under way, and of two voters none can be done without. Where there
// are more voters placement sees to it that a promoted one that is lost is not missed.
func becomesPair(d *shard.Descriptor, node shard.NodeID) bool {
	voters := 0
	for _, r := range d.Replicas {
		if r.Role == shard.Voter {
			voters++
		}
	}
	r, there := d.ReplicaOn(node)
	return voters == 1 && there && r.Role == shard.Learner
}

// majorityWithout tells whether the voters that are left, with those of a role of one
// half of a joint configuration, are a majority.
func majorityWithout(d *shard.Descriptor, without []shard.NodeID, half shard.Role) bool {
	all, left := 0, 0
	for _, r := range d.Replicas {
		if r.Role != shard.Voter && r.Role != half {
			continue
		}
		all++
		if !slices.Contains(without, r.Node) {
			left++
		}
	}
	return 2*left > all
}

// wipe takes a node's disk from it; it joins again, as another node.
func (n *Nemesis) wipe() bool {
	node := n.anyNode()
	if !n.spared(node) {
		return false
	}
	n.wipeNode(node)
	return true
}

func (n *Nemesis) wipeNode(node *Node) {
	n.event("%s loses its disk, and joins again", node.Name)
	n.lost = append(n.lost, node.ID)
	node.wipe()
	n.restartAfter(node, n.cluster.loop.between(time.Millisecond, 2*time.Second))
}

// flipDisk changes a bit on the disk of a node that is down. Whatever reads it must
// notice: the store is not opened, or fails, or the replica stops. A while later that
// ends, whether anybody has noticed or not.
func (n *Nemesis) flipDisk() bool {
	l, node := n.cluster.loop, n.anyNode()
	if !n.spared(node) {
		return false
	}
	if node.Up() {
		node.Crash(false, 50*time.Millisecond)
	}
	file, back, err := node.disk.flip(l)
	if err != nil {
		node.fail("flipping a bit", err)
	}
	n.restartAfter(node, l.between(time.Millisecond, 200*time.Millisecond))
	if file == "" {
		return false
	}
	n.event("a bit of %s of %s flips", file, node.Name)
	n.damaged, n.back = node, back
	n.cluster.witness.flipped = true
	n.cluster.witness.damaged = node.Name
	l.After(l.between(time.Second, 5*time.Second), "repair", n.repair)
	return true
}

// repair gives the damaged node another disk. If shards count on it by now, which have
// moved there or lost others, the bit flips back.
func (n *Nemesis) repair() {
	node := n.damaged
	if node == nil {
		return
	}
	n.damaged = nil
	if n.spared(node) {
		n.wipeNode(node)
	} else {
		n.event("the bit of %s flips back", node.Name)
		if node.Up() {
			node.Crash(false, 50*time.Millisecond)
		}
		if err := n.back(); err != nil {
			node.fail("flipping a bit back", err)
		}
		n.restartAfter(node, n.cluster.loop.between(time.Millisecond, 200*time.Millisecond))
	}
	n.cluster.witness.damaged = ""
}

// breakDisk has a disk fail at the next write, or sync, of the kind that is drawn. The
// node ends, and is started again on what was durable.
func (n *Nemesis) breakDisk() bool {
	node := n.anyNode()
	if !node.Serving() || node == n.damaged || node.disk.fs.fault.Load() != nil {
		return false
	}
	f := drawDiskFault(n.cluster.loop)
	n.event("the disk of %s is to fail: %v", node.Name, f)
	node.disk.fs.fault.Store(f)
	return true
}

// diskFailed is told that a node has ended for its disk.
func (n *Nemesis) diskFailed(node *Node) {
	n.disksFailed++
	if node == n.damaged {
		return // nothing will come of it but another disk
	}
	n.restartAfter(node, n.cluster.loop.between(time.Millisecond, 2*time.Second))
}

// leaveDown leaves a node down for good that the others can do without, if there is one.
func (n *Nemesis) leaveDown() {
	nodes := slices.Clone(n.cluster.nodes)
	n.cluster.loop.rand.Shuffle(len(nodes), func(i, k int) { nodes[i], nodes[k] = nodes[k], nodes[i] })
	for _, node := range nodes {
		if !n.spared(node) {
			continue
		}
		n.struck[LeftDown]++
		n.event("%s stays down", node.Name)
		if node.Up() {
			node.Crash(false, 50*time.Millisecond)
		}
		node.gone = true
		return
	}
}
