package sim

import (
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// effects is what the logs say of every write to a user key. Clients see a part of
// it only: a write that took effect although it was refused, or twice, may be
// overwritten before anybody reads it.
type effects struct {
	byOp    map[shard.OpID]effect
	byValue map[written]effect          // of puts
	deletes map[string][]shard.Revision // by key, in the order in which logs were first applied
}

// effect is one write as it was applied.
type effect struct {
	shard shard.ID
	index uint64
	rev   shard.Revision
}

// took notes that an operation was applied and had the given result. Replicas
// apply alike (Witness.entry), so that any of them may be the first to say so.
func (w *Witness) took(o *observer, at raftgroup.Position, op []byte, res raftgroup.Result) {
	var h machine.Header
	var c shard.Command
	if res.Err != nil || machine.DecodeOperation(op, &h, &c) != nil || c.Key[0] != shard.UserKeyspace {
		return
	}
	now := effect{o.shard, at.Index, res.Revision}
	if first, known := w.effects.byOp[c.Op]; known && first != now {
		w.Fail("a write took effect twice: operation %x.%d on key %q, as %+v and as %+v", c.Op.Session, c.Op.Sequence, c.Key, first, now)
	}
	_, known := w.effects.byOp[c.Op]
	w.effects.byOp[c.Op] = now
	switch {
	case c.Kind == shard.KindPut:
		w.effects.byValue[written{string(c.Key), string(c.Value)}] = now
	case !known:
		w.effects.deletes[string(c.Key)] = append(w.effects.deletes[string(c.Key)], res.Revision)
	}
}

// judge compares what clients were told with what the logs say.
func (w *Witness) judge(h *History) {
	for _, o := range h.ops {
		if o.Kind != shard.KindPut {
			continue
		}
		e, took := w.effects.byValue[written{o.Key, o.Value}]
		switch {
		case o.Outcome == refused && took:
			w.Fail("a write that was refused took effect as %+v: %v", e, o)
		case o.Outcome == done && !took:
			w.Fail("a write was acknowledged and is in no log: %v", o)
		case o.Outcome == done && e.rev != o.Rev:
			w.Fail("a write was acknowledged with a revision that is not its own, which is %+v: %v", e, o)
		}
	}
	h.deletes = w.effects.deletes
}
