package storage

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// This file is the adapter between Pebble, whose syncs are waited for, and the
// steps above, which never wait. It and Pebble itself are the only goroutines of
// this package.

// syncWaitersMax goroutines wait for syncs. One was seen to be a bottleneck at
// some hundred thousand completions a second; the lanes are spread over several.
const syncWaitersMax = 4

// waitersKept is the capacity, in commits, that a waiter's slices keep.
const waitersKept = 4096

// syncWaiter waits for the syncs of its lanes' commits and calls their done, in
// the order in which they were added.
//
// add never blocks: a worker that hands over a commit must be able to go on
// while done callbacks run, even if they wait for a lock that the worker holds.
// Outstanding commits are bounded by Pebble, which admits 4,095 unsynced ones.
type syncWaiter struct {
	mu struct {
		sync.Mutex
		pending []unsynced
		idle    bool // the goroutine waits on wake
		closed  bool
	}
	wake sync.Cond // on mu
}

type unsynced struct {
	batch *pebble.Batch
	done  func()
}

func (e *Engine) startWaiters() {
	if e.cfg.Simulated {
		return
	}
	for range syncWaitersMax {
		w := &syncWaiter{}
		w.wake.L = &w.mu.Mutex
		e.waiters = append(e.waiters, w)
		e.waiting.Add(1)
		go func() {
			defer e.waiting.Done()
			w.run(e)
		}()
	}
}

// stopWaiters returns when all commits that were added are completed, or at
// once after a failure.
func (e *Engine) stopWaiters() {
	for _, w := range e.waiters {
		w.mu.Lock()
		w.mu.closed = true
		w.mu.Unlock()
		w.wake.Signal()
	}
	if e.failure() == nil {
		e.waiting.Wait()
	}
}

func (w *syncWaiter) add(batch *pebble.Batch, done func()) {
	w.mu.Lock()
	w.mu.pending = append(w.mu.pending, unsynced{batch, done})
	idle := w.mu.idle
	w.mu.idle = false
	w.mu.Unlock()
	if idle {
		w.wake.Signal()
	}
}

func (w *syncWaiter) run(e *Engine) {
	var taken []unsynced
	for {
		if taken = w.take(taken); len(taken) == 0 {
			return
		}
		for i, u := range taken {
			if err := u.batch.SyncWait(); err != nil {
				e.fail(fmt.Errorf("WAL sync: %w", err))
			}
			if e.failure() != nil {
				return
			}
			u.batch.Close()
			u.done()
			taken[i] = unsynced{}
		}
	}
}

// take waits for commits and returns them all, leaving old, which is done with,
// to collect the next ones. It returns none once the waiter is closed and empty.
func (w *syncWaiter) take(old []unsynced) []unsynced {
	if cap(old) > waitersKept {
		old = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.mu.pending) == 0 && !w.mu.closed {
		w.mu.idle = true
		w.wake.Wait()
	}
	taken := w.mu.pending
	w.mu.pending = old[:0]
	return taken
}
