package replica

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// sweeper drops the versions that nobody can read any more, on each replica for
// itself: what is below the replicated floor is no part of the replicated state.
//
// One replica of the node is swept at a time, in parts. A part is read from a view
// on the Reads pool and committed on the group's turn, if the replica's generation is
// still even and what it was before the view was opened. A snapshot that was
// installed in between may come from a replica that has dropped less: what a
// tombstone hides there was dropped here long ago and is in no batch, so that the
// tombstone would go alone and the old value be read again. On the turn no
// installation can come between the comparison and the commit.
//
// Invariant: nothing is dropped below a floor before it is published.
//
// A sweep costs as much as the replica has versions. So it begins only when enough
// has been written below the floor since the last one: then every version that is
// dropped pays for looking at a few, and at most a third of what is stored is
// garbage. What is less than that would stay for ever in a shard that is written no
// more. A late sweep removes it, once nothing is left above the floor: one of those
// for everything that was written since the sweep before, so that a shard with
// nothing to drop is not looked at again, and all of them together take a small
// share of the rate. All is of the upkeep's queue, but for what says otherwise.
type sweeper struct {
	u     *upkeep
	after shard.ID // the shard that was swept last
	run   *sweepRun
	busy  bool      // a part is under way, or the timer is
	timer env.Timer // nil: none yet

	lateFrom  time.Duration // no late sweep begins before
	lateTimer env.Timer     // nil: none yet
}

// A part is as large as keeps its step and its batch short; with a low rate it is
// what the rate allows in partTime.
const (
	partDropsMax  = 1024
	partVisitsMax = 2048
	partTime      = 100 * time.Millisecond
	// visitsPerDrop is how many versions may be looked at in the time of one drop.
	visitsPerDrop = 4
	// lateRest is how long no late sweep begins after one: so many times as long as
	// the rate lets it take.
	lateRest = 20
)

// sweepRun is one sweep of a replica. While a part is under way it is that part's.
type sweepRun struct {
	r     *Replica
	floor shard.Revision
	below sample               // written up to the floor, as far as is known
	state storage.ReplicaState // when it began
	next  []byte               // where the next part starts

	late  bool
	drops float64 // what it took of the rate so far

	kept, keys, bytes uint64

	part       storage.Garbage
	span       shard.Span
	generation uint64
	began      time.Duration // the part
	dropped    int
	outcome    partOutcome
}

type partOutcome int

const (
	partDone      partOutcome = iota
	partDiscarded             // from a view that does not hold any more: once again
	partFailed                // the replica or the disk has stopped
)

// sweepState is what is kept of a replica's last sweep.
type sweepState struct {
	known           bool
	floor           shard.Revision
	below           sample
	left, leftBytes uint64 // what it left: versions, and about how many bytes

	// fresh: a snapshot was installed since. It may have brought back anything that
	// is below the floor. Set on the group's turn.
	fresh    atomic.Bool
	estimate atomic.Pointer[estimate]
}

func (w *sweeper) init(u *upkeep) { w.u = u }

func (w *sweeper) stop() {
	for _, t := range [...]env.Timer{w.timer, w.lateTimer} {
		if t != nil {
			t.Stop()
		}
	}
}

// look starts a sweep, or goes on with one that was paused.
func (w *sweeper) look() {
	if w.busy || w.u.closed.Load() || w.u.rate.Load() == 0 {
		return
	}
	if w.run == nil {
		enough, late := w.choose()
		switch {
		case enough != nil:
			w.begin(enough, false)
		case late != nil && w.u.store.cfg.Env.Now() >= w.lateFrom:
			w.begin(late, true)
		default:
			return
		}
	}
	w.submit()
}

// choose finds the next replicas, in order of shard, that have enough garbage, and
// that have any.
func (w *sweeper) choose() (enough, late *Replica) {
	next := func(found *Replica, r *Replica) *Replica {
		if found == nil || found.id <= w.after && r.id > w.after {
			return r
		}
		return found
	}
	for _, r := range w.u.store.replicas.all() {
		switch r.garbage() {
		case garbageEnough:
			enough = next(enough, r)
		case garbageLate:
			late = next(late, r)
		}
	}
	return enough, late
}

type garbage int

const (
	garbageFew    garbage = iota // too few to look for
	garbageEnough                // a sweep pays
	garbageLate                  // perhaps a few, and more will not come
)

// garbage tells how much there is, as far as is known: the first time, and after
// a snapshot, nothing is.
func (r *Replica) garbage() garbage {
	s, d := &r.sweep, r.descriptor.Load()
	floor := shard.Revision(r.floor.Load())
	if d == nil || floor == 0 || d.Span.Start[0] == shard.SystemKeyspace || r.generation.Load()%2 == 1 {
		return garbageFew
	}
	if !s.known || s.fresh.Load() {
		return garbageEnough
	}
	below := &r.history.below
	switch {
	case floor <= s.floor || below.versions <= s.below.versions:
		return garbageFew
	case below.versions-s.below.versions >= s.left/2 || below.bytes-s.below.bytes >= s.leftBytes/2:
		return garbageEnough
	case floor >= shard.Revision(r.lastRevision.Load()):
		return garbageLate
	}
	return garbageFew
}

func (w *sweeper) begin(r *Replica, late bool) {
	r.sweep.fresh.Store(false)
	floor := shard.Revision(r.floor.Load())
	r.history.forget(floor)
	state, _ := r.State()
	w.run = &sweepRun{r: r, state: state, floor: floor, below: r.history.below, late: late}
}

