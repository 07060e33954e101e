package raftgroup

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// recoverAlone makes the replica of shard 5 on a stopped node its only voter.
func (n *testNode) recoverAlone(old, replica shard.ReplicaID) {
	n.c.t.Helper()
	n.open()
	state, _, err := n.engine.ReplicaState(5)
	if err != nil {
		n.c.t.Fatal(err)
	}
	d := state.Descriptor.Clone()
	d.Epoch.ConfVersion += 1000
	d.NextReplica = replica + 1
	d.Replicas = []shard.Replica{{ID: replica, Node: n.id, Role: shard.Voter}}
	b := n.engine.NewBatch()
	if err := n.engine.StageRecovery(b, old, replica, d); err != nil {
		n.c.t.Fatal(err)
	}
	done := false
	if err := n.engine.CommitSync(b, 0, func() { done = true }); err != nil {
		n.c.t.Fatal(err)
	}
	n.c.until("it is durable", func() bool { return done })
}

// A replica that is recovered after its shard has lost the majority commits its log,
// of which it need not know that it was committed; a membership change in there is
// refused. The lost ones find out, when they come back, that they were removed, and
// what they still say changes nothing.
func TestRecoveredReplica(t *testing.T) {
	for _, kind := range []string{"write", "membership"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, 140, 4)
			c.bootstrap(5, 1, 2, 3)
			c.start()
			c.put(5, "k=v")
			c.mustAgree(5)
			l := c.waitLeader(5)
			left := c.node(l.id%3 + 1)
			lost := c.node(6 - l.id - left.id)
			c.isolate(lost.id)
			// The survivor gets and acknowledges one append, and hears nothing more.
			appended := false
			c.filter = func(from, to shard.NodeID, e *envelope) bool {
				if to != left.id {
					return true
				}
				first := !appended
				appended = appended || e.msg.Type == raftpb.MsgApp && len(e.msg.Entries) > 0
				return first
			}
			if kind == "write" {
				o := l.propose(5, "acknowledged=yes")
				c.until("it is acknowledged", o.done)
				if o.err != nil {
					t.Fatal(o.err)
				}
			} else if err := c.change(5, shard.Change{Kind: shard.AddLearner, Replica: 4, Node: 4}); err != nil {
				t.Fatal(err)
			}
			applied, last := left.machine(5).Applied().Index, func() uint64 { i, _ := left.group(5).log.LastIndex(); return i }()
			if last <= applied {
				t.Fatalf("applied %d of %d", applied, last)
			}
			for _, n := range c.nodes {
				n.crash()
			}
			c.filter = nil
			c.heal()
			left.recoverAlone(shard.ReplicaID(left.id), 500)
			left.start()
			c.until("it leads", func() bool { return left.machine(5).leadership.Leading })
			if left.machine(5).Applied().Index < last {
				t.Errorf("applied %+v, its log went up to %d", left.machine(5).Applied(), last)
			}
			if got := left.machine(5).get("acknowledged"); (got == "yes") != (kind == "write") {
				t.Errorf("the acknowledged write: %q", got)
			}
			if d := left.machine(5).state.Descriptor; len(d.Replicas) != 1 || d.NextReplica != 501 {
				t.Errorf("%+v", d)
			}
			c.put(5, "new=line")

			l.start()
			lost.start()
			c.until("the lost ones are gone", func() bool { return l.free(5) && lost.free(5) })
			c.mustRead(5, "new", "line")
			c.addLearner(5, l.id)
			if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: 501}); err != nil {
				t.Fatal(err)
			}
			c.mustAgree(5)
			c.runFor(3 * time.Second)
			c.put(5, "more=writes")
			c.mustAgree(5)
			left.crash()
			left.start()
			c.mustRead(5, "new", "line")
		})
	}
}

// A node alone applies what it knows to be committed: a split that keeps its store from
// being the base of a recovery is applied by starting it.
func TestASplitKnownCommittedIsAppliedAlone(t *testing.T) {
	c := newCluster(t, 141, 3)
	c.bootstrap(5, 1, 2, 3)
	n := c.node(1)
	state, _, err := n.engine.ReplicaState(5)
	if err != nil {
		t.Fatal(err)
	}
	log, err := n.engine.OpenLog(5, 1)
	if err != nil {
		t.Fatal(err)
	}
	op := splitOp(&state.Descriptor, "m", 9)
	b := n.engine.NewBatch()
	log.Append(b, []raftpb.Entry{{Term: 2, Index: 11, Data: appendOperation([]byte{entryFormat}, &Proposal{Body: []byte(op)})}})
	log.SetHardState(b, raftpb.HardState{Term: 2, Commit: 11})
	n.commitSync(b)
	n.start()
	c.until("both sides are there", func() bool {
		m := n.machine(9)
		return m != nil && m.state != nil && n.machine(5).state.Descriptor.Epoch.Version == 2
	})
}
