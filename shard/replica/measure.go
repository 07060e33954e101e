package replica

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// sizes measures the shards that this node leads and that seem to be too large, to
// find the key in the middle of their bytes. One at a time is read, in parts, at a
// bounded rate, each part from a view of its own: what changes meanwhile moves the
// middle by a little. What is counted is what Estimate is about, keys with their newest
// values, and corrects it: a shard that only seemed large, of which the same keys were
// written again and again, is measured once.
//
// The engine's own estimate of the bytes on disk between two keys would cost less. But it
// does not see what is in memtables, which may be a shard's greater part, and
// takes garbage and what is shadowed for content.
//
// All is of the upkeep's queue, but for what says otherwise.
type sizes struct {
	u     *upkeep
	limit atomic.Int64 // bytes that a shard may have; 0: any number
	after shard.ID     // the shard that was measured last
	run   *measureRun  // nil: none is measured
	timer env.Timer    // nil: none yet
}

const (
	measureVisits     = 2048    // keys per part
	measurePart       = 1 << 20 // bytes per part
	measureVisitsRate = 200_000 // keys per second
	measureRate       = 64 << 20
	// shareMin is the least share of the bytes that a side of a split has. A third is there
	// to be had unless one key has more than a third itself; the rest is what marks are apart.
	shareMin = 0.3
)

// measureRun is one measurement. While a part is under way it is that part's.
type measureRun struct {
	r       *Replica
	version uint64               // of the epoch
	state   storage.ReplicaState // when it began
	next    []byte               // where the next part starts
	sketch  sketch

	part storage.Sizes
	took time.Duration
	end  bool // the part was the last one
	fail bool // or there is nothing more to measure
}

// measured is what is known of a replica's size; it does not change.
type measured struct {
	version      uint64 // of the epoch
	bytes, below uint64 // all, and those below at
	at           []byte // where they fall into halves
	refusal      string // why nowhere
}

// SetSplitSize sets how many bytes of keys and values a shard may have, by its
// estimate, before its leader wishes that it be split; 0 or less: any number.
func (s *Store) SetSplitSize(bytes int64) {
	bytes = max(bytes, 0)
	if s.upkeep.sizes.limit.Swap(bytes) != bytes {
		s.upkeep.queue.Submit(s.upkeep.sizes.lookAtAll)
	}
}

func (z *sizes) stop() {
	if z.timer != nil {
		z.timer.Stop()
	}
}

func (z *sizes) lookAtAll() { z.look(z.u.store.replicas.all()) }

// look begins a measurement, if none is under way and one of these replicas, which are
// in order of shard, calls for it.
func (z *sizes) look(replicas []*Replica) {
	limit := uint64(z.limit.Load())
	if z.run != nil || limit == 0 || z.u.closed.Load() {
		return
	}
	var next *Replica
	for _, r := range replicas {
		if r.unmeasured(limit) && (next == nil || next.id <= z.after && r.id > z.after) {
			next = r
		}
	}
	if next == nil {
		return
	}
	d := next.descriptor.Load()
	state, _ := next.State()
	z.run = &measureRun{r: next, version: d.Epoch.Version, state: state, next: d.Span.Start}
	z.submit()
}

// unmeasured tells whether the replica is too large, as far as is known, and has become
// so since it was measured last.
func (r *Replica) unmeasured(limit uint64) bool {
	if !r.splits() {
		return false
	}
	_, bytes := r.Estimate()
	m := r.size.Load()
	return bytes > limit && (m == nil || m.version != r.descriptor.Load().Epoch.Version || bytes > m.bytes+m.bytes/8)
}

func (z *sizes) submit() { z.u.store.cfg.Reads.Submit(z.read) }

// read measures a part. It runs on the Reads pool.
func (z *sizes) read() {
	run, s := z.run, z.u.store
	began := s.cfg.Env.Now()
	d := run.r.descriptor.Load()
	if z.u.closed.Load() || run.r.hasStopped() || !run.r.splits() || d.Epoch.Version != run.version {
		run.fail = true
	} else if err := run.read(s.openView(), d.Span.End); err != nil {
		run.fail = true
		s.cfg.Logger.Error("reading how large a shard is", "shard", uint64(run.r.id), "error", err)
	}
	run.took = s.cfg.Env.Now() - began
	z.u.queue.Submit(z.parted)
}

