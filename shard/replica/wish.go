package replica

import "github.com/kiloraft/kiloraft/shard"

// SplitWish is where a leader would have its shard split. The zero value: it need
// not be split.
type SplitWish struct {
	At     []byte // a full key within the shard, past its start; empty: nowhere
	Reason string // SplitBySize or SplitByLoad: what it has too much of
	// Refusal says why there is no good key, if At is empty: a split would not help.
	Refusal string
}

const (
	SplitBySize = "size"
	SplitByLoad = "load"
)

// SplitWish is the replica's, if it leads. A wish by load goes first: the busier a shard
// is, the less it may wait, and its bytes are divided by the way. At is shared: do not
// modify it.
func (r *Replica) SplitWish() SplitWish {
	if !r.splits() {
		return SplitWish{}
	}
	load, size := r.wishByLoad(), r.wishBySize()
	if len(load.At) > 0 || load.Reason != "" && len(size.At) == 0 {
		return load
	}
	return size
}

// splits tells whether this is the leader of a shard that may be split. The meta shard
// stays whole.
func (r *Replica) splits() bool {
	d := r.descriptor.Load()
	return d != nil && d.Span.Start[0] == shard.UserKeyspace && r.leadership.Load().Leading
}

// A wish is of one span: a key that was found before the last split is forgotten.

func (r *Replica) wishByLoad() SplitWish {
	s := r.load.seen.Load()
	if s == nil || s.version != r.descriptor.Load().Epoch.Version || s.at == nil && s.refusal == "" {
		return SplitWish{}
	}
	return SplitWish{At: s.at, Reason: SplitByLoad, Refusal: s.refusal}
}

func (r *Replica) wishBySize() SplitWish {
	m, limit := r.size.Load(), uint64(r.store.upkeep.sizes.limit.Load())
	if m == nil || m.version != r.descriptor.Load().Epoch.Version || limit == 0 {
		return SplitWish{}
	}
	if _, bytes := r.Estimate(); bytes <= limit {
		return SplitWish{}
	}
	return SplitWish{At: m.at, Reason: SplitBySize, Refusal: m.refusal}
}
