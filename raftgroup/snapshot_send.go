package raftgroup

import (
	"fmt"
	"io"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// openedSnapshot is a view that raft was told of and that its MsgSnap will name.
type openedSnapshot struct {
	snapshot *storage.Snapshot
	index    uint64
	members  []Member
}

// outgoingSnapshot is one that the transport sends.
type outgoingSnapshot struct {
	to    shard.ReplicaID
	index uint64
	since uint64 // the group's clock
}

// openSnapshot is raft.Storage.Snapshot. It runs on the group's turn, within a
// Step, and takes constant time. Index, term and configuration come from the
// same view as the data that will be sent. Each call that succeeds leads to
// exactly one MsgSnap, in the same order.
func (g *Group) openSnapshot() (raftpb.Snapshot, error) {
	h := g.h
	if len(g.opened)+len(g.outgoing) >= snapshotsPerGroupMax {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	if h.snapshotsOut.Add(1) > snapshotsOutMax {
		h.snapshotsOut.Add(-1)
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	view := h.engine.NewSnapshot()
	state, ok, err := view.State(g.shard)
	if err != nil || !ok {
		_ = view.Close()
		h.snapshotsOut.Add(-1)
		if err != nil {
			h.log.Error("a snapshot could not be opened", "shard", uint64(g.shard), "error", err)
		}
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable // raft panics on others
	}
	g.opened = append(g.opened, openedSnapshot{snapshot: view, index: state.Applied, members: state.Descriptor.Replicas})
	var s raftpb.Snapshot
	s.Metadata.Index, s.Metadata.Term = state.Applied, state.AppliedTerm
	s.Metadata.ConfState = confState(state.Descriptor.Replicas)
	return s, nil
}

// sendSnapshot hands a MsgSnap and its view to the transport. raft must be told
// the end in every case: a follower in StateSnapshot never times out.
func (g *Group) sendSnapshot(m *raftpb.Message) {
	if len(g.opened) == 0 || g.opened[0].index != m.Snapshot.Metadata.Index {
		panic(fmt.Sprintf("raftgroup: shard %d sends a snapshot at %d that was not opened", g.shard, m.Snapshot.Metadata.Index))
	}
	s := g.opened[0]
	g.opened = g.opened[1:]
	to := shard.ReplicaID(m.To)
	out := &outgoingSnapshot{to: to, index: s.index, since: g.clock}
	node := g.nodeOf(to)
	if refused := g.refuseSnapshot(to, node, s.members); refused != nil {
		_ = s.snapshot.Close()
		g.outgoing = append(g.outgoing, out)
		g.reportSnapshot(out, refused)
		return
	}
	g.outgoing = append(g.outgoing, out)
	g.h.stats.snapshotsSent.Add(1)
	header := appendMessage(nil, g.shard, m, messageBytes(g.shard, m))
	g.h.transport.SendSnapshot(node, header, &exportSource{shard: g.shard, view: s.snapshot},
		func(err error) { g.reportSnapshot(out, err) })
}

func (g *Group) refuseSnapshot(to shard.ReplicaID, node shard.NodeID, members []Member) error {
	listed := false
	for _, m := range members {
		listed = listed || m.ID == to
	}
	switch {
	case node == 0:
		return fmt.Errorf("the node of replica %d is not known", to)
	case !listed:
		return fmt.Errorf("the snapshot's configuration does not list replica %d", to)
	}
	for _, o := range g.outgoing {
		if o.to == to {
			return fmt.Errorf("a snapshot to replica %d is under way", to)
		}
	}
	return nil
}

// reportSnapshot ends an outgoing snapshot. Safe outside the turn.
func (g *Group) reportSnapshot(out *outgoingSnapshot, err error) {
	g.h.snapshotsOut.Add(-1)
	g.pushControl(control{
		run: func() {
			for i, o := range g.outgoing {
				if o == out {
					g.outgoing = append(g.outgoing[:i], g.outgoing[i+1:]...)
					break
				}
			}
			status := raft.SnapshotFinish
			if err != nil {
				status = raft.SnapshotFailure
				g.h.log.Info("a snapshot was not sent", "shard", uint64(g.shard), "to", uint64(out.to), "error", err)
			}
			g.rn.ReportSnapshot(uint64(out.to), status)
		},
		abandon: func(error) {},
	})
}

// exportSource reads a view's chunks. The export is opened by the first Next,
// which is where the disk is first touched.
type exportSource struct {
	shard  shard.ID
	view   *storage.Snapshot
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
	return s.export.Next()
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
