package raftgroup

import (
	"errors"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// A proposal that was cancelled while it waited for its entry never gets into the
// log; one that is in the log goes on.
func TestCancelledProposalsAreDropped(t *testing.T) {
	c := newCluster(t, 41, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	c.isolate(l.id)
	// Without a quorum one entry stays uncommitted, and whatever follows waits.
	packed, packedIs := l.proposal(5, "k=packed")
	c.runFor(10 * time.Millisecond)
	waiting, waitingIs := l.proposal(5, "k=late")
	c.runFor(10 * time.Millisecond)
	packed.Cancelled.Store(true)
	waiting.Cancelled.Store(true)
	_, later := l.proposal(5, "k=later")
	alone, aloneIs := l.proposal(5, "k=alone")
	alone.Cancelled.Store(true)
	c.heal()
	c.until("all end", func() bool {
		return packedIs.done() && waitingIs.done() && later.done() && aloneIs.done()
	})
	if packedIs.err != nil || later.err != nil {
		t.Errorf("in the log: %v; not cancelled: %v", packedIs.err, later.err)
	}
	for _, o := range []*outcome{waitingIs, aloneIs} {
		if !errors.Is(o.err, shard.ErrDropped) {
			t.Errorf("cancelled: %+v", o)
		}
	}
	c.mustRead(5, "k", "later")
	// Nothing but cancelled ones: no entry is made of them.
	before := l.host.Stats().Entries
	only, onlyIs := l.proposal(5, "k=only")
	only.Cancelled.Store(true)
	c.until("it ends", onlyIs.done)
	if !errors.Is(onlyIs.err, shard.ErrDropped) || l.host.Stats().Entries != before {
		t.Errorf("%+v, %d entries", onlyIs, l.host.Stats().Entries-before)
	}
	if n := l.host.Stats().ProposalBytes; n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
	c.mustRead(5, "k", "later")
	c.mustAgree(5)
}
