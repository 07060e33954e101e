package storage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/internal/env"
)

// A simulated engine syncs when an event on Env says so, and flushes and
// compacts inside Commit, at counts of its own: what a crash loses then depends
// on the seed alone.
const (
	// simulatedSyncDelayMax bounds the random time from a commit to its sync.
	simulatedSyncDelayMax = 2 * time.Millisecond
	// simulatedFlushBytes of the worst case of a memtable's use are flushed, so
	// that no memtable is ever full enough to be rotated by Pebble itself.
	simulatedFlushBytes = 128 << 10
	// simulatedNodeBytes is more than any skiplist node takes beside its key and value.
	simulatedNodeBytes = 320
	// simulatedCompactFlushes flushes are followed by a compaction of everything.
	simulatedCompactFlushes = 16
)

// simulatedSync is the state of a simulated engine's explicit events.
//
// One goroutine runs a whole simulation, so it needs no lock, but for what
// Pebble's own goroutines tell.
//
// Invariant: an event is scheduled exactly while pending is not empty.
type simulatedSync struct {
	queue   env.Queue
	pending []func() // of commits since the last event
	covered bool     // all of them are durable already

	memtableBytes int // upper bound of what the present memtable holds
	flushes       int
	wals          int // made so far

	background struct {
		sync.Mutex
		events int // flushes that ended, and the engine's failure
	}
	event sync.Cond // on background
}

// note tells who waits in quiesce that something happened.
func (s *simulatedSync) note() {
	s.background.Lock()
	s.background.events++
	s.background.Unlock()
	s.event.Broadcast()
}

// listen has a simulated engine told of what it must wait for.
func (e *Engine) listen(l *pebble.EventListener) {
	l.FlushEnd = func(pebble.FlushInfo) { e.sim.note() }
	// A WAL is made by who rotates the memtable, on the simulation's goroutine.
	l.WALCreated = func(pebble.WALCreateInfo) { e.sim.wals++ }
}

// commitSimulated has done called by an event. With Config.SyncsEarlyPerMille the
// sync itself may be over before the next commit is made, as a disk may be that is
// faster than the engine's user: then that commit is not durable when done is
// called, and a crash keeps the one without the other.
func (e *Engine) commitSimulated(b *Batch, p *pebble.Batch, done func()) error {
	if err := e.applySimulated(b, p); err != nil {
		return err
	}
	e.sim.covered = false
	if n := e.cfg.SyncsEarlyPerMille; n > 0 && e.cfg.Env.Uint64()%1000 < uint64(n) {
		if err := e.syncWAL(); err != nil {
			return err
		}
		e.sim.covered = true
	}
	e.sim.pending = append(e.sim.pending, done)
	first := len(e.sim.pending) == 1
	if first {
		delay := time.Duration(e.cfg.Env.Uint64() % uint64(simulatedSyncDelayMax))
		e.cfg.Env.AfterFunc(delay, e.sim.queue, e.syncEvent)
	}
	return nil
}

// syncEvent syncs all that was committed before it, unless nobody waits for more
// than is durable, and tells so.
func (e *Engine) syncEvent() {
	pending := e.sim.pending
	e.sim.pending = nil
	if !e.sim.covered && e.syncWAL() != nil {
		return
	}
	for _, done := range pending {
		done()
	}
}

// Abandon closes a simulated engine that has failed, once its disk works again: what is
// left of a process that has ended must not stay in one that goes on. Of a real one
// nothing is left, and Close leaves everything as it is.
func (e *Engine) Abandon() error {
	err := e.db.Close()
	if lockErr := e.lock.Close(); err == nil {
		err = lockErr
	}
	return err
}

// applySimulated commits p, and does what Pebble would do by itself in
// production: between batches, so that each is on one side of a flush.
func (e *Engine) applySimulated(b *Batch, p *pebble.Batch) error {
	size := p.Len() + int(p.Count())*simulatedNodeBytes
	if e.sim.memtableBytes > 0 && e.sim.memtableBytes+size > simulatedFlushBytes {
		e.flushSimulated()
	}
	wals := e.sim.wals
	if err := e.apply(p, false); err != nil {
		return err
	}
	b.committed()
	p.Close()
	e.sim.memtableBytes += size
	if e.sim.wals != wals { // the batch alone is too large for a memtable
		e.quiesce()
	}
	return e.failure()
}

// flushSimulated flushes the memtable and, every so often, compacts everything.
func (e *Engine) flushSimulated() {
	e.sim.memtableBytes = 0
	e.sim.flushes++
	// Not Flush: it waits for ever when the disk fails.
	if _, err := e.db.AsyncFlush(); err != nil {
		e.fail(fmt.Errorf("flush: %w", err))
	}
	e.quiesce()
	if e.failure() != nil || e.sim.flushes%simulatedCompactFlushes != 0 {
		return
	}
	if err := e.db.Compact(context.Background(), []byte{0x00}, []byte{0xff, 0x00}, false); err != nil {
		e.fail(fmt.Errorf("compaction: %w", err))
	}
}

// quiesce returns when Pebble has flushed all memtables but the present one, or
// the engine has failed: no goroutine of Pebble touches the disk then, but for
// removing files that are obsolete.
func (e *Engine) quiesce() {
	e.sim.background.Lock()
	defer e.sim.background.Unlock()
	for {
		seen := e.sim.background.events
		e.sim.background.Unlock()
		done := e.failure() != nil || e.db.Metrics().MemTable.Count == 1
		e.sim.background.Lock()
		if done {
			return
		}
		for e.sim.background.events == seen {
			e.sim.event.Wait()
		}
	}
}
