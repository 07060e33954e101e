package clienttest

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Stream is a node's end of a client stream. A newer stream of the same session
// supersedes it.
type Stream struct {
	cluster *Cluster
	node    shard.NodeID
	session shard.Session // 0: no hello yet
	number  uint64
}

// seat is a session at a node.
type seat struct {
	node    shard.NodeID
	session shard.Session
}

// Open is the end of a new stream to a node.
func (c *Cluster) Open(n shard.NodeID) *Stream { return &Stream{cluster: c, node: n} }

// Handle answers a frame that reached the node: a hello with a greeting, requests
// with responses. An error ends the stream.
func (s *Stream) Handle(frame []byte) ([]byte, error) {
	if s.session == 0 {
		return s.hello(frame)
	}
	c := s.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	over := c.newest[seat{s.node, s.session}] != s.number
	out := shard.BeginResponses(nil, c.revision)
	err := shard.DecodeRequests(frame, func(q shard.Request) {
		p := shard.Response{ID: q.ID, Err: shard.ErrDropped}
		if !over {
			p = c.answer(s.node, &q)
		}
		out = shard.AppendResponse(out, &p)
	})
	return out, err
}

func (s *Stream) hello(frame []byte) ([]byte, error) {
	h, err := shard.DecodeHello(frame)
	if err != nil {
		return nil, err
	}
	c := s.cluster
	if h.Cluster != c.ID || h.Session == 0 || h.Stream == 0 {
		return nil, fmt.Errorf("hello %+v to cluster %v", h, c.ID)
	}
	if h.Node != s.node {
		return shard.AppendGreeting(nil, c.Greeting(s.node)), nil
	}
	c.mu.Lock()
	at := seat{s.node, h.Session}
	if h.Stream <= c.newest[at] {
		err = fmt.Errorf("hello of stream %d after stream %d", h.Stream, c.newest[at])
	} else {
		c.newest[at] = h.Stream
		s.session, s.number = h.Session, h.Stream
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return shard.AppendGreeting(nil, c.Greeting(s.node)), nil
}

var greetingStart = shard.AppendGreeting(nil, shard.Greeting{})[:1]

func isGreeting(frame []byte) bool { return bytes.HasPrefix(frame, greetingStart) }

// deliver hands a node's frame to a client.
func deliver(h client.StreamHandler, frame []byte) {
	if !isGreeting(frame) {
		h.Received(frame)
		return
	}
	g, err := shard.DecodeGreeting(frame)
	if err != nil {
		panic(err)
	}
	h.Greeted(g)
}
