package client

import (
	"sync"

	"github.com/kiloraft/kiloraft/shard"
)

// inbox is what reached the core from other goroutines and steps since its last
// turn. However many callers and streams bring something, one turn takes it all.
type inbox struct {
	mu        sync.Mutex
	batch     batch
	scheduled bool // a turn was submitted and has not taken its batch
	closed    bool // nothing more is accepted
}

// batch is the content of an inbox. The core swaps two of them.
type batch struct {
	ops     []*op
	events  []event
	cancels []cancellation
}

// event is one call of a stream's handler, in the stream's order, or a function
// to be run in the turn.
type event struct {
	kind     eventKind
	link     *link
	greeting shard.Greeting
	frame    []byte
	err      error
	run      func()
}

type eventKind byte

const (
	eventRun eventKind = iota
	eventGreeted
	eventReceived
	eventClosed
	eventMore // the link's queue has more than its last frame took
)

type cancellation struct {
	op    *op
	cause error
}

// keptEvents is the capacity of a batch that is kept for reuse: a burst must not
// hold its memory for ever.
const keptEvents = 8192

func (b *batch) reset() {
	b.ops = emptied(b.ops)
	b.events = emptied(b.events)
	b.cancels = emptied(b.cancels)
}

// emptied is s without its elements, and without its memory after a burst.
func emptied[T any](s []T) []T {
	if cap(s) > keptEvents {
		return nil
	}
	clear(s)
	return s[:0]
}

// bring adds ops, which the inbox owns from now on.
func (c *Core) bring(ops []*op) error {
	c.inbox.mu.Lock()
	if c.inbox.closed {
		c.inbox.mu.Unlock()
		return ErrClosed
	}
	c.inbox.batch.ops = append(c.inbox.batch.ops, ops...)
	c.wakeLocked()
	return nil
}

// tell tells whether the event is taken: not once the core is closed.
func (c *Core) tell(e event) bool {
	c.inbox.mu.Lock()
	if c.inbox.closed {
		c.inbox.mu.Unlock()
		return false
	}
	c.inbox.batch.events = append(c.inbox.batch.events, e)
	c.wakeLocked()
	return true
}

func (c *Core) post(run func()) { c.tell(event{run: run}) }

// cancel gives an op up for the given reason. It does nothing once the op is done.
func (c *Core) cancel(o *op, cause error) {
	c.inbox.mu.Lock()
	if c.inbox.closed {
		c.inbox.mu.Unlock()
		return
	}
	c.inbox.batch.cancels = append(c.inbox.batch.cancels, cancellation{o, cause})
	c.wakeLocked()
}

// wakeLocked submits a turn if none is under way, and releases the lock first:
// a queue may run the step at once.
func (c *Core) wakeLocked() {
	wake := !c.inbox.scheduled
	c.inbox.scheduled = true
	c.inbox.mu.Unlock()
	if wake {
		c.queue.Submit(c.turnStep)
	}
}
