package client

// Close ends the core: streams are closed, and every operation that is not done
// ends with ErrClosed, which is also shard.ErrUndetermined for a write that may
// have been sent. Later calls of Do end with ErrClosed. Close returns at once;
// closing twice is harmless.
func (c *Core) Close() { c.close(func() {}) }

// close calls closed, from a step, once everything has ended and every completer
// was called.
// It reports false, and does not call closed, if the core was closed before.
func (c *Core) close(closed func()) bool {
	c.inbox.mu.Lock()
	if c.inbox.closed {
		c.inbox.mu.Unlock()
		return false
	}
	c.inbox.batch.events = append(c.inbox.batch.events, event{run: func() { c.end(closed) }})
	c.inbox.closed = true
	c.wakeLocked()
	return true
}

// end runs in the last turn that brings anything.
func (c *Core) end(closed func()) {
	// From here on what is dispatched ends at once, and nothing is asked.
	c.fatal = ErrClosed
	c.contact.end(c)
	for _, n := range c.sortedNodes() {
		c.endNode(n)
	}
	for _, l := range [...]*opList{&c.unrouted, &c.missing, &c.resting} {
		for l.head != nil {
			c.giveUp(l.head, ErrClosed)
		}
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.queue.Submit(closed)
}

func (c *Core) endNode(n *node) {
	n.mu.Lock()
	ops := n.queuedLocked()
	if n.link != nil {
		ops = append(n.link.outstandingLocked(), ops...)
		n.link.open = false
	}
	n.mu.Unlock()
	for _, o := range ops {
		c.giveUp(o, ErrClosed)
	}
	if l := n.link; l != nil {
		n.link = nil
		c.alarms.clear(&l.patience)
		c.alarms.clear(&l.silence)
		l.stream.Close()
	}
}
