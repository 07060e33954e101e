package raftgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// leaveBehind cuts a follower off and writes until the others' logs begin above
// its end. A leader waits for it only while it counts as active.
func (c *cluster) leaveBehind(id shard.ID, far *testNode, valueBytes int) {
	c.t.Helper()
	c.isolate(far.id)
	value := strings.Repeat("v", valueBytes)
	behind := func() bool {
		last, err := far.group(id).log.LastIndex()
		for _, n := range c.nodes {
			first, err2 := n.group(id).log.FirstIndex()
			if err != nil || err2 != nil || n != far && first <= last+1 {
				return false
			}
		}
		return true
	}
	for i := 0; i < 50 || !behind(); i++ {
		if i == 2000 {
			c.t.Fatal("the log is not truncated")
		}
		c.put(id, fmt.Sprintf("k%d=%s%d", i%50, value, i))
		c.runFor(30 * time.Millisecond)
	}
}

// A follower that fell behind a truncated log gets a snapshot, small or large,
// and goes on from there, also when everything crashes afterwards.
func TestLaggingFollowerGetsSnapshot(t *testing.T) {
	for _, kind := range []string{"small", "large"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, 31, 3)
			c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
			size := 200
			if kind == "large" {
				size = 10 << 10
			}
			c.bootstrap(5, 1, 2, 3)
			c.start()
			c.put(5, "k=v")
			l := c.waitLeader(5)
			far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
			c.leaveBehind(5, far, size)
			l = c.waitLeader(5)
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
	to := shard.NodeID(3)
	if l.id == to {
		to = 2
	}
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
	if err := send(func(m *raftpb.Message) { m.To = uint64(6 - l.id - to) }); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("for a replica of a lower ID: %v", err)
	}
	if c.node(to).group(5).receiving.Load() || c.node(to).host.snapshotsIn.Load() != 0 {
		t.Error("the slot is not free")
	}
	c.put(5, "k=w")
	c.mustAgree(5)
}

// A snapshot is installed only with its span reserved, from before raft hears of
// it until after the installation.
func TestSnapshotsReserveTheirSpan(t *testing.T) {
	for _, size := range []int{200, 10 << 10} {
		c := newCluster(t, 38, 3)
		var free, reserved bool
		refusals := 0
		c.config = func(cfg *Config) {
			cfg.LogBytesMax = 8 << 10
			cfg.ReserveSpan = func(s *storage.ReplicaState) (func(), error) {
				if s.Descriptor.ID != 5 || reserved {
					t.Errorf("shard %d is reserved, %v before", s.Descriptor.ID, reserved)
				}
				if !free {
					refusals++
					return nil, shard.ErrBusy
				}
				reserved = true
				return func() { reserved = false }, nil
			}
		}
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=v")
		far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
		c.leaveBehind(5, far, size)
		c.heal()
		c.until("it is refused", func() bool { return refusals > 2 })
		if far.machine(5).installs > 0 || far.host.snapshotsIn.Load() > 1 {
			t.Errorf("%d installed without a reservation, %d slots taken", far.machine(5).installs, far.host.snapshotsIn.Load())
		}
		free = true
		for far.machine(5).installs == 0 {
			if far.machine(5).installing && !reserved {
				t.Fatal("an installation without a reservation")
			}
			c.env.step()
		}
		c.mustAgree(5)
		if reserved {
			t.Error("the span is still reserved")
		}
	}
}

// A crash at any moment of an installation leaves either the old state or the
// new one, and the replica recovers from both.
func TestCrashDuringInstallation(t *testing.T) {
	for _, size := range []int{200, 10 << 10} {
		c := newCluster(t, 36, 3)
		c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=v")
		far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
		parked := 0
		for steps := range 12 {
			c.leaveBehind(5, far, size)
			c.heal()
			c.until("an installation begins", func() bool { return far.machine(5).installing || far.machine(5).installs > 0 })
			for range steps * 2 {
				c.env.step()
			}
			if far.group(5).parked {
				parked++
			}
			far.crash()
			far.start()
			if err := far.group(5).Status().Err; err != nil {
				t.Fatal(err)
			}
			c.put(5, "k=w")
			c.mustAgree(5)
		}
		if (parked > 0) != (size > 1000) {
			t.Errorf("values of %d bytes: %d crashes while parked", size, parked)
		}
	}
}

