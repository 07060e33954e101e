package clienttest

import (
	"container/heap"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// Env is an environment whose steps run on the caller's goroutine, in order of
// time, then of submission: one seed gives one run. It is not safe for
// concurrent use.
type Env struct {
	now    time.Duration
	random uint64
	serial uint64
	agenda agenda
}

var _ env.Env = (*Env)(nil)

// NewEnv makes an environment.
func NewEnv(seed uint64) *Env { return &Env{random: seed, now: time.Hour} }

// Now implements env.Env.
func (e *Env) Now() time.Duration { return e.now }

// Uint64 implements env.Env; the numbers are a splitmix64 sequence.
func (e *Env) Uint64() uint64 {
	e.random += 0x9e3779b97f4a7c15
	z := e.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// NewQueue implements env.Env.
func (e *Env) NewQueue(string) env.Queue { return envQueue{e} }

// NewPool implements env.Env.
func (e *Env) NewPool(string, int) env.Queue { return envQueue{e} }

// AfterFunc implements env.Env.
func (e *Env) AfterFunc(d time.Duration, _ env.Queue, step func()) env.Timer {
	return e.After(d, step)
}

// After runs step once d has passed.
func (e *Env) After(d time.Duration, step func()) env.Timer {
	e.serial++
	a := &appointment{at: e.now + max(d, 0), serial: e.serial, step: step}
	heap.Push(&e.agenda, a)
	return a
}

// Run runs steps until stop holds, or d has passed. It tells whether stop holds.
func (e *Env) Run(d time.Duration, stop func() bool) bool {
	for end := e.now + d; !stop(); {
		if len(e.agenda) == 0 || e.agenda[0].at > end {
			e.now = end
			return false
		}
		a := heap.Pop(&e.agenda).(*appointment)
		e.now = max(e.now, a.at)
		if step := a.step; step != nil {
			a.step = nil
			step()
		}
	}
	return true
}

// Pass lets d pass.
func (e *Env) Pass(d time.Duration) { e.Run(d, func() bool { return false }) }

type envQueue struct{ e *Env }

func (q envQueue) Submit(step func()) { q.e.After(0, step) }

type appointment struct {
	at     time.Duration
	serial uint64
	step   func()
}

// Stop implements env.Timer.
func (a *appointment) Stop() bool {
	pending := a.step != nil
	a.step = nil
	return pending
}

type agenda []*appointment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*appointment)) }
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	return last
}
