package raftgroup

import (
	"container/heap"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// loop is an env.Env on one goroutine. Steps of one queue run in order; which
// queue is next is drawn from the seed. Time moves only when nothing is due.
type loop struct {
	now    time.Duration
	seed   uint64
	timers timerHeap
	seq    uint64
	ready  []*loopQueue
}

func newLoop(seed uint64) *loop { return &loop{seed: seed*2 + 1} }

func (l *loop) Now() time.Duration { return l.now }

func (l *loop) Uint64() uint64 {
	l.seed += 0x9e3779b97f4a7c15
	z := l.seed
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (l *loop) NewQueue(string) env.Queue     { return &loopQueue{l: l} }
func (l *loop) NewPool(string, int) env.Queue { return &loopQueue{l: l} }

func (l *loop) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	l.seq++
	t := &loopTimer{at: l.now + max(d, 0), seq: l.seq, q: q, step: step}
	heap.Push(&l.timers, t)
	return t
}

// step runs one step and tells whether there was one.
func (l *loop) step() bool {
	for len(l.ready) == 0 {
		if len(l.timers) == 0 {
			return false
		}
		t := heap.Pop(&l.timers).(*loopTimer)
		if t.stopped {
			continue
		}
		t.fired = true
		l.now = max(l.now, t.at)
		t.q.Submit(t.step)
	}
	i := int(l.Uint64() % uint64(len(l.ready)))
	q := l.ready[i]
	step := q.steps[0]
	q.steps = q.steps[1:]
	if len(q.steps) == 0 {
		l.ready = append(l.ready[:i], l.ready[i+1:]...)
	}
	step()
	return true
}

type loopQueue struct {
	l     *loop
	steps []func()
}

func (q *loopQueue) Submit(step func()) {
	if q.steps = append(q.steps, step); len(q.steps) == 1 {
		q.l.ready = append(q.l.ready, q)
	}
}

type loopTimer struct {
	at             time.Duration
	seq            uint64
	q              env.Queue
	step           func()
	fired, stopped bool
}

func (t *loopTimer) Stop() bool {
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
	over bool
}

func (f *life) NewQueue(name string) env.Queue       { return &lifeQueue{f, f.loop.NewQueue(name)} }
func (f *life) NewPool(name string, n int) env.Queue { return &lifeQueue{f, f.loop.NewPool(name, n)} }

type lifeQueue struct {
	life *life
	q    env.Queue
}

func (q *lifeQueue) Submit(step func()) {
	q.q.Submit(func() {
		if !q.life.over {
			step()
		}
	})
}
