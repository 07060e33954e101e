package fake

import (
	"container/heap"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// Env is an environment with one loop and a clock of its own. Not safe for
// concurrent use.
type Env struct {
	now    time.Duration
	random uint64
	serial uint64
	steps  agenda
	// Steps counts what ran.
	Steps int
}

// NewEnv makes an environment; seed decides its random numbers.
func NewEnv(seed uint64) *Env { return &Env{random: seed} }

var _ env.Env = (*Env)(nil)

func (e *Env) Now() time.Duration { return e.now }

// Uint64 is a splitmix64 sequence.
func (e *Env) Uint64() uint64 {
	e.random += 0x9e3779b97f4a7c15
	z := e.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (e *Env) NewQueue(string) env.Queue     { return queue{e} }
func (e *Env) NewPool(string, int) env.Queue { return queue{e} }

func (e *Env) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	return e.at(e.now+max(d, 0), step)
}

func (e *Env) at(t time.Duration, step func()) *item {
	e.serial++
	it := &item{at: t, serial: e.serial, step: step}
	heap.Push(&e.steps, it)
	return it
}

// RunFor lets d pass: every step that becomes due runs, in order of time, then
// of submission.
func (e *Env) RunFor(d time.Duration) {
	end := e.now + d
	e.RunUntil(func() bool { return len(e.steps) > 0 && e.steps[0].at > end }, end)
	e.now = end
}

// RunUntil runs steps until stop holds, nothing is left to run, or the clock
// would pass end. It tells whether stop holds.
func (e *Env) RunUntil(stop func() bool, end time.Duration) bool {
	for !stop() {
		if len(e.steps) == 0 || e.steps[0].at > end {
			return false
		}
		it := heap.Pop(&e.steps).(*item)
		e.now = max(e.now, it.at)
		if it.step != nil {
			step := it.step
			it.step = nil
			e.Steps++
			step()
		}
	}
	return true
}

type queue struct{ e *Env }

func (q queue) Submit(step func()) { q.e.at(q.e.now, step) }

type item struct {
	at     time.Duration
	serial uint64
	step   func()
}

// Stop implements env.Timer.
func (it *item) Stop() bool {
	pending := it.step != nil
	it.step = nil
	return pending
}

type agenda []*item

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*item)) }
func (a *agenda) Pop() any {
	old := *a
	it := old[len(old)-1]
	*a = old[:len(old)-1]
	return it
}
