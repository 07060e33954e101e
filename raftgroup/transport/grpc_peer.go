package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/shard"
)

// peer is the way out to one node. One goroutine (run) connects when there is
// something to send, pumps frames until the stream breaks, waits, and begins
// again.
//
// Invariant: while down, nothing is queued: what waited when the node was lost is
// dropped and reported, so that a node that comes back is not met with stale
// messages, and senders learn at once.
type peer struct {
	t      *GRPC
	node   shard.NodeID
	ctx    context.Context // ends when the peer is forgotten, or with the transport
	cancel context.CancelCauseFunc
	wake   chan struct{} // there may be something to do
	rush   chan struct{} // do not wait out the backoff

	mu    sync.Mutex
	queue pending
	// down: the last attempt or stream failed, and no handshake succeeded since.
	down bool
	// wanted: somebody wanted to send while down.
	wanted    bool
	rushed    time.Time // when rush was last used
	reported  time.Time // when PeerUnreachable was last called
	link      *link     // the live connection, nil while there is none
	snapshots []*snapshotTask
	sending   int // snapshots under way, but for large ones
}

// link is one connection from handshake to break.
type link struct {
	conn        *grpc.ClientConn
	ctx         context.Context
	cancel      context.CancelCauseFunc
	incarnation uint64 // of the node at the other end
}

func newPeer(t *GRPC, node shard.NodeID) *peer {
	p := &peer{t: t, node: node, wake: make(chan struct{}, 1), rush: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancelCause(t.ctx)
	p.queue = pending{bytesMax: t.cfg.QueueBytesMax, frameMax: min(t.cfg.FrameBytes, api.PeerFrameBytesMax), buffer: t.frames.Buffer}
	return p
}

func (p *peer) send(size int, encode func([]byte) []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.ctx.Err() != nil {
		p.want()
		return false
	}
	idle := p.queue.empty()
	if size >= api.PeerFrameBytesMax || !p.queue.add(size, encode) {
		return false
	}
	if idle {
		signal(p.wake)
	}
	return true
}

// want asks for a connection although there is nothing to send yet; under mu.
func (p *peer) want() {
	if !p.wanted {
		p.wanted = true
		signal(p.wake)
	}
}

// hurry cuts a backoff short because there is news of the node, but not more
// often than the backoff itself would end.
func (p *peer) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.down && now.Sub(p.rushed) > p.t.cfg.BackoffMax {
		p.rushed = now
		p.want()
		signal(p.rush)
	}
}

// supersede ends a connection to an earlier process of the node, and has the
// later one connected to at once.
func (p *peer) supersede(incarnation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil && p.link.incarnation < incarnation {
		p.link.cancel(errSuperseded)
		p.wanted = true
		signal(p.rush)
	}
}

var (
	errSuperseded = errors.New("the node has started again")
	errNoAnswer   = errors.New("no answer in time")
	errEnded      = errors.New("the other node ended the stream")
)

// signal fills a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *peer) run() {
	backoff := p.t.cfg.BackoffMin
	for p.awaitDemand() {
		lived, err := p.session()
		p.lost(lived > 0, err)
		if lived > p.t.cfg.BackoffMax {
			backoff = p.t.cfg.BackoffMin
		}
		p.pause(backoff/2 + rand.N(backoff))
		backoff = min(2*backoff, p.t.cfg.BackoffMax)
	}
	p.lost(false, context.Cause(p.ctx))
}

// awaitDemand returns true when there is something to send, false at the end.
func (p *peer) awaitDemand() bool {
	for {
		p.mu.Lock()
		demand := p.wanted || !p.queue.empty() || len(p.snapshots) > 0
		p.wanted = false
		p.mu.Unlock()
		if p.ctx.Err() != nil {
			return false
		}
		if demand {
			return true
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return false
		}
	}
}

func (p *peer) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.rush:
	case <-p.ctx.Done():
	}
}

// session connects, and sends until the stream breaks. lived is how long the
// stream lasted, 0 if there was none.
func (p *peer) session() (lived time.Duration, err error) {
	address := p.t.address(p.node)
	if address == "" {
		return 0, fmt.Errorf("%w: the address is not known", shard.ErrUnavailable)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, p.t.dial...)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	deadline := time.AfterFunc(p.t.cfg.HandshakeTimeout, func() { cancel(errNoAnswer) })
	stream, err := api.OpenPeerMessages(ctx, conn)
	if err != nil {
		return 0, reasonOf(ctx, err)
	}
	greeted, err := p.handshake(stream)
	if err != nil {
		return 0, reasonOf(ctx, err)
	}
	if !deadline.Stop() {
		return 0, errNoAnswer
	}

	began := time.Now()
	ended := make(chan error, 1)
	p.t.wg.Add(1) // run, which holds one, makes it safe to add another
	go func() {
		defer p.t.wg.Done()
		err := awaitEnd(stream)
		ended <- err
		cancel(err)
	}()
	p.connected(&link{conn: conn, ctx: ctx, cancel: cancel, incarnation: greeted.Incarnation})
	err = p.pump(ctx, stream)
	if err != io.EOF { // else the stream has ended, and awaitEnd knows why
		cancel(err)
	}
	return max(time.Since(began), 1), reasonOf(ctx, <-ended)
}

