package prod

import "sync"

// pool runs steps on several goroutines. Each takes one step at a time, because
// a step here may wait for a disk and must not hold up those behind it.
//
// Invariant: idle counts the goroutines that wait on wake, and one waits only
// after it saw, under mu, that no step is pending.
type pool struct {
	mu struct {
		sync.Mutex
		closed  bool
		pending []func() // from head on
		head    int
		idle    int
	}
	wake sync.Cond // on mu
}

func newPool() *pool {
	p := &pool{}
	p.wake.L = &p.mu.Mutex
	return p
}

// Submit implements env.Queue.
func (p *pool) Submit(step func()) {
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return
	}
	p.mu.pending = append(p.mu.pending, step)
	wake := p.mu.idle > 0
	p.mu.Unlock()
	if wake {
		p.wake.Signal()
	}
}

func (p *pool) run() {
	for {
		step := p.take()
		if step == nil {
			return
		}
		step()
	}
}

// take waits for a step and returns it, or nil once the pool is closed.
func (p *pool) take() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.head == len(p.mu.pending) && !p.mu.closed {
		p.mu.idle++
		p.wake.Wait()
		p.mu.idle--
	}
	if p.mu.closed {
		return nil
	}
	step := p.mu.pending[p.mu.head]
	p.mu.pending[p.mu.head] = nil
	p.mu.head++
	p.compact()
	return step
}

// compact drops the taken half of pending once it is the larger one, so that a
// pool which is never empty does not grow for ever.
func (p *pool) compact() {
	switch n := len(p.mu.pending) - p.mu.head; {
	case n == 0:
		p.mu.pending = p.mu.pending[:0]
		if cap(p.mu.pending) > keptSteps {
			p.mu.pending = nil
		}
		p.mu.head = 0
	case p.mu.head >= 64 && p.mu.head > n:
		copy(p.mu.pending, p.mu.pending[p.mu.head:])
		clear(p.mu.pending[n:])
		p.mu.pending = p.mu.pending[:n]
		p.mu.head = 0
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.pending, p.mu.head = nil, 0
	p.mu.Unlock()
	p.wake.Broadcast()
}
