package raftgroup

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// frameEncoder appends one message to a transport's frame. It is reused, with
// its method value, so that sending allocates nothing.
type frameEncoder struct {
	shard shard.ID
	msg   *raftpb.Message
	size  int
	run   func([]byte) []byte
}

var frameEncoders = sync.Pool{New: func() any {
	e := &frameEncoder{}
	e.run = e.encode
	return e
}}

func (e *frameEncoder) encode(frame []byte) []byte {
	return appendMessage(frame, e.shard, e.msg, e.size)
}

// lengthBytesMax is what the length before a message may take.
const lengthBytesMax = 5

// sendTo is safe for concurrent use. The transport encodes during the call.
func (h *Host) sendTo(node shard.NodeID, id shard.ID, m *raftpb.Message) bool {
	e := frameEncoders.Get().(*frameEncoder)
	e.shard, e.msg, e.size = id, m, messageBytes(id, m)
	ok := h.transport.Send(node, e.size+lengthBytesMax, e.run)
	e.msg = nil
	frameEncoders.Put(e)
	return ok
}