func (w *sweeper) submit() {
	w.busy = true
	w.run.began = w.u.store.cfg.Env.Now()
	w.u.store.cfg.Reads.Submit(w.read)
}

// read is the first half of a part: it finds the garbage. It runs on the Reads pool.
func (w *sweeper) read() {
	run := w.run
	r := run.r
	run.dropped, run.part = 0, storage.Garbage{}
	run.generation = r.generation.Load()
	d := r.descriptor.Load()
	if w.u.closed.Load() || r.hasStopped() {
		w.parted(partFailed)
		return
	}
	if run.generation%2 == 1 {
		w.parted(partDiscarded)
		return
	}
	run.span = shard.Span{Start: later(run.next, d.Span.Start), End: d.Span.End}
	if bytes.Compare(run.span.Start, run.span.End) >= 0 {
		w.parted(partDone) // the span has become narrower
		return
	}
	v := r.store.openView()
	g, err := v.Garbage(w.options(run))
	if err == nil {
		err = v.Close()
	} else {
		_ = v.Close()
	}
	switch {
	case r.generation.Load() != run.generation:
		w.parted(partDiscarded)
	case err != nil:
		r.store.cfg.Logger.Error("reading what is to be dropped", "shard", uint64(r.id), "error", err)
		w.parted(partFailed)
	case g.Drops() == 0:
		run.part = g
		w.parted(partDone)
	default:
		run.part = g
		r.group.Turn(w.commit, func(error) { w.parted(partFailed) })
	}
}

func (w *sweeper) options(run *sweepRun) storage.GarbageOptions {
	perPart := int64(float64(max(w.u.rate.Load(), 1)) * partTime.Seconds())
	drops := min(max(perPart, 1), partDropsMax)
	return storage.GarbageOptions{Span: run.span, Floor: run.floor, DropsMax: int(drops),
		VisitsMax: int(min(drops*visitsPerDrop, partVisitsMax))}
}

// commit is the second half of a part, on the group's turn.
func (w *sweeper) commit() {
	run := w.run
	if run.r.generation.Load() != run.generation && !planted.On(planted.DropWithoutItsShadow) {
		w.parted(partDiscarded)
		return
	}
	s := run.r.store
	b := s.cfg.Engine.NewBatch()
	b.Drop(&run.part)
	if err := s.cfg.Engine.Commit(b); err != nil {
		w.parted(partFailed)
		return
	}
	run.dropped = run.part.Drops()
	s.stats.versionsDropped.Add(uint64(run.dropped))
	w.parted(partDone)
}

// parted ends a part.
func (w *sweeper) parted(outcome partOutcome) {
	w.run.outcome = outcome
	w.u.queue.Submit(w.next)
}

// next goes on after a part: with the next one, when the rate allows it, or with
// another replica.
func (w *sweeper) next() {
	run := w.run
	pause := time.Duration(0)
	switch run.outcome {
	case partFailed:
		w.end()
		return
	case partDiscarded:
		pause = partTime
	case partDone:
		run.kept += uint64(run.part.Kept)
		run.keys += run.part.Keys
		run.bytes += run.part.Bytes
		run.drops += run.cost()
		if run.part.Resume == nil {
			w.finish()
			return
		}
		run.next = run.part.Resume
		pause = w.pause(run)
	}
	if pause <= 0 {
		w.resume()
		return
	}
	w.timer = w.u.store.cfg.Env.AfterFunc(pause, w.u.queue, w.resume)
}

// pause is how long the rate forbids the next part.
func (w *sweeper) pause(run *sweepRun) time.Duration {
	return w.allowed(run.cost()) - (w.u.store.cfg.Env.Now() - run.began)
}

// cost is what the last part takes of the rate, in drops.
func (run *sweepRun) cost() float64 {
	return max(float64(run.dropped), float64(run.part.Visited)/visitsPerDrop)
}

// allowed is how long the rate lets so many drops take.
func (w *sweeper) allowed(drops float64) time.Duration {
	const yearsMax = 1e8 // seconds; a duration holds lateRest times as many
	return time.Duration(min(drops/float64(max(w.u.rate.Load(), 1)), yearsMax) * float64(time.Second))
}

func (w *sweeper) resume() {
	w.busy = false
	w.look()
}

// finish ends a sweep that has seen the whole replica.
func (w *sweeper) finish() {
	run := w.run
	s := &run.r.sweep
	s.known, s.floor, s.below, s.left = true, run.floor, run.below, run.kept
	s.leftBytes = run.bytes / max(run.keys, 1) * run.kept
	s.estimate.Store(s.estimate.Load().next(run.keys, run.bytes, &run.state))
	w.u.store.stats.sweeps.Add(1)
	w.end()
}

// end lets go of a sweep and looks for the next one.
func (w *sweeper) end() {
	w.after = w.run.r.id
	failed := w.run.outcome == partFailed
	if w.run.late {
		w.rest(w.run)
	}
	w.run, w.busy = nil, false
	if !failed { // else with the next tick: it may fail at once again
		w.look()
	}
}

// rest keeps the next late sweep away for a time. Whatever is worth a sweep in
// the meantime gets its own.
func (w *sweeper) rest(run *sweepRun) {
	e := w.u.store.cfg.Env
	d := max(lateRest*w.allowed(run.drops), partTime)
	w.lateFrom = e.Now() + d
	w.lateTimer = e.AfterFunc(d, w.u.queue, w.look)
}

// hasStopped tells whether the replica takes no further part.
func (r *Replica) hasStopped() bool {
	r.deferredMu.Lock()
	defer r.deferredMu.Unlock()
	return r.stopped
}
