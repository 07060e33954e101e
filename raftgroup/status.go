package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

// Status of a replica.
type Status struct {
	Shard                 shard.ID
	Replica               shard.ReplicaID
	Term                  uint64
	Leader                shard.ReplicaID
	LeaderNode            shard.NodeID
	Leading               bool
	Last, Commit, Applied uint64
	First                 uint64
	LogBytes              int64
	Progress              []Progress // of a leader, in order of replica
	Err                   error      // why it stopped
}

// Progress is what a leader knows of one member.
type Progress struct {
	Replica  shard.ReplicaID
	Match    uint64
	Active   bool // heard from within the last election timeout
	Snapshot bool // is being sent a snapshot
	// SnapshotBytes of it were sent.
	SnapshotBytes uint64
}

// Status is a copy of what the group last published, refreshed at least once a
// tick interval when it changes. The slice is shared: do not modify it.
func (g *Group) Status() Status { return *g.status.Load() }

// publishStatus stores a new Status if it differs. A busy group's changes with
// every turn, so that only the turns of ticks and of leadership changes publish.
func (g *Group) publishStatus() {
	old := g.status.Load()
	l := g.leadership
	if g.dead == nil && g.published == g.clock && old.Term == l.Term && old.Leader == l.Leader && old.Leading == l.Leading && g.clock > 0 {
		return
	}
	g.published = g.clock
	s := Status{Shard: g.shard, Replica: g.replica, Term: l.Term, Leader: l.Leader, LeaderNode: l.Node,
		Leading: l.Leading, Applied: g.applied.Index, Err: g.dead}
	if g.dead == nil {
		s.Commit = g.rn.BasicStatus().Commit
		s.First, _ = g.log.FirstIndex()
		s.Last, _ = g.log.LastIndex()
		s.LogBytes = g.log.Bytes()
		if _, leads := g.leads(); leads {
			g.progress(&s)
		}
	}
	if !sameStatus(old, &s) {
		g.status.Store(&s)
	}
}

func (g *Group) progress(s *Status) {
	s.Progress = make([]Progress, 0, len(g.peers))
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		p := Progress{Replica: shard.ReplicaID(id), Match: pr.Match, Active: g.active(id), Snapshot: pr.State == tracker.StateSnapshot}
		if p.Snapshot {
			p.SnapshotBytes = g.snapshotBytes(p.Replica)
		}
		s.Progress = append(s.Progress, p)
	})
	slices.SortFunc(s.Progress, func(a, b Progress) int { return int(int64(a.Replica) - int64(b.Replica)) })
}

func sameStatus(a, b *Status) bool {
	return a.Term == b.Term && a.Leader == b.Leader && a.LeaderNode == b.LeaderNode && a.Leading == b.Leading &&
		a.Last == b.Last && a.Commit == b.Commit && a.Applied == b.Applied && a.First == b.First &&
		a.LogBytes == b.LogBytes && a.Err == b.Err && slices.Equal(a.Progress, b.Progress)
}

// active tells whether a message of the replica came within the last election
// timeout. raft's own flag is reset once in that time.
func (g *Group) active(id uint64) bool {
	if id == uint64(g.replica) {
		return true
	}
	p := g.peer(shard.ReplicaID(id))
	return p != nil && g.clock-p.heard <= uint64(g.h.cfg.ElectionTicks)
}