// While a large snapshot is being installed the group is not scheduled, its
// mailbox stays bounded, and Close lets go of everything.
func TestParkedGroup(t *testing.T) {
	c := newCluster(t, 37, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
	c.leaveBehind(5, far, 10<<10)
	l = c.waitLeader(5)
	c.heal()
	g := far.group(5)
	c.until("the group is parked", func() bool { return g.parked })
	applies := far.machine(5).applies
	m := raftpb.Message{Type: raftpb.MsgHeartbeat, From: uint64(l.id), To: uint64(far.id), Term: l.machine(5).leadership.Term}
	frame := appendMessage(nil, 5, &m, messageBytes(5, &m))
	for range incomingPerGroupMax + 100 {
		if err := far.host.Receive(l.id, frame); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.box.messages); n != incomingPerGroupMax {
		t.Errorf("%d messages in the mailbox", n)
	}
	w, r := far.propose(5, "k=v"), far.read(5, "k")
	if far.machine(5).applies != applies || w.done() || r.done() {
		t.Error("the group was stepped while it was parked")
	}
	far.host.Close()
	if !errors.Is(w.err, shard.ErrUnavailable) || !errors.Is(r.err, shard.ErrUnavailable) {
		t.Errorf("proposal %v, read %v", w.err, r.err)
	}
	if far.machine(5).installing || far.host.snapshotsIn.Load() != 0 || far.host.incomingBytes.Load() != 0 || far.host.readsWaiting.Load() != 0 {
		t.Errorf("Close left something: installing %v, %d snapshots, %d incoming bytes, %d reads", far.machine(5).installing,
			far.host.snapshotsIn.Load(), far.host.incomingBytes.Load(), far.host.readsWaiting.Load())
	}
	far.stop()
	far.start()
	c.mustAgree(5)
}

// Outgoing snapshots are bounded per group: raft asks again later.
func TestOutgoingSnapshotsAreBounded(t *testing.T) {
	c := newCluster(t, 38, 1)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=v")
	g := c.node(1).group(5)
	for i := range snapshotsPerGroupMax + 2 {
		_, err := g.openSnapshot()
		if want := i >= snapshotsPerGroupMax; (err != nil) != want {
			t.Errorf("snapshot %d: %v", i+1, err)
		}
	}
	if got := c.node(1).host.snapshotsOut.Load(); got != snapshotsPerGroupMax {
		t.Errorf("%d are counted", got)
	}
	c.node(1).host.Close()
	if got := c.node(1).host.snapshotsOut.Load(); got != 0 {
		t.Errorf("%d are counted of a group that has stopped", got)
	}
}

// Term and vote of a snapshot's message are synced before the ingest. What is
// saved then must not speak of the snapshot yet: a crash in between leaves the
// old state.
func TestCrashBetweenTermAndIngest(t *testing.T) {
	c := newCluster(t, 39, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	far := c.node(shard.NodeID(uint64(l.id)%3 + 1))
	c.leaveBehind(5, far, 10<<10)
	l = c.waitLeader(5)
	before := far.machine(5).Applied()

	view := l.engine.NewSnapshot()
	state, _, err := view.State(5)
	if err != nil {
		t.Fatal(err)
	}
	term := l.machine(5).leadership.Term + 5 // not known to the receiver yet
	m := raftpb.Message{Type: raftpb.MsgSnap, From: uint64(l.id), To: uint64(far.id), Term: term,
		Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: state.Applied, Term: state.AppliedTerm,
			ConfState: confState(state.Descriptor.Replicas)}}}
	c.heal()
	tr := &loopTransport{n: l, incarnation: l.incarnation}
	if err := tr.stream(far.id, appendMessage(nil, 5, &m, messageBytes(5, &m)), &exportSource{shard: 5, view: view}); err != nil {
		t.Fatal(err)
	}
	g := far.group(5)
	c.until("the group is parked", func() bool { return g.parked })
	c.until("the term is synced", func() bool { return g.cover != nil && g.cover.done })
	if far.machine(5).installs != 0 {
		t.Fatal("installed already")
	}
	far.crash()
	far.start()
	if s := far.group(5).Status(); far.machine(5).Applied() != before || s.Err != nil {
		t.Errorf("applied %+v, before %+v; %v", far.machine(5).Applied(), before, s.Err)
	}
	if hs, err := far.group(5).log.InitialState(); err != nil || hs.Term < term {
		t.Errorf("term %d, want %d; %v", hs.Term, term, err)
	}
	c.mustAgree(5)
}

// The log is not truncated above a snapshot that is under way, so that one
// snapshot is enough; but not for ever.
func TestSnapshotHoldsBackTruncation(t *testing.T) {
	c := newCluster(t, 40, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
	c.leaveBehind(5, far, 500)
	c.snapshotDelay = 3 * time.Second
	c.heal()
	sent := c.snapshotsSent
	c.until("a snapshot is under way", func() bool { return c.snapshotsSent > sent })
	l := c.waitLeader(5)
	for i := range 150 { // far more than a leader keeps for a follower
		c.put(5, fmt.Sprintf("k%d=%0500d", i, i))
	}
	c.mustAgree(5)
	if c.snapshotsSent != sent+1 {
		t.Errorf("%d snapshots", c.snapshotsSent-sent)
	}

	c.leaveBehind(5, far, 500)
	c.snapshotDelay = (snapshotHoldsTicks + 50) * 100 * time.Millisecond
	c.heal()
	sent = c.snapshotsSent
	c.until("another is under way", func() bool { return c.snapshotsSent > sent })
	held := l.group(5).outgoing[0]
	for l.group(5).clock <= held.since+snapshotHoldsTicks+2 {
		c.runFor(time.Second)
	}
	for i := range 80 {
		c.put(5, fmt.Sprintf("k%d=%0500d", i, i))
	}
	if first, _ := l.group(5).log.FirstIndex(); first <= held.index {
		t.Errorf("the log starts at %d, held back by a snapshot at %d", first, held.index)
	}
}
