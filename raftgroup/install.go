package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// installedSnapshot is the end of a large installation.
type installedSnapshot struct {
	snapshot *receivedSnapshot
	err      error
}

// stageInstall begins to install the snapshot that raft has accepted, before
// anything else of its MsgStorageAppend.
//
// A small one is committed at once, as a batch of its own that also has term
// and vote; the round's sync, which its responses wait for, covers it.
//
// A large one is ingested, and an ingest is outside the WAL's order. So the
// group is parked: term and vote are synced first, then the ingest runs on a
// queue of its own, then the responses are delivered. Nothing later of the
// group is stepped or appended before.
func (g *Group) stageInstall(r *round, m *raftpb.Message) {
	s := g.candidate
	if s == nil || m.Snapshot.Metadata.Index != s.state.Applied {
		panic(fmt.Sprintf("raftgroup: shard %d installs a snapshot at %d that was not received", g.shard, m.Snapshot.Metadata.Index))
	}
	g.candidate, g.install = nil, s
	g.machine.InstallBegin()
	old, ok, err := g.h.engine.ReplicaState(g.shard)
	if err == nil && ok {
		s.old = old.Descriptor.Span
	}
	if err == nil && s.data.Small() {
		err = g.installSmall(r, m)
	}
	switch {
	case err != nil:
		g.failInstall(err)
	case s.data.Small():
		g.takeOver(s)
		g.markUncovered(r)
	default:
		g.stageHardState(r, m)
		g.markUncovered(r)
		g.parked = true
		s.responses = m.Responses
		r.waiting = append(r.waiting, delivery{g: g, install: s})
	}
}

func (g *Group) installSmall(r *round, m *raftpb.Message) error {
	b := g.h.engine.NewBatch()
	if err := g.install.data.StageInstall(b, g.install.old); err != nil {
		b.Close()
		return err
	}
	if hs, changed := g.changedHardState(m); changed {
		g.log.SetHardState(b, hs)
	}
	return g.h.engine.Commit(b)
}

// failInstall stops the replica; stop ends the installation.
func (g *Group) failInstall(err error) { g.fail(fmt.Errorf("install snapshot: %w", err)) }

// ingest installs a large snapshot. It runs on the ingest queue.
func (g *Group) ingest(s *receivedSnapshot) {
	h := g.h
	h.installing.RLock()
	defer h.installing.RUnlock()
	if h.closed.Load() {
		return // shutDown lets go of the snapshot
	}
	err := s.data.Install(s.old)
	g.box.mu.Lock()
	if g.box.closed != nil {
		g.box.mu.Unlock()
		return
	}
	// The group stayed queued while it was parked, so that nothing else could
	// wake it: only this puts it back into the run queue.
	g.box.installed = &installedSnapshot{snapshot: s, err: err}
	g.box.mu.Unlock()
	g.w.enqueue(g)
}

// finishInstall is the parked group's next turn.
func (g *Group) finishInstall(i *installedSnapshot) {
	g.parked = false
	s := i.snapshot
	if i.err != nil {
		g.failInstall(i.err)
		return
	}
	g.takeOver(s)
	d := delivery{g: g, instance: g.instance, msgs: s.responses}
	d.deliver()
}

// takeOver makes the installed state the group's.
func (g *Group) takeOver(s *receivedSnapshot) {
	g.install = nil
	g.log.Reset(s.state.Applied, s.state.AppliedTerm)
	g.applied = Position{Index: s.state.Applied, Term: s.state.AppliedTerm}
	state := s.state
	g.machine.InstallEnd(&state)
	g.loadPeers()
	g.skipPending()
	g.releaseSnapshot(s)
	g.h.stats.snapshotsTaken.Add(1)
	g.h.initialized(g)
}
