package raftgroup

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// frameEncoder appends one message to a transport's frame. It is reused, with
// its method value, so that sending allocates nothing.
type frameEncoder struct {
	shard    shard.ID
	startKey []byte
	msg      *raftpb.Message
	size     int
	run      func([]byte) []byte
}

var frameEncoders = sync.Pool{New: func() any {
	e := &frameEncoder{}
	e.run = e.encode
	return e
}}

func (e *frameEncoder) encode(frame []byte) []byte {
	return appendMessage(frame, e.shard, e.startKey, e.msg, e.size)
}

// Note sends a few bytes to another node's host, in the frame that leaves next for
// it, beside the groups' messages: what many nodes ask each other often then costs
// next to nothing. It may be lost, as a message may; false: it was. note is not
// kept. At most 256 bytes.
func (h *Host) Note(to shard.NodeID, note []byte) bool {
	if len(note) == 0 || len(note) > noteBytesMax {
		panic(fmt.Sprintf("raftgroup: a note of %d bytes", len(note)))
	}
	return h.transport.Send(to, len(note)+1+lengthBytesMax, func(frame []byte) []byte { return appendNote(frame, note) })
}

// lengthBytesMax is what the length before a message may take.
const lengthBytesMax = 5

// sendTo is safe for concurrent use. The transport encodes during the call.
func (h *Host) sendTo(node shard.NodeID, id shard.ID, startKey []byte, m *raftpb.Message) bool {
	e := frameEncoders.Get().(*frameEncoder)
	e.shard, e.startKey, e.msg, e.size = id, startKey, m, messageBytes(id, startKey, m)
	ok := h.transport.Send(node, e.size+lengthBytesMax, e.run)
	e.startKey, e.msg = nil, nil
	frameEncoders.Put(e)
	return ok
}
