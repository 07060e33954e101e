package raftgroup

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// Receive takes a frame: the concatenation of messages that one node's Sends
// encoded. An error (ErrMalformed) means that the sender is broken; the messages
// before the malformed one were taken. Messages that nobody here waits for, or
// for which there is no room, are dropped and counted: raft repeats them.
func (h *Host) Receive(from shard.NodeID, frame []byte) error {
	for len(frame) > 0 {
		e, rest, err := nextMessage(frame)
		if err != nil {
			return err
		}
		frame = rest
		switch {
		case !e.raft():
			h.receiveOther(from, &e)
		case e.msg.Type == raftpb.MsgSnap:
			return fmt.Errorf("%w: a snapshot's message came without the snapshot", shard.ErrMalformed)
		case !h.receive(from, &e):
			h.stats.messagesDropped.Add(1)
		}
	}
	return nil
}

// receiveOther takes what is no message of raft.
func (h *Host) receiveOther(from shard.NodeID, e *envelope) {
	if !h.loaded.Load() || h.closed.Load() {
		return
	}
	switch g, here := h.Group(e.shard); {
	case e.note != nil:
		h.cfg.Note(from, e.note)
	case here && e.ask:
		g.tellRemoved(e.from, from)
	case here && e.to == g.replica:
		g.pushRemoved(e.next)
	}
}

func (h *Host) receive(from shard.NodeID, e *envelope) bool {
	if h.incomingBytes.Add(e.bytes) > h.cfg.IncomingBytesMax {
		h.incomingBytes.Add(-e.bytes)
		return false
	}
	g := h.addressee(from, e)
	if g == nil || !g.pushMessage(incoming{node: from, bytes: e.bytes, startKey: e.startKey, msg: e.msg}) {
		h.incomingBytes.Add(-e.bytes)
		return false
	}
	return true
}

// addressee finds the group of a message, or creates an uninitialized one; nil
// if the message is for nobody. A message to a higher replica ID proves that ours was
// removed: the shard has given a later one to this node. It is dropped; raft sends
// another, which finds the place free. One to a lower ID is for a replica that
// was removed here; who sent it may have missed his own removal.
func (h *Host) addressee(from shard.NodeID, e *envelope) *Group {
	if !h.loaded.Load() || h.closed.Load() {
		return nil
	}
	g, ok := h.Group(e.shard)
	if !ok {
		if !creates(e.msg.Type) || !h.reserveUninitialized() {
			return nil
		}
		var err error
		if g, err = h.create(e.shard, e.to, false); errors.Is(err, ErrRemoved) {
			return nil // delayed for long, or from one who missed much
		} else if errors.Is(err, shard.ErrUnavailable) {
			return nil
		} else if err != nil {
			h.log.Warn("a replica could not be created", "shard", uint64(e.shard), "replica", uint64(e.to), "error", err)
			return nil
		}
	}
	switch {
	case e.to > g.replica:
		g.pushRemoved(e.to)
		return nil
	case e.to < g.replica:
		g.tellRemoved(e.from, from)
		return nil
	}
	return g
}

// creates tells whether a message makes sense for a replica without any state:
// it comes from a leader or a candidate that knows of it.
func creates(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgSnap:
		return true
	}
	return false
}

func (h *Host) reserveUninitialized() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.uninitialized < uninitializedMax
}

// PeerUnreachable makes leaders probe their replicas on node instead of sending
// ahead.
func (h *Host) PeerUnreachable(node shard.NodeID) {
	for _, g := range *h.sorted.Load() {
		for _, p := range *g.nodes.Load() {
			if p.node == node && p.replica != g.replica {
				g.pushControl(control{run: func() { g.unreachable(p.replica) }, abandon: func(error) {}})
				break
			}
		}
	}
}

func (g *Group) unreachable(id shard.ReplicaID) {
	if _, leads := g.leads(); leads {
		g.rn.ReportUnreachable(uint64(id))
	}
}
