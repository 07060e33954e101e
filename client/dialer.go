package client

import (
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Dialer opens streams to nodes. The gRPC one (NewGRPCDialer) is an adapter; a
// simulation has a twin. Its methods do not block.
type Dialer interface {
	// Open starts to connect to address and returns at once. Exactly one of the
	// handler's Closed calls comes last, even after Stream.Close. Handler calls
	// are made from any goroutine, one at a time.
	Open(address string, h StreamHandler) Stream
	// Info asks the node at address for what a client needs to start. done is
	// called once, from any goroutine, within about timeout.
	Info(address string, timeout time.Duration, done func(Info, error))
}

// StreamHandler receives a stream's events.
type StreamHandler interface {
	// Greeted is called once, with the server's greeting, before any other frame. The
	// server greets a stream in answer to the client's hello.
	Greeted(g shard.Greeting)
	Received(frame []byte) // frame is the handler's to keep
	Closed(err error)
}

// Stream is one client stream to a node. The first frame that is filled is the
// client's hello.
type Stream interface {
	// Ready calls fill when the stream can take a frame: once it is connected, and
	// the previous one has left. fill appends a frame, or nothing. At most one fill is
	// pending. A stream that has ended may leave it.
	Ready(fill func(buf []byte) []byte)
	// Bytes is how many bytes have arrived: of a large frame, long before it is whole.
	Bytes() uint64
	// Close ends the stream. What was not sent yet may be lost.
	Close()
}

// Info is what a node tells a client at first contact.
type Info struct {
	Cluster    shard.ClusterID
	Node       shard.NodeID
	Meta       shard.Descriptor
	MetaLeader shard.NodeID // 0: not known
	Nodes      map[shard.NodeID]string
}
