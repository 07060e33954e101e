package raftgroup

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A leader that loses its quorum for good gives its proposals' bytes back.
func TestProposalsWithoutQuorumEnd(t *testing.T) {
	c := newCluster(t, 37, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	c.isolate(l.id)
	o := l.propose(5, "k=w")
	c.until("the proposal ends", o.done)
	if !errors.Is(o.err, shard.ErrUndetermined) || o.calls != 1 {
		t.Errorf("%d calls, %v", o.calls, o.err)
	}
	if n := l.host.Stats().ProposalBytes; n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
	c.heal()
	c.put(5, "k=x")
	c.mustAgree(5)
	if o.calls != 1 {
		t.Errorf("%d calls", o.calls)
	}
}

// An entry of an earlier term that is not decided yet, and was overwritten, may
// be above one of the present term.
func TestPendingEntriesOutOfOrder(t *testing.T) {
	g := &Group{pending: []pendingEntry{{at: Position{Index: 20, Term: 3}}, {at: Position{Index: 18, Term: 5}}}}
	if e := g.pendingAt(Position{Index: 18, Term: 5}); e == nil || !e.matched {
		t.Error("not found: its proposals would be reported as dropped")
	}
}
