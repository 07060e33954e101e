package client

import (
	"context"

	"github.com/kiloraft/kiloraft/shard"
)

// turn is the core's one step: it takes what was brought, lets everything that
// is due happen, hands the nodes their operations, and delivers results.
func (c *Core) turn() {
	c.take()
	c.now = c.cfg.Env.Now()
	for _, o := range c.batch.ops {
		c.admit(o)
	}
	for i := range c.batch.events {
		c.happen(&c.batch.events[i])
	}
	for _, x := range c.batch.cancels {
		c.giveUp(x.op, x.cause)
	}
	c.batch.reset()
	c.ring()
	c.askDirectory()
	c.flush()
	c.setTimer()
	c.deliver()
}

func (c *Core) take() {
	c.inbox.mu.Lock()
	c.batch, c.inbox.batch = c.inbox.batch, c.batch
	c.inbox.scheduled = false
	c.inbox.mu.Unlock()
}

func (c *Core) admit(o *op) {
	c.stats.operations.Add(1)
	if at := o.deadline.at; at > 0 {
		c.alarms.put(&o.deadline, at)
	}
	c.dispatch(o)
}

func (c *Core) happen(e *event) {
	switch e.kind {
	case eventRun:
		e.run()
	case eventGreeted:
		c.greeted(e.link, e.greeting)
	case eventReceived:
		c.received(e.link, e.frame)
	case eventClosed:
		c.abandon(e.link, e.err)
	case eventMore:
		c.touch(e.link.node)
	}
}

// ring tells the owners of alarms that are due.
func (c *Core) ring() {
	c.rings = c.alarms.due(c.now, c.rings[:0])
	for _, a := range c.rings {
		// One alarm's owner may have cleared and set another one of this list.
		if !a.set {
			a.owner.alarmed(a)
		}
	}
	clear(c.rings)
}

// setTimer keeps one timer for the earliest alarm. One that comes too early is
// left alone: its turn sets the next.
func (c *Core) setTimer() {
	at, ok := c.alarms.next()
	if !ok || c.timer != nil && c.timerAt <= at {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer, c.timerAt = c.cfg.Env.AfterFunc(at-c.now, c.queue, c.timerStep), at
}

// timerPassed is the timer's step. The timer says by itself that it has passed,
// because the clock may be a little behind it. A step of a timer that was
// stopped too late makes a timer too many, which does no harm.
func (c *Core) timerPassed() {
	c.timer = nil
	c.turn()
}

// knows takes in a revision that was handed out: operations that begin later get
// larger ones.
func (c *Core) knows(r shard.Revision) {
	if r > shard.Revision(c.newest.Load()) {
		c.newest.Store(uint64(r))
	}
}

// finish ends an op that is in no place. Its completer is called at the end of
// the turn; an op of the core's own tells the core at once.
func (c *Core) finish(o *op, res shard.Result, err error) {
	c.alarms.clear(&o.deadline)
	c.alarms.clear(&o.rest)
	if err != nil && o.write() {
		err = c.verdict(o, err)
	}
	o.place, o.result, o.err = placeDone, res, err
	c.knows(res.Revision)
	if o.inside != nil {
		o.inside(res, err)
		return
	}
	c.finished = append(c.finished, o)
}

// deliver calls completers. They may bring new operations, which another turn
// takes; an op must not be touched after its completer was called.
func (c *Core) deliver() {
	for i, o := range c.finished {
		c.finished[i] = nil
		c.unhold(1, o.size)
		o.done.complete(o)
	}
	c.finished = emptied(c.finished)
}

// deadlinePassed gives up an op whose deadline is due.
func (c *Core) deadlinePassed(o *op) { c.giveUp(o, context.DeadlineExceeded) }

// giveUp ends an op early. A write that may have been sent is undetermined.
func (c *Core) giveUp(o *op, cause error) {
	if o.node == nil && o.place == placeDone {
		return
	}
	sent := c.withdraw(o)
	c.finish(o, shard.Result{}, &GaveUpError{Cause: cause, Undetermined: (sent || o.maybe) && o.write(), Attempts: o.attempts, Last: o.last})
}

// withdraw takes an op out of its place. It tells whether an attempt is in a
// frame and without an answer, so that it may take effect.
func (c *Core) withdraw(o *op) (sent bool) {
	if n := o.node; n != nil {
		// Queued or sent is the node's to say: a frame may be filled right now.
		n.mu.Lock()
		if sent = o.place == placeSent; sent {
			o.link.forget(o)
		} else {
			n.out.remove(o)
		}
		o.place, o.node = placeNone, nil
		n.mu.Unlock()
		return sent
	}
	if o.list != nil {
		o.list.remove(o)
	}
	c.alarms.clear(&o.rest)
	o.place = placeNone
	return false
}
