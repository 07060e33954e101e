package prod

import (
	"sync"
	"sync/atomic"
)

// queue runs steps one at a time, in order. Submitters append to one slice while
// the goroutine works through another; the two are swapped under the lock, so
// that the lock is taken once per run of steps and not once per step.
//
// Invariant: the goroutine waits only while pending is empty and the queue is
// open, both seen under mu; so a Submit that finds it waiting is the one that
// wakes it, and no wake-up is lost.
type queue struct {
	closed atomic.Bool // written under mu; read between steps without it

	mu struct {
		sync.Mutex
		pending []func()
		waiting bool
	}
	wake sync.Cond // on mu
}

// keptSteps is the capacity, in steps, of a slice that is kept for reuse: a
// burst must not hold its memory for ever.
const keptSteps = 4096

func newQueue() *queue {
	q := &queue{}
	q.wake.L = &q.mu.Mutex
	return q
}

// Submit implements env.Queue.
func (q *queue) Submit(step func()) {
	q.mu.Lock()
	if q.closed.Load() {
		q.mu.Unlock()
		return
	}
	q.mu.pending = append(q.mu.pending, step)
	wake := q.mu.waiting
	q.mu.waiting = false
	q.mu.Unlock()
	if wake {
		q.wake.Signal()
	}
}

func (q *queue) run() {
	var steps []func()
	for {
		if steps = q.take(steps); steps == nil {
			return
		}
		for i, step := range steps {
			if q.closed.Load() {
				return
			}
			step()
			steps[i] = nil // what the step held may be collected while the rest runs
		}
	}
}

// take waits for steps and returns them all, leaving done, emptied, to collect
// the next ones. It returns nil once the queue is closed.
func (q *queue) take(done []func()) []func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mu.pending) == 0 && !q.closed.Load() {
		q.mu.waiting = true
		q.wake.Wait()
	}
	if q.closed.Load() {
		return nil
	}
	steps := q.mu.pending
	if cap(done) > keptSteps {
		done = nil
	}
	q.mu.pending = done[:0]
	return steps
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed.Store(true)
	q.mu.pending = nil
	q.mu.Unlock()
	q.wake.Broadcast()
}
