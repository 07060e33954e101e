package raftgroup

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// receivedSnapshot is a snapshot all of whose chunks are here.
type receivedSnapshot struct {
	node  shard.NodeID
	msg   raftpb.Message
	data  *storage.Import
	state storage.ReplicaState
	// release gives the reserved span back; nil: none is reserved yet.
	release func()

	responses []raftpb.Message // of the MsgStorageAppend that installs it
	old       shard.Span       // that the replica covered before
}

// ReceiveSnapshot opens a sink for a snapshot, or refuses it. One snapshot per
// group is received at a time.
func (h *Host) ReceiveSnapshot(from shard.NodeID, header []byte) (SnapshotSink, error) {
	e, rest, err := nextMessage(header)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 || !e.raft() || e.msg.Type != raftpb.MsgSnap {
		return nil, fmt.Errorf("%w: the header of a snapshot is not one MsgSnap", shard.ErrMalformed)
	}
	g := h.addressee(from, &e)
	if g == nil {
		return nil, fmt.Errorf("replica %d of shard %d is not here: %w", e.to, e.shard, shard.ErrUnavailable)
	}
	if h.snapshotsIn.Add(1) > snapshotsInMax {
		h.snapshotsIn.Add(-1)
		return nil, shard.ErrBusy
	}
	if !g.receiving.CompareAndSwap(false, true) {
		h.snapshotsIn.Add(-1)
		return nil, fmt.Errorf("another snapshot for shard %d is under way: %w", e.shard, shard.ErrBusy)
	}
	data, err := h.engine.NewImport(e.shard, e.to)
	if err != nil {
		g.doneReceiving()
		return nil, err
	}
	return &snapshotSink{g: g, s: &receivedSnapshot{node: from, msg: e.msg, data: data}}, nil
}

// snapshotSink is used by one goroutine of the transport, outside the turn.
type snapshotSink struct {
	g    *Group
	s    *receivedSnapshot
	once sync.Once
}

func (k *snapshotSink) Add(chunk []byte) error { return k.s.data.Add(chunk) }

// Finish checks the snapshot and hands it to the group. Its message is in the
// mailbox before the sender learns that it arrived, and so before any append
// that relies on it.
func (k *snapshotSink) Finish() error {
	state, err := k.s.data.Finish()
	if err == nil {
		err = k.s.check(k.g.shard, state)
	}
	if err != nil {
		k.Abort(err)
		return err
	}
	k.s.state = state
	err = shard.ErrUnavailable // if it was aborted meanwhile
	k.once.Do(func() { err = k.hand() })
	return err
}

// hand reserves the snapshot's span and gives the snapshot to the group. From the
// moment raft may accept it, no other replica of this node may come to cover a
// part of its span: installing it would remove that one's data.
func (k *snapshotSink) hand() error {
	release, err := k.g.h.cfg.ReserveSpan(&k.s.state)
	if err != nil {
		k.g.abandonSnapshot(k.s)
		return err
	}
	k.s.release = release
	return k.g.pushSnapshot(k.s)
}

func (k *snapshotSink) Abort(error) {
	k.once.Do(func() { k.g.abandonSnapshot(k.s) })
}

// check compares the data's state with the message that announced it: raft
// takes its word for index, term and configuration.
func (s *receivedSnapshot) check(id shard.ID, state storage.ReplicaState) error {
	md := &s.msg.Snapshot.Metadata
	if state.Descriptor.ID != id || state.Applied != md.Index || state.AppliedTerm != md.Term {
		return fmt.Errorf("%w: a snapshot of shard %d at (%d, %d) was announced as shard %d at (%d, %d)", shard.ErrMalformed,
			state.Descriptor.ID, state.Applied, state.AppliedTerm, id, md.Index, md.Term)
	}
	if err := md.ConfState.Equivalent(confState(state.Descriptor.Replicas)); err != nil {
		return fmt.Errorf("%w: the snapshot's configuration is not its descriptor's: %w", shard.ErrMalformed, err)
	}
	if _, ok := state.Descriptor.Replica(shard.ReplicaID(s.msg.To)); !ok {
		return fmt.Errorf("%w: the snapshot's configuration does not list its receiver %d", shard.ErrMalformed, s.msg.To)
	}
	return nil
}

func (g *Group) pushSnapshot(s *receivedSnapshot) error {
	g.box.mu.Lock()
	if err := g.box.closed; err != nil {
		g.box.mu.Unlock()
		g.abandonSnapshot(s)
		return err
	}
	g.box.snapshot = s
	g.unlockAndWake()
	return nil
}

// stepSnapshot gives raft the message; a Ready with the snapshot follows unless
// raft has no use for it.
func (g *Group) stepSnapshot(s *receivedSnapshot) {
	if !g.heardFrom(shard.ReplicaID(s.msg.From), s.node) {
		g.abandonSnapshot(s)
		return
	}
	g.heardLeader(&s.msg)
	g.candidate = s
	_ = g.rn.Step(s.msg)
}

// abandonSnapshot gives a snapshot up, or lets go of an installed one.
func (g *Group) abandonSnapshot(s *receivedSnapshot) {
	if s.release != nil {
		s.release()
	}
	if err := s.data.Close(); err != nil {
		g.h.log.Warn("a received snapshot could not be removed", "shard", uint64(g.shard), "error", err)
	}
	g.doneReceiving()
}

func (g *Group) doneReceiving() {
	g.receiving.Store(false)
	g.h.snapshotsIn.Add(-1)
}