// reasonOf is why ctx was cancelled, if that is what err says.
func reasonOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// handshake introduces this node and checks who answers.
func (p *peer) handshake(stream *api.RawStream) (greeting, error) {
	if err := stream.Send(p.hello(), nil); err != nil && err != io.EOF {
		return greeting{}, api.Error(err)
	}
	answer, err := stream.Receive(helloBytesMax)
	if err != nil {
		return greeting{}, err
	}
	g, err := decodeAnswer(answer)
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) && refused.Reason != NotReady && p.t.cfg.Refused != nil {
			p.t.cfg.Refused(p.node, refused)
		}
		return greeting{}, err
	}
	if refused := p.t.identities.checkGreeting(p.node, &g); refused != nil {
		return greeting{}, refused
	}
	return g, nil
}

func (p *peer) hello() []byte {
	self := &p.t.identities.self
	return appendHello(nil, &hello{Cluster: self.Cluster, Node: self.Node, Incarnation: self.Incarnation,
		Process: self.Process, Target: p.node, Address: p.t.cfg.Address})
}

// awaitEnd returns when the stream ends, and why; an acceptor that has greeted
// sends nothing more.
func awaitEnd(stream *api.RawStream) error {
	_, err := stream.Receive(helloBytesMax)
	switch err {
	case nil:
		return fmt.Errorf("%w: a frame from an acceptor", shard.ErrMalformed)
	case io.EOF:
		return errEnded
	}
	return err
}

// pump sends one frame after another. While gRPC takes a frame, the next one
// fills: that is all the batching there is, and it grows with the load.
func (p *peer) pump(ctx context.Context, stream *api.RawStream) error {
	for {
		p.mu.Lock()
		f, ok := p.queue.take()
		p.mu.Unlock()
		if !ok {
			select {
			case <-p.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		size := len(f.bytes)
		if err := stream.Send(f.bytes, &p.t.frames); err != nil {
			p.t.counters.messagesDropped.Add(uint64(f.messages))
			return err
		}
		p.t.counters.framesSent.Add(1)
		p.t.counters.messagesSent.Add(uint64(f.messages))
		p.t.counters.bytesSent.Add(uint64(size))
	}
}

// connected opens the gates.
func (p *peer) connected(l *link) {
	p.t.counters.connects.Add(1)
	p.mu.Lock()
	p.down = false
	p.link = l
	p.mu.Unlock()
	// A newer process of the node may have introduced itself meanwhile.
	if !p.t.identities.current(p.node, l.incarnation) {
		l.cancel(errSuperseded)
	}
	p.startSnapshots()
	p.t.startLarge()
}

// lost drops what waited, and reports.
func (p *peer) lost(wasConnected bool, err error) {
	p.mu.Lock()
	p.link = nil
	transition := !p.down || wasConnected
	p.down = true
	var dropped []packedFrame
	for f, ok := p.queue.take(); ok; f, ok = p.queue.take() {
		dropped = append(dropped, f)
	}
	tasks := append(p.snapshots, p.t.takeLarge(p)...)
	p.snapshots = nil
	now := time.Now()
	report := p.ctx.Err() == nil && (transition || now.Sub(p.reported) >= p.t.cfg.ReportEvery)
	if report {
		p.reported = now
	}
	p.mu.Unlock()

	for _, f := range dropped {
		p.t.counters.messagesDropped.Add(uint64(f.messages))
		p.t.frames.Recycle(f.bytes)
	}
	for _, task := range tasks {
		p.t.endSnapshot(task, fmt.Errorf("%w: node %d: %w", shard.ErrUnavailable, p.node, err))
	}
	if p.ctx.Err() != nil && !report {
		return
	}
	var refused *RefusedError
	switch {
	case errors.As(err, &refused) && refused.Reason != NotReady:
		p.t.counters.connectsFailed.Add(1)
		p.t.log.log(slog.LevelError, p.node, "another node is not the right one, or refuses this one", err)
	case wasConnected:
		p.t.counters.disconnects.Add(1)
		p.t.log.log(slog.LevelWarn, p.node, "lost the connection to a node", err)
	default:
		p.t.counters.connectsFailed.Add(1)
		p.t.log.log(slog.LevelWarn, p.node, "cannot connect to a node", err)
	}
	if report {
		p.t.receive().PeerUnreachable(p.node)
	}
}
