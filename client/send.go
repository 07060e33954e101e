package client

import "github.com/kiloraft/kiloraft/shard"

const (
	// frameBytes is how large a frame of several operations may get. A single
	// larger operation has a frame of its own.
	frameBytes = 1 << 20
	// requestOverhead bounds what a request adds to its command.
	requestOverhead = 64

	// What may be outstanding on one link. A server that is slow to answer gets
	// no more than this; the rest waits here, where it can still be withdrawn.
	windowOps   = 64 << 10
	windowBytes = 64 << 20
)

// enqueue hands an op, which was aimed, to a node.
func (c *Core) enqueue(n *node, o *op) {
	o.node = n
	n.mu.Lock()
	o.place = placeQueued
	n.out.push(o)
	n.mu.Unlock()
	c.touch(n)
}

// touch has the turn look at a node's queue before it ends.
func (c *Core) touch(n *node) {
	if !n.touched {
		n.touched = true
		c.touched = append(c.touched, n)
	}
}

// flush offers a fill to every touched node's stream, unless one is pending.
func (c *Core) flush() {
	for i, n := range c.touched {
		c.touched[i] = nil
		n.touched = false
		l := n.link
		if l == nil || !l.greeted {
			continue // see retry.go: no operation before the greeting
		}
		n.mu.Lock()
		offer := l.open && !l.filling && l.moreLocked()
		l.filling = l.filling || offer
		n.mu.Unlock()
		if offer {
			l.stream.Ready(l.fillStep)
			c.expect(l)
		}
	}
	c.touched = c.touched[:0]
}

// moreLocked tells whether there is something to send.
func (l *link) moreLocked() bool {
	return l.node.out.head != nil && l.windowLocked()
}

func (l *link) windowLocked() bool {
	return len(l.outstanding) < windowOps && l.bytes < windowBytes
}

// fill packs what waits into one frame. It is called by the stream, from any
// goroutine. From here on an op counts as sent, whatever becomes of the frame.
func (l *link) fill(buf []byte) []byte {
	n := l.node
	n.mu.Lock()
	l.filling = false
	if !l.open {
		n.mu.Unlock()
		return buf
	}
	if l.helloed {
		buf = l.packLocked(buf)
	} else {
		l.helloed = true
		buf = shard.AppendHello(buf, shard.Hello{Cluster: l.core.cluster, Session: l.core.session, Stream: l.number, Node: n.id})
	}
	more := l.moreLocked()
	n.mu.Unlock()
	if more {
		l.core.tell(event{kind: eventMore, link: l})
	}
	return buf
}

func (l *link) packLocked(buf []byte) []byte {
	n, start := l.node, len(buf)
	ops := 0
	for o := n.out.head; o != nil && l.windowLocked(); o = n.out.head {
		if ops > 0 && len(buf)-start+len(o.command)+requestOverhead > frameBytes {
			break
		}
		if ops == 0 {
			buf = shard.BeginRequests(buf)
		}
		ops++
		n.out.remove(o)
		l.lastID++
		o.place, o.link, o.id = placeSent, l, l.lastID
		o.attempts++
		if o.birth == 0 || o.birth < l.newest {
			l.core.rebirth(o)
		}
		l.outstanding[o.id] = o
		l.bytes += o.size
		buf = shard.AppendRequest(buf, &shard.Request{ID: o.id, Target: o.target, Command: o.command})
	}
	if ops > 0 {
		l.core.stats.attempts.Add(uint64(ops))
		l.core.stats.frames.Add(1)
	}
	return buf
}
