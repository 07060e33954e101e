package raftgroup

import (
	"github.com/kiloraft/kiloraft/shard"
)

// Transport carries messages between nodes' hosts. Package raftgroup/transport
// has the gRPC one and an in-memory twin. It never blocks a caller.
type Transport interface {
	// Send queues one message for a node. encode appends the message to the
	// node's next frame, during the call. It returns false if the message was
	// dropped because the queue is full or the node unknown or unreachable;
	// size is the most that encode appends.
	Send(to shard.NodeID, size int, encode func(frame []byte) []byte) bool

	// SendSnapshot puts a snapshot in line. When its turn has come it is opened and
	// streamed on a stream of its own: header, then chunks until io.EOF, after which
	// they are closed. One that is put off is closed and opened again. However long it
	// waits, that alone does not end it. open and done are called from any goroutine,
	// done exactly once: nil when the receiver has taken all of it.
	SendSnapshot(to shard.NodeID, open func() (OutgoingSnapshot, error), done func(error))
}

// OutgoingSnapshot is one whose turn to be sent has come.
type OutgoingSnapshot struct {
	Header []byte
	// Large: more than the receiver keeps in memory. A few of these are sent, and
	// received, at a time.
	Large  bool
	Chunks ChunkSource
}

// ChunkSource yields the chunks of a snapshot. Next returns io.EOF after the
// last; a chunk is valid until the next call.
type ChunkSource interface {
	Next() ([]byte, error)
	Close() error
}

// Receiver is what a transport delivers to: the host.
type Receiver interface {
	// Receive takes a frame: the concatenation of messages that one node's Sends
	// encoded. It keeps slices of frame. An error means that the frame is
	// malformed; the transport drops the connection.
	Receive(from shard.NodeID, frame []byte) error

	// ReceiveSnapshot opens a sink for a snapshot, or refuses it. ErrBusy: not now.
	ReceiveSnapshot(from shard.NodeID, header []byte, large bool) (SnapshotSink, error)

	// PeerUnreachable reports that node does not answer; called once per
	// transition and at most every few seconds while it lasts.
	PeerUnreachable(node shard.NodeID)
}

// SnapshotSink takes one snapshot's chunks in order, from one goroutine. It
// may write to disk. Either Finish or Abort ends it.
type SnapshotSink interface {
	Add(chunk []byte) error
	Finish() error
	Abort(err error)
}