func (run *measureRun) read(v view, end []byte) (err error) {
	run.part, err = v.Sizes(storage.SizesOptions{Span: shard.Span{Start: run.next, End: end}, KeysMax: measureVisits, BytesMax: measurePart}, run.sketch.add)
	if err != nil {
		_ = v.Close()
		return err
	}
	run.next, run.end = run.part.Resume, run.part.Resume == nil
	return v.Close()
}

// parted goes on after a part: with the next one, when the rate allows it, or with
// another replica.
func (z *sizes) parted() {
	run := z.run
	if !run.fail && !run.end {
		seconds := max(float64(run.part.Bytes)/measureRate, float64(run.part.Visited)/measureVisitsRate)
		z.timer = z.u.store.cfg.Env.AfterFunc(time.Duration(seconds*float64(time.Second))-run.took, z.u.queue, z.submit)
		return
	}
	z.run, z.after = nil, run.r.id
	if run.fail { // else with the next tick: it may fail at once again
		return
	}
	run.finish()
	z.lookAtAll()
}

// finish keeps what was found out, unless the shard was split meanwhile. A split divides
// the estimate while the generation is odd, before the descriptor changes: here the
// estimate is one of before that and is still the same in the end, or the split shows.
func (run *measureRun) finish() {
	r, k := run.r, &run.sketch
	e := r.sweep.estimate.Load()
	if r.generation.Load()%2 == 1 || r.descriptor.Load().Epoch.Version != run.version ||
		!r.sweep.estimate.CompareAndSwap(e, e.next(k.keys, k.bytes, &run.state)) {
		return
	}
	m := &measured{version: run.version, bytes: k.bytes}
	if at, key := k.middle(); float64(min(at, k.bytes-at)) >= shareMin*float64(k.bytes) && k.bytes > 0 {
		m.at, m.below = key, at
	} else {
		m.refusal = k.refusal()
	}
	r.size.Store(m)
	r.store.cfg.Logger.Info("a shard was measured", "shard", uint64(r.id), "keys", k.keys, "bytes", k.bytes, "split_at", keyText(m.at), "refusal", m.refusal)
}

// sketch remembers where the bytes of a shard lie, in few marks however many keys
// there are.
type sketch struct {
	keys, bytes uint64
	marks       []mark
	gap         uint64 // bytes that marks are apart at least

	largest      []byte // key
	largestBytes uint64
}

// mark is a key with the bytes of all keys below it.
type mark struct {
	key   []byte
	below uint64
}

const marksMax = 64

// add takes the next key; key is not kept.
func (k *sketch) add(key []byte, bytesOf int) {
	if n := len(k.marks); len(key) <= shard.StartKeyBytesMax && (n == 0 || k.bytes >= k.marks[n-1].below+k.gap) {
		if n == marksMax {
			k.thin()
		}
		k.marks = append(k.marks, mark{key: bytes.Clone(key), below: k.bytes})
	}
	if size := uint64(bytesOf); size > k.largestBytes {
		k.largest, k.largestBytes = append(k.largest[:0], key...), size
	}
	k.keys++
	k.bytes += uint64(bytesOf)
}

// thin leaves marks that are at least a part of all bytes so far apart: no more than half of
// them.
func (k *sketch) thin() {
	k.gap = k.bytes/(marksMax/2) + 1
	kept := k.marks[:1]
	for _, m := range k.marks[1:] {
		if m.below >= kept[len(kept)-1].below+k.gap {
			kept = append(kept, m)
		}
	}
	clear(k.marks[len(kept):])
	k.marks = kept
}

// middle is the mark that is closest to the middle, with the bytes below it.
func (k *sketch) middle() (below uint64, key []byte) {
	if len(k.marks) == 0 {
		return 0, nil
	}
	away := func(m mark) uint64 { return max(m.below, k.bytes-m.below) }
	best := slices.MinFunc(k.marks, func(a, b mark) int {
		switch {
		case away(a) < away(b):
			return -1
		case away(a) > away(b):
			return 1
		}
		return 0
	})
	return best.below, best.key
}

func (k *sketch) refusal() string {
	switch share := float64(k.largestBytes) / float64(k.bytes); {
	case k.bytes == 0:
		return "it is empty"
	case k.largestBytes > k.bytes/3:
		return fmt.Sprintf("one key has the bytes: %.0f %% of them are of %s", share*100, keyText(k.largest))
	}
	return "its keys are too long for a shard to start at"
}
