package raftgroup

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// outgoingSnapshot is a MsgSnap of raft's from its making until its receiver has
// caught up. It waits in the transport's line; when its turn comes a view is opened;
// it is sent; it has landed, or not. It may wait for as long as it must: what is sent
// is as new as the view, and while it waits it holds nothing back, neither the log nor
// what the engine would drop.
type outgoingSnapshot struct {
	g    *Group
	to   shard.ReplicaID
	node shard.NodeID
	msg  raftpb.Message // as raft made it

	// index is the applied index of the view that is being sent, or a lower one; 0
	// while there is none.
	index atomic.Uint64
	// sent is how many bytes of chunks were read to be sent, since the view was opened.
	sent atomic.Uint64

	// Of the group's turn; times are the group's clock.
	opened   uint64 // when a view was first seen; 0: not yet
	landed   uint64 // when the receiver was known to have it; 0: not yet
	reported bool   // raft knows the end
}

// openSnapshot is raft.Storage.Snapshot. It runs on the group's turn, within a
// Step. Only the receiver's progress depends on what it says: what is sent is read
// when its turn has come, and is never older.
func (g *Group) openSnapshot() (raftpb.Snapshot, error) {
	d := g.machine.Descriptor()
	if d == nil || g.unreportedSnapshots() >= snapshotsPerGroupMax {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	if g.h.snapshotsOut.Load() >= snapshotsOutMax {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable // raft panics on others
	}
	var s raftpb.Snapshot
	s.Metadata.Index, s.Metadata.Term = g.applied.Index, g.applied.Term
	s.Metadata.ConfState = confState(d.Replicas)
	return s, nil
}

func (g *Group) unreportedSnapshots() (n int) {
	for _, o := range g.outgoing {
		if !o.reported {
			n++
		}
	}
	return n
}

// sendSnapshot puts a MsgSnap in the transport's line. raft must be told the end in
// every case: a follower in StateSnapshot never times out.
func (g *Group) sendSnapshot(m *raftpb.Message) {
	to := shard.ReplicaID(m.To)
	out := &outgoingSnapshot{g: g, to: to, node: g.nodeOf(to), msg: *m}
	refused := g.refuseSnapshot(out)
	g.outgoing = slices.DeleteFunc(g.outgoing, func(o *outgoingSnapshot) bool { return o.to == to && o.reported })
	g.outgoing = append(g.outgoing, out)
	g.h.snapshotsOut.Add(1)
	if refused != nil {
		out.end(refused)
		return
	}
	g.h.transport.SendSnapshot(out.node, out.open, out.end)
}

func (g *Group) refuseSnapshot(out *outgoingSnapshot) error {
	if out.node == 0 {
		return fmt.Errorf("the node of replica %d is not known", out.to)
	}
	for _, o := range g.outgoing {
		if o.to == out.to && !o.reported {
			return fmt.Errorf("a snapshot to replica %d is under way", out.to)
		}
	}
	return nil
}

// open opens a view when the snapshot's turn in the line has come. Index, term,
// configuration and data all come from it. It runs outside the group's turn, and may
// read the disk.
func (o *outgoingSnapshot) open() (OutgoingSnapshot, error) {
	g := o.g
	if g.h.closed.Load() || g.Status().Err != nil {
		return OutgoingSnapshot{}, shard.ErrUnavailable
	}
	// Truncation must not pass the view between its opening and this being known.
	o.index.Store(max(g.Status().Applied, 1))
	o.sent.Store(0)
	view := g.h.engine.NewSnapshot()
	opened, err := o.look(view)
	if err != nil {
		o.index.Store(0)
		_ = view.Close()
		return OutgoingSnapshot{}, err
	}
	return opened, nil
}

func (o *outgoingSnapshot) look(view *storage.Snapshot) (OutgoingSnapshot, error) {
	g := o.g
	state, ok, err := view.State(g.shard)
	switch {
	case err != nil:
		return OutgoingSnapshot{}, err
	case !ok:
		return OutgoingSnapshot{}, fmt.Errorf("the replica was removed: %w", shard.ErrUnavailable)
	case g.Term() != o.msg.Term || state.AppliedTerm > o.msg.Term:
		// A leader's word counts in its own term. In a later one somebody else knows
		// better what the receiver lacks.
		return OutgoingSnapshot{}, fmt.Errorf("term %d, in which the snapshot was asked for, has ended: %w", o.msg.Term, shard.ErrDropped)
	}
	if m, listed := state.Descriptor.Replica(o.to); !listed || m.Node != o.node {
		return OutgoingSnapshot{}, fmt.Errorf("the snapshot's configuration does not list replica %d: %w", o.to, shard.ErrDropped)
	}
	small, err := view.Small(g.shard)
	if err != nil {
		return OutgoingSnapshot{}, err
	}
	m := o.msg
	m.Snapshot = &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{
		Index: state.Applied, Term: state.AppliedTerm, ConfState: confState(state.Descriptor.Replicas)}}
	o.index.Store(state.Applied)
	return OutgoingSnapshot{
		Header: appendMessage(nil, g.shard, nil, &m, messageBytes(g.shard, nil, &m)),
		Large:  !small,
		Chunks: &exportSource{shard: g.shard, view: view, sent: &o.sent},
	}, nil
}

