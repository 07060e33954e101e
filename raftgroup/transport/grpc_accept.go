package transport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/shard"
)

// acceptor serves the streams that other nodes open.
type acceptor struct{ t *GRPC }

// inbound is one accepted stream. Its body runs on a goroutine of its own, so
// that the handler can return, and thereby end the stream, although the body waits for
// the next frame.
type inbound struct {
	stream   *api.RawStream
	messages bool          // else a snapshot
	greeted  chan struct{} // closed after the handshake
	cut      chan struct{} // closed when a newer stream replaces this one
	cutOnce  sync.Once
	done     chan struct{} // closed when the body has returned

	from        shard.NodeID // set before greeted
	incarnation uint64
}

var errReplaced = errors.New("a newer stream of the same node replaces this one")

func (a acceptor) Messages(s *api.RawStream) error {
	return a.t.serve(s, true, func(in *inbound) error { return a.t.takeMessages(in) })
}

func (a acceptor) Snapshot(s *api.RawStream) error {
	return a.t.serve(s, false, func(in *inbound) error { return a.t.takeSnapshot(in) })
}

// serve runs an accepted stream: handshake with a deadline, then body, until it
// is done, replaced, or the transport closes.
func (t *GRPC) serve(s *api.RawStream, messages bool, body func(*inbound) error) error {
	in := &inbound{stream: s, messages: messages, greeted: make(chan struct{}), cut: make(chan struct{}), done: make(chan struct{})}
	result := make(chan error, 1)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return shard.ErrUnavailable
	}
	t.wg.Add(1)
	t.mu.Unlock()
	go func() {
		defer t.wg.Done()
		defer close(in.done)
		err := t.welcome(in)
		if err == nil {
			err = body(in)
			t.forget(in)
		}
		result <- err
	}()

	deadline := time.NewTimer(t.cfg.HandshakeTimeout)
	defer deadline.Stop()
	greeted := in.greeted
	for {
		select {
		case err := <-result:
			var refused *RefusedError
			if errors.As(err, &refused) || err == io.EOF {
				return nil // a refusal was sent as a frame
			}
			return err
		case <-greeted:
			greeted = nil
			deadline.Stop()
		case <-deadline.C:
			return fmt.Errorf("%w: no hello within %v", shard.ErrMalformed, t.cfg.HandshakeTimeout)
		case <-in.cut:
			return fmt.Errorf("%w: %w", shard.ErrUnavailable, errReplaced)
		case <-t.ctx.Done():
			return shard.ErrUnavailable
		}
	}
}

// welcome takes the hello and answers it.
func (t *GRPC) welcome(in *inbound) error {
	frame, err := in.stream.Receive(helloBytesMax)
	if err != nil {
		return err
	}
	h, err := decodeHello(frame)
	if err != nil {
		t.log.log(slog.LevelWarn, 0, "a stream that is not from a node was dropped", err)
		return err
	}
	older, refused := t.register(in, &h)
	if refused != nil {
		t.counters.refused.Add(1)
		if refused.Reason != NotReady {
			t.log.log(slog.LevelError, h.Node, "refused a stream of a node", refused)
		}
		if err := in.stream.Send(appendRefusal(nil, refused), nil); err != nil {
			return err
		}
		return refused
	}
	close(in.greeted)
	for _, o := range older {
		// Frames of the older stream are delivered before, or never.
		o.cutOnce.Do(func() { close(o.cut) })
		if o.messages {
			<-o.done
		}
	}
	if err := in.stream.Send(appendGreeting(nil, &t.identities.self), nil); err != nil {
		t.forget(in)
		return err
	}
	if p := (*t.peers.Load())[h.Node]; p != nil {
		p.supersede(h.Incarnation)
		p.hurry()
	}
	if t.cfg.PeerSeen != nil && in.messages {
		t.cfg.PeerSeen(Peer{Node: h.Node, Address: h.Address, Incarnation: h.Incarnation})
	}
	return nil
}

// register checks who is there and makes the stream the node's current one. It
// returns the streams that it replaces. Check and registration are one step: between
// them a newer incarnation could slip in, whose messages would then mix with those
// of the older one.
func (t *GRPC) register(in *inbound, h *hello) (older []*inbound, refused *RefusedError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.receiver.Load() == nil || t.closed {
		return nil, refuse(NotReady, "node %d starts or stops", t.cfg.Node)
	}
	if refused := t.identities.checkHello(h); refused != nil {
		return nil, refused
	}
	in.from, in.incarnation = h.Node, h.Incarnation
	streams := t.inbound[h.Node]
	for o := range streams { //order-free: all of them end
		if o.incarnation < in.incarnation || o.messages && in.messages {
			older = append(older, o)
			delete(streams, o)
		}
	}
	if streams == nil {
		streams = make(map[*inbound]struct{})
		t.inbound[h.Node] = streams
	}
	streams[in] = struct{}{}
	if h.Address != "" {
		t.learned[h.Node] = h.Address
	}
	return older, nil
}

// forget removes an ended stream.
func (t *GRPC) forget(in *inbound) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.inbound[in.from], in)
	if len(t.inbound[in.from]) == 0 {
		delete(t.inbound, in.from)
	}
}

// replaced tells whether the stream has been cut.
func (in *inbound) replaced() bool {
	select {
	case <-in.cut:
		return true
	default:
		return false
	}
}

// takeMessages hands frames to the receiver until the stream ends. One malformed
// frame ends it: after that nothing on it can be trusted.
func (t *GRPC) takeMessages(in *inbound) error {
	receiver := t.receive()
	for {
		frame, err := in.stream.Receive(api.PeerFrameBytesMax)
		if err != nil {
			if errors.Is(err, shard.ErrMalformed) {
				t.log.log(slog.LevelError, in.from, "dropped the stream of a node: oversize frame", err)
			}
			return err
		}
		if in.replaced() || t.ctx.Err() != nil {
			return errReplaced
		}
		t.counters.framesReceived.Add(1)
		t.counters.bytesReceived.Add(uint64(len(frame)))
		if len(frame) == 0 || frame[0] != frameMessages {
			err = fmt.Errorf("%w: not a frame of messages", shard.ErrMalformed)
		} else {
			err = receiver.Receive(in.from, frame[1:])
		}
		if err != nil {
			t.log.log(slog.LevelError, in.from, "dropped the stream of a node: malformed frame", err)
			return err
		}
	}
}
