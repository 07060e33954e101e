package clienttest

import (
	"errors"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Network connects cores on one Env with clusters. It implements client.Dialer.
type Network struct {
	Env     *Env
	Latency time.Duration // one way
	// Down addresses refuse connections; Silent ones accept them, and frames, and
	// never say anything.
	Down, Silent map[string]bool
	// Slow addresses are always in the middle of a large frame.
	Slow map[string]bool
	// Deaf addresses take frames and carry them out, and their answers are lost.
	Deaf map[string]bool
	// Sent is told of each frame that a client sent.
	Sent func(address string, frame []byte)
	// Malformed is sent in place of responses, if not nil.
	Malformed []byte

	members map[string]member
	streams []*netStream
	stalled []*netStream
	// Infos counts questions; Opened counts streams.
	Infos, Opened int
	// Faults are what a Network would have failed a test for.
	Faults []error
}

type member struct {
	cluster *Cluster
	node    shard.NodeID
}

var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset")
	errTimeout = errors.New("timed out")
)

// NewNetwork makes a network of clusters, 200 µs from their clients.
func NewNetwork(e *Env, clusters ...*Cluster) *Network {
	n := &Network{Env: e, Latency: 200 * time.Microsecond, members: map[string]member{},
		Down: map[string]bool{}, Silent: map[string]bool{}, Slow: map[string]bool{}, Deaf: map[string]bool{}}
	for _, c := range clusters {
		for i := range c.Nodes {
			n.Place(c, shard.NodeID(i+1), c.AddressOf(shard.NodeID(i+1)))
		}
	}
	return n
}

// Place puts a node at an address.
func (n *Network) Place(c *Cluster, node shard.NodeID, address string) {
	n.members[address] = member{c, node}
}

// Info implements client.Dialer.
func (n *Network) Info(address string, timeout time.Duration, done func(client.Info, error)) {
	n.Infos++
	m, ok := n.members[address]
	switch {
	case !ok || n.Down[address]:
		n.Env.After(n.Latency, func() { done(client.Info{}, errRefused) })
	case n.Silent[address]:
		n.Env.After(timeout, func() { done(client.Info{}, errTimeout) })
	default:
		n.Env.After(2*n.Latency, func() { done(m.cluster.Info(m.node), nil) })
	}
}

// Open implements client.Dialer.
func (n *Network) Open(address string, h client.StreamHandler) client.Stream {
	s := &netStream{net: n, address: address, handler: h}
	n.Opened++
	n.streams = append(n.streams, s)
	n.Env.After(2*n.Latency, s.connect)
	return s
}

// Break breaks every stream to an address. Frames that are on their way are lost.
func (n *Network) Break(address string) {
	for _, s := range slices.Clone(n.streams) {
		if s.address == address {
			s.end(errReset)
		}
	}
}

// News has the node at an address tell its clients what is newest, as nodes do on
// idle streams.
func (n *Network) News(address string) {
	for _, s := range slices.Clone(n.streams) {
		if m, ok := s.member(); ok && s.address == address && s.far != nil && s.far.session != 0 {
			m.cluster.mu.Lock()
			frame := shard.BeginResponses(nil, m.cluster.revision)
			m.cluster.mu.Unlock()
			n.Env.After(n.Latency, func() {
				if !s.ended {
					s.handler.Received(frame)
				}
			})
		}
	}
}

// Stall holds up what arrives on the streams that are open to an address, even
// after they broke, until Release. Streams that are opened later are not concerned.
func (n *Network) Stall(address string) {
	for _, s := range n.streams {
		if s.address == address && !s.stalls {
			s.stalls = true
			n.stalled = append(n.stalled, s)
		}
	}
}

// Release lets everything that was stalled arrive now.
func (n *Network) Release() {
	for _, s := range n.stalled {
		s.stalls = false
		frames := s.late
		s.late = nil
		for _, f := range frames {
			s.handle(f)
		}
	}
	n.stalled = nil
}

// Streams is how many streams are open.
func (n *Network) Streams() int { return len(n.streams) }

type netStream struct {
	net       *Network
	address   string
	handler   client.StreamHandler
	connected bool
	far       *Stream // the node's end; nil: not connected
	stalls    bool
	late      [][]byte // arrived while it stalls
	leaving   bool
	fill      func([]byte) []byte
	ended     bool
}

func (s *netStream) member() (member, bool) {
	m, ok := s.net.members[s.address]
	return m, ok && !s.net.Down[s.address]
}

func (s *netStream) connect() {
	m, ok := s.member()
	switch {
	case s.ended || s.net.Silent[s.address]:
	case !ok:
		s.end(errRefused)
	default:
		s.connected, s.far = true, m.cluster.Open(m.node)
		s.leave()
	}
}

// Ready implements client.Stream.
func (s *netStream) Ready(fill func([]byte) []byte) {
	if s.fill != nil {
		s.net.Faults = append(s.net.Faults, errors.New("two fills are pending"))
	}
	s.fill = fill
	if !s.leaving {
		s.leave()
	}
}

// leave sends a frame; the next one may leave when this one is on its way.
func (s *netStream) leave() {
	fill := s.fill
	if fill == nil || s.ended || !s.connected {
		return
	}
	s.fill = nil
	frame := fill(nil)
	if len(frame) == 0 {
		return
	}
	if s.net.Sent != nil {
		s.net.Sent(s.address, frame)
	}
	s.leaving = true
	s.net.Env.After(s.net.Latency/4, func() { s.leaving = false; s.leave() })
	s.net.Env.After(s.net.Latency, func() { s.arrive(frame) })
}

func (s *netStream) arrive(frame []byte) {
	if s.stalls {
		s.late = append(s.late, frame)
		return
	}
	if !s.ended {
		s.handle(frame)
	}
}

// handle has the node answer a frame.
func (s *netStream) handle(frame []byte) {
	if _, ok := s.member(); !ok || s.net.Silent[s.address] {
		return
	}
	answer, err := s.far.Handle(frame)
	if err != nil {
		s.net.Faults = append(s.net.Faults, err)
		return
	}
	send := func() { deliver(s.handler, answer) }
	if !isGreeting(answer) {
		if s.net.Deaf[s.address] {
			return
		}
		if s.net.Malformed != nil {
			answer = s.net.Malformed
		}
		send = func() { s.handler.Received(answer) }
	}
	s.net.Env.After(s.net.Latency, func() {
		if !s.ended {
			send()
		}
	})
}

// Bytes implements client.Stream.
func (s *netStream) Bytes() uint64 {
	if s.net.Slow[s.address] {
		return uint64(s.net.Env.Now())
	}
	return 0
}

// Close implements client.Stream.
func (s *netStream) Close() { s.end(errReset) }

func (s *netStream) end(err error) {
	if s.ended {
		return
	}
	s.ended = true
	i := slices.Index(s.net.streams, s)
	s.net.streams = slices.Delete(s.net.streams, i, i+1)
	s.net.Env.After(0, func() { s.handler.Closed(err) })
}
