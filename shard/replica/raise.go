package replica

import (
	"errors"
	"sync"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// raises bring one replica's shard as far as the revisions that reads wait for.
// A raise is an entry that writes nothing: the shard's last revision is the
// entry's from there on. Writes that were drawn below it and come before it in the
// log are in the view that the reads get; those that come after it are refused when
// they are applied, and draw again.
//
// One raise is in flight at a time, to the largest revision that was waiting when
// it was sent. It is proposed in the term in which this replica leads then: in the
// log of a later leader its place would say nothing of that leader's writes. What
// waits is bounded by the store's budget for reads.
type raises struct {
	r *Replica

	mu      sync.Mutex
	waiting []*read
	running bool // a step looks at what waits, or a raise is in flight

	// Of whoever owns the raise in flight: send, then done.
	sent     []*read
	header   [machine.HeaderBytesMax]byte
	proposal raftgroup.Proposal
}

var raiseCommand = shard.AppendCommand(nil, &shard.Command{Kind: shard.KindRaise})

func (a *raises) init(r *Replica) {
	a.r = r
	a.proposal.Done = a.done
}

// add lets rd, whose revision was handed out, wait for the next raise.
func (a *raises) add(rd *read) {
	a.mu.Lock()
	a.waiting = append(a.waiting, rd)
	start := !a.running
	a.running = true
	a.mu.Unlock()
	if start {
		a.run()
	}
}

// run deals with what waits, until a raise is in flight or nothing is left.
func (a *raises) run() {
	for a.take() {
		if a.send() {
			return
		}
	}
}

// take moves all that waits to sent.
func (a *raises) take() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent, a.waiting = a.waiting, nil
	a.running = len(a.sent) > 0
	return a.running
}

// send proposes a raise for the reads in sent that need one, and tells whether
// there was one to propose.
func (a *raises) send() bool {
	r := a.r
	l, d, last := r.leadership.Load(), r.descriptor.Load(), shard.Revision(r.lastRevision.Load())
	var top shard.Revision
	var ready []*read
	kept := a.sent[:0]
	for _, rd := range a.sent {
		switch {
		case rd.covered(last):
			ready = append(ready, rd) // an earlier raise has served it, or a write
		case !l.Leading:
			rd.refuse(r.notLeader())
		default:
			top = max(top, rd.command.Revision)
			kept = append(kept, rd)
		}
	}
	a.sent = kept
	r.store.reads.submit(ready)
	if len(kept) == 0 {
		return false
	}
	a.proposal.Header = machine.AppendHeader(a.header[:0], machine.Header{Revision: top, Version: d.Epoch.Version})
	a.proposal.Body = raiseCommand
	a.proposal.Term = l.Term
	r.store.stats.raises.Add(1)
	if err := r.group.Propose(&a.proposal); err != nil {
		a.refuse(err)
		return false
	}
	return true
}

// done is the proposal's Done, on the group's turn: what comes next leaves it first.
func (a *raises) done(res raftgroup.Result, err error) {
	switch {
	case err != nil:
		a.refuse(err)
	case res.Err != nil: // the epoch has changed
		a.refuse(res.Err)
	default:
		a.r.store.reads.submit(a.sent)
		a.sent = nil
	}
	a.mu.Lock()
	more := len(a.waiting) > 0
	a.running = more
	a.mu.Unlock()
	if more {
		a.r.store.cfg.Reads.Submit(a.run)
	}
}

// refuse answers all of sent. Whether the raise took effect is nothing to a read.
func (a *raises) refuse(err error) {
	err = a.r.hinted(err)
	if errors.Is(err, shard.ErrUndetermined) || errors.Is(err, shard.ErrDropped) {
		err = shard.ErrUnavailable
	}
	for _, rd := range a.sent {
		rd.refuse(err)
	}
	a.sent = nil
}
