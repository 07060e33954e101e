package raftgroup

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

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
	l = c.waitLeader(5)
	g := far.group(5)
	c.heal()
	sent := c.snapshotsSent
	c.until("a snapshot is under way", func() bool { return c.snapshotsSent > sent })
	l.propose(5, "follows=snapshot")
	c.until("the snapshot is in the mailbox", func() bool {
		g.box.mu.Lock()
		defer g.box.mu.Unlock()
		return g.box.snapshot != nil
	})
	g.pushTick()
	log, at := l.group(5).log, g.box.snapshot.state
	last, err := log.LastIndex()
	if err != nil || last == at.Applied {
		t.Fatalf("nothing follows the snapshot at %d; %v", at.Applied, err)
	}
	entries, err := log.Entries(at.Applied+1, last+1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	m := raftpb.Message{Type: raftpb.MsgApp, From: uint64(l.id), To: uint64(far.id), Term: l.machine(5).leadership.Term,
		Index: at.Applied, LogTerm: at.AppliedTerm, Entries: entries}
	if err := far.host.Receive(l.id, appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))); err != nil {
		t.Fatal(err)
	}
	c.until("the snapshot is installed", func() bool { return far.machine(5).installs > 0 && !g.receiving.Load() })
	c.put(5, "after=snapshot")
	c.mustAgree(5)
}
