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
		if heir := g.heir(); heir != 0 {
			g.startTransfer(heir, func(error) {}) // if it fails there is another one
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

// heir is the voter that stays a voter and whose log is the longest, of those that
// are caught up; 0: none is.
func (g *Group) heir() (best shard.ReplicaID) {
	var match uint64
	f := g.followers()
	for _, p := range g.peers {
		if p.replica == g.replica || !p.role.stays() || !f.caughtUp(p.replica) {
			continue
		}
		if m := f.of(p.replica).Match; best == 0 || m > match {
			best, match = p.replica, m
		}
	}
	return best
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
