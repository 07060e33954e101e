package prod

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// Env implements env.Env. Its methods are safe for concurrent use.
type Env struct {
	origin time.Duration // of the clock, at New

	mu struct {
		sync.Mutex
		closed  bool
		runners []runner
	}
	running sync.WaitGroup // one per goroutine that runs steps
}

var _ env.Env = (*Env)(nil)

// runner is a queue or a pool as Close sees it.
type runner interface{ close() }

// New makes an environment without queues. The caller closes it.
func New() *Env {
	return &Env{origin: readClock()}
}

// Now is the time since New, suspend included where the operating system tells.
func (e *Env) Now() time.Duration { return readClock() - e.origin }

// AfterFunc submits step to q once d has passed. The delay itself does not
// count suspend: a timer may come late after one, never early.
func (e *Env) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	return time.AfterFunc(d, func() { q.Submit(step) })
}

// Uint64 is random; the generator is seeded by the operating system.
func (e *Env) Uint64() uint64 { return rand.Uint64() }

// NewQueue makes a queue with one goroutine of its own.
func (e *Env) NewQueue(name string) env.Queue {
	q := newQueue()
	e.start(q, name, 1, q.run)
	return q
}

// NewPool makes a queue with workers goroutines of its own; fewer than one
// counts as one.
func (e *Env) NewPool(name string, workers int) env.Queue {
	p := newPool()
	e.start(p, name, max(workers, 1), p.run)
	return p
}

// start runs the runner's goroutines, unless the environment was closed before.
func (e *Env) start(r runner, name string, goroutines int, run func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		r.close()
		return
	}
	e.mu.runners = append(e.mu.runners, r)
	for range goroutines {
		e.running.Go(func() { labelled(name, run) })
	}
}

// Close stops every queue after the step that it is running, and returns when
// no step runs any more. Steps that were submitted and have not begun are
// discarded, as are those submitted later and those of pending timers. It must
// not be called from a step, which would wait for itself. Closing twice is
// harmless.
func (e *Env) Close() {
	e.mu.Lock()
	e.mu.closed = true
	runners := e.mu.runners
	e.mu.runners = nil
	e.mu.Unlock()
	for _, r := range runners {
		r.close()
	}
	e.running.Wait()
}
