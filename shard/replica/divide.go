package replica

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// telling is how many bytes on disk tell how a shard's are divided. Of less, as much may
// be in memtables.
const telling = 4 << 20

// ShareBelow is about how much of the replica's bytes lie below key, from 0 to 1: as
// they were measured, if key is where the last measurement found the middle, else by what
// is on disk, and one half if that is too little to tell. It may read the disk.
func (r *Replica) ShareBelow(key []byte) float64 {
	d := r.descriptor.Load()
	if d == nil || !d.Span.Contains(key) {
		return 0.5
	}
	if m := r.size.Load(); m != nil && m.version == d.Epoch.Version && bytes.Equal(m.at, key) {
		return float64(m.below) / float64(m.bytes)
	}
	left, err := r.store.cfg.Engine.SpanBytes(shard.Span{Start: d.Span.Start, End: key})
	right, errRight := r.store.cfg.Engine.SpanBytes(shard.Span{Start: key, End: d.Span.End})
	if err != nil || errRight != nil || left+right < telling {
		return 0.5
	}
	return float64(left) / float64(left+right)
}

// Divided is called on each replica of a shard that was split, on the group's turn, when
// the state of both sides is published and has the counts of versions and bytes divided
// by share, which is that of the left side: r. What this node knew of the whole by itself is
// divided likewise. right is the replica that was made of the right side; nil: none.
func (r *Replica) Divided(right *Replica, share float64) {
	if e := r.sweep.estimate.Load(); e != nil {
		left, _ := r.State()
		r.sweep.estimate.Store(e.part(share, &left))
		if right != nil {
			state, _ := right.State()
			right.sweep.estimate.Store(e.part(1-share, &state))
		}
	}
	r.store.upkeep.queue.Submit(func() {
		r.history.divide(share)
		r.sweep.divide(share)
	})
}

// part is the estimate of one side of a split; state is that side's.
func (e *estimate) part(share float64, state *storage.ReplicaState) *estimate {
	part := *e
	part.keys, part.bytes = portion(e.keys, share), portion(e.bytes, share)
	part.versions, part.bytesWritten = state.Versions, state.Bytes
	return &part
}

// divide makes samples comparable with counts that were divided: versions that were
// written before the split and are not the left side's would hide as many of those
// that are written after it.
func (h *history) divide(share float64) {
	h.below.divide(share)
	for i := range h.samples {
		h.samples[i].divide(share)
	}
}

func (s *sweepState) divide(share float64) {
	s.below.divide(share)
	s.left, s.leftBytes = portion(s.left, share), portion(s.leftBytes, share)
}

func (s *sample) divide(share float64) {
	s.versions, s.bytes = portion(s.versions, share), portion(s.bytes, share)
}

func portion(n uint64, share float64) uint64 { return uint64(float64(n) * share) }
