package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// ProposeMembership proposes a change that the machine must accept; see
// shard.MembershipChange. done is called exactly once: nil once applied; the
// refusal otherwise, and ErrUndetermined if it may still take effect.
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
	if g.applied.Term != term || g.confIndex > g.applied.Index {
		done(fmt.Errorf("an earlier membership change may be unapplied: %w", shard.ErrDropped))
		return
	}
	if err := checkMembership(m, g.machine.Members(), g.replica); err != nil {
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
		done(&shard.InvalidError{Field: "membership change", Reason: "was refused by raft: another one is unapplied, or the configuration is joint"})
		return
	}
	g.confIndex = entries[0].Index
	g.pending = append(g.pending, pendingEntry{at: Position{Index: entries[0].Index, Term: entries[0].Term}, since: g.clock, membership: done})
}

// checkMembership refuses what does not fit the members' roles, and to let a
// leader leave a joint configuration by which it ceases to vote: it would lead
// nobody from then on, and one failure could strand those who do not know yet
// that it was left. Epochs are the machine's: it compares them when the change is
// applied.
func checkMembership(m *shard.MembershipChange, members []Member, self shard.ReplicaID) error {
	d := shard.Descriptor{ID: m.Shard, Epoch: m.Epoch, Replicas: members}
	for _, r := range members {
		d.NextReplica = max(d.NextReplica, r.ID+1)
	}
	for _, c := range m.Changes {
		if c.Kind == shard.AddLearner {
			d.NextReplica = max(d.NextReplica, c.Replica)
		}
	}
	if len(m.Changes) == 1 && m.Changes[0].Kind == shard.LeaveJoint {
		if r, ok := d.Replica(self); ok && r.Role == shard.Outgoing {
			return &shard.InvalidError{Field: "membership change", Reason: "leaves the joint configuration under a leader that ceases to vote by it; transfer leadership first"}
		}
	}
	_, err := m.Apply(&d)
	return err
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
	var cc raftpb.ConfChangeV2
	if err := cc.Unmarshal(e.Data); err != nil {
		return fmt.Errorf("%w: conf change: %w", shard.ErrMalformed, err)
	}
	accepted, res, err := g.machine.ApplyMembership(b, at, cc.Context)
	if err != nil {
		return err
	}
	if accepted {
		w.changes = append(w.changes, cc)
		g.loadPeers()
	}
	if mine != nil {
		w.told, w.outcome = mine.membership, res.Err
		if !accepted && w.outcome == nil {
			w.outcome = &shard.InvalidError{Field: "membership change", Reason: "was refused when it was applied"}
		}
	}
	return nil
}
