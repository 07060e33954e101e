package raftgroup

import (
	"go.etcd.io/raft/v3"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// turn works off the group's mail, in an order that matters: local responses
// first, because they are the oldest; messages before proposals and ticks, so
// that a heartbeat that waits is seen before an election starts. It then takes
// at most one Ready.
func (g *Group) turn(r *round) {
	if g.dead != nil {
		if next := g.removed(); next != 0 {
			g.remove(next)
		} else if !g.gone.Load() {
			// It neither campaigns nor answers, so that no member would think of telling it.
			g.clock += uint64(g.box.takeTicks())
			g.ask()
		}
		g.discardMail()
		return
	}
	if g.parked {
		// What the turn that parked the group left of its mail waits for the end
		// of the installation, which is in the mailbox behind it.
		i := g.box.takeInstalled()
		if i == nil {
			return
		}
		g.finishInstall(i)
		if g.dead != nil {
			return
		}
	}
	if next := g.removed(); next != 0 {
		g.remove(next)
		return
	}
	if born, campaign := g.box.takeBorn(); born {
		if g.beBorn(campaign); g.dead != nil {
			return
		}
	}
	if g.in.empty() {
		g.box.take(&g.in)
	}
	in := &g.in
	g.stepLocal(in)
	if in.snapshot != nil {
		// raft forgets what follows the snapshot's entry when it takes it, so
		// the snapshot gets a Ready of its own; the other mail waits a turn.
		s := in.snapshot
		in.snapshot = nil
		g.stepSnapshot(s)
		g.takeReady(r)
		if g.candidate != nil {
			g.candidate = nil
			g.giveUpSnapshot(s) // raft has no use for it
		}
		return
	}
	g.stepMessages(in)
	for _, c := range in.controls {
		c.run()
	}
	g.acceptProposals(in)
	g.propose(r)
	g.acceptReads(in)
	g.stepTicks(in.ticks)
	g.requestReadIndex()
	in.recycle()
	g.takeReady(r)
}

func (g *Group) stepLocal(in *mail) {
	for i := range in.local {
		// A response to an earlier RawNode speaks of a log that is not this one's.
		if in.local[i].instance == g.instance {
			_ = g.rn.Step(in.local[i].msg)
		}
	}
	in.local = recycled(in.local)
}

func (g *Group) stepMessages(in *mail) {
	if len(in.messages) == 0 {
		return
	}
	bytes := int64(0)
	for i := range in.messages {
		m := &in.messages[i]
		bytes += m.bytes
		if !g.heardFrom(shard.ReplicaID(m.msg.From), m.node) {
			continue
		}
		g.heardLeader(&m.msg)
		if g.awaitsBirth(m) {
			continue
		}
		// Refusals concern senders that are no members here.
		_ = g.rn.Step(m.msg)
	}
	g.h.incomingBytes.Add(-bytes)
}

func (g *Group) stepTicks(ticks int) {
	if ticks == 0 {
		return
	}
	for range ticks {
		g.clock++
		g.rn.Tick()
	}
	g.expireReadIndex()
	g.expirePending()
	g.expireTransfer()
	g.lookForProbes()
	g.finishJoint()
	g.followSnapshots()
	g.ask()
}

// settle follows everything that changed in the turn, after the apply batch is
// visible.
func (g *Group) settle() {
	if g.dead != nil {
		return
	}
	g.publishLeadership()
	g.confirmReads()
	g.finishTransfer()
	g.publishStatus()
}

// leads tells whether this replica leads, and the term.
func (g *Group) leads() (term uint64, leads bool) {
	st := g.rn.BasicStatus()
	return st.Term, st.RaftState == raft.StateLeader
}

// hint is what this replica knows of the leader.
func (g *Group) hint() shard.LeaderHint {
	st := g.rn.BasicStatus()
	id := shard.ReplicaID(st.Lead)
	return shard.LeaderHint{Replica: id, Node: g.nodeOf(id), Term: st.Term}
}

func (g *Group) notLeader() error { return &shard.NotLeaderError{Shard: g.shard, Leader: g.hint()} }

// publishLeadership tells the machine when what it was told is no longer so.
func (g *Group) publishLeadership() {
	st := g.rn.BasicStatus()
	id := shard.ReplicaID(st.Lead)
	now := Leadership{Term: st.Term, Leader: id, Node: g.nodeOf(id),
		// Before an entry of its own term is applied, a leader's state may be
		// older than what its predecessor acknowledged.
		Leading: st.RaftState == raft.StateLeader && (g.applied.Term == st.Term || planted.On(planted.ReadBeforeOwnTerm))}
	if now != g.leadership {
		g.leadership = now
		g.machine.LeaderChanged(now)
	}
}
