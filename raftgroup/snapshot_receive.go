package raftgroup

import (
	"errors"
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
	large bool
	data  *storage.Import
	state storage.ReplicaState
	// release gives the reserved span back; nil: none is reserved yet.
	release func()

	responses []raftpb.Message // of the MsgStorageAppend that installs it
	old       shard.Span       // that the replica covered before
}

// ReceiveSnapshot opens a sink for a snapshot, or refuses it. One snapshot per
// group is received at a time, a few large ones per node, and none for a while after
// the disk was found to be full.
func (h *Host) ReceiveSnapshot(from shard.NodeID, header []byte, large bool) (SnapshotSink, error) {
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
	if err := g.refuseOlder(from, &e); err != nil {
		return nil, err
	}
	if len(e.startKey) > 0 && h.cfg.Covers(e.shard, e.startKey) {
		// The split that made the shard, or the end of another replica, is on its way here.
		// ReserveSpan would find out, when all has been sent.
		return nil, fmt.Errorf("a replica of another shard covers where shard %d starts: %w", e.shard, shard.ErrBusy)
	}
	if err := g.reserveReceiving(large); err != nil {
		return nil, err
	}
	data, err := h.engine.NewImport(e.shard, e.to)
	if err != nil {
		g.doneReceiving(large)
		return nil, err
	}
	return &snapshotSink{g: g, s: &receivedSnapshot{node: from, msg: e.msg, large: large, data: data}}, nil
}

// refuseOlder refuses a snapshot that holds nothing new before its data is sent. Raft
// is given what the snapshot says of the sender's log, as an append without entries: by
// its answer the sender learns how far this replica is. Without an answer it would send
// the same snapshot again.
func (g *Group) refuseOlder(from shard.NodeID, e *envelope) error {
	md := &e.msg.Snapshot.Metadata
	applied := g.Status().Applied
	if md.Index > applied {
		return nil
	}
	g.pushMessage(incoming{node: from, msg: raftpb.Message{Type: raftpb.MsgApp, From: e.msg.From, To: e.msg.To, Term: e.msg.Term,
		Index: md.Index, LogTerm: md.Term}})
	return fmt.Errorf("the snapshot is at index %d, and replica %d of shard %d has applied %d: %w", md.Index, e.to, e.shard, applied, shard.ErrDropped)
}

// reserveReceiving takes one of the host's places for snapshots, and the group's.
// ErrBusy: not now.
func (g *Group) reserveReceiving(large bool) error {
	h := g.h
	if large && h.ticks.Load() < h.diskFull.Load() {
		return fmt.Errorf("the disk of node %d was full a moment ago: %w", h.cfg.Node, shard.ErrBusy)
	}
	if h.snapshotsIn.Add(1) > snapshotsInMax {
		h.snapshotsIn.Add(-1)
		return fmt.Errorf("%d snapshots are being received: %w", snapshotsInMax, shard.ErrBusy)
	}
	if large && h.largeIn.Add(1) > largeSnapshotsInMax {
		h.snapshotsIn.Add(-1)
		h.largeIn.Add(-1)
		return fmt.Errorf("%d large snapshots are being received: %w", largeSnapshotsInMax, shard.ErrBusy)
	}
	if !g.receiving.CompareAndSwap(false, true) {
		h.snapshotsIn.Add(-1)
		if large {
			h.largeIn.Add(-1)
		}
		return fmt.Errorf("another snapshot for shard %d is under way: %w", g.shard, shard.ErrBusy)
	}
	return nil
}

func (g *Group) doneReceiving(large bool) {
	g.receiving.Store(false)
	g.h.snapshotsIn.Add(-1)
	if large {
		g.h.largeIn.Add(-1)
	}
}

// snapshotSink is used by one goroutine of the transport, outside the turn.
type snapshotSink struct {
	g    *Group
	s    *receivedSnapshot
	once sync.Once
}

// Add takes the next chunk. An error of the disk, which a full one is, refuses the
// snapshot and nothing else: what was written of it is removed, and the store is as
// it was.
func (k *snapshotSink) Add(chunk []byte) error {
	err := k.s.data.Add(chunk)
	switch {
	case err == nil && !k.s.large && !k.s.data.Small():
		return fmt.Errorf("%w: a snapshot of shard %d is larger than was announced", shard.ErrMalformed, k.g.shard)
	case err == nil || errors.Is(err, shard.ErrMalformed):
		return err
	}
	k.g.h.diskFull.Store(k.g.h.ticks.Load() + diskFullTicks)
	k.g.h.log.Error("a snapshot cannot be written, and is refused", "shard", uint64(k.g.shard), "error", err)
	return fmt.Errorf("the disk of node %d: %w: %w", k.g.h.cfg.Node, err, shard.ErrBusy)
}

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
		k.g.giveUpSnapshot(k.s)
		return err
	}
	k.s.release = release
	return k.g.pushSnapshot(k.s)
}

func (k *snapshotSink) Abort(error) {
	k.once.Do(func() { k.g.giveUpSnapshot(k.s) })
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
		g.giveUpSnapshot(s)
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
		g.giveUpSnapshot(s)
		return
	}
	g.heardLeader(&s.msg)
	g.candidate = s
	_ = g.rn.Step(s.msg)
}

// giveUpSnapshot lets go of a snapshot that is not installed.
func (g *Group) giveUpSnapshot(s *receivedSnapshot) {
	g.h.stats.snapshotsGivenUp.Add(1)
	g.releaseSnapshot(s)
}

// releaseSnapshot lets go of a snapshot, its files, its span and its place.
func (g *Group) releaseSnapshot(s *receivedSnapshot) {
	if s.release != nil {
		s.release()
	}
	if err := s.data.Close(); err != nil {
		g.h.log.Warn("a received snapshot could not be removed", "shard", uint64(g.shard), "error", err)
	}
	g.doneReceiving(s.large)
}
