package raftgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

func mustBeNotReady(t *testing.T, what string, err error, text string) {
	t.Helper()
	var notReady *shard.NotReadyError
	if !errors.As(err, &notReady) || notReady.Shard != 5 || !strings.Contains(notReady.Reason, text) {
		t.Errorf("%s: %v, want a NotReadyError about %q", what, err, text)
	}
}

// A learner becomes a voter only when it is caught up and answers.
func TestPromotionNeedsALearnerThatIsReady(t *testing.T) {
	c := newCluster(t, 41, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	next := c.descriptor(5).NextReplica
	promote := shard.Change{Kind: shard.Promote, Replica: next}
	c.snapshotDelay = 2 * time.Second
	if err := c.change(5, shard.Change{Kind: shard.AddLearner, Replica: next, Node: 4}); err != nil {
		t.Fatal(err)
	}
	mustBeNotReady(t, "a learner of which nothing is known", c.change(5, promote), "not caught up")
	c.until("it is heard from", func() bool { return len(c.waitLeader(5).group(5).outgoing) > 0 })
	mustBeNotReady(t, "a learner that waits for its snapshot", c.change(5, promote), "not caught up")
	c.snapshotDelay = 0
	c.mustAgree(5)
	c.isolate(4)
	c.runFor(3 * time.Second)
	mustBeNotReady(t, "a learner that is silent", c.change(5, promote), "not heard from")
	c.heal()
	c.mustAgree(5)
	// One that answers and lags.
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != 4 || e.msg.Type != raftpb.MsgApp }
	for i := range caughtUpEntriesMax + 10 {
		c.put(5, fmt.Sprintf("k=%d", i))
	}
	mustBeNotReady(t, "a learner that lags", c.change(5, promote), "not caught up")
	c.filter = nil
	c.mustAgree(5)
	c.steadily(5, promote)
}

// No change may leave the shard without a majority that lives.
func TestMajorityIsNotLost(t *testing.T) {
	c := newCluster(t, 42, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	dead, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
	c.addLearner(5, 4)
	dead.crash()
	c.runFor(3 * time.Second)
	before := c.descriptor(5)
	mustBeNotReady(t, "one of two would live", c.change(5, shard.Change{Kind: shard.Demote, Replica: c.replicaOn(5, other.id)}),
		fmt.Sprintf("of 2 voters after the change those on nodes [%d]", dead.id))
	if d := c.descriptor(5); d.Epoch != before.Epoch {
		t.Errorf("epoch %v, before %v", d.Epoch, before.Epoch)
	}
	// The dead one can go, or be replaced: nobody waits for it.
	old := c.replicaOn(5, dead.id)
	c.steadily(5, shard.Change{Kind: shard.Promote, Replica: c.replicaOn(5, 4)}, shard.Change{Kind: shard.Demote, Replica: old})
	c.steadily(5, shard.Change{Kind: shard.LeaveJoint})
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.put(5, "k=w")
	// Of three that live one may go, and of two that are left another one.
	c.steadily(5, shard.Change{Kind: shard.Demote, Replica: c.replicaOn(5, other.id)})
	c.steadily(5, shard.Change{Kind: shard.LeaveJoint})
	dead.start()
	c.until("the dead one is told", func() bool { return dead.free(5) })
	c.mustAgree(5)
}

// A joint configuration whose author has died is left by whoever leads, also after
// further changes of leadership, and by a leader that stays a voter.
func TestJointStateIsFinishedByWhoeverLeads(t *testing.T) {
	for _, crash := range []bool{false, true} {
		c := newCluster(t, 43, 4)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=v")
		added := c.addLearner(5, 4)
		l := c.waitLeader(5)
		out := c.node(l.id%3 + 1)
		if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: c.replicaOn(5, out.id)}); err != nil {
			t.Fatal(err)
		}
		joint := c.env.now
		if crash {
			l.crash()
		}
		c.until("it is left", func() bool {
			n := c.leader(5)
			if n == nil || n == l && crash {
				return false
			}
			d := n.machine(5).Descriptor()
			return !d.Joint()
		})
		if took := c.env.now - joint; !crash && took < time.Second {
			t.Errorf("left after %v: who asked for it has no time to do so", took)
		}
		if n := c.waitLeader(5); n == out {
			t.Error("who ceased to vote leads")
		}
		if crash {
			l.start()
		}
		c.put(5, "k=w")
		c.mustAgree(5)
	}
}

// A leader that is demoted hands over in the joint configuration, and refuses to leave
// it itself; a lone voter has no other way.
func TestDemotedLeaderHandsOver(t *testing.T) {
	for _, voters := range []int{1, 3} {
		c := newCluster(t, 44, 4)
		c.bootstrap(5, []shard.NodeID{1, 2, 3}[:voters]...)
		c.start()
		c.put(5, "k=v")
		added := c.addLearner(5, 4)
		l := c.waitLeader(5)
		old := c.replicaOn(5, l.id)
		// Nobody can take over yet, so that leaving can be tried.
		c.filter = func(_, _ shard.NodeID, e *envelope) bool { return e.msg.Type != raftpb.MsgTimeoutNow }
		if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: old}); err != nil {
			t.Fatal(err)
		}
		var refused error
		c.until("leaving is refused", func() bool {
			refused = c.change(5, shard.Change{Kind: shard.LeaveJoint})
			return !strings.Contains(fmt.Sprint(refused), "handed to")
		})
		mustBeNotReady(t, "leaving under a leader that ceases to vote", refused, "ceases to vote")
		if !c.joint(5) || c.waitLeader(5) != l {
			t.Fatal("left, or led by another one")
		}
		c.filter = nil
		c.until("it is left", func() bool { n := c.leader(5); return n != l && n != nil && !n.machine(5).Descriptor().Joint() })
		c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
		c.until("the old leader is gone", func() bool { return l.free(5) })
		c.put(5, "k=w")
		c.mustAgree(5)
		c.mustRead(5, "k", "w")
	}
}

