package client

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// node is a node as the core knows it. It is usable until its connection fails,
// and again once a later one is greeted: in between attempts go elsewhere, and
// the core tries to connect from time to time.
type node struct {
	id      shard.NodeID
	address string

	// Of the turn.
	link     *link // nil: not connected, nor about to be
	failures int   // connections that failed since the last greeting
	retryAt  time.Duration
	touched  bool

	// mu also guards the place, list and id of ops that are queued or sent here,
	// and the second half of link: streams call fill from outside the core's queue.
	mu  sync.Mutex
	out opList
}

// link is one connection to a node.
type link struct {
	core   *Core
	node   *node
	stream Stream
	number uint64 // in the hello
	// Of the turn.
	greeted  bool
	patience alarm         // until the greeting
	silence  alarm         // while it is watched, see silence.go
	heard    time.Duration // when something came last
	quiet    bool          // nothing came since something was sent, at spoken
	spoken   time.Duration
	asked    bool // the node was asked whether it is there
	fillStep func([]byte) []byte

	// Under node.mu.
	open        bool // false: given up; whatever it still says is ignored
	helloed     bool
	filling     bool           // a fill is pending
	newest      shard.Revision // that the greeting told
	outstanding map[uint64]*op
	bytes       int // of outstanding
	lastID      uint64
}

const (
	// greetingPatience is how long a connection may take until the greeting.
	greetingPatience = 2 * time.Second
	// nodesMax bounds the addresses that the core keeps.
	nodesMax = 10_000
)

// learn takes in a node's address. One that works is kept.
func (c *Core) learn(id shard.NodeID, address string) {
	if id == 0 || address == "" || c.fatal != nil {
		return
	}
	n := c.nodes[id]
	switch {
	case n == nil && len(c.nodes) < nodesMax:
		c.nodes[id] = &node{id: id, address: address}
	case n == nil || n.address == address || n.link != nil && n.link.greeted:
		return
	default:
		if n.link != nil {
			c.abandon(n.link, errAddressChanged)
		}
		n.address, n.failures, n.retryAt = address, 0, 0
	}
	c.book.Lock()
	c.book.addresses[id] = address
	c.book.Unlock()
}

func (c *Core) learnAll(m map[shard.NodeID]string) {
	for _, id := range slices.Sorted(maps.Keys(m)) {
		c.learn(id, m[id])
	}
}

func (c *Core) sortedNodes() []*node {
	//order-free: sorted right after
	nodes := slices.AppendSeq(make([]*node, 0, len(c.nodes)), maps.Values(c.nodes))
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	return nodes
}

// usable is the node with an ID, if attempts may go there now. For an unknown
// one the cluster is asked; one that failed is tried in the background.
func (c *Core) usable(id shard.NodeID) *node {
	n := c.nodes[id]
	if n == nil {
		c.refresh()
		return nil
	}
	if n.link == nil && c.now >= n.retryAt {
		c.connect(n)
	}
	if n.failures > 0 {
		return nil
	}
	return n
}

func (c *Core) connect(n *node) {
	c.streams++
	// The hello is the first thing that goes: its fill is offered at once.
	l := &link{core: c, node: n, number: c.streams, open: true, filling: true, outstanding: map[uint64]*op{}}
	l.fillStep = l.fill
	l.patience.owner, l.silence.owner = l, alarmFunc(func() { c.doubt(l) })
	n.link = l
	c.alarms.put(&l.patience, c.now+greetingPatience)
	c.stats.connections.Add(1)
	l.stream = c.cfg.Dialer.Open(n.address, l)
	l.stream.Ready(l.fillStep)
}

// Greeted implements StreamHandler.
func (l *link) Greeted(g shard.Greeting) {
	l.core.tell(event{kind: eventGreeted, link: l, greeting: g})
}

// Received implements StreamHandler.
func (l *link) Received(frame []byte) {
	l.core.tell(event{kind: eventReceived, link: l, frame: frame})
}

// Closed implements StreamHandler.
func (l *link) Closed(err error) { l.core.tell(event{kind: eventClosed, link: l, err: err}) }

// alarmed implements alarmOwner: the greeting did not come.
func (l *link) alarmed(*alarm) { l.core.abandon(l, errNoGreeting) }

// greeted opens a link for operations if it leads where it should.
func (c *Core) greeted(l *link, g shard.Greeting) {
	n := l.node
	if n.link != l || l.greeted {
		return
	}
	if g.Cluster != c.cluster || g.Node != n.id {
		// The address belongs to somebody else now: of this cluster's nodes the
		// others know the new one.
		c.log.Warn("an address leads to another node", "address", n.address, "node", n.id, "cluster", c.cluster, "answered_node", g.Node, "answered_cluster", g.Cluster)
		c.abandon(l, errOtherNode)
		c.refresh()
		return
	}
	l.greeted = true
	n.mu.Lock()
	l.newest = g.Newest
	n.mu.Unlock()
	c.knows(g.Newest)
	c.alarms.clear(&l.patience)
	n.failures = 0
	c.touch(n)
}

// abandon gives a link up. What was queued is provably not sent and is routed
// again, and so are reads; a write that was in a frame may have taken effect.
func (c *Core) abandon(l *link, cause error) {
	n := l.node
	if n.link != l {
		return
	}
	n.link = nil
	c.alarms.clear(&l.patience)
	c.alarms.clear(&l.silence)
	n.mu.Lock()
	l.open = false
	sent, queued := l.outstandingLocked(), n.queuedLocked()
	for _, o := range sent {
		l.forget(o)
		o.place, o.node = placeNone, nil
	}
	for _, o := range queued {
		n.out.remove(o)
		o.place, o.node = placeNone, nil
	}
	n.mu.Unlock()
	l.stream.Close()

	n.failures++
	n.retryAt = c.now + c.jitter(connectBackoff, n.failures-1)
	c.stats.connectionsLost.Add(1)
	lost := &lostError{node: n.id, address: n.address, cause: cause}
	for _, o := range sent {
		if o.write() {
			if c.unanswered(o, lost) {
				c.again(o)
			}
			continue
		}
		c.stats.retriesLost.Add(1)
		o.last = lost
		c.again(o)
	}
	for _, o := range queued {
		c.again(o)
	}
}

// queuedLocked lists what waits to be sent, in order.
func (n *node) queuedLocked() []*op {
	ops := make([]*op, 0, n.out.len)
	for o := n.out.head; o != nil; o = o.next {
		ops = append(ops, o)
	}
	return ops
}

// outstandingLocked lists what was sent and is not answered, in order.
func (l *link) outstandingLocked() []*op {
	//order-free: sorted right after
	ops := slices.AppendSeq(make([]*op, 0, len(l.outstanding)), maps.Values(l.outstanding))
	slices.SortFunc(ops, func(a, b *op) int { return cmp.Compare(a.id, b.id) })
	return ops
}

// forget takes a sent op off the link; an answer that still comes is ignored.
func (l *link) forget(o *op) {
	delete(l.outstanding, o.id)
	l.bytes -= o.size
	o.link = nil
}
