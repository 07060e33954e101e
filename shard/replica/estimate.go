package replica

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// estimate is how much a replica held when it was swept or measured last, with what had
// been written until then, and what a write has added since the time before that.
type estimate struct {
	keys, bytes             uint64
	versions, bytesWritten  uint64
	keysPerVersion, perByte float64 // from 0, overwrites alone, to 1
}

// next is the estimate after a sweep or a measurement that began at state; e may be nil.
func (e *estimate) next(keys, bytes uint64, state *storage.ReplicaState) *estimate {
	if e == nil {
		e = new(estimate)
	}
	return &estimate{keys: keys, bytes: bytes, versions: state.Versions, bytesWritten: state.Bytes,
		keysPerVersion: share(e.keys, keys, e.versions, state.Versions),
		perByte:        share(e.bytes, bytes, e.bytesWritten, state.Bytes)}
}

// share is how much of what was written between two of them was added to the state.
func share(from, to, writtenFrom, writtenTo uint64) float64 {
	if to <= from || writtenTo <= writtenFrom {
		return 0
	}
	return min(1, float64(to-from)/float64(writtenTo-writtenFrom))
}

// Estimate is about how many keys the replica holds, and how many bytes of keys and
// values. Until it was swept or measured for the first time every write counts as a new
// key; afterwards it is what the last of them counted, and a share of what was written since.
func (r *Replica) Estimate() (keys, bytes uint64) {
	s, ok := r.State()
	e := r.sweep.estimate.Load()
	if !ok || e == nil {
		return s.Versions, s.Bytes
	}
	grown := func(now, then uint64, share float64) uint64 {
		if now <= then {
			return 0
		}
		return uint64(float64(now-then) * share)
	}
	return e.keys + grown(s.Versions, e.versions, e.keysPerVersion), e.bytes + grown(s.Bytes, e.bytesWritten, e.perByte)
}

// telling is how many bytes in the engine's tables tell how a shard's are divided. Of
// less, as much may be in memory alone.
const telling = 4 << 20

// shareBelow is about how much of the replica's bytes lie below a key within its span,
// from 0 to 1: as it was measured, if the key is where the last measurement found the
// middle, else the share of the tables, and one half while they do not tell. It may read the
// disk.
func (r *Replica) shareBelow(key []byte) (float64, error) {
	d := r.descriptor.Load()
	if m := r.size.Load(); m != nil && m.version == d.Epoch.Version && bytes.Equal(m.at, key) {
		return float64(m.below) / float64(m.bytes), nil
	}
	below, err := r.store.cfg.Engine.SpanBytes(shard.Span{Start: d.Span.Start, End: key})
	if err != nil {
		return 0, err
	}
	above, err := r.store.cfg.Engine.SpanBytes(shard.Span{Start: key, End: d.Span.End})
	if err != nil || below+above < telling {
		return 0.5, err
	}
	return float64(below) / float64(below+above), nil
}