// An heir that hears the demoted leader and nobody else cannot win an election, and
// looks no worse than the others. The leader, which wins the next one, must try them too.
func TestDemotedLeaderTriesAllHeirs(t *testing.T) {
	for seed := range uint64(8) {
		c := newCluster(t, 300+seed, 4)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=v")
		added := c.addLearner(5, 4)
		c.mustAgree(5)
		l := c.waitLeader(5)
		first := c.node(1)
		if l == first {
			first = c.node(2)
		}
		for _, n := range c.nodes {
			if n != l && n != first {
				c.cut[[2]shard.NodeID{first.id, n.id}] = true
				c.cut[[2]shard.NodeID{n.id, first.id}] = true
			}
		}
		term := l.machine(5).leadership.Term
		if err := c.change(5, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: c.replicaOn(5, l.id)}); err != nil {
			t.Fatal(err)
		}
		c.until("it is left", func() bool { n := c.leader(5); return n != nil && !n.machine(5).Descriptor().Joint() })
		if now := c.waitLeader(5).machine(5).leadership.Term; now > term+12 {
			t.Errorf("it took %d terms", now-term)
		}
		c.put(5, "k=w")
		c.heal()
		c.mustAgree(5)
	}
}

// The first heir is one that may campaign whether it has applied the joint configuration
// or not.
func TestFirstHeirWasAVoterBefore(t *testing.T) {
	f := &followers{progress: map[shard.ReplicaID]tracker.Progress{1: {Match: 5}, 2: {Match: 6}, 3: {Match: 9}, 4: {Match: 8}}}
	voter, longer := &peer{replica: 1, role: role(shard.Voter)}, &peer{replica: 2, role: role(shard.Voter)}
	learned, learner := &peer{replica: 3, role: role(shard.Incoming)}, &peer{replica: 4, role: role(shard.Incoming)}
	for _, pair := range [][2]*peer{{longer, voter}, {voter, learned}, {voter, learner}, {learned, learner}} {
		if !f.rather(pair[0], pair[1]) || f.rather(pair[1], pair[0]) {
			t.Errorf("replica %d is not chosen rather than %d", pair[0].replica, pair[1].replica)
		}
	}
}

// The pauses between heirs grow, and each of them has its turn.
func TestHeirsTakeTurns(t *testing.T) {
	var h handover
	var pauses []uint64
	for range 7 {
		h.to(3, 100, 10)
		pauses = append(pauses, h.at-100)
	}
	if got, want := fmt.Sprint(pauses), "[10 20 40 80 160 160 160]"; got != want {
		t.Errorf("pauses %v, want %v", got, want)
	}
}

// Leadership is not handed to who cannot take it, and no change begins meanwhile.
func TestTransferNeedsATargetThatIsReady(t *testing.T) {
	c := newCluster(t, 45, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	silent, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
	transfer := func(to shard.ReplicaID) *outcome {
		o := &outcome{}
		l.group(5).TransferLeader(to, func(err error) { o.err = err; o.calls++ })
		return o
	}
	silent.crash()
	c.runFor(3 * time.Second)
	o := transfer(shard.ReplicaID(silent.id))
	c.until("answered", o.done)
	mustBeNotReady(t, "to one that is silent", o.err, "cannot lead now")
	c.filter = func(_, _ shard.NodeID, e *envelope) bool { return e.msg.Type != raftpb.MsgTimeoutNow }
	o = transfer(shard.ReplicaID(other.id))
	mustBeNotReady(t, "a change during a transfer", c.change(5, shard.Change{Kind: shard.AddLearner, Replica: 4, Node: 4}), "being handed")
	c.until("given up", o.done)
	c.filter = nil
	o = transfer(shard.ReplicaID(other.id))
	c.until("handed over", o.done)
	if o.err != nil {
		t.Error(o.err)
	}
}

// lostCommitAfterRemoval lets a shard of two shrink to one voter, removes the other
// replica, and has the one that is left forget what it has applied. It must be able to
// lead by what its log alone says: nobody else is there to tell it that the removal
// was committed.
func lostCommitAfterRemoval(t testing.TB) error {
	c := newCluster(t, 46, 2)
	c.bootstrap(5, 1, 2)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	gone := c.node(3 - l.id)
	old := c.replicaOn(5, gone.id)
	err := c.change(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) {
		// It votes: it has to be demoted first.
		c.steadily(5, shard.Change{Kind: shard.Demote, Replica: old})
		c.steadily(5, shard.Change{Kind: shard.LeaveJoint})
		err = c.change(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	}
	if err != nil {
		t.Fatal(err)
	}
	for !gone.free(5) {
		c.env.step()
	}
	l.crash()
	l.start()
	if !c.within(20*time.Second, func() bool { return c.leader(5) == l }) {
		return errors.New("the voter that is left has no leader 20 s after a crash")
	}
	c.put(5, "k=w")
	c.mustAgree(5)
	return nil
}

func TestLostCommitAfterRemoval(t *testing.T) {
	if err := lostCommitAfterRemoval(t); err != nil {
		t.Error(err)
	}
}
