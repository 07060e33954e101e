package sim

import (
	"bytes"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// split judges what a replica makes of an operation that is a split: before is the
// descriptor that it was applied to.
func (o *observer) split(at raftgroup.Position, op []byte, before *shard.Descriptor, res *raftgroup.Result) {
	var h machine.Header
	var c shard.Command
	if machine.DecodeOperation(op, &h, &c) != nil || c.Kind != shard.KindSplit {
		return
	}
	w, born := o.witness, res.Born
	if born == nil {
		o.event("split at %q, index %d: %v", c.Key, at.Index, res.Err)
		return
	}
	left, right := o.Machine.Descriptor(), &born.Descriptor
	o.event("splits at %q, index %d: the rest is shard %d", c.Key, at.Index, right.ID)
	here := shardIndex{o.shard, at.Index}
	first, known := w.births[right.ID]
	asked := shard.Epoch{Version: h.Version, ConfVersion: c.ConfVersion}
	switch {
	case known && first != here:
		w.Fail("shard %d has split off shard %d at index %d, and off shard %d at index %d", right.ID, first.shard, first.index, here.shard, here.index)
	case asked != before.Epoch || before.Joint():
		w.Fail("shard %d: at index %d a split for epoch %v is applied to epoch %v, joint: %v", o.shard, at.Index, asked, before.Epoch, before.Joint())
	case !bytes.Equal(left.Span.Start, before.Span.Start) || !bytes.Equal(left.Span.End, c.Key) || !bytes.Equal(right.Span.Start, c.Key) || !bytes.Equal(right.Span.End, before.Span.End):
		w.Fail("shard %d: at index %d %v is split into %v and %v", o.shard, at.Index, before.Span, left.Span, right.Span)
	case left.Epoch.Version != before.Epoch.Version+1 || right.Epoch != left.Epoch || left.Epoch.ConfVersion != before.Epoch.ConfVersion:
		w.Fail("shard %d: at index %d a split makes epochs %v and %v of %v", o.shard, at.Index, left.Epoch, right.Epoch, before.Epoch)
	case born.Floor < o.floor:
		w.Fail("shard %d: at index %d shard %d is born with floor %d, and the floor is %d", o.shard, at.Index, right.ID, born.Floor, o.floor)
	}
	if !known {
		if written := max(o.last, w.effects.last[o.shard]); born.LastRevision < written {
			w.Fail("shard %d: at index %d shard %d is born with last revision %d, and %d was written", o.shard, at.Index, right.ID, born.LastRevision, written)
		}
		w.births[right.ID] = here
		w.effects.last[right.ID] = w.effects.last[o.shard]
	}
	o.born = append(o.born, born)
}

// parted takes in what has split off in the batch that is published. Where the new
// shard's replica has been removed since, or this one was, it tells no less what is so.
func (o *observer) parted() {
	for _, born := range o.born {
		begins := *born
		begins.Applied, begins.AppliedTerm = bornIndex, bornTerm
		o.witness.covers(o.node, &begins.Descriptor)
		o.witness.state(o.node, &begins, stateText(&begins))
	}
	o.born = nil
}

// Every log begins here.
const bornIndex, bornTerm = 10, 1
