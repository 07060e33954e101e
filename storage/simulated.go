package storage

import (
	"context"
	"fmt"
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
// One goroutine runs a whole simulation, so it needs no lock.
//
// Invariant: an event is scheduled exactly while pending is not empty.
type simulatedSync struct {
	queue   env.Queue
	pending []func() // of commits since the last event

	memtableBytes int // upper bound of what the present memtable holds
	flushes       int
}

func (e *Engine) commitSimulated(b *Batch, p *pebble.Batch, done func()) error {
	if err := e.applySimulated(b, p); err != nil {
		return err
	}
	e.sim.pending = append(e.sim.pending, done)
	first := len(e.sim.pending) == 1
	if first {
		delay := time.Duration(e.cfg.Env.Uint64() % uint64(simulatedSyncDelayMax))
		e.cfg.Env.AfterFunc(delay, e.sim.queue, e.syncEvent)
	}
	return nil
}

// syncEvent syncs all that was committed before it, and tells so.
func (e *Engine) syncEvent() {
	pending := e.sim.pending
	e.sim.pending = nil
	if e.syncWAL() != nil {
		return
	}
	for _, done := range pending {
		done()
	}
}

// applySimulated commits p, and does what Pebble would do by itself in
// production: between batches, so that each is on one side of a flush.
func (e *Engine) applySimulated(b *Batch, p *pebble.Batch) error {
	size := p.Len() + int(p.Count())*simulatedNodeBytes
	if e.sim.memtableBytes > 0 && e.sim.memtableBytes+size > simulatedFlushBytes {
		e.flushSimulated()
	}
	if err := e.apply(p, false); err != nil {
		return err
	}
	b.committed()
	p.Close()
	e.sim.memtableBytes += size
	if size > simulatedFlushBytes {
		e.flushSimulated()
	}
	return e.failure()
}

func (e *Engine) flushSimulated() {
	e.sim.memtableBytes = 0
	e.sim.flushes++
	if err := e.db.Flush(); err != nil {
		e.fail(fmt.Errorf("flush: %w", err))
		return
	}
	if e.sim.flushes%simulatedCompactFlushes != 0 {
		return
	}
	if err := e.db.Compact(context.Background(), []byte{0x00}, []byte{0xff, 0x00}, false); err != nil {
		e.fail(fmt.Errorf("compaction: %w", err))
	}
}
