package raftgroup

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// addLearner adds the next replica on a node and waits until it has caught up.
func (c *cluster) addLearner(id shard.ID, node shard.NodeID) shard.ReplicaID {
	c.t.Helper()
	next := c.waitLeader(id).machine(id).state.Descriptor.NextReplica
	if err := c.change(id, shard.Change{Kind: shard.AddLearner, Replica: next, Node: node}); err != nil {
		c.t.Fatal(err)
	}
	c.until(fmt.Sprintf("the learner on node %d has caught up", node), func() bool {
		m, l := c.node(node).machine(id), c.waitLeader(id)
		return m != nil && m.state != nil && m.Applied() == l.machine(id).Applied() && l.group(id).followers().caughtUp(next)
	})
	return next
}

// One voter becomes three: two learners by snapshot, one joint change, leave.
func TestOneVoterBecomesThree(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, seed, 3)
		c.bootstrap(5, 1)
		c.start()
		for i := range 20 {
			c.put(5, fmt.Sprintf("k%d=%d", i, i))
		}
		if seed%2 == 1 {
			c.lossPercent = 10
		}
		r2, r3 := c.addLearner(5, 2), c.addLearner(5, 3)
		if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: r2}, shard.Change{Kind: shard.Promote, Replica: r3}); err != nil {
			t.Fatal(err)
		}
		c.put(5, "joint=yes")
		if err := c.change(5, shard.Change{Kind: shard.LeaveJoint}); err != nil {
			t.Fatal(err)
		}
		c.put(5, "after=yes")
		c.lossPercent = 0
		c.mustAgree(5)
		for _, n := range c.nodes {
			if m := n.machine(5); n.id != 1 && m.installs == 0 {
				t.Errorf("node %d has no snapshot installed", n.id)
			}
			if cs := confState(n.machine(5).state.Descriptor.Replicas); len(cs.Voters) != 3 || len(cs.VotersOutgoing)+len(cs.Learners)+len(cs.LearnersNext) != 0 {
				t.Errorf("node %d: configuration %+v", n.id, cs)
			}
		}
		// The first node is not needed any more.
		c.node(1).crash()
		c.until("another leads", func() bool { l := c.leader(5); return l != nil && l.id != 1 })
		c.mustRead(5, "joint", "yes")
		c.node(1).start()
		c.mustAgree(5)
	}
}

// A voter leaves by way of a joint change and as a learner.
func TestVoterIsReplaced(t *testing.T) {
	c := newCluster(t, 21, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	added := c.addLearner(5, 4)
	l := c.waitLeader(5)
	leaves := shard.ReplicaID(uint64(l.id)%3 + 1)
	if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: leaves}); err != nil {
		t.Fatal(err)
	}
	// While joint nothing but leaving is accepted.
	var invalid *shard.InvalidError
	if err := c.change(5, shard.Change{Kind: shard.RemoveLearner, Replica: leaves}); !errors.As(err, &invalid) {
		t.Errorf("a simple change while joint: %v", err)
	}
	if err := c.change(5, shard.Change{Kind: shard.LeaveJoint}); err != nil {
		t.Fatal(err)
	}
	if err := c.change(5, shard.Change{Kind: shard.LeaveJoint}); !errors.As(err, &invalid) {
		t.Errorf("a second leave: %v", err)
	}
	if err := c.change(5, shard.Change{Kind: shard.RemoveLearner, Replica: leaves}); err != nil {
		t.Fatal(err)
	}
	c.put(5, "k=w")
	c.mustAgree(5)
	if _, ok := c.leader(5).machine(5).state.Descriptor.Replica(leaves); ok {
		t.Error("the old voter is still listed")
	}
}

// Two proposals at once: raft's own check takes one, the other is refused and
// says so. A change that the machine refuses at apply leaves raft's
// configuration as it is, joint or not.
func TestMembershipRefusals(t *testing.T) {
	c := newCluster(t, 22, 3)
	c.bootstrap(5, 1, 2)
	c.start()
	l := c.waitLeader(5)
	m := l.machine(5)
	term, epoch := m.leadership.Term, m.state.Descriptor.Epoch
	propose := func(term uint64, epoch shard.Epoch, change shard.Change) *outcome {
		o := &outcome{}
		l.group(5).ProposeMembership(term, shard.MembershipChange{Shard: 5, Epoch: epoch, Changes: []shard.Change{change}},
			func(err error) { o.err = err; o.calls++ })
		return o
	}
	first := propose(term, epoch, shard.Change{Kind: shard.AddLearner, Replica: 3, Node: 3})
	second := propose(term, epoch, shard.Change{Kind: shard.AddLearner, Replica: 3, Node: 3})
	busy := &outcome{}
	l.group(5).TransferLeader(shard.ReplicaID(uint64(l.id)%2+1), func(err error) { busy.err = err; busy.calls++ })
	c.until("decided", func() bool { return first.done() && second.done() && busy.done() })
	if first.err != nil || !errors.Is(second.err, shard.ErrDropped) || !errors.Is(busy.err, shard.ErrDropped) {
		t.Errorf("first %v, second %v, transfer %v", first.err, second.err, busy.err)
	}
	stale := propose(term, epoch, shard.Change{Kind: shard.Promote, Replica: 3})
	c.until("decided", stale.done)
	var wrong *shard.WrongShardError
	if !errors.As(stale.err, &wrong) || len(wrong.Descriptors) != 1 || wrong.Descriptors[0].Epoch != m.state.Descriptor.Epoch {
		t.Errorf("stale epoch: %v", stale.err)
	}
	var nl *shard.NotLeaderError
	if o := propose(term-1, m.state.Descriptor.Epoch, shard.Change{Kind: shard.RemoveLearner, Replica: 3}); true {
		c.until("decided", o.done)
		if !errors.As(o.err, &nl) {
			t.Errorf("old term: %v", o.err)
		}
	}
	// Joint, and then a leave that passes the group's own check and is refused when it
	// is applied, because the span has changed in between: it must not leave.
	c.steadily(5, shard.Change{Kind: shard.Promote, Replica: 3})
	c.mustAgree(5)
	split := l.propose(5, "version")
	for len(l.group(5).pending) == 0 {
		c.env.step()
	}
	leave := propose(term, m.state.Descriptor.Epoch, shard.Change{Kind: shard.LeaveJoint})
	c.until("decided", leave.done)
	if !errors.As(leave.err, &wrong) || split.err != nil {
		t.Errorf("stale leave: %v; split: %v", leave.err, split.err)
	}
	c.put(5, "still=joint")
	if !m.state.Descriptor.Joint() {
		t.Error("the machine left the joint configuration")
	}
	// Were raft's configuration another, this would stop the replicas.
	if err := c.change(5, shard.Change{Kind: shard.LeaveJoint}); err != nil {
		t.Fatal(err)
	}
	c.mustAgree(5)
	for _, n := range c.nodes {
		if err := n.machine(5).stopped; err != nil {
			t.Errorf("node %d stopped: %v", n.id, err)
		}
	}
}

