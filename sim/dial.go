package sim

import (
	"errors"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// Dialer is one client's way into the simulated network: the twin of the gRPC
// connection. Frames are the real ones, byte for byte; a stream keeps their order
// and loses none of them before it breaks.
//
// A stream breaks when the node's incarnation ends (the client may hear of it late), when frames
// could not pass for stalledMax, or when the nemesis says so. The server hears of
// it later than the client, if at all: what the client sent before may still arrive,
// long after the client has opened another stream and sent the same again.
type Dialer struct {
	net  *Net
	name string // the client, as partitions know it
	env  *Env   // on which handlers are called
	// trusted: the client is a node, which may write system keys.
	trusted bool
}

var (
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("connection timed out")
	errReset   = errors.New("connection reset")
)

const (
	dialTimeout = time.Second
	stalledMax  = 3 * time.Second
	retryEvery  = 30 * time.Millisecond
)

// Open implements client.Dialer.
func (d *Dialer) Open(address string, h client.StreamHandler) client.Stream {
	c := &conn{net: d.net, client: d.name, env: d.env, trusted: d.trusted, address: address, handler: h}
	c.up.conn, c.down.conn = c, c
	d.net.conns = append(d.net.conns, c)
	d.net.in(d.env, d.net.latency(), "dial", c.connect)
	return c
}

// Info implements client.Dialer.
func (d *Dialer) Info(address string, timeout time.Duration, finish func(client.Info, error)) {
	lost := func() {
		d.net.in(d.env, min(timeout, dialTimeout), "info", func() { finish(client.Info{}, errTimeout) })
	}
	d.net.in(d.env, d.net.latency(), "info", func() {
		n := d.net.at(address)
		if n == nil {
			d.net.in(d.env, d.net.latency(), "info", func() { finish(client.Info{}, errRefused) })
			return
		}
		if d.net.cut(d.name, n.Name) || n.env.pausedUntil > d.net.loop.now {
			lost()
			return
		}
		info := n.info()
		d.net.in(d.env, d.net.latency(), "info", func() { finish(info, nil) })
	})
}

// conn is one client stream: both ends and the wire between them.
type conn struct {
	net     *Net
	client  string
	env     *Env // the client's
	trusted bool
	address string
	handler client.StreamHandler
	door    *door // the server's end; nil before it is connected
	up      wire  // to the server
	down    wire  // to the client
	fill    func([]byte) []byte
	filling bool // an event that calls fill is pending
	leaving int  // frames on their way up that have not left the client
	closed  bool // for the client: Closed was called, or Close
}

// wire carries frames in one direction, in order.
type wire struct {
	conn    *conn
	frames  []wireFrame
	pumping bool
	arrived time.Duration // of the last frame: the next one does not overtake it
	stalled time.Duration // how long the first frame could not pass
	held    time.Duration // nothing arrives before
}

type wireFrame struct {
	bytes  []byte
	at     time.Duration // when it arrives at the earliest
	arrive func([]byte)
}

func (c *conn) connect() {
	if c.closed {
		return
	}
	n := c.net.at(c.address)
	switch {
	case n == nil:
		c.net.in(c.env, c.net.latency(), "refused", func() { c.lose(errRefused) })
	case c.net.cut(c.client, n.Name):
		c.net.in(c.env, dialTimeout, "unreachable", func() { c.lose(errTimeout) })
	default:
		c.door = n.open(c)
		c.askFill()
	}
}

func (c *conn) greeted(frame []byte) {
	g, err := shard.DecodeGreeting(frame)
	if err != nil {
		c.net.witness.Fail("a greeting that does not decode: %v", err)
		return
	}
	c.handler.Greeted(g)
}

// Ready implements client.Stream.
func (c *conn) Ready(fill func([]byte) []byte) {
	if c.closed {
		return
	}
	c.fill = fill
	c.askFill()
}

// Bytes implements client.Stream: frames arrive whole.
func (c *conn) Bytes() uint64 { return 0 }

// askFill arranges for the pending fill to run in a step of its own, once the
// stream is connected and the frame before has left.
func (c *conn) askFill() {
	if c.fill == nil || c.filling || c.door == nil || c.leaving > 0 {
		return
	}
	c.filling = true
	c.net.in(c.env, c.env.hop("fill"), "fill", func() {
		c.filling = false
		fill := c.fill
		if c.closed || fill == nil {
			return
		}
		c.fill = nil
		if frame := fill(nil); len(frame) > 0 {
			c.leaving++
			c.up.send(frame, func(b []byte) {
				c.door.receive(b)
			})
			c.net.in(c.env, c.env.hop("left"), "left", func() { c.leaving--; c.askFill() })
		}
		c.askFill()
	})
}

// Close implements client.Stream.
func (c *conn) Close() { c.lose(errReset) }

// lose ends the stream for the client. What it sent still arrives, and then the
// server's end is closed, unless frames cannot pass.
func (c *conn) lose(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.net.in(c.env, 0, "closed", func() { c.handler.Closed(err) })
	if c.door != nil {
		c.up.send(nil, func([]byte) { c.door.close() })
	}
}

func (w *wire) send(frame []byte, arrive func([]byte)) {
	at := max(w.conn.net.loop.now+w.conn.net.latency(), w.arrived)
	w.arrived = at
	w.frames = append(w.frames, wireFrame{bytes: frame, at: at, arrive: arrive})
	w.pump()
}

// pump delivers the first frame when it is due, or tries again later while the
// way is cut.
func (w *wire) pump() {
	if w.pumping || len(w.frames) == 0 {
		return
	}
	w.pumping = true
	c := w.conn
	env := c.env
	if w == &c.up {
		env = c.door.env
	}
	c.net.in(env, max(w.frames[0].at, w.held)-c.net.loop.now, "frame", func() {
		w.pumping = false
		if c.door.gone && w == &c.up || c.closed && w == &c.down {
			w.frames = nil
			return
		}
		if w.held > c.net.loop.now {
			w.pump()
			return
		}
		f := w.frames[0]
		if c.net.cut(c.client, c.door.node.Name) {
			w.stalled += retryEvery
			w.frames[0].at = c.net.loop.now + retryEvery
			if w.stalled > stalledMax {
				c.net.in(c.env, 0, "stalled", func() { c.lose(errTimeout) })
				if c.closed {
					// The client is gone; the server notices by itself.
					w.frames = nil
					c.door.close()
					return
				}
			}
			w.pump()
			return
		}
		w.stalled = 0
		w.frames = w.frames[1:]
		f.arrive(f.bytes)
		w.pump()
	})
}

// door is the server's end of a stream: what package server does for a gRPC one.
// It dies with the node's incarnation.
type door struct {
	node    *Node
	env     *Env // of the incarnation
	conn    *conn
	stream  *replica.Stream // nil: no hello yet
	out     []byte          // responses that wait for the next frame
	told    shard.Revision  // to be newest, by the last frame that was begun
	sending bool
	gone    bool
}

func (n *Node) open(c *conn) *door {
	d := &door{node: n, env: n.env, conn: c}
	n.doors = append(n.doors, d)
	return d
}

// receive takes a frame from the client.
func (d *door) receive(frame []byte) {
	if d.gone {
		return
	}
	if d.stream == nil {
		d.hello(frame)
		return
	}
	err := shard.DecodeRequests(frame, func(q shard.Request) {
		answered := false
		d.stream.Execute(q, func(p shard.Response) {
			if answered || p.ID != q.ID {
				d.node.cluster.witness.Fail("node %d answers request %d with %d, before: %v", d.node.ID, q.ID, p.ID, answered)
			}
			answered = true
			d.respond(&p)
		})
	})
	if err != nil {
		d.node.cluster.witness.Fail("client %s sends requests that do not decode: %v", d.conn.client, err)
	}
}

// respond adds a response to the next frame.
func (d *door) respond(p *shard.Response) {
	if d.gone {
		return
	}
	if len(d.out) == 0 {
		d.begin(d.node.store().Newest())
	}
	d.out = shard.AppendResponse(d.out, p)
	d.send()
}

// news sends a frame without responses, unless the client has heard of newest, or
// soon will.
func (d *door) news(newest shard.Revision) {
	if d.gone || newest <= d.told || len(d.out) > 0 {
		return
	}
	d.begin(newest)
	d.send()
}

func (d *door) begin(newest shard.Revision) {
	d.out, d.told = shard.BeginResponses(d.out, newest), newest
}

// send has the frame leave in a step of its own.
func (d *door) send() {
	if d.sending {
		return
	}
	d.sending = true
	d.conn.net.in(d.env, d.env.hop("respond"), "respond", func() {
		d.sending = false
		frame := d.out
		d.out = nil
		if !d.gone {
			d.conn.down.send(frame, d.conn.handler.Received)
			d.conn.net.effect(d.node)
		}
	})
}

// hello opens the stream and greets the client. One that comes too late is cut off.
func (d *door) hello(frame []byte) {
	h, err := shard.DecodeHello(frame)
	if err != nil || h.Cluster != d.node.cluster.ID || h.Session == 0 {
		d.node.cluster.witness.Fail("client %s opens with %x: %v", d.conn.client, frame, err)
		return
	}
	if h.Node != d.node.ID {
		d.conn.down.send(shard.AppendGreeting(nil, d.node.greeting()), d.conn.greeted)
		d.close()
		return
	}
	d.stream, err = d.node.store().OpenStream(h.Session, h.Stream, d.conn.trusted)
	if err != nil {
		d.close()
		d.conn.net.in(d.conn.env, d.conn.net.latency(), "cut off", func() { d.conn.lose(err) })
		return
	}
	d.stream.OnNews(d.news)
	g := d.node.greeting()
	g.Newest = d.node.store().Newest()
	d.conn.down.send(shard.AppendGreeting(nil, g), d.conn.greeted)
}

// close closes the server's end.
func (d *door) close() {
	d.gone = true
	if d.stream != nil {
		d.stream.Close()
	}
}
