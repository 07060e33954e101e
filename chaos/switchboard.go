package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// outside is the number of those who are no node: clients, and commands.
const outside = 0

// switchboard is a TCP proxy in front of every node. It knows from whom to whom each byte
// goes, in both directions of a connection, and treats it as the way between the two is at
// the time: cut, delayed or lossy. TCP loses no byte of a connection that lives; so what is lost on
// the way comes late, as if it had been sent again, or the connection breaks.
type switchboard struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	rnd     *rand.Rand
	ways    [][]way       // from, to
	changed chan struct{} // closed, and replaced, when a way was mended
	open    map[net.Conn]struct{}
	fronts  []net.Listener
	carried int64 // bytes
}

// way is how it is from one to the other. Faults add up, so that each can be taken back by itself.
type way struct {
	cuts  int           // not 0: nothing gets through
	delay time.Duration // of everything
	loss  float64       // of each piece
}

func newSwitchboard(nodes int, rnd *rand.Rand) *switchboard {
	b := &switchboard{rnd: rnd, ways: make([][]way, nodes+1), changed: make(chan struct{}), open: map[net.Conn]struct{}{}}
	for i := range b.ways {
		b.ways[i] = make([]way, nodes+1)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// change alters the way between two, in one direction.
func (b *switchboard) change(from, to int, alter func(*way)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	alter(&b.ways[from][to])
	close(b.changed)
	b.changed = make(chan struct{})
}

// serve accepts connections to a node. dial makes one to it on behalf of another, and
// who tells whom a connection comes from.
func (b *switchboard) serve(to int, front net.Listener, dial func(from int) (net.Conn, error), who func(net.Conn) int) {
	b.mu.Lock()
	b.fronts = append(b.fronts, front)
	b.mu.Unlock()
	b.done.Go(func() {
		for {
			conn, err := front.Accept()
			if err != nil {
				return // closed
			}
			b.done.Go(func() { b.connect(conn, to, dial, who) })
		}
	})
}

// dialPatience is how long somebody may wait for a way that is cut.
const dialPatience = 20 * time.Second

// connect carries one connection until it ends.
func (b *switchboard) connect(near net.Conn, to int, dial func(from int) (net.Conn, error), who func(net.Conn) int) {
	defer b.hold(near)()
	from := who(near)
	patience, cancel := context.WithTimeout(b.ctx, dialPatience)
	defer cancel()
	if !b.pass(patience, from, to) || !b.pass(patience, to, from) {
		reset(near)
		return
	}
	far, err := dial(from)
	if err != nil {
		reset(near)
		return
	}
	defer b.hold(far)()
	ctx, broken := context.WithCancel(b.ctx)
	defer broken()
	var both sync.WaitGroup
	carry := func(in, out net.Conn, from, to int) {
		if !b.carry(ctx, in, out, from, to) {
			broken()
			reset(near)
			reset(far)
		}
	}
	both.Go(func() { carry(near, far, from, to) })
	both.Go(func() { carry(far, near, to, from) })
	both.Wait()
}

// hold has a connection closed when the switchboard is, until the function is called that it returns.
func (b *switchboard) hold(conn net.Conn) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[conn] = struct{}{}
	if b.ctx.Err() != nil {
		_ = conn.Close()
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.open, conn)
		_ = conn.Close()
	}
}

// reset ends a connection at once, with what is under way.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// pass waits until the way is not cut.
func (b *switchboard) pass(ctx context.Context, from, to int) bool {
	for {
		b.mu.Lock()
		cut, changed := b.ways[from][to].cuts > 0, b.changed
		b.mu.Unlock()
		if !cut {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

const (
	pieceBytes = 16 << 10
	// underWay is how many pieces of one direction may be delayed at a time; no more is read then.
	underWay = 64
	// resendPause is how long a lost piece takes; each further loss of it doubles that.
	resendPause = 200 * time.Millisecond
	// breakChance is in how many lost pieces one breaks the connection.
	breakChance = 12
)

// piece is some bytes on their way; none: the end of them.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry moves the bytes of one direction. It returns false when the connection is
// broken, and true when one side has said all that it had to say.
func (b *switchboard) carry(ctx context.Context, in, out net.Conn, from, to int) bool {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	pieces := make(chan piece, underWay)
	var broken bool
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			p := piece{bytes: make([]byte, pieceBytes)}
			n, err := in.Read(p.bytes)
			p.bytes = p.bytes[:n]
			b.mu.Lock()
			p.due = time.Now().Add(b.ways[from][to].delay)
			b.carried += int64(n)
			b.mu.Unlock()
			if n > 0 {
				select {
				case pieces <- p:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				broken = !errors.Is(err, io.EOF)
				return
			}
		}
	})
	whole := true
	for p := range pieces {
		if whole = b.deliver(ctx, p, out, from, to); !whole {
			break
		}
	}
	if !whole {
		stop()
		_ = in.SetReadDeadline(time.Unix(1, 0)) // ends the reading
		reading.Wait()
		return false
	}
	reading.Wait()
	// The end of a connection crosses a cut as little as anything else.
	if !b.pass(ctx, from, to) || broken {
		return false
	}
	if tcp, ok := out.(*net.TCPConn); ok {
		return tcp.CloseWrite() == nil
	}
	return false
}

// deliver writes a piece when its time has come.
func (b *switchboard) deliver(ctx context.Context, p piece, out net.Conn, from, to int) bool {
	pause := time.Until(p.due)
	for resend := resendPause; ; resend *= 2 {
		lost, breaks := b.loses(from, to)
		if breaks {
			return false
		}
		if !lost {
			break
		}
		pause += resend
	}
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	if !b.pass(ctx, from, to) {
		return false
	}
	_, err := out.Write(p.bytes)
	return err == nil
}

func (b *switchboard) loses(from, to int) (lost, breaks bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	loss := b.ways[from][to].loss
	lost = loss > 0 && b.rnd.Float64() < loss
	return lost, lost && b.rnd.IntN(breakChance) == 0
}

// close ends all connections, and returns when nothing is left of them.
func (b *switchboard) close() {
	b.cancel()
	b.mu.Lock()
	for _, front := range b.fronts {
		_ = front.Close()
	}
	for conn := range b.open {
		_ = conn.Close()
	}
	b.mu.Unlock()
	b.done.Wait()
}
