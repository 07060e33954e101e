package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// snapshotNow is a snapshot of what a node has of a shard, as its leader would send it
// now: the message and the chunks.
func (n *testNode) snapshotNow(id shard.ID, to shard.ReplicaID, term uint64) (m raftpb.Message, chunks [][]byte) {
	n.c.t.Helper()
	view := n.engine.NewSnapshot()
	defer view.Close()
	state, ok, err := view.State(id)
	if err != nil || !ok {
		n.c.t.Fatal(ok, err)
	}
	m = raftpb.Message{Type: raftpb.MsgSnap, From: uint64(n.group(id).replica), To: uint64(to), Term: term,
		Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: state.Applied, Term: state.AppliedTerm,
			ConfState: confState(state.Descriptor.Replicas)}}}
	x, err := view.Export(id)
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer x.Close()
	for {
		chunk, err := x.Next()
		if err == io.EOF {
			return m, chunks
		}
		if err != nil {
			n.c.t.Fatal(err)
		}
		chunks = append(chunks, append([]byte(nil), chunk...))
	}
}

// receive streams a snapshot to a node, and tells how it was taken.
func (n *testNode) receive(from shard.NodeID, id shard.ID, m raftpb.Message, chunks [][]byte) error {
	size := 0
	for _, chunk := range chunks {
		size += len(chunk)
	}
	sink, err := n.host.ReceiveSnapshot(from, appendMessage(nil, id, nil, &m, messageBytes(id, nil, &m)), size > 256<<10)
	if err != nil {
		return err
	}
	for _, chunk := range chunks {
		if err := sink.Add(chunk); err != nil {
			sink.Abort(err)
			return err
		}
	}
	return sink.Finish()
}

// Memberships change while a snapshot is on its way: it brings the configuration of
// its own index, and the log behind it the changes since. If its receiver was
// removed meanwhile, and another replica is on the node, it is for nobody.
func TestSnapshotVsConfChange(t *testing.T) {
	c := newCluster(t, 120, 5)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.snapshotDelay = time.Second
	first := c.descriptor(5).NextReplica
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: first, Node: 4})
	c.until("a snapshot is under way", func() bool { return c.snapshotsSent > 0 })
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: first + 1, Node: 5})
	c.put(5, "k=w")
	c.mustAgree(5)
	if got := len(c.node(4).machine(5).state.Descriptor.Replicas); got != 5 {
		t.Errorf("node 4 knows of %d members", got)
	}
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: first + 1})
	c.until("node 5 is free", func() bool { return c.node(5).free(5) })

	// Removed and added again, while the snapshot for the first one is on its way.
	sent := c.snapshotsSent
	second := c.descriptor(5).NextReplica
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: second, Node: 5})
	c.until("a snapshot is under way", func() bool { return c.snapshotsSent > sent })
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: second})
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: second + 1, Node: 5})
	c.put(5, "k=x")
	c.mustAgree(5)
	if g := c.node(5).group(5); g.replica != second+1 {
		t.Errorf("replica %d on node 5", g.replica)
	}
	c.until("no snapshot is left over", func() bool {
		for _, n := range c.nodes {
			if n.host.snapshotsOut.Load()+n.host.snapshotsIn.Load() != 0 {
				return false
			}
		}
		return true
	})
	for _, n := range c.nodes {
		if m := n.machine(5); m.stopped != nil && !m.removed {
			t.Errorf("node %d stopped: %v", n.id, m.stopped)
		}
	}
	c.mustRead(5, "k", "x")
}

// A snapshot from before its receiver was added, or whose message tells of another
// configuration than its data, would make raft and the machine disagree. It is
// refused before raft hears of it.
func TestSnapshotStaleConfState(t *testing.T) {
	c := newCluster(t, 121, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	term := l.machine(5).leadership.Term
	next := c.descriptor(5).NextReplica
	before, chunks := l.snapshotNow(5, next, term) // lists replicas 1 to 3
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != 4 || e.msg.Type != raftpb.MsgSnap }
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: next, Node: 4})
	to := c.node(4)
	c.until("the learner is made", func() bool { _, ok := to.host.Group(5); return ok })
	after, chunksAfter := l.snapshotNow(5, next, term)
	announced := func(m raftpb.Message, cs raftpb.ConfState) raftpb.Message {
		s := *m.Snapshot
		s.Metadata.ConfState = cs
		m.Snapshot = &s
		return m
	}
	promoted := after.Snapshot.Metadata.ConfState
	promoted.Voters, promoted.Learners = append([]uint64{uint64(next)}, promoted.Voters...), nil
	for _, s := range []struct {
		name   string
		m      raftpb.Message
		chunks [][]byte
	}{
		{"which does not list the receiver", before, chunks},
		{"announced with the configuration of later on", announced(before, after.Snapshot.Metadata.ConfState), chunks},
		{"announced with the configuration of before", announced(after, before.Snapshot.Metadata.ConfState), chunksAfter},
		{"announced with another role for the receiver", announced(after, promoted), chunksAfter},
	} {
		if err := to.receive(l.id, 5, s.m, s.chunks); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("a snapshot %s: %v", s.name, err)
		}
	}
	c.runFor(300 * time.Millisecond)
	if to.machine(5).state != nil || to.machine(5).installs != 0 || to.host.snapshotsIn.Load() != 0 {
		t.Error("something of it was taken")
	}
	c.filter = nil
	c.mustAgree(5)
}

