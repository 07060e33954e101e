package raftgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// A follower that fell behind a truncated log gets a snapshot, small or large,
// and goes on from there, also when everything crashes afterwards.
func TestLaggingFollowerGetsSnapshot(t *testing.T) {
	for _, kind := range []string{"small", "large"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, 31, 3)
			c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
			value := strings.Repeat("v", 200)
			if kind == "large" {
				value = strings.Repeat("v", 200<<10)
			}
			c.bootstrap(5, 1, 2, 3)
			c.start()
			c.put(5, "k=v")
			l := c.waitLeader(5)
			far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
			c.isolate(far.id)
			for i := range 300 {
				if kind == "large" && i >= 60 {
					break
				}
				c.put(5, fmt.Sprintf("k%d=%s%d", i, value, i))
			}
			l = c.waitLeader(5)
			c.until("the log is truncated", func() bool {
				s := l.group(5).Status()
				return s.First > far.group(5).Status().Last
			})
			if s := l.group(5).Status(); kind == "small" && s.LogBytes > 5*(8<<10) {
				t.Errorf("the log has %d bytes", s.LogBytes)
			}
			c.heal()
			c.mustAgree(5)
			if far.machine(5).installs == 0 {
				t.Error("no snapshot was installed")
			}
			c.put(5, "after=snapshot")
			c.mustAgree(5)
			if far.host.Stats().SnapshotsTaken == 0 || far.group(5).receiving.Load() || far.host.snapshotsIn.Load() != 0 {
				t.Error("the receiver's slot is not free")
			}
			c.until("the senders' slots are free", func() bool {
				for _, n := range c.nodes {
					if n.host.snapshotsOut.Load() != 0 {
						return false
					}
				}
				return true
			})
			for _, n := range c.nodes {
				n.crash()
			}
			c.start()
			c.mustRead(5, "after", "snapshot")
			c.mustAgree(5)
		})
	}
}

// A leader keeps what active followers lack, and the newest part in any case.
func TestTruncationWaitsForActiveFollowers(t *testing.T) {
	c := newCluster(t, 32, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 16 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	slow := shard.NodeID(uint64(l.id)%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != slow || e.msg.Type != raftpb.MsgApp }
	at := c.node(slow).group(5).Status().Last
	for i := range 80 {
		c.put(5, fmt.Sprintf("k=%0400d", i))
	}
	c.runFor(300 * time.Millisecond)
	s := l.group(5).Status()
	if s.LogBytes < 20<<10 {
		t.Fatalf("the log has only %d bytes", s.LogBytes)
	}
	if s.First > at+2 {
		t.Errorf("the log starts at %d although an active follower is at %d", s.First, at)
	}
	c.filter = nil
	c.mustAgree(5)
	if c.snapshotsSent != 0 {
		t.Errorf("%d snapshots were needed", c.snapshotsSent)
	}
	// Once it has caught up the log shrinks.
	for i := range 10 {
		c.put(5, fmt.Sprintf("k=%0400d", i))
	}
	c.until("the log shrinks", func() bool { return l.group(5).Status().LogBytes <= 17<<10 })
}

// A snapshot that does not arrive is reported, and tried again.
func TestFailedSnapshotIsTriedAgain(t *testing.T) {
	c := newCluster(t, 33, 2)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=v")
	failures := 0
	c.filter = func(_, _ shard.NodeID, e *envelope) bool {
		if e.msg.Type == raftpb.MsgSnap {
			failures++
			return failures > 3
		}
		return true
	}
	c.addLearner(5, 2)
	if failures < 4 {
		t.Errorf("%d attempts", failures)
	}
	c.mustAgree(5)
}

// A snapshot that raft has no use for is given up, and its slot is free again.
func TestUselessSnapshotIsClosed(t *testing.T) {
	c := newCluster(t, 34, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	to := c.node(shard.NodeID(uint64(l.id)%3 + 1))
	view := l.engine.NewSnapshot()
	state, _, err := view.State(5)
	if err != nil {
		t.Fatal(err)
	}
	m := raftpb.Message{Type: raftpb.MsgSnap, From: uint64(l.id), To: uint64(to.id), Term: l.machine(5).leadership.Term,
		Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: state.Applied, Term: state.AppliedTerm,
			ConfState: confState(state.Descriptor.Replicas)}}}
	c.put(5, "k=w")
	c.mustAgree(5)
	tr := &loopTransport{n: l, incarnation: l.incarnation}
	if err := tr.stream(to.id, appendMessage(nil, 5, &m, messageBytes(5, &m)), &exportSource{shard: 5, view: view}); err != nil {
		t.Fatal(err)
	}
	c.until("the slot is free", func() bool { return !to.group(5).receiving.Load() })
	if to.machine(5).installs != 0 || to.host.snapshotsIn.Load() != 0 {
		t.Error("an old snapshot was installed")
	}
	c.put(5, "k=x")
	c.mustAgree(5)
}

// Snapshots that are not what they claim are refused before raft sees them.
func TestForeignSnapshotsAreRefused(t *testing.T) {
	c := newCluster(t, 35, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	to := shard.NodeID(uint64(l.id)%3 + 1)
	tr := &loopTransport{n: l, incarnation: l.incarnation}
	send := func(change func(*raftpb.Message)) error {
		view := l.engine.NewSnapshot()
		state, _, err := view.State(5)
		if err != nil {
			t.Fatal(err)
		}
		m := raftpb.Message{Type: raftpb.MsgSnap, From: uint64(l.id), To: uint64(to), Term: 99,
			Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: state.Applied, Term: state.AppliedTerm,
				ConfState: confState(state.Descriptor.Replicas)}}}
		change(&m)
		return tr.stream(to, appendMessage(nil, 5, &m, messageBytes(5, &m)), &exportSource{shard: 5, view: view})
	}
	for name, change := range map[string]func(*raftpb.Message){
		"another index":         func(m *raftpb.Message) { m.Snapshot.Metadata.Index += 5 },
		"another term":          func(m *raftpb.Message) { m.Snapshot.Metadata.Term++ },
		"another configuration": func(m *raftpb.Message) { m.Snapshot.Metadata.ConfState.Voters = []uint64{1, 2} },
	} {
		if err := send(change); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := send(func(m *raftpb.Message) { m.To = 77 }); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("another replica: %v", err)
	}
	if c.node(to).group(5).receiving.Load() || c.node(to).host.snapshotsIn.Load() != 0 {
		t.Error("the slot is not free")
	}
	c.put(5, "k=w")
	c.mustAgree(5)
}
