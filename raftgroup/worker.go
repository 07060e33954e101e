package raftgroup

import (
	"sync"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// worker runs the rounds of the groups that are pinned to it. A round is one
// step on the worker's queue, submitted while the run queue is not empty.
//
// Invariant: a group is in at most one place, its worker's run queue, a
// round, or parked, and exactly then its mailbox's queued flag is set. Whoever
// puts something into a mailbox whose flag is clear sets it and enqueues the
// group; a round clears it under the mailbox's lock and only if the mailbox is
// empty. So no wake-up is lost, and none is doubled.
type worker struct {
	h    *Host
	lane int // of the engine's sync completions
	q    env.Queue
	step func()

	mu        sync.Mutex // guards what follows
	urgent    groupQueue // the meta shard: everything else depends on it
	ordinary  groupQueue
	submitted bool // a round is on the queue or running

	// running is held for a whole round, so that Close can wait for it.
	running sync.Mutex
	stopped bool // guarded by running
	round   round
}

func newWorker(h *Host, lane int, q env.Queue) *worker {
	w := &worker{h: h, lane: lane, q: q}
	w.step = w.runRound
	w.round.w = w
	return w
}

// enqueue puts a group whose queued flag was just set into the run queue.
func (w *worker) enqueue(g *Group) {
	w.mu.Lock()
	if g.shard == shard.MetaID {
		w.urgent.push(g)
	} else {
		w.ordinary.push(g)
	}
	submit := !w.submitted
	w.submitted = true
	w.mu.Unlock()
	if submit {
		w.q.Submit(w.step)
	}
}

// take moves up to roundGroupsMax groups to the round, urgent ones first.
func (w *worker) take(into []*Group) []*Group {
	w.mu.Lock()
	for len(into) < roundGroupsMax {
		g := w.urgent.pop()
		if g == nil {
			g = w.ordinary.pop()
		}
		if g == nil {
			break
		}
		into = append(into, g)
	}
	w.mu.Unlock()
	return into
}

func (w *worker) runRound() {
	w.running.Lock()
	if w.stopped {
		w.running.Unlock()
		return
	}
	w.round.run()
	w.running.Unlock()

	w.mu.Lock()
	more := w.urgent.len()+w.ordinary.len() > 0
	w.submitted = more
	w.mu.Unlock()
	if more {
		w.q.Submit(w.step)
	}
}

// groupQueue is a FIFO that reuses its memory.
type groupQueue struct {
	groups []*Group
	head   int
}

func (q *groupQueue) len() int { return len(q.groups) - q.head }

func (q *groupQueue) push(g *Group) {
	if len(q.groups) == cap(q.groups) && q.head > len(q.groups)/2 {
		n := copy(q.groups, q.groups[q.head:])
		clear(q.groups[n:])
		q.groups, q.head = q.groups[:n], 0
	}
	q.groups = append(q.groups, g)
}

func (q *groupQueue) pop() *Group {
	if q.head == len(q.groups) {
		q.groups, q.head = q.groups[:0], 0
		return nil
	}
	g := q.groups[q.head]
	q.groups[q.head] = nil
	q.head++
	return g
}
