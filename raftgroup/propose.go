package raftgroup

import (
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// Proposal is one operation on its way into the log.
type Proposal struct {
	// Header and Body together are the operation's bytes. They are not modified and
	// are kept until Done.
	Header, Body []byte
	// Term in which it may be proposed; in any other it is dropped.
	Term uint64
	// Cancelled may be set at any time. A proposal that is not packed into an entry
	// yet is dropped then; it is looked at when entries are packed and not before, so
	// that of two proposals, the second of which was handed in after the first was
	// cancelled, the first is never behind the second in the log.
	Cancelled atomic.Bool
	// Done is called exactly once, on the group's turn. err is nil (see Result),
	// ErrDropped, a NotLeaderError (both: provably never in effect) or
	// ErrUndetermined. ErrUnavailable and ErrStopped: the group stopped before
	// it was proposed. Must not block.
	Done func(res Result, err error)
}

// proposalOverhead is what a waiting proposal costs beside its bytes.
const proposalOverhead = 64

func (p *Proposal) cost() int64 { return int64(len(p.Header)+len(p.Body)) + proposalOverhead }

// pendingEntry is an entry of this replica's that is not applied yet: either
// proposals, or one membership change.
type pendingEntry struct {
	at         Position
	proposals  []*Proposal
	membership func(error)
	since      uint64 // the group's clock
	matched    bool   // was applied in this turn, and its proposals are finished
}

// Propose hands p to the group. An error (ErrBusy, ErrUnavailable, ErrStopped) means that
// nothing was done and Done will not be called. The order of calls is the order in the log.
// It may be called on the group's turn.
func (g *Group) Propose(p *Proposal) error {
	h := g.h
	if n := h.proposalBytes.Add(p.cost()); n > h.cfg.ProposalBytesMax && n > p.cost() {
		h.proposalBytes.Add(-p.cost())
		return shard.ErrBusy
	}
	g.box.mu.Lock()
	if err := g.box.closed; err != nil {
		g.box.mu.Unlock()
		h.proposalBytes.Add(-p.cost())
		return err
	}
	g.box.proposals = append(g.box.proposals, p)
	g.unlockAndWake()
	return nil
}

// finish gives p its outcome and its bytes back to the budget.
func (g *Group) finish(p *Proposal, res Result, err error) {
	g.h.proposalBytes.Add(-p.cost())
	p.Done(res, err)
}

// acceptProposals moves new proposals to those that wait and sends away those
// that are not for the current term.
func (g *Group) acceptProposals(in *mail) {
	g.waiting = append(g.waiting, in.proposals...)
	if len(g.waiting) == 0 {
		return
	}
	term, leads := g.leads()
	keep := g.waiting[:0]
	for _, p := range g.waiting {
		if leads && p.Term == term {
			keep = append(keep, p)
		} else {
			g.finish(p, Result{}, g.notLeader())
		}
	}
	clear(g.waiting[len(keep):])
	g.waiting = keep
}

// canPropose tells whether what waits may go on. During a transfer raft would
// drop it; afterwards those who wait learn who leads.
func (g *Group) canPropose() bool {
	return len(g.waiting) > 0 && g.transfer == nil && g.uncommitted() < uncommittedEntriesMax
}

// uncommitted counts the entries of this replica's that wait for a quorum. One
// that is committed is out of the way before it is applied: the entry that
// follows it then leaves in the message that tells followers of the commit.
func (g *Group) uncommitted() (n int) {
	if len(g.pending) == 0 {
		return 0
	}
	commit := g.rn.BasicStatus().Commit
	for i := range g.pending {
		if g.pending[i].at.Index > commit {
			n++
		}
	}
	return n
}

// propose packs everything that waits into as few entries as possible and
// proposes them in one message. While earlier entries are on their way, what
// waits goes on waiting: it shares the next entry, whose cost in log, network
// and fsync is nearly that of one operation.
func (g *Group) propose(r *round) {
	if !g.canPropose() {
		return
	}
	g.dropCancelled()
	if len(g.waiting) == 0 {
		return
	}
	entries := r.proposed[:0]
	first := len(g.pending)
	for at := 0; at < len(g.waiting); {
		size, n := 1, 0
		for _, p := range g.waiting[at:] {
			b := operationBytes(p)
			if n > 0 && size+b > entryBytesMax {
				break
			}
			size += b
			n++
		}
		data := append(make([]byte, 0, size), entryFormat)
		for _, p := range g.waiting[at : at+n] {
			data = appendOperation(data, p)
		}
		entries = append(entries, raftpb.Entry{Data: data})
		g.pending = append(g.pending, pendingEntry{since: g.clock, proposals: append([]*Proposal(nil), g.waiting[at:at+n]...)})
		at += n
	}
	g.h.stats.entries.Add(uint64(len(entries)))
	g.h.stats.operations.Add(uint64(len(g.waiting)))
	clear(g.waiting)
	g.waiting = g.waiting[:0]

	// raft fills in index and term in our own slice and copies the entries.
	err := g.rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: uint64(g.replica), Entries: entries})
	if err != nil { // too much is uncommitted
		for _, e := range g.pending[first:] {
			for _, p := range e.proposals {
				g.finish(p, Result{}, shard.ErrDropped)
			}
		}
		clear(g.pending[first:])
		g.pending = g.pending[:first]
	}
	for i := range g.pending[first:] {
		g.pending[first+i].at = Position{Index: entries[i].Index, Term: entries[i].Term}
	}
	clear(entries)
	r.proposed = entries[:0]
}

