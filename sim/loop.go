package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// Loop is the event loop of a whole simulated world. It runs one step at a
// time, in the order of virtual time, and is the only source of chance: the
// same seed gives the same order of steps.
//
// Order is promised within a queue only. Between queues every step is put off by
// a small seeded delay, so that seeds differ in which of several runnable queues
// goes first. Invariant: events are totally ordered by (at, seq), and seq is
// given in the order in which steps asked for them; nothing in the order comes
// from a map, an address or another goroutine.
type Loop struct {
	now    time.Duration
	seq    uint64
	steps  uint64
	events eventHeap
	rand   *rand.Rand
	trace  *Trace
	worlds uint64 // environments made so far
}

// NewLoop makes a loop whose virtual time begins at 0.
func NewLoop(seed uint64, trace *Trace) *Loop {
	return &Loop{rand: rand.New(rand.NewPCG(seed, 0x6b696c6f72616674)), trace: trace}
}

// Now is the virtual time since the start of the run.
func (l *Loop) Now() time.Duration { return l.now }

// Steps is the number of steps that ran.
func (l *Loop) Steps() uint64 { return l.steps }

// Rand is the run's source of chance. Who draws from it takes part in the order.
func (l *Loop) Rand() *rand.Rand { return l.rand }

// between is a uniformly drawn duration in [lo, hi].
func (l *Loop) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(l.rand.Int64N(int64(hi-lo)+1))
}

// chance is true with a probability of perMille in a thousand.
func (l *Loop) chance(perMille int) bool { return l.rand.IntN(1000) < perMille }

// After runs step at now+d. It belongs to the world, not to a node: no crash
// discards it.
func (l *Loop) After(d time.Duration, name string, step func()) {
	l.push(&event{at: l.now + max(d, 0), name: name, run: step})
}

// Run runs steps until done says so after one of them (nil: never), until
// virtual time would pass until, or until nothing is left to do. It reports whether
// done was reached. More than stepsMax steps are an error: a cluster that spins.
func (l *Loop) Run(until time.Duration, stepsMax uint64, done func() bool) (bool, error) {
	for limit := l.steps + stepsMax; ; {
		if done != nil && done() {
			return true, nil
		}
		if len(l.events) == 0 || l.events[0].at > until {
			l.now = max(l.now, until)
			return false, nil
		}
		if l.steps >= limit {
			return false, fmt.Errorf("more than %d steps before %v: the cluster spins", stepsMax, until)
		}
		l.step(heap.Pop(&l.events).(*event))
	}
}

// step runs one event, or puts it off while its environment is paused.
func (l *Loop) step(e *event) {
	if e.env != nil {
		if e.env.closed {
			return
		}
		if e.env.pausedUntil > e.at {
			e.at = e.env.pausedUntil // seq is kept, and so is the order
			heap.Push(&l.events, e)
			return
		}
	}
	if e.timer != nil && !e.timer.fire() {
		return
	}
	l.now = e.at
	l.steps++
	l.trace.step(l.now, e)
	if e.env != nil && e.env.around != nil {
		e.env.around(e.name, e.run)
		return
	}
	e.run()
}

func (l *Loop) push(e *event) {
	l.seq++
	e.seq = l.seq
	heap.Push(&l.events, e)
}

type event struct {
	at    time.Duration
	seq   uint64
	env   *Env   // nil: the world's own
	name  string // of the queue
	timer *timer // nil: not a timer
	run   func()
}

