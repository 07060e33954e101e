package machine

import (
	"bytes"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// SplitOf is the split of a shard that a logged command of KindSplit is.
func SplitOf(id shard.ID, h *Header, c *shard.Command) shard.Split {
	return shard.Split{Shard: id, Epoch: shard.Epoch{Version: h.Version, ConfVersion: c.ConfVersion}, Key: bytes.Clone(c.Key), Right: c.Right}
}

// split parts the shard. The descriptor is the left side's from here on, for the rest of
// this very entry too; the right side's state is handed to the group, whose node may
// have good reasons not to take it (raftgroup.Result.Born).
//
// Floor and last revision are both sides': what was read at a revision before the split
// stays true after it, and no later write of either side is numbered below one of the
// shard that both were.
func (m *Machine) split(h *Header, c *shard.Command) raftgroup.Result {
	d := &m.state.Descriptor
	s := SplitOf(d.ID, h, c)
	left, right, refusal := s.Apply(d)
	if refusal != nil {
		return raftgroup.Result{Err: refusal}
	}
	born := &storage.ReplicaState{LastRevision: m.state.LastRevision, Floor: m.state.Floor, Descriptor: right,
		Versions: min(c.RightKeys, m.state.Versions), Bytes: min(c.RightBytes, m.state.Bytes)}
	switch {
	case planted.On(planted.BornBelowLast):
		born.LastRevision = born.Floor
	case planted.On(planted.FloorNotCopied):
		born.Floor = 0
	}
	m.state.Descriptor = left
	return raftgroup.Result{Born: born}
}
