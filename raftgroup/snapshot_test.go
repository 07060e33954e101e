package raftgroup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
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
			g, ok := n.host.Group(id)
			if !ok {
				continue
			}
			first, err2 := g.log.FirstIndex()
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

// outgoing is a snapshot of shard 5 as a group would open it.
func outgoing(m *raftpb.Message, large bool, view *storage.Snapshot) OutgoingSnapshot {
	return OutgoingSnapshot{Header: appendMessage(nil, 5, nil, m, messageBytes(5, nil, m)), Large: large, Chunks: &exportSource{shard: 5, view: view, sent: new(atomic.Uint64)}}
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
	if err := tr.stream(to.id, outgoing(&m, false, view)); err != nil {
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
		return tr.stream(to, outgoing(&m, false, view))
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
	frame := appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))
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

// Outgoing snapshots are bounded per group and per node: raft asks again later.
func TestOutgoingSnapshotsAreBounded(t *testing.T) {
	c := newCluster(t, 38, 1)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=v")
	h, g := c.node(1).host, c.node(1).group(5)
	ask := func() error {
		_, err := g.openSnapshot()
		return err
	}
	for range snapshotsPerGroupMax {
		if err := ask(); err != nil {
			t.Error(err)
		}
		g.outgoing = append(g.outgoing, &outgoingSnapshot{})
	}
	if err := ask(); err == nil {
		t.Error("one more than a group may have")
	}
	g.outgoing = nil
	h.snapshotsOut.Store(snapshotsOutMax)
	if err := ask(); err == nil {
		t.Error("one more than a node may have")
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
	if err := tr.stream(far.id, outgoing(&m, true, view)); err != nil {
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
	for i := range 150 { // far more than a leader keeps for a follower
		c.put(5, fmt.Sprintf("k%d=%0500d", i, i))
	}
	c.mustAgree(5)
	if c.snapshotsSent != sent+1 {
		t.Errorf("%d snapshots", c.snapshotsSent-sent)
	}

	// While a snapshot is being sent for too long.
	c.leaveBehind(5, far, 500)
	c.snapshotDelay = (snapshotHoldsTicks + 50) * 100 * time.Millisecond
	c.heal()
	held := c.beingSent(5)
	for held.g.clock <= held.opened+snapshotHoldsTicks+2 {
		c.runFor(time.Second)
	}
	c.overwrite(5, 80)
	if held.landed > 0 {
		t.Fatal("it has landed")
	}
	if first, _ := held.g.log.FirstIndex(); first <= held.index.Load()+1 {
		t.Errorf("the log starts at %d, held back by a snapshot at %d", first, held.index.Load())
	}
}

// beingSent waits for a snapshot of a view that is open.
func (c *cluster) beingSent(id shard.ID) (sent *outgoingSnapshot) {
	c.t.Helper()
	c.until("a snapshot is being sent", func() bool {
		for _, n := range c.nodes {
			for _, o := range n.group(id).outgoing {
				if o.opened > 0 && o.landed == 0 {
					sent = o
				}
			}
		}
		return sent != nil
	})
	return sent
}

// overwrite writes n values of 500 bytes.
func (c *cluster) overwrite(id shard.ID, n int) {
	c.t.Helper()
	for i := range n {
		c.put(id, fmt.Sprintf("k%d=%0500d", i, i))
	}
}

// A snapshot under way holds the log back up to a size only.
func TestSnapshotHoldsBackOnlySoMuch(t *testing.T) {
	c := newCluster(t, 44, 3)
	const limit = 2 << 10
	c.config = func(cfg *Config) { cfg.LogBytesMax = limit }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
	c.leaveBehind(5, far, 500)
	c.snapshotDelay = time.Minute
	c.heal()
	held := c.beingSent(5)
	log := func() (first uint64, bytes int64) {
		g := held.g
		first, _ = g.log.FirstIndex()
		return first, g.log.Bytes()
	}
	largest := int64(0)
	for i := range 2 * snapshotHoldsTimes * limit / 500 {
		c.put(5, fmt.Sprintf("k%d=%0500d", i%50, i))
		first, bytes := log()
		largest = max(largest, bytes)
		if bytes < (snapshotHoldsTimes-1)*limit && largest == bytes && first > held.index.Load()+1 {
			t.Fatalf("the log of %d bytes starts at %d, behind a snapshot at %d", bytes, first, held.index.Load())
		}
	}
	if largest > (snapshotHoldsTimes+2)*limit {
		t.Errorf("the log had %d bytes", largest)
	}
	if first, _ := log(); first <= held.index.Load()+1 {
		t.Error("the log is held back for ever")
	}
	c.snapshotDelay = 0
	c.mustAgree(5) // by another snapshot
}

// What waits in line holds nothing back, may wait for as long as it must, and is as
// new as its turn: its receiver needs no second one.
func TestWaitingSnapshotHoldsNothingBack(t *testing.T) {
	c := newCluster(t, 45, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
	c.leaveBehind(5, far, 500)
	c.queueDelay = 3 * snapshotHoldsTicks * 100 * time.Millisecond
	c.heal()
	sent := c.snapshotsSent
	c.until("a snapshot is in line", func() bool { return c.snapshotsSent > sent })
	l := c.waitLeader(5)
	asked, _ := l.group(5).log.LastIndex()
	c.overwrite(5, 150)
	if first, _ := l.group(5).log.FirstIndex(); first <= asked {
		t.Errorf("the log starts at %d, held back by a snapshot that was asked for at %d", first, asked)
	}
	// The receiver's word that it has the snapshot is slow; what else it says is not, and
	// must not make the leader send what its log does not reach back to.
	c.filter = func(from, to shard.NodeID, e *envelope) bool {
		if from != far.id || e.msg.Type != raftpb.MsgAppResp {
			return true
		}
		m := e.msg
		c.env.AfterFunc(time.Second, c.env.NewQueue(""), func() {
			if err := c.node(to).host.Receive(from, appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))); err != nil {
				t.Error(err)
			}
		})
		return false
	}
	for end := c.env.now + c.queueDelay; c.env.now < end; {
		c.runFor(10 * time.Second)
		if c.env.now < end-10*time.Second && (far.machine(5).installs > 1 || c.snapshotsSent != sent+1) {
			t.Fatalf("%d snapshots while one waits", c.snapshotsSent-sent)
		}
	}
	c.mustAgree(5)
	if c.snapshotsSent != sent+1 {
		t.Errorf("%d snapshots were needed", c.snapshotsSent-sent)
	}
	if got := far.machine(5).installs; got == 0 {
		t.Error("none was installed")
	}
}

// While the receiver of a snapshot catches up the log keeps what it needs next,
// for a bounded time.
func TestReceiverHoldsBackTruncation(t *testing.T) {
	c := newCluster(t, 46, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
	c.leaveBehind(5, far, 500)
	c.snapshotDelay = time.Second
	c.heal()
	held := c.beingSent(5)
	c.until("it has landed", func() bool { return held.landed > 0 })
	l, g := held.g.h.cfg.Node, held.g
	// From here on it hears nothing that would bring it further.
	c.filter = func(from, to shard.NodeID, e *envelope) bool { return to != far.id || e.msg.Type != raftpb.MsgApp }
	c.overwrite(5, 100) // more than an active follower is waited for
	if first, _ := g.log.FirstIndex(); first > held.index.Load()+1 {
		t.Errorf("the log starts at %d, the receiver is at %d", first, held.index.Load())
	}
	for g.clock <= held.landed+catchUpHoldsTicks+2 {
		c.runFor(time.Second)
	}
	c.overwrite(5, 100)
	if first, _ := g.log.FirstIndex(); first <= held.index.Load()+1 {
		t.Errorf("node %d: the log starts at %d, held back for ever", l, first)
	}
	c.filter = nil
	c.mustAgree(5)
}

// A leader's status tells how much of a snapshot was sent, while it is being sent.
func TestStatusTellsHowMuchOfASnapshotWasSent(t *testing.T) {
	c := newCluster(t, 46, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(shard.NodeID(uint64(c.waitLeader(5).id)%3 + 1))
	c.leaveBehind(5, far, 500)
	c.snapshotDelay = 3 * time.Second
	c.heal()
	out := c.beingSent(5)
	told := func() uint64 {
		for _, p := range out.g.Status().Progress {
			if p.Replica == out.to && p.Snapshot {
				return p.SnapshotBytes
			}
		}
		return 0
	}
	if n := told(); n != 0 {
		t.Errorf("%d bytes before the first chunk", n)
	}
	out.sent.Store(123)
	c.runFor(500 * time.Millisecond)
	if n := told(); n != 123 {
		t.Errorf("the status tells of %d bytes, and 123 were sent", n)
	}
	var counts []uint64
	c.breaks = func(int) error { counts = append(counts, out.sent.Load()); return nil }
	c.mustAgree(5)
	if len(counts) == 0 || counts[0] <= 123 || !slices.IsSorted(counts) {
		t.Errorf("after each chunk: %v", counts)
	}
	c.until("no snapshot is under way", func() bool { return out.reported })
	c.runFor(500 * time.Millisecond)
	if n := told(); n != 0 {
		t.Errorf("%d bytes of a snapshot that has landed", n)
	}
}
