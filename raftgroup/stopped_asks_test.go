package raftgroup

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A replica that has stopped because of corruption neither campaigns nor answers anybody, and its
// leader's notice of removal may be lost: it has to ask all the same, or its data
// stays until the node is started again.
func TestStoppedReplicaAsksWhetherItWasRemoved(t *testing.T) {
	c := newCluster(t, 48, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.mustAgree(5)
	from.machine(5).corrupt = true
	c.put(5, "k=w")
	c.until("it has stopped", func() bool { return from.group(5).Status().Err != nil })
	lost := 0
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		if to == from.id && e.shard == 5 && e.next != 0 && lost == 0 {
			lost++
			return false
		}
		return true
	}
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.until("its node is free", func() bool { return from.free(5) })
	if lost != 1 {
		t.Errorf("%d notices were lost", lost)
	}
	c.mustAgree(5)
}
