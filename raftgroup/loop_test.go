package raftgroup

import (
	"container/heap"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// loop is an env.Env on one goroutine. Steps of one queue run in order; which
// queue is next is drawn from the seed. Time moves only when nothing is due.
//
// Steps may be submitted from other goroutines, as those of an engine that is not
// simulated; idle then waits for what these are about to submit.
type loop struct {
	idle func() // called before time moves; may be nil

	mu     sync.Mutex // guards what follows
	now    time.Duration
	seed   uint64
	timers timerHeap
	seq    uint64
	ready  []*loopQueue
}

func newLoop(seed uint64) *loop { return &loop{seed: seed*2 + 1} }

func (l *loop) Now() time.Duration { return l.now }

func (l *loop) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.draw()
}

func (l *loop) draw() uint64 {
	l.seed += 0x9e3779b97f4a7c15
	z := l.seed
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (l *loop) NewQueue(string) env.Queue     { return &loopQueue{l: l} }
func (l *loop) NewPool(string, int) env.Queue { return &loopQueue{l: l} }

func (l *loop) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	t := &loopTimer{l: l, at: l.now + max(d, 0), seq: l.seq, q: q, step: step}
	heap.Push(&l.timers, t)
	return t
}

// step runs one step and tells whether there was one.
func (l *loop) step() bool {
	next := l.next()
	if next == nil && l.idle != nil {
		l.idle()
		next = l.next()
	}
	for next == nil {
		t := l.due()
		if t == nil {
			return false
		}
		t.q.Submit(t.step)
		next = l.next()
	}
	next()
	return true
}

// next takes a step that is ready, if any.
func (l *loop) next() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ready) == 0 {
		return nil
	}
	i := int(l.draw() % uint64(len(l.ready)))
	q := l.ready[i]
	step := q.steps[0]
	q.steps = q.steps[1:]
	if len(q.steps) == 0 {
		l.ready = append(l.ready[:i], l.ready[i+1:]...)
	}
	return step
}

// due moves the time to the next timer, if any.
func (l *loop) due() *loopTimer {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.timers) > 0 {
		t := heap.Pop(&l.timers).(*loopTimer)
		if t.stopped {
			continue
		}
		t.fired = true
		l.now = max(l.now, t.at)
		return t
	}
	return nil
}

type loopQueue struct {
	l     *loop
	steps []func()
}

func (q *loopQueue) Submit(step func()) {
	q.l.mu.Lock()
	defer q.l.mu.Unlock()
	if q.steps = append(q.steps, step); len(q.steps) == 1 {
		q.l.ready = append(q.l.ready, q)
	}
}

type loopTimer struct {
	l              *loop
	at             time.Duration
	seq            uint64
	q              env.Queue
	step           func()
	fired, stopped bool
}

func (t *loopTimer) Stop() bool {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	was := !t.fired && !t.stopped
	t.stopped = true
	return was
}

type timerHeap []*loopTimer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(*loopTimer)) }
func (h *timerHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// life is a node's share of the loop: after its end none of its steps run.
type life struct {
	*loop
	over   bool
	paused bool
	held   []heldStep // while it is paused
}

type heldStep struct {
	q    env.Queue
	step func()
}

func (f *life) NewQueue(name string) env.Queue       { return &lifeQueue{f, f.loop.NewQueue(name)} }
func (f *life) NewPool(name string, n int) env.Queue { return &lifeQueue{f, f.loop.NewPool(name, n)} }

type lifeQueue struct {
	life *life
	q    env.Queue
}

func (q *lifeQueue) Submit(step func()) {
	q.q.Submit(func() {
		switch {
		case q.life.over:
		case q.life.paused:
			q.life.held = append(q.life.held, heldStep{q, step})
		default:
			step()
		}
	})
}
