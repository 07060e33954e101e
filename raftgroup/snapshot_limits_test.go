package raftgroup

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// incomingFiles are the names of what a node's imports have on disk.
func (n *testNode) incomingFiles() []string {
	names, err := n.fs.List(filepath.Join("store", "incoming"))
	if err != nil {
		return nil
	}
	return names
}

// mustBeIdle checks that a node receives nothing and keeps nothing of what it received.
func (n *testNode) mustBeIdle(when string) {
	n.c.t.Helper()
	if files := n.incomingFiles(); len(files) > 0 || n.host.snapshotsIn.Load() != 0 || n.host.largeIn.Load() != 0 || n.group(5).receiving.Load() {
		n.c.t.Errorf("%s: files %v, %d snapshots, %d large", when, files, n.host.snapshotsIn.Load(), n.host.largeIn.Load())
	}
}

// behindBy10KiBValues is a cluster whose node far lacks what only a large snapshot brings.
func behindBy10KiBValues(t *testing.T, seed uint64) (c *cluster, far *testNode) {
	c = newCluster(t, seed, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far = c.node(c.waitLeader(5).id%3 + 1)
	c.leaveBehind(5, far, 10<<10)
	return c, far
}

// A stream that breaks at any chunk leaves nothing behind on either side, is reported
// to raft, and tried again.
func TestSnapshotAbandonedAtAnyPoint(t *testing.T) {
	c, far := behindBy10KiBValues(t, 130)
	broke, at := errors.New("the stream broke"), 0
	failures := 0
	c.breaks = func(i int) error {
		if i != at {
			return nil
		}
		at++
		failures++
		return broke
	}
	c.heal()
	for chunk := range 4 {
		c.until("it breaks", func() bool { return failures > chunk })
		far.mustBeIdle("after a break")
	}
	c.breaks = nil
	c.mustAgree(5)
	if far.machine(5).installs != 1 {
		t.Errorf("%d installed", far.machine(5).installs)
	}
	c.until("the places are free", func() bool {
		for _, n := range c.nodes {
			if n.host.snapshotsOut.Load() != 0 || len(n.incomingFiles()) > 0 {
				return false
			}
		}
		return true
	})
	if s := c.waitLeader(5).host.Stats(); s.SnapshotsUnsent < 4 {
		t.Errorf("stats %+v", s)
	}
	if s := far.host.Stats(); s.SnapshotsGivenUp < 4 || s.SnapshotsTaken != 1 {
		t.Errorf("stats %+v", s)
	}
}

// A node takes so many large snapshots at a time, and small ones beside them.
func TestReceivedSnapshotsAreBounded(t *testing.T) {
	c := newCluster(t, 131, 2)
	const shards = largeSnapshotsInMax + 2
	for id := shard.ID(5); id < 5+shards; id++ {
		c.bootstrap(id, 1)
	}
	c.start()
	var sinks []SnapshotSink
	receive := func(id shard.ID, large bool) error {
		term := c.waitLeader(id).machine(id).leadership.Term
		m := raftpb.Message{Type: raftpb.MsgSnap, From: 1, To: 2, Term: term, Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{
			Index: 11, Term: term, ConfState: raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}}}
		sink, err := c.node(2).host.ReceiveSnapshot(1, appendMessage(nil, id, nil, &m, messageBytes(id, nil, &m)), large)
		if err == nil {
			sinks = append(sinks, sink)
		}
		return err
	}
	for i := range largeSnapshotsInMax {
		if err := receive(shard.ID(5+i), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := receive(5+shards-1, true); !errors.Is(err, shard.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	if err := receive(5+shards-1, false); err != nil {
		t.Errorf("a small one: %v", err)
	}
	if err := receive(5, false); !errors.Is(err, shard.ErrBusy) {
		t.Errorf("a second one for a shard: %v", err)
	}
	for _, k := range sinks[1:] {
		k.Abort(errors.New("no more"))
	}
	if err := receive(5+shards-2, true); err != nil {
		t.Errorf("with room again: %v", err)
	}
	sinks[0].Abort(errors.New("no more"))
	sinks[len(sinks)-1].Abort(errors.New("no more"))
	if h := c.node(2).host; h.snapshotsIn.Load() != 0 || h.largeIn.Load() != 0 {
		t.Errorf("%d snapshots, %d large", h.snapshotsIn.Load(), h.largeIn.Load())
	}
}

// A snapshot that is larger than was announced would not keep to the bounds.
func TestSnapshotLargerThanAnnounced(t *testing.T) {
	c, far := behindBy10KiBValues(t, 132)
	l := c.waitLeader(5)
	m, chunks := l.snapshotNow(5, shard.ReplicaID(far.id), l.machine(5).leadership.Term)
	sink, err := far.host.ReceiveSnapshot(l.id, appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m)), false)
	for i := 0; err == nil && i < len(chunks); i++ {
		err = sink.Add(chunks[i])
	}
	if !errors.Is(err, shard.ErrMalformed) || !strings.Contains(err.Error(), "larger than was announced") {
		t.Fatal(err)
	}
	sink.Abort(err)
	far.mustBeIdle("after the refusal")
}

// A disk that is full while a snapshot is received refuses it, and leaves the replica
// and the process as they were; no large one is taken until some time has passed.
func TestDiskFullWhileReceiving(t *testing.T) {
	c, far := behindBy10KiBValues(t, 133)
	full, writes := true, 0
	far.stop()
	far.wrap = func(fs vfs.FS) vfs.FS {
		return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full && strings.Contains(op.Path, "incoming") && op.Kind == errorfs.OpFileWrite {
				writes++
				return syscall.ENOSPC
			}
			return nil
		}))
	}
	far.start()
	before := far.group(5).Status().Last
	c.heal()
	c.until("the disk is full", func() bool { return writes > 0 })
	far.mustBeIdle("with a full disk")
	refused := writes
	c.runFor(diskFullTicks / 2 * 100 * time.Millisecond)
	if writes != refused {
		t.Errorf("%d writes to a full disk", writes)
	}
	if m := far.machine(5); m.Applied().Index > before || m.installs != 0 || m.stopped != nil || far.group(5).Status().Err != nil {
		t.Errorf("applied %+v, the log ended at %d; stopped %v", m.Applied(), before, m.stopped)
	}
	c.put(5, "k=w") // the others go on
	full = false
	c.mustAgree(5)
	if far.machine(5).installs != 1 {
		t.Errorf("%d installed", far.machine(5).installs)
	}
}

// A snapshot whose turn comes when its leader does not lead any more, or when its
// receiver was removed, is not sent, and that is reported.
func TestSnapshotWhoseTurnComesTooLate(t *testing.T) {
	c, far := behindBy10KiBValues(t, 134)
	c.queueDelay = 20 * time.Second
	sent := c.snapshotsSent
	c.heal()
	c.until("one is in line", func() bool { return c.snapshotsSent > sent })
	l := c.waitLeader(5)
	o := l.group(5).outgoing[0]
	done := false
	l.group(5).TransferLeader(shard.ReplicaID(6-l.id-far.id), func(err error) { done = true })
	c.until("another leads", func() bool { return done && c.leader(5) != nil && c.leader(5) != l })
	if _, err := o.open(); !errors.Is(err, shard.ErrDropped) {
		t.Errorf("in a later term: %v", err)
	}
	if o.index.Load() != 0 {
		t.Error("it holds the log back")
	}
	c.queueDelay = 0
	c.mustAgree(5)
	l.host.Close()
	if _, err := o.open(); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("of a host that was closed: %v", err)
	}
}
