package raftgroup

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A large snapshot that a turn takes together with other mail: the mail waits
// until the installation has ended, and the group goes on from there. A turn of
// a parked group that worked off the mail instead would never see the end of the
// installation, and append entries to a log that is not the installed one yet.
func TestMailTakenWithLargeSnapshotWaits(t *testing.T) {
	c := newCluster(t, 36, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
	c.leaveBehind(5, far, 10<<10)
	g := far.group(5)
	c.heal()
	together := false
	c.until("a snapshot is taken together with a tick", func() bool {
		g.box.mu.Lock()
		waits := g.box.snapshot != nil
		g.box.mu.Unlock()
		if waits && !together {
			together = true
			g.pushTick()
		}
		return together
	})
	c.until("the snapshot is installed", func() bool { return far.machine(5).installs > 0 && !g.receiving.Load() })
	c.put(5, "after=snapshot")
	c.mustAgree(5)
}
