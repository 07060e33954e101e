package raftgroup

import (
	"errors"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// What asks for a turn runs on one: never while a snapshot is being installed, and
// once the group has stopped it hears why.
func TestTurn(t *testing.T) {
	c := newCluster(t, 37, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
	c.leaveBehind(5, far, 10<<10)
	c.waitLeader(5)
	g := far.group(5)
	c.heal()
	sent := c.snapshotsSent
	c.until("a snapshot is under way", func() bool { return c.snapshotsSent > sent })
	c.until("the snapshot is being installed", func() bool { return g.parked })
	ran, installs := 0, -1
	g.Turn(func() {
		ran++
		installs = far.machine(5).installs
		if far.machine(5).installing {
			t.Error("it runs while a snapshot is being installed")
		}
	}, func(err error) { t.Error(err) })
	if ran != 0 {
		t.Error("it runs outside a turn")
	}
	c.until("it has run", func() bool { return ran > 0 })
	if installs == 0 {
		t.Error("it ran before the snapshot was installed")
	}
	c.runFor(time.Second)
	far.host.Close()
	var reasons []error
	g.Turn(func() { t.Error("it runs after the end") }, func(err error) { reasons = append(reasons, err) })
	if ran != 1 || len(reasons) != 1 || !errors.Is(reasons[0], shard.ErrUnavailable) {
		t.Errorf("ran %d times, then %v", ran, reasons)
	}
}
