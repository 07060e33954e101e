package sim

import (
	"fmt"
	"time"
)

// Keep is what a cluster keeps of what was overwritten.
type Keep struct {
	Retention time.Duration // 0: the default, which is longer than a run
	DropRate  int64         // versions per second that each node drops
}

func (k Keep) String() string {
	if k.Retention == 0 {
		return "everything is kept"
	}
	return fmt.Sprintf("kept for %v, %d dropped per second", k.Retention, k.DropRate)
}

// drawKeep draws what is kept. In half of the seeds versions are dropped, while
// clients still ask for them.
func drawKeep(l *Loop) Keep {
	k := Keep{Retention: []time.Duration{0, 0, 0, time.Second, 2 * time.Second, 5 * time.Second}[l.rand.IntN(6)]}
	k.DropRate = []int64{20, 1000, 50_000}[l.rand.IntN(3)]
	return k
}

// tunePause is between two times that a node is told what to keep.
const tunePause = 200 * time.Millisecond

// tune tells a node what to keep, again and again: it follows the cluster's own
// settings too, which say otherwise.
func (n *Node) tune() {
	k := n.cluster.keep
	if k.Retention == 0 {
		return
	}
	n.store().SetRetention(k.Retention)
	n.store().SetDropRate(k.DropRate)
	n.cluster.net.in(n.env, tunePause, "tune", n.tune)
}
