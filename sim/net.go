package sim

import (
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup/transport"
)

// Net is the network between everything that has a name: nodes and clients.
// It decides what passes; the peers' frames travel over raftgroup/transport's
// in-memory twin, which asks it, and the clients' over Dialer.
type Net struct {
	loop    *Loop
	trace   *Trace
	witness *Witness
	cluster *Cluster
	conns   []*conn
	cuts    []cut
	faults  NetFaults
	effect  func(*Node) // told of everything that leaves a node
	struck  *Struck
}

// NetFaults is what the network does to peers' frames, in parts per thousand,
// and how slow it is. Streams of clients see the delays only: they are reliable
// until they break.
type NetFaults struct {
	DropPerMille   int
	DoublePerMille int
	SlowPerMille   int           // frames that take up to SlowMax
	SlowMax        time.Duration // 0: latencyMax
	FlipPerMille   int           // parts of snapshots with a bit that is another one
}

const (
	latencyMin = 50 * time.Microsecond
	latencyMax = 500 * time.Microsecond
)

// resumeMax is how long a process that goes on after a pause may take to work
// off what its connections hold.
const resumeMax = 20 * time.Millisecond

// cut is a direction in which nothing passes.
type cut struct{ from, to string }

func (n *Net) latency() time.Duration {
	if n.faults.SlowMax > 0 && n.loop.chance(n.faults.SlowPerMille) {
		n.struck[Slow]++
		return n.loop.between(latencyMin, n.faults.SlowMax)
	}
	return n.loop.between(latencyMin, latencyMax)
}

// fate decides what becomes of a frame between peers.
func (n *Net) fate(d transport.Delivery) transport.Fate {
	from, to := n.cluster.nameOf(d.From), n.cluster.nameOf(d.To)
	if from == "" || to == "" {
		return transport.Fate{Drop: true} // to or from a node that has lost its disk since
	}
	blocked := n.blocked(from, to)
	if blocked || n.loop.chance(n.faults.DropPerMille) {
		if !blocked {
			n.struck[Drop]++
		}
		n.trace.Detail(n.loop.now, from, "loses %d bytes to %s, snapshot=%v", d.Bytes, to, d.Snapshot)
		return transport.Fate{Drop: true}
	}
	f := transport.Fate{Delay: n.latency()}
	if target := n.cluster.byName(to); target.Up() && target.env.pausedUntil > n.loop.now {
		// The process does not read: what was sent waits for it, and is worked off
		// after it goes on, with what else has come meanwhile.
		f.Delay += target.env.pausedUntil - n.loop.now + n.loop.between(0, resumeMax)
	}
	n.effect(n.cluster.byName(from))
	if d.Snapshot && d.Bytes > 0 && n.loop.chance(n.faults.FlipPerMille) {
		n.struck[FlipFrame]++
		f.Flip = 1 + n.loop.rand.IntN(8*d.Bytes)
	}
	if n.loop.chance(n.faults.DoublePerMille) {
		n.struck[Double]++
		f.Again, f.AgainDelay = true, n.latency()
	}
	return f
}

// in runs step after d in an environment: not at all once that is closed.
func (n *Net) in(e *Env, d time.Duration, name string, step func()) {
	if e.closed {
		return
	}
	n.loop.push(&event{at: n.loop.now + max(d, 0), env: e, name: name, run: step})
}

// at finds the node that listens at an address.
func (n *Net) at(address string) *Node {
	for _, node := range n.cluster.nodes {
		if node.Address == address && node.Serving() {
			return node
		}
	}
	return nil
}

// cut tells whether the way between two names is closed in either direction:
// a stream needs both.
func (n *Net) cut(a, b string) bool { return n.blocked(a, b) || n.blocked(b, a) }

// blocked tells whether nothing passes from one name to another.
func (n *Net) blocked(from, to string) bool { return slices.Contains(n.cuts, cut{from, to}) }

// Block closes the way from one name to another.
func (n *Net) Block(from, to string) {
	if !n.blocked(from, to) {
		n.cuts = append(n.cuts, cut{from, to})
	}
}

// Open opens the way from one name to another.
func (n *Net) Open(from, to string) {
	n.cuts = slices.DeleteFunc(n.cuts, func(c cut) bool { return c == cut{from, to} })
}

// Heal opens every way.
func (n *Net) Heal() { n.cuts = nil }

// Break breaks the streams of a client, of a node, or all (""). It is how
// connections end without anything else being wrong.
func (n *Net) Break(name string) {
	for _, c := range n.live() {
		if name == "" || c.client == name || c.door != nil && c.door.node.Name == name {
			c.net.in(c.env, 0, "break", func() { c.lose(errReset) })
		}
	}
}

// crashed breaks the streams to a node whose incarnation ended. Their clients
// hear of it after up to silence: a lost process resets its connections, a lost
// machine says nothing.
func (n *Net) crashed(node *Node, silence time.Duration) {
	for _, d := range node.doors {
		d.close()
		c := d.conn
		n.in(c.env, n.loop.between(0, silence), "reset", func() { c.lose(errReset) })
	}
	node.doors = nil
	n.ended(node.env)
}

// left ends the streams of a client whose process has ended. What it has sent still
// arrives: it is in the network's buffers, and the server's.
func (n *Net) left(e *Env) {
	for _, c := range n.live() {
		if c.env != e {
			continue
		}
		c.closed = true
		if c.door != nil {
			c.up.send(nil, func([]byte) { c.door.close() })
		}
	}
}

// ended drops the streams of a client whose environment has ended.
func (n *Net) ended(e *Env) {
	for _, c := range n.live() {
		if c.env == e {
			c.closed = true
			if c.door != nil {
				c.door.close()
			}
		}
	}
}

// live forgets the streams that are closed and lists the others.
func (n *Net) live() []*conn {
	n.conns = slices.DeleteFunc(n.conns, func(c *conn) bool { return c.closed })
	return n.conns
}
