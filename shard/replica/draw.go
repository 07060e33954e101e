package replica

import (
	"sync"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// draws brings the writes of one replica and revisions together. One draw is in
// flight at a time; it serves every write that was waiting when it was sent and
// no other: a revision that is handed to a write which came after the draw was
// sent could be smaller than that of a write elsewhere which was acknowledged in
// between, and the order of revisions would not be an order in real time.
//
// A draw is sent when all writes of the one before have their outcome, and not while
// they are on their way through the log. Writes would have to wait for that in any
// case; if they wait for it without a revision, then all that have come by then share
// one entry, instead of being spread over those that have drawn and those that have not.
//
// Whoever finds nothing under way sends a draw, and goes on as long as there are
// writes: proposals are made by one step at a time, in the order of revisions.
type draws struct {
	r     *Replica
	drawn func(first shard.Revision, err error)

	mu      sync.Mutex
	waiting []*write
	spare   []*write // the other buffer, empty
	running bool     // a step sends a draw, or one is in flight
	calling bool     // Draw has not returned yet
	ready   bool     // and its answer was dealt with
	logged  int      // writes that were drawn for and have no outcome yet

	// sent are the writes of the draw in flight. It belongs to whoever owns that:
	// send, then answered.
	sent []*write
}

// spareMax is how many writes the buffers of an idle replica have room for.
const spareMax = 256

func (d *draws) init(r *Replica) {
	d.r = r
	d.drawn = d.answered
}

// add lets w wait for the next draw. One that comes after its term has ended is not
// among those that deposed refuses, and would wait for them.
func (d *draws) add(w *write) {
	d.mu.Lock()
	if l := d.r.leadership.Load(); !l.Leading || w.term != l.Term {
		d.mu.Unlock()
		w.finish(shard.Response{Err: d.r.notLeader()})
		return
	}
	d.waiting = append(d.waiting, w)
	start := d.startLocked()
	d.mu.Unlock()
	if start {
		d.run()
	}
}

// left tells that a write that was drawn for has its outcome.
func (d *draws) left() {
	d.mu.Lock()
	d.logged--
	start := d.startLocked()
	d.mu.Unlock()
	if start {
		d.run()
	}
}

// startLocked tells whether the caller is to run: nobody else does, and there is
// something to do.
func (d *draws) startLocked() bool {
	if d.running || d.logged > 0 || len(d.waiting) == 0 {
		return false
	}
	d.running = true
	return true
}

// expecting tells whether writes wait here for their revision.
func (d *draws) expecting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running || len(d.waiting) > 0
}

// deposed refuses what waits and is not meant for the term of l. Without a draw
// it would wait for the outcome of what an earlier leadership has in the log.
func (d *draws) deposed(l *raftgroup.Leadership) {
	d.mu.Lock()
	var refused []*write
	kept := d.waiting[:0]
	for _, w := range d.waiting {
		if l.Leading && w.term == l.Term {
			kept = append(kept, w)
		} else {
			refused = append(refused, w)
		}
	}
	clear(d.waiting[len(kept):])
	d.waiting = kept
	d.mu.Unlock()
	for _, w := range refused {
		w.finish(shard.Response{Err: d.r.notLeader()})
	}
}

// run sends draws until one does not answer at once, or is on its way through the
// log, or nothing waits.
func (d *draws) run() {
	for d.take() {
		if !d.send() {
			return
		}
	}
}

// take moves all that waits to sent.
func (d *draws) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 || d.logged > 0 {
		d.running = false
		return false
	}
	d.sent, d.waiting, d.spare = d.waiting, d.spare, nil
	return true
}

// send sends a draw for the writes in sent, and tells whether it is done with.
func (d *draws) send() bool {
	// The term is the one in which the draw is sent, and each write is proposed in
	// that term or never: what an earlier leader of the shard has in its log is
	// applied here by now, and so below the revisions that are drawn.
	l := d.r.leadership.Load()
	kept := d.sent[:0]
	for _, w := range d.sent {
		if !l.Leading || w.term != l.Term {
			w.finish(shard.Response{Err: d.r.notLeader()})
			continue
		}
		w.draws++
		kept = append(kept, w)
	}
	clear(d.sent[len(kept):])
	d.sent = kept
	if len(kept) == 0 {
		d.recycle()
		return true
	}
	d.mu.Lock()
	d.calling, d.ready = true, false
	d.mu.Unlock()
	d.r.store.cfg.Revisions.Draw(len(kept), d.drawn)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calling = false
	return d.ready
}

// answered is called with the draw's revisions, within Draw or later.
func (d *draws) answered(first shard.Revision, err error) {
	if err == nil {
		d.mu.Lock()
		d.logged = len(d.sent)
		d.mu.Unlock()
	}
	for i, w := range d.sent {
		if err != nil {
			w.finish(shard.Response{Err: err})
			continue
		}
		w.drawn = true
		w.propose(first + shard.Revision(i))
	}
	clear(d.sent)
	d.recycle()
	d.mu.Lock()
	d.ready = true
	calling := d.calling
	d.mu.Unlock()
	if !calling {
		d.run()
	}
}

// recycle keeps the buffer of sent, whose writes are gone, unless it is large.
func (d *draws) recycle() {
	buffer := d.sent[:0]
	d.sent = nil
	if cap(buffer) > spareMax {
		return
	}
	d.mu.Lock()
	if d.spare == nil {
		d.spare = buffer
	}
	d.mu.Unlock()
}
