package raftgroup

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// transfer is a leadership transfer that was asked of raft.
type transfer struct {
	to    shard.ReplicaID
	term  uint64
	since uint64 // the group's clock
	done  func(error)
}

// TransferLeader asks the leader to hand over. done is called when this replica
// no longer leads (nil), or after an election timeout with an error. Refused
// while membership changes are unapplied: the successor could not campaign; and,
// with a NotReadyError, to a replica that lags or is silent.
func (g *Group) TransferLeader(to shard.ReplicaID, done func(error)) {
	g.pushControl(control{run: func() { g.startTransfer(to, done) }, abandon: done})
}

func (g *Group) startTransfer(to shard.ReplicaID, done func(error)) {
	term, leads := g.leads()
	p := g.peer(to)
	switch {
	case !leads:
		done(g.notLeader())
	case to == g.replica:
		done(&shard.InvalidError{Field: "transfer", Reason: "is to the replica that leads already"})
	case p == nil || !p.role.votes() || p.role == role(shard.Outgoing):
		done(&shard.InvalidError{Field: "transfer", Reason: fmt.Sprintf("is to replica %d, which is no voter that stays", to)})
	case g.transfer != nil:
		done(fmt.Errorf("a transfer to replica %d is under way: %w", g.transfer.to, shard.ErrDropped))
	case g.mayChange(term):
		done(fmt.Errorf("a membership change may be unapplied: %w", shard.ErrDropped))
	case !g.followers().mayFollow(to):
		// Writes would wait an election timeout for it in vain.
		done(&shard.NotReadyError{Shard: g.shard, Reason: fmt.Sprintf("replica %d is not caught up or was not heard from lately; it cannot lead now", to)})
	default:
		g.transfer = &transfer{to: to, term: term, since: g.clock, done: done}
		g.rn.TransferLeader(uint64(to))
	}
}

// finishTransfer reports the end of leadership.
func (g *Group) finishTransfer() {
	t := g.transfer
	if t == nil {
		return
	}
	if term, leads := g.leads(); !leads || term != t.term {
		g.transfer = nil
		t.done(nil)
	}
}

// expireTransfer reports that raft has given up; it does so after the same time.
func (g *Group) expireTransfer() {
	t := g.transfer
	if t == nil || g.clock-t.since <= uint64(g.h.cfg.ElectionTicks) {
		return
	}
	if term, leads := g.leads(); leads && term == t.term {
		g.transfer = nil
		t.done(fmt.Errorf("replica %d did not take over within an election timeout: %w", t.to, shard.ErrDropped))
	}
}
