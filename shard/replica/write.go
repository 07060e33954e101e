package replica

import (
	"errors"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// drawsMax is how often one write draws because its revision came too late,
// before its caller is asked to try again.
const drawsMax = 8

// write is one write between Execute and its reply. The memory is used again
// after that; nobody else may hold on to it.
type write struct {
	r       *Replica
	id      uint64
	reply   func(shard.Response)
	command []byte
	op      shard.OpID
	bytes   int // of the budget
	counted bool
	version uint64
	term    uint64 // that the attempt is meant for
	draws   int    // 0: unversioned
	drawn   bool   // has a revision, and no outcome yet

	stream     *Stream // nil: none
	prev, next *write  // on the stream; under its lock

	header   [machine.HeaderBytesMax]byte
	proposal raftgroup.Proposal
}

// newWrite makes the pool's writes. The method value is bound once for all uses.
func newWrite() any {
	w := new(write)
	w.proposal.Done = w.done
	return w
}

func (s *Store) write(r *Replica, q *shard.Request, c *shard.Command, st *Stream, reply func(shard.Response)) {
	bytes := writeBytes(q, c)
	// The cluster's own records are written whatever waits: the writes that fill the
	// budget may be waiting for revisions, and so for one of these.
	counted := !c.System()
	if counted && !s.writeBudget.take(bytes) {
		s.refuse(q.ID, shard.ErrBusy, reply)
		return
	}
	s.stats.write(c)
	r.load.write(c, len(q.Command))
	w := s.writePool.Get().(*write)
	w.r, w.id, w.reply, w.command = r, q.ID, reply, q.Command
	w.bytes, w.counted, w.version, w.term, w.draws = bytes, counted, q.Target.Version, q.Target.Term, 0
	w.op = c.Op
	w.proposal.Cancelled.Store(false)
	if st != nil && !st.add(w, c.Retry) {
		w.finish(shard.Response{Err: shard.ErrDropped})
		return
	}
	if c.System() {
		w.propose(0)
		return
	}
	if c.Kind == shard.KindDeleteRange {
		w.weigh(c)
		return
	}
	r.draws.add(w)
}

// tombstoneBytes is what one key of a delete-range may take at apply. Few of them
// are under way at once then; but many of the longest keys in one entry would make a
// batch that no replica can commit.
const tombstoneBytes = shard.KeyBytesMax + 64

// writeBytes is what a write takes of the budget: its bytes, and those that a
// delete-range, a few bytes itself, makes of them when it is applied.
func writeBytes(q *shard.Request, c *shard.Command) int {
	n := len(q.Command)
	if c.Kind == shard.KindDeleteRange {
		n += int(c.Limit) * tombstoneBytes
	}
	return n
}

// propose puts the write on its way into the log, in the term that it is meant
// for and no other. In a later term its revision may be smaller than one that
// another leader has handed out since.
func (w *write) propose(rev shard.Revision) {
	if w.proposal.Cancelled.Load() {
		w.finish(shard.Response{Err: shard.ErrDropped})
		return
	}
	w.proposal.Header = machine.AppendHeader(w.header[:0], machine.Header{Revision: rev, Version: w.version})
	w.proposal.Body = w.command
	w.proposal.Term = w.term
	if planted.On(planted.ProposedInALaterTerm) {
		w.proposal.Term = w.r.Leadership().Term
	}
	if err := w.r.group.Propose(&w.proposal); err != nil {
		w.finish(shard.Response{Err: w.r.hinted(err)})
		return
	}
	if planted.On(planted.AckBeforeQuorum) && shard.Kind(w.command[0]) == shard.KindPut {
		w.reply(shard.Response{ID: w.id, Result: shard.Result{Revision: rev}})
		w.reply = func(shard.Response) {}
	}
}

// done is the proposal's Done. It runs on the group's turn.
func (w *write) done(res raftgroup.Result, err error) {
	switch {
	case err != nil:
		w.finish(shard.Response{Err: w.r.hinted(err)})
	case errors.Is(res.Err, machine.ErrStaleRevision):
		w.drawAgain()
	case res.Err != nil:
		w.finish(shard.Response{Err: w.rerouted(res.Err)})
	default:
		w.finish(shard.Response{Result: resultOf(&res)})
	}
}

// resultOf is a write's outcome as its caller gets it. The machine tells that of a
// batch and of a delete-range whole.
func resultOf(res *raftgroup.Result) shard.Result {
	if detail, ok := res.Detail.(*shard.Result); ok {
		return *detail
	}
	return shard.Result{Revision: res.Revision, Found: res.Found, Value: res.Data}
}

// drawAgain lets the write wait once more, by a step of its own: on the group's turn it
// would draw before those that share its entry have come as far.
func (w *write) drawAgain() {
	s, r := w.r.store, w.r
	if w.draws >= drawsMax {
		w.finish(shard.Response{Err: shard.ErrDropped})
		return
	}
	s.stats.redraws.Add(1)
	w.drawn = false
	s.cfg.Reads.Submit(func() { r.draws.add(w) })
	r.draws.left()
}

// finish replies. w is somebody else's afterwards.
func (w *write) finish(p shard.Response) {
	r, s, drawn := w.r, w.r.store, w.drawn
	if w.stream != nil {
		w.stream.remove(w)
	}
	p.ID = w.id
	if p.Err != nil {
		s.stats.failed(p.Err)
	}
	w.reply(p)
	if w.counted {
		s.writeBudget.give(w.bytes)
	}
	w.r, w.reply, w.command, w.drawn = nil, nil, nil, false
	w.proposal.Header, w.proposal.Body = nil, nil
	s.writePool.Put(w)
	if drawn {
		r.draws.left()
	}
}