// dropCancelled ends what was cancelled while it waited.
func (g *Group) dropCancelled() {
	keep := g.waiting[:0]
	for _, p := range g.waiting {
		if p.Cancelled.Load() {
			g.finish(p, Result{}, shard.ErrDropped)
		} else {
			keep = append(keep, p)
		}
	}
	clear(g.waiting[len(keep):])
	g.waiting = keep
}

// pendingAt finds this replica's own entry at a position that is applied now.
// An entry is its own only if index and term agree; with another term, another
// leader's entry was committed in its place. They are not in order of index: one
// of an earlier term, overwritten since, may be above one of the present term.
func (g *Group) pendingAt(at Position) *pendingEntry {
	for i := range g.pending {
		if e := &g.pending[i]; e.at == at {
			e.matched = true
			return e
		}
	}
	return nil
}

// expirePending gives up entries of a term in which this replica leads no longer,
// when nothing has decided their fate for long: a shard without a quorum, or a
// replica that was removed and is never told, would keep their bytes for ever,
// which are the whole node's.
func (g *Group) expirePending() {
	if len(g.pending) == 0 {
		return
	}
	term, leads := g.leads()
	keep := g.pending[:0]
	for i := range g.pending {
		e := g.pending[i]
		if leads && e.at.Term == term || g.clock-e.since <= pendingTimeouts*uint64(g.h.cfg.ElectionTicks) {
			keep = append(keep, e)
		} else {
			g.abandonPending(&e, shard.ErrUndetermined)
		}
	}
	clear(g.pending[len(keep):])
	g.pending = keep
}

// resolvePending removes entries whose fate the applied position decides. One
// that was not matched when its index was applied is not in the log and never
// will be. Nor will one above the applied index, once an entry of a later
// term is applied: terms never decrease along a log.
func (g *Group) resolvePending() {
	keep := g.pending[:0]
	for i := range g.pending {
		e := g.pending[i]
		switch {
		case e.at.Index <= g.applied.Index && e.matched:
		case e.at.Index <= g.applied.Index || e.at.Term < g.applied.Term:
			g.abandonPending(&e, shard.ErrDropped)
		default:
			keep = append(keep, e)
		}
	}
	clear(g.pending[len(keep):])
	g.pending = keep
}

// abandonPending ends an entry without a result.
func (g *Group) abandonPending(e *pendingEntry, err error) {
	for _, p := range e.proposals {
		g.finish(p, Result{}, err)
	}
	if e.membership != nil {
		e.membership(err)
	}
}

// skipPending follows an installed snapshot, which tells where the log is but
// not which entries led there.
func (g *Group) skipPending() {
	for i := range g.pending {
		if e := &g.pending[i]; e.at.Index <= g.applied.Index {
			e.matched = true // resolvePending only removes it
			g.abandonPending(e, shard.ErrUndetermined)
		}
	}
	g.resolvePending()
}