// raft refuses a conf change by emptying the entry, without an error. It must
// not go unnoticed, whatever this package's own checks let through.
func TestSilentRefusalIsNoticed(t *testing.T) {
	c := newCluster(t, 24, 2)
	c.bootstrap(5, 1, 2)
	c.start()
	g := c.waitLeader(5).group(5)
	m := c.waitLeader(5).machine(5)
	change := shard.MembershipChange{Shard: 5, Epoch: m.state.Descriptor.Epoch,
		Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 3, Node: 9}}}
	cc := confChange(&change)
	cc.Context = shard.AppendMembershipChange(nil, &change)
	data, err := cc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	// One that the group does not know of.
	if err := g.rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: uint64(g.replica),
		Entries: []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Data: data}}}); err != nil {
		t.Fatal(err)
	}
	o := &outcome{}
	g.ProposeMembership(m.leadership.Term, change, func(err error) { o.err = err; o.calls++ })
	c.until("refused", o.done)
	mustBeNotReady(t, "refused silently", o.err, "raft refused")
}

// Messages create uninitialized replicas, which vote and do not campaign, and
// keep their vote through a crash.
func TestUninitializedReplica(t *testing.T) {
	c := newCluster(t, 23, 2)
	c.start()
	n := c.node(2)
	deliver := func(m raftpb.Message) {
		m.From, m.To = 1, 2
		if err := n.host.Receive(1, appendMessage(nil, 7, nil, &m, messageBytes(7, nil, &m))); err != nil {
			t.Fatal(err)
		}
	}
	var votes []raftpb.Message
	c.sending = func(from *testNode, e *envelope) {
		if from == n && e.msg.Type == raftpb.MsgVoteResp {
			votes = append(votes, e.msg)
		}
	}
	deliver(raftpb.Message{Type: raftpb.MsgAppResp, Term: 4, Index: 12})
	if _, ok := n.host.Group(7); ok {
		t.Fatal("a response created a replica")
	}
	deliver(raftpb.Message{Type: raftpb.MsgVote, Term: 4, Index: 12, LogTerm: 3})
	c.until("it votes", func() bool { return len(votes) == 1 })
	if votes[0].Reject || n.group(7).Status().Leading {
		t.Errorf("vote %+v", votes[0])
	}
	c.runFor(10 * time.Second)
	if s := n.group(7).Status(); s.Term != 4 {
		t.Errorf("it campaigned: %+v", s)
	}
	n.crash()
	n.start()
	if g, ok := n.host.Group(7); !ok || g.Replica() != 2 {
		t.Fatal("it is forgotten after a crash")
	}
	// It must not vote for another in the same term.
	deliver(raftpb.Message{Type: raftpb.MsgVote, Term: 4, Index: 12, LogTerm: 3})
	m := raftpb.Message{Type: raftpb.MsgVote, From: 3, To: 2, Term: 4, Index: 12, LogTerm: 3}
	if err := n.host.Receive(1, appendMessage(nil, 7, nil, &m, messageBytes(7, nil, &m))); err != nil {
		t.Fatal(err)
	}
	c.until("it answers", func() bool { return len(votes) >= 2 })
	c.runFor(time.Second)
	for _, v := range votes[1:] {
		if v.Reject != (v.To == 3) {
			t.Errorf("vote %+v", v)
		}
	}
	// Messages to other replica IDs of the shard are dropped.
	dropped := n.host.Stats().MessagesDropped
	for _, to := range []uint64{1, 3} {
		m := raftpb.Message{Type: raftpb.MsgHeartbeat, From: 4, To: to, Term: 9}
		if err := n.host.Receive(1, appendMessage(nil, 7, nil, &m, messageBytes(7, nil, &m))); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.host.Stats().MessagesDropped - dropped; got != 2 {
		t.Errorf("%d messages to other replicas were dropped, want 2", got)
	}
}
