package raftgroup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// A leader that loses its term together with what it has appended, a membership
// change behind several entries, and leads again with a shorter log: the change is in
// no log any more, and nothing in the shard may wait for its index to be applied. It
// is idle, so that this would be for ever: no change of its configuration, no leave
// of a joint one, no transfer.
func TestLostMembershipChangeBlocksNothing(t *testing.T) {
	c := newCluster(t, 47, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	c.isolate(l.id)
	var lost []*outcome
	for range 4 { // each is too large to share an entry
		lost = append(lost, l.propose(5, "k="+strings.Repeat("x", entryBytesMax)))
	}
	c.until("they are in its log", func() bool { return len(l.group(5).pending) == len(lost) })
	add := shard.MembershipChange{Shard: 5, Epoch: l.machine(5).state.Descriptor.Epoch,
		Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 4, Node: 4}}}
	change := &outcome{}
	l.group(5).ProposeMembership(l.machine(5).leadership.Term, add, func(err error) { change.err = err; change.calls++ })
	c.until("another one leads", func() bool { n := c.leader(5); return n != nil && n != l })
	c.heal()
	c.until("what was lost has its outcome", func() bool { return change.done() && lost[3].done() })
	if !errors.Is(change.err, shard.ErrDropped) {
		t.Fatalf("the lost change: %v", change.err)
	}
	c.mustAgree(5)
	handed := &outcome{}
	c.leader(5).group(5).TransferLeader(shard.ReplicaID(l.id), func(err error) { handed.err = err; handed.calls++ })
	c.until("the first one leads again", func() bool { return handed.done() && c.leader(5) == l })
	c.mustAgree(5)
	if err := c.change(5, add.Changes...); err != nil {
		t.Errorf("a change after it: %v", err)
	}
	c.runFor(3 * time.Second) // the next leader has been heard from
	back := &outcome{}
	l.group(5).TransferLeader(shard.ReplicaID(l.id%3+1), func(err error) { back.err = err; back.calls++ })
	c.until("handed over", back.done)
	if back.err != nil {
		t.Errorf("a transfer after it: %v", back.err)
	}
}
