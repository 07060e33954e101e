package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// ProposeMembership proposes a change that the machine must accept; see
// shard.MembershipChange. done is called exactly once: nil once applied;
// ErrUndetermined if it may still take effect. Otherwise nothing was done: an
// InvalidError or WrongShardError if it does not fit the applied descriptor, a
// NotReadyError if it would do harm now, ErrDropped while another one is under
// way, a NotLeaderError.
func (g *Group) ProposeMembership(term uint64, m shard.MembershipChange, done func(error)) {
	g.pushControl(control{run: func() { g.proposeMembership(term, &m, done) }, abandon: done})
}

func (g *Group) proposeMembership(term uint64, m *shard.MembershipChange, done func(error)) {
	now, leads := g.leads()
	if !leads || now != term {
		done(g.notLeader())
		return
	}
	// A conf change takes effect when it is applied; one that does not fit the
	// configuration then would be refused by every replica, or panic in raft.
	if g.mayChange(term) {
		done(fmt.Errorf("an earlier membership change may be unapplied: %w", shard.ErrDropped))
		return
	}
	if err := g.checkMembership(m); err != nil {
		done(err)
		return
	}
	cc := confChange(m)
	cc.Context = shard.AppendMembershipChange(nil, m)
	data, err := cc.Marshal()
	if err != nil {
		done(err)
		return
	}
	entries := []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Data: data}}
	if err := g.rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: uint64(g.replica), Entries: entries}); err != nil {
		done(fmt.Errorf("%w: %w", shard.ErrDropped, err))
		return
	}
	// raft refuses by making the entry an empty normal one, in our own slice.
	if entries[0].Type != raftpb.EntryConfChangeV2 {
		done(&shard.NotReadyError{Shard: g.shard, Reason: "raft refused the change: another one is unapplied, or the configuration is joint"})
		return
	}
	g.conf = Position{Index: entries[0].Index, Term: entries[0].Term}
	g.pending = append(g.pending, pendingEntry{at: g.conf, since: g.clock, membership: done})
}

// mayChange tells whether the log of a leader in term may hold a membership change
// that is not applied. One of an earlier term is not in it, or comes before the first
// entry of this one: had it to be applied up to its own index, a change that was
// overwritten would keep a shard that is written no more from all others.
func (g *Group) mayChange(term uint64) bool {
	return g.applied.Term != term || g.conf.Term == term && g.conf.Index > g.applied.Index
}

// checkMembership refuses what does not fit the applied descriptor, and what does
// but would do harm now.
func (g *Group) checkMembership(m *shard.MembershipChange) error {
	d := g.machine.Descriptor()
	after, err := m.Apply(d)
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return &shard.NotReadyError{Shard: g.shard, Reason: fmt.Sprintf(format, args...)}
	}
	if g.transfer != nil {
		return refuse("leadership is being handed to replica %d", g.transfer.to)
	}
	joint := false
	f := g.followers()
	for _, c := range m.Changes {
		switch c.Kind {
		case shard.LeaveJoint:
			// It would lead nobody from then on, and one failure could strand those who do
			// not know yet that the joint configuration was left.
			if r, ok := d.Replica(g.replica); ok && r.Role == shard.Outgoing {
				return refuse("the leader, replica %d, ceases to vote when the joint configuration is left; another one has to lead first", g.replica)
			}
		case shard.Promote:
			joint = true
			// A voter that is behind, or not there, is one that no majority can count on.
			if !f.caughtUp(c.Replica) {
				return refuse("learner %d is not caught up (it has %d of %d entries) or was not heard from lately", c.Replica, f.of(c.Replica).Match, f.commit)
			}
		case shard.Demote:
			joint = true
		}
	}
	if joint {
		return g.checkMajority(f, &after)
	}
	return nil
}

// checkMajority refuses a joint change after which those who vote and live would be
// no majority: the shard would stop when it is left.
func (g *Group) checkMajority(f *followers, after *shard.Descriptor) error {
	voters := 0
	var silent []shard.NodeID
	for _, r := range after.Replicas {
		if !role(r.Role).stays() {
			continue
		}
		voters++
		if !f.live(r.ID) {
			silent = append(silent, r.Node)
		}
	}
	if voters-len(silent) > voters/2 {
		return nil
	}
	return &shard.NotReadyError{Shard: g.shard, Reason: fmt.Sprintf(
		"it would lose its majority: of %d voters after the change those on nodes %v were not heard from lately", voters, silent)}
}

// tellThoseRemoved tells replicas of their removal, which the leader has applied.
func (g *Group) tellThoseRemoved(members []Member) {
	if _, leads := g.leads(); !leads {
		return
	}
	for _, m := range members {
		if p := g.proof.Load(); p.covers(m.ID) {
			g.notifyRemoved(m.ID, m.Node, p.follows(m.Node))
		}
	}
}

// confChange is raft's form of a membership change. A voter never leaves but by
// way of a joint configuration, which is left explicitly.
func confChange(m *shard.MembershipChange) raftpb.ConfChangeV2 {
	var cc raftpb.ConfChangeV2
	for _, c := range m.Changes {
		one := raftpb.ConfChangeSingle{NodeID: uint64(c.Replica)}
		switch c.Kind {
		case shard.AddLearner:
			one.Type = raftpb.ConfChangeAddLearnerNode
		case shard.RemoveLearner:
			one.Type = raftpb.ConfChangeRemoveNode
		case shard.Promote:
			one.Type, cc.Transition = raftpb.ConfChangeAddNode, raftpb.ConfChangeTransitionJointExplicit
		case shard.Demote:
			one.Type, cc.Transition = raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeTransitionJointExplicit
		case shard.LeaveJoint:
			continue // no change at all is raft's way to leave
		}
		cc.Changes = append(cc.Changes, one)
	}
	return cc
}

// applyMembership lets the machine decide. If it refuses, every replica does,
// and raft is told nothing: it asks for no call then, and an empty change
// instead would leave a joint configuration.
func (g *Group) applyMembership(b *storage.Batch, w *applyWork, at Position, e *raftpb.Entry, mine *pendingEntry) error {
	cc, change, err := openMembership(e.Data)
	if err != nil {
		return err
	}
	accepted, res, err := g.machine.ApplyMembership(b, at, change)
	if err != nil {
		return err
	}
	if accepted {
		w.changes = append(w.changes, cc)
		before := g.peers
		g.loadPeers()
		for _, p := range before {
			if p.role != 0 && g.peer(p.replica) == nil {
				w.removed = append(w.removed, Member{ID: p.replica, Node: p.node})
			}
		}
	}
	if mine != nil {
		w.told, w.outcome = mine.membership, res.Err
		if !accepted && w.outcome == nil {
			w.outcome = &shard.InvalidError{Field: "membership change", Reason: "was refused when it was applied"}
		}
	}
	return nil
}
