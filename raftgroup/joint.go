package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

// A joint configuration needs two majorities, so it must not last: whoever asked for
// it may have died. Its leader leaves it, with nobody's help. Not at once: who asked
// does so first, as a rule. A leader that ceases to vote by leaving hands over
// before, to one that stays, at once.

// finishJoint is called with every tick.
func (g *Group) finishJoint() {
	if !g.joint {
		return
	}
	term, leads := g.leads()
	if !leads || g.mayChange(term) || g.transfer != nil {
		g.jointSince = g.clock
		return
	}
	if p := g.peer(g.replica); p == nil || p.role == role(shard.Outgoing) {
		if heir := g.heir(); heir != 0 && g.clock >= g.handover.at {
			g.handover.to(heir, g.clock, uint64(g.h.cfg.ElectionTicks))
			g.startTransfer(heir, func(error) {}) // if it fails another one is tried
		}
		return
	}
	if g.clock-g.jointSince < uint64(g.h.cfg.ElectionTicks) {
		return
	}
	g.jointSince = g.clock
	d := g.machine.Descriptor()
	m := &shard.MembershipChange{Shard: g.shard, Epoch: d.Epoch, Changes: []shard.Change{{Kind: shard.LeaveJoint}}}
	g.proposeMembership(term, m, func(err error) {
		if err != nil {
			g.h.log.Info("a joint configuration is not left yet", "shard", uint64(g.shard), "error", err)
		}
	})
}

// handover is how a leader that ceases to vote has tried to hand over since the
// configuration is joint. An heir that only this leader can hear looks as good as any,
// and wins no election; this leader would win the next one and choose it again.
type handover struct {
	tried shard.ReplicaID // the last heir
	at    uint64          // the group's clock at which to try the next one
	pause uint64
}

// handoverPauseTimeouts is the longest pause between two heirs, in election
// timeouts. An attempt that fails costs the shard an election.
const handoverPauseTimeouts = 16

func (h *handover) to(heir shard.ReplicaID, now, timeout uint64) {
	h.tried = heir
	h.pause = min(max(2*h.pause, timeout), handoverPauseTimeouts*timeout)
	h.at = now + h.pause
}

// heir is a voter that stays a voter and is caught up; 0: none is. The first is one that
// was a voter before, if there is any: a learner that has not applied the joint
// configuration yet does not know that it may campaign, and how far it has applied is not
// known here. Among equals it is the one whose log is the longest. Then they take turns in
// order of ID.
func (g *Group) heir() (best shard.ReplicaID) {
	f := g.followers()
	tried := g.handover.tried
	for _, p := range g.peers {
		if p.replica == g.replica || !p.role.stays() || !f.caughtUp(p.replica) {
			continue
		}
		switch {
		case best == 0,
			tried == 0 && f.rather(&p, g.peer(best)),
			tried != 0 && p.replica-tried-1 < best-tried-1: // IDs wrap: those above the last one come first
			best = p.replica
		}
	}
	return best
}

// rather tells whether a is a better first heir than b.
func (f *followers) rather(a, b *peer) bool {
	if old, other := a.role == role(shard.Voter), b.role == role(shard.Voter); old != other {
		return old
	}
	return f.of(a.replica).Match > f.of(b.replica).Match
}

// followers is what a leader knows of the members, at one moment.
type followers struct {
	g        *Group
	commit   uint64
	progress map[shard.ReplicaID]tracker.Progress
}

func (g *Group) followers() *followers {
	f := &followers{g: g, commit: g.rn.BasicStatus().Commit, progress: make(map[shard.ReplicaID]tracker.Progress)}
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { f.progress[shard.ReplicaID(id)] = pr })
	return f
}

func (f *followers) of(id shard.ReplicaID) tracker.Progress { return f.progress[id] }

// live tells whether a member has acknowledged something in this term and was heard
// from within the last election timeout.
func (f *followers) live(id shard.ReplicaID) bool {
	return id == f.g.replica || f.of(id).Match > 0 && f.g.active(uint64(id))
}

// caughtUpEntriesMax is how far a log may be behind the commit index and count as
// caught up: what is on its way under load.
const caughtUpEntriesMax = 64

func (f *followers) caughtUp(id shard.ReplicaID) bool {
	return f.live(id) && f.mayFollow(id)
}

// mayFollow tells whether nothing is known that speaks against a member as the next
// leader. One that a new leader has not heard yet may well be caught up.
func (f *followers) mayFollow(id shard.ReplicaID) bool {
	pr := f.of(id)
	return f.g.active(uint64(id)) && pr.State != tracker.StateSnapshot && (pr.Match == 0 || pr.Match+caughtUpEntriesMax >= f.commit)
}