// A snapshot with a chunk missing, doubled, out of order, cut or changed is refused,
// and one of an older index than what is there changes nothing: in both cases the
// replica stays as it is, and its slot is free for the next one.
func TestSnapshotTornOrOlderAfterNewer(t *testing.T) {
	c := newCluster(t, 122, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	far := c.node(l.id%3 + 1)
	to := shard.ReplicaID(far.id)
	older, olderChunks := l.snapshotNow(5, to, l.machine(5).leadership.Term)
	c.leaveBehind(5, far, 10<<10)
	l = c.waitLeader(5)
	term := l.machine(5).leadership.Term
	newer, chunks := l.snapshotNow(5, to, term)
	if len(chunks) < 4 {
		t.Fatalf("%d chunks", len(chunks))
	}
	behind := far.machine(5).Applied()
	spoilt := append([]byte(nil), chunks[2]...)
	spoilt[len(spoilt)/2] ^= 1
	n := len(chunks)
	for name, torn := range map[string][][]byte{
		"without its first chunk":      chunks[1:],
		"without its last chunk":       chunks[:n-1],
		"without a chunk":              append(append([][]byte{}, chunks[:1]...), chunks[2:]...),
		"with a chunk doubled":         append(append([][]byte{}, chunks[:2]...), chunks[1:]...),
		"with two chunks exchanged":    append([][]byte{chunks[0], chunks[2], chunks[1]}, chunks[3:]...),
		"with a chunk changed":         append(append([][]byte{}, chunks[0], chunks[1], spoilt), chunks[3:]...),
		"with a chunk cut":             append(append([][]byte{}, chunks[0], chunks[1][:len(chunks[1])-1]), chunks[2:]...),
		"with the chunks of an older":  append(append([][]byte{}, chunks[:n-1]...), olderChunks[len(olderChunks)-1]),
		"of an older index in its way": olderChunks,
	} {
		if err := far.receive(l.id, 5, newer, torn); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("a snapshot %s: %v", name, err)
		}
		if far.group(5).receiving.Load() || far.host.snapshotsIn.Load() != 0 {
			t.Fatalf("a snapshot %s: its slot is not free", name)
		}
	}
	c.runFor(500 * time.Millisecond)
	if m := far.machine(5); m.installs != 0 || m.Applied() != behind {
		t.Errorf("%d installed, applied %+v, before %+v", m.installs, m.Applied(), behind)
	}
	if err := far.receive(l.id, 5, newer, chunks); err != nil {
		t.Fatal(err)
	}
	c.until("it is installed", func() bool { return far.machine(5).installs == 1 && !far.machine(5).installing })
	at := far.machine(5).Applied()
	hash := far.machine(5).hash()
	older.Term = term
	c.until("it is known how far it is", func() bool { return far.group(5).Status().Applied >= at.Index })
	for range 3 {
		// The sender learns from an answer of raft's how far the replica is.
		answered := uint64(0)
		c.sending = func(from *testNode, e *envelope) {
			if from == far && e.msg.Type == raftpb.MsgAppResp && !e.msg.Reject {
				answered = e.msg.Index
			}
		}
		if err := far.receive(l.id, 5, older, olderChunks); !errors.Is(err, shard.ErrDropped) || !strings.Contains(err.Error(), "has applied") {
			t.Fatal(err)
		}
		if far.group(5).receiving.Load() || far.host.snapshotsIn.Load() != 0 {
			t.Fatal("its slot is not free")
		}
		c.until("it is answered", func() bool { return answered >= at.Index })
		c.sending = nil
	}
	if m := far.machine(5); m.installs != 1 || m.Applied() != at || m.hash() != hash {
		t.Errorf("an older snapshot: %d installed, applied %+v, before %+v", m.installs, m.Applied(), at)
	}
	far.crash()
	far.start()
	if m := far.machine(5); m.Applied() != at || m.hash() != hash {
		t.Errorf("after a crash: applied %+v, before %+v", m.Applied(), at)
	}
	c.heal()
	c.put(5, fmt.Sprintf("k=%d", 7))
	c.mustAgree(5)
}
