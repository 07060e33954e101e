package raftgroup

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// A voter that has acknowledged the entry by which a joint configuration is left
// restarts with neither the joint one applied nor the commit index known that came
// with that entry. It stands for election in the configuration of before.
func TestVoterRestartsTwoConfigurationsBehind(t *testing.T) {
	c := newCluster(t, 31, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	added := c.addLearner(5, 4)
	c.mustAgree(5)
	l := c.waitLeader(5)
	a := c.node(l.id%3 + 1) // stays a voter, and crashes
	b := c.node(a.id%3 + 1) // is demoted, and does not hear of it
	term := l.machine(5).leadership.Term

	blocked := true
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		return !(blocked && to == a.id && e.msg.Type == raftpb.MsgApp)
	}
	if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: shard.ReplicaID(b.id)}); err != nil {
		t.Fatal(err)
	}
	c.isolate(b.id)
	left := &outcome{}
	l.group(5).ProposeMembership(term, shard.MembershipChange{Shard: 5, Epoch: l.machine(5).state.Descriptor.Epoch,
		Changes: []shard.Change{{Kind: shard.LeaveJoint}}}, func(err error) { left.calls++; left.err = err })
	c.runFor(20 * time.Millisecond)
	leave, _ := l.group(5).log.LastIndex()
	acknowledged := false
	c.sending = func(from *testNode, e *envelope) {
		if from == a && e.msg.Type == raftpb.MsgAppResp && !e.msg.Reject && e.msg.Index >= leave {
			acknowledged = true
		}
	}
	blocked = false
	c.until("the entry that leaves is acknowledged", func() bool { return acknowledged })
	a.crash()
	c.until("the joint configuration is left", left.done)
	if left.err != nil {
		t.Fatal(left.err)
	}
	c.put(5, "k=acknowledged") // a quorum of the new configuration: the leader and node 4

	c.heal()
	for _, x := range []shard.NodeID{l.id, 4} {
		for _, y := range []shard.NodeID{a.id, b.id} {
			c.cut[[2]shard.NodeID{x, y}], c.cut[[2]shard.NodeID{y, x}] = true, true
		}
	}
	a.start()
	t.Logf("restarted: applied %d, entry that leaves %d, members %+v", a.machine(5).Applied().Index, leave, a.machine(5).Descriptor().Replicas)
	for range 200 {
		c.runFor(100 * time.Millisecond)
		for _, n := range []*testNode{a, b} {
			if m := n.machine(5); m.leadership.Leading {
				ours, _ := l.group(5).log.Term(leave + 1)
				theirs, _ := n.group(5).log.Term(leave + 1)
				t.Fatalf("node %d was elected in term %d by voters of before; entry %d is committed as of term %d there, and as of term %d under node %d, which leads in term %d (%v) and has acknowledged writes",
					n.id, m.leadership.Term, leave+1, theirs, ours, l.id, l.machine(5).leadership.Term, l.machine(5).leadership.Leading)
			}
		}
	}
}
