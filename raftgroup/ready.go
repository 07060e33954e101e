package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

// takeReady takes one Ready, if there is one: it sends what may leave at once
// and stages the rest for the round.
func (g *Group) takeReady(r *round) {
	g.publishTerm()
	if !g.rn.HasReady() {
		return
	}
	g.h.stats.readies.Add(1)
	rd := g.rn.Ready()
	commit := g.rn.BasicStatus().Commit
	moved := commit > g.commitSeen
	g.commitSeen = commit
	for i := range rd.Messages {
		m := &rd.Messages[i]
		switch m.Type {
		case raftpb.MsgStorageAppend:
			if g.stageAppend(r, m); g.dead != nil {
				return
			}
		case raftpb.MsgStorageApply:
			r.applies = append(r.applies, applyWork{g: g, msg: *m})
		case raftpb.MsgSnap:
			g.sendSnapshot(m)
		default:
			if superseded(m, rd.Messages[i+1:]) || g.leftToNext(m, moved) {
				continue
			}
			// A leader's appends overtake its own fsync here. What must follow a
			// fsync comes as a response of MsgStorageAppend instead.
			if !g.send(m) && m.Type == raftpb.MsgApp {
				g.rn.ReportUnreachable(m.To)
			}
		}
	}
	for _, s := range rd.ReadStates {
		g.readIndexed(s)
	}
}

// superseded tells whether an append without entries, which only tells of a
// commit index, says nothing that a later message of the same Ready does not say
// too. An empty append changes nothing of what raft believes of the follower, so
// the later one begins where it does. Not sending it spares each entry of a busy
// group a second message and its answer for every follower.
func superseded(m *raftpb.Message, later []raftpb.Message) bool {
	if m.Type != raftpb.MsgApp || len(m.Entries) > 0 {
		return false
	}
	for i := range later {
		if l := &later[i]; l.Type == raftpb.MsgApp && l.To == m.To && l.Term == m.Term && l.Index == m.Index && l.Commit >= m.Commit {
			return true
		}
	}
	return false
}

// leftToNext tells whether an append only tells of a commit, of this Ready, and the
// next entry, which is about to be proposed, can do that as well. If it is not proposed
// after all, the next heartbeat tells. A probe is no such append: raft waits for its
// answer. Nor is one that tells of no new commit: raft sends it to learn from its
// refusal that an earlier one was lost, and what is expected may be waiting for that.
// Nor one to a follower that owes so many answers that raft holds entries back: the
// next one does not go there, and if all that it owes was lost nothing else finds out.
func (g *Group) leftToNext(m *raftpb.Message, moved bool) bool {
	if !moved || m.Type != raftpb.MsgApp || len(m.Entries) > 0 || !g.machine.Expecting() {
		return false
	}
	replicating := false
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		replicating = replicating || id == m.To && pr.State == tracker.StateReplicate && !pr.MsgAppFlowPaused
	})
	return replicating
}

// stageAppend stages what a MsgStorageAppend writes. Its responses are decided
// on when the round's batch is committed.
func (g *Group) stageAppend(r *round, m *raftpb.Message) {
	if m.Snapshot != nil {
		if g.stageInstall(r, m); g.dead != nil {
			return
		}
	}
	g.stageHardState(r, m)
	if len(m.Entries) > 0 {
		if g.parked {
			panic("raftgroup: entries appended together with a large snapshot")
		}
		// Append deletes every entry above the last one in the same batch.
		g.log.Append(r.batch(), m.Entries)
		if slices.ContainsFunc(m.Entries, func(e raftpb.Entry) bool { return e.Type == raftpb.EntryConfChangeV2 }) {
			// Whoever proposed it had applied the change before it, and its message said
			// that this one is committed. A replica that held the second one after a
			// crash and did not know that would stand for election by voters of before.
			hs := g.saved
			hs.Commit = g.rn.BasicStatus().Commit
			g.log.SetHardState(r.batch(), hs)
		}
		g.markUncovered(r)
	}
	if len(m.Responses) > 0 && !g.parked {
		r.waiting = append(r.waiting, delivery{g: g, instance: g.instance, msgs: m.Responses})
	}
}

// changedHardState tells whether a MsgStorageAppend has a term or vote to save.
//
// A commit index that has moved is not worth a write: it is known again from
// the applied index, or from the next leader. So the record exceeds the applied
// index only where a membership change is appended (stageAppend), and in
// particular does not speak of a snapshot that is not installed yet.
func (g *Group) changedHardState(m *raftpb.Message) (hs raftpb.HardState, changed bool) {
	hs = raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if raft.IsEmptyHardState(hs) || hs.Term == g.saved.Term && hs.Vote == g.saved.Vote {
		return hs, false
	}
	hs.Commit = g.applied.Index
	g.saved = hs
	return hs, true
}

func (g *Group) stageHardState(r *round, m *raftpb.Message) {
	if hs, changed := g.changedHardState(m); changed {
		g.log.SetHardState(r.batch(), hs)
		g.markUncovered(r)
	}
}

// markUncovered notes a write that must be durable before any later response of
// the group.
func (g *Group) markUncovered(r *round) {
	g.uncovered = true
	if n := len(r.writers); n == 0 || r.writers[n-1] != g {
		r.writers = append(r.writers, g)
	}
}

// send hands a message to the transport and tells whether it was taken.
func (g *Group) send(m *raftpb.Message) bool {
	node := g.nodeOf(shard.ReplicaID(m.To))
	var key []byte
	if m.Type == raftpb.MsgApp {
		key = g.probeKey()
	}
	if node == 0 || !g.h.sendTo(node, g.shard, key, m) {
		g.h.stats.messagesDropped.Add(1)
		return false
	}
	g.h.stats.messages.Add(1)
	return true
}