type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, k int) bool {
	if h[i].at != h[k].at {
		return h[i].at < h[k].at
	}
	return h[i].seq < h[k].seq
}
func (h eventHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(*event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

var _ env.Env = (*Env)(nil)

// Env is what one incarnation of a node, or one client, may ask of the world.
// Close ends the incarnation: nothing that it had under way runs any more, which
// is what a crash does.
type Env struct {
	loop        *Loop
	name        string
	id          uint64
	born        time.Duration
	origin      time.Duration // what Now read at birth
	ratePPM     int64         // of the clock, in millionths of virtual time
	pausedUntil time.Duration
	slow        map[string]time.Duration // queues whose steps wait for up to so long
	closed      bool
	around      func(queue string, step func()) // runs every step; nil: it just runs
}

// NewEnv makes an environment. ratePPM is how fast its clock runs, in parts per
// million of virtual time: 1,000,000 is exact.
func (l *Loop) NewEnv(name string, ratePPM int64) *Env {
	l.worlds++
	return &Env{loop: l, name: name, id: l.worlds, born: l.now, origin: l.between(0, time.Hour), ratePPM: ratePPM}
}

// Close discards every pending step and timer, and ignores later ones.
func (e *Env) Close() { e.closed = true }

// Pause holds back every step and timer until the given virtual time, as when
// a process is stopped: the clock goes on.
func (e *Env) Pause(until time.Duration) { e.pausedUntil = max(e.pausedUntil, until) }

// Slow makes every step of the queues of a name wait for up to d: a disk that is
// slow, or has recovered if d is 0.
func (e *Env) Slow(name string, d time.Duration) {
	if e.slow == nil {
		e.slow = make(map[string]time.Duration)
	}
	e.slow[name] = d
}

// Jump has the clock read d more from now on. Timers that are set already fire when
// they would have fired.
func (e *Env) Jump(d time.Duration) { e.origin += d }

// Now implements env.Env.
func (e *Env) Now() time.Duration {
	return e.origin + (e.loop.now-e.born)*time.Duration(e.ratePPM)/1_000_000
}

// Uint64 implements env.Env.
func (e *Env) Uint64() uint64 { return e.loop.rand.Uint64() }

// AfterFunc implements env.Env.
func (e *Env) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	t := &timer{}
	if e.closed {
		t.spent = true
		return t
	}
	d = max(d, 0) * 1_000_000 / time.Duration(e.ratePPM)
	e.loop.push(&event{at: e.loop.now + d, env: e, name: "timer", timer: t, run: func() { q.Submit(step) }})
	return t
}

// timer is an env.Timer. spent: it fired or was stopped.
type timer struct{ spent bool }

func (t *timer) fire() bool { return t.Stop() }

// Stop implements env.Timer.
func (t *timer) Stop() bool {
	was := t.spent
	t.spent = true
	return !was
}

// NewQueue implements env.Env.
func (e *Env) NewQueue(name string) env.Queue { return &queue{env: e, name: name} }

// NewPool implements env.Env. Steps take no virtual time here, so that the
// number of workers makes no difference but for the order, which is drawn.
func (e *Env) NewPool(name string, workers int) env.Queue { return &pool{env: e, name: name} }

const (
	hopMax   = 20 * time.Microsecond // from Submit to the step, as a rule
	stallMax = 5 * time.Millisecond  // the same for one step in stallPer
	stallPer = 500
)

// hop is how long a step that was submitted to a queue waits for its turn.
func (e *Env) hop(name string) time.Duration {
	if d := e.slow[name]; d > 0 {
		return e.loop.between(0, d)
	}
	if e.loop.rand.IntN(stallPer) == 0 {
		return e.loop.between(0, stallMax)
	}
	return e.loop.between(0, hopMax)
}

// queue runs its steps in order, one event each.
type queue struct {
	env     *Env
	name    string
	waiting []func()
	head    int
	queued  bool // an event of this queue is pending
}

// Submit implements env.Queue.
func (q *queue) Submit(step func()) {
	if q.env.closed {
		return
	}
	q.waiting = append(q.waiting, step)
	if !q.queued {
		q.schedule()
	}
}

func (q *queue) schedule() {
	q.queued = true
	q.env.loop.push(&event{at: q.env.loop.now + q.env.hop(q.name), env: q.env, name: q.name, run: q.next})
}

func (q *queue) next() {
	step := q.waiting[q.head]
	q.waiting[q.head] = nil
	q.head++
	if q.head == len(q.waiting) {
		q.waiting, q.head = q.waiting[:0], 0
	}
	q.queued = false
	step()
	if q.head < len(q.waiting) && !q.queued {
		q.schedule()
	}
}

// pool runs its steps in a drawn order.
type pool struct {
	env  *Env
	name string
}

// Submit implements env.Queue.
func (p *pool) Submit(step func()) {
	if p.env.closed {
		return
	}
	p.env.loop.push(&event{at: p.env.loop.now + p.env.hop(p.name), env: p.env, name: p.name, run: step})
}