// end is the transport's report. Safe outside the turn.
func (o *outgoingSnapshot) end(err error) {
	g := o.g
	g.h.snapshotsOut.Add(-1)
	if err == nil {
		g.h.stats.snapshotsSent.Add(1)
	} else {
		g.h.stats.snapshotsUnsent.Add(1)
	}
	g.pushControl(control{
		run: func() {
			if err == nil {
				o.landed = max(g.clock, 1)
				return
			}
			g.h.log.Info("a snapshot was not sent", "shard", uint64(g.shard), "to", uint64(o.to), "error", err)
			g.outgoing = slices.DeleteFunc(g.outgoing, func(other *outgoingSnapshot) bool { return other == o })
			g.rn.ReportSnapshot(uint64(o.to), raft.SnapshotFailure)
		},
		abandon: func(error) {},
	})
}

// followSnapshots goes through the outgoing snapshots once per tick.
//
// One that has landed is reported to raft once the receiver's own word is here, or
// when that takes too long. Raft would else probe at the index of when it asked, which
// the log may not reach back to any more, and ask for another snapshot.
//
// It stays for a while, so that the log keeps what the receiver needs next.
func (g *Group) followSnapshots() {
	if len(g.outgoing) == 0 {
		return
	}
	_, leads := g.leads()
	g.outgoing = slices.DeleteFunc(g.outgoing, func(o *outgoingSnapshot) bool {
		if o.opened == 0 && o.index.Load() > 0 {
			o.opened = g.clock
		}
		if o.landed == 0 {
			return false
		}
		if !o.reported && (!g.awaitsSnapshot(o.to) || g.clock-o.landed >= uint64(g.h.cfg.ElectionTicks)) {
			o.reported = true
			g.rn.ReportSnapshot(uint64(o.to), raft.SnapshotFinish)
		}
		return o.reported && (!leads || g.clock-o.landed > catchUpHoldsTicks)
	})
}

// awaitsSnapshot tells whether raft waits for the end of a snapshot to a replica.
func (g *Group) awaitsSnapshot(id shard.ReplicaID) (waits bool) {
	g.rn.WithProgress(func(other uint64, _ raft.ProgressType, pr tracker.Progress) {
		waits = waits || other == uint64(id) && pr.State == tracker.StateSnapshot
	})
	return waits
}

// heldBack is the index that outgoing snapshots hold truncation back at; the largest
// one if none does. A receiver will ask for what follows its snapshot, and then for
// what follows what it has.
func (g *Group) heldBack() uint64 {
	held := ^uint64(0)
	for _, o := range g.outgoing {
		index := o.index.Load()
		switch {
		case index == 0:
			continue
		case o.landed > 0 && !g.active(uint64(o.to)):
			continue
		case o.landed > 0:
			index = max(index, g.match(o.to))
		case o.opened > 0 && g.clock-o.opened > snapshotHoldsTicks:
			continue
		}
		held = min(held, index)
	}
	return held
}

// snapshotBytes is how much was sent of the snapshot that is on its way to a replica.
func (g *Group) snapshotBytes(id shard.ReplicaID) uint64 {
	for _, o := range g.outgoing {
		if o.to == id && !o.reported {
			return o.sent.Load()
		}
	}
	return 0
}

// match is how far a replica's log is known to agree with this leader's; 0: unknown.
func (g *Group) match(id shard.ReplicaID) (match uint64) {
	g.rn.WithProgress(func(other uint64, _ raft.ProgressType, pr tracker.Progress) {
		if other == uint64(id) {
			match = pr.Match
		}
	})
	return match
}

// exportSource reads a view's chunks. The export is opened by the first Next,
// which is where the disk is first touched.
type exportSource struct {
	shard  shard.ID
	view   *storage.Snapshot
	sent   *atomic.Uint64
	export *storage.Export
	closed atomic.Bool
}

func (s *exportSource) Next() ([]byte, error) {
	if s.closed.Load() {
		return nil, io.ErrClosedPipe
	}
	if s.export == nil {
		x, err := s.view.Export(s.shard)
		if err != nil {
			return nil, err
		}
		s.export = x
	}
	chunk, err := s.export.Next()
	s.sent.Add(uint64(len(chunk)))
	return chunk, err
}

func (s *exportSource) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var err error
	if s.export != nil {
		err = s.export.Close()
	}
	if e := s.view.Close(); err == nil {
		err = e
	}
	return err
}
