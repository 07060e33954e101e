package replica

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// sampled is one request of a sample, which stands for weight of them.
type sampled struct {
	asked
	weight float64
	late   bool // of the later half of the time
}

// asked are the keys that a request was about: start alone, if end is empty, or all of
// [start, end).
type asked struct{ start, end []byte }

func (a *asked) alone() bool { return len(a.end) == 0 }

// No side of a split may have more than sideMax of the load, and a sample must have
// requestsMin requests to tell.
const (
	sideMax     = 2.0 / 3
	requestsMin = 64
)

// halve finds the key of a sample at which the load of a shard over span falls best
// into halves. at is nil if none is any good, and refusal says why.
//
// A request that lies across the key would be made at both sides, and counts for
// both. So one number judges a key, the load of the busier side: scans and batches
// that are cut in two make it worse, as imbalance does. It is judged for each half of the time
// on its own, too: where keys are written in their order the load has moved on to
// one side of any key that divides what was, and a split there would be the first of very many.
//
// If each key has less than a third of the load, and no request lies across others,
// some key is good: the first one with a third of the load at or below it.
func halve(sample []sampled, span shard.Span) (at []byte, refusal string) {
	h := newHalving(sample, span)
	if len(h.starts) < requestsMin {
		return nil, "too few requests were sampled to tell where its load is"
	}
	best, moves := sideMax*h.total.sum(), false
	for h.next() {
		busier := h.busier()
		switch {
		case busier > best:
		case !h.steady():
			moves = true
		default:
			at, best = h.key, busier
		}
	}
	if at != nil {
		return at, ""
	}
	return nil, h.refusal(moves)
}

// both are loads in the earlier and in the later half of the time.
type both [2]float64

func (b *both) add(s *sampled) {
	if s.late {
		b[1] += s.weight
	} else {
		b[0] += s.weight
	}
}

func (b *both) sum() float64 { return b[0] + b[1] }

// halving goes through a sample's keys in order, and knows what of it lies below.
type halving struct {
	starts []*sampled // in order of start
	ends   []*sampled // those with an end, in order of it
	total  both

	key           []byte
	begun, passed int  // of starts and ends: those below key
	begin, end    both // the load that begins below key, and that ends there
}

// newHalving leaves away what is outside of span: it was asked of the shard when
// that was larger.
func newHalving(sample []sampled, span shard.Span) *halving {
	h := &halving{starts: make([]*sampled, 0, len(sample))}
	clipped := slices.Clone(sample)
	for i := range clipped {
		s := &clipped[i]
		if !s.alone() {
			s.start, s.end = later(s.start, span.Start), earlier(s.end, span.End)
		}
		if !span.Contains(s.start) || !s.alone() && bytes.Compare(s.start, s.end) >= 0 {
			continue
		}
		h.total.add(s)
		h.starts = append(h.starts, s)
		if !s.alone() {
			h.ends = append(h.ends, s)
		}
	}
	slices.SortFunc(h.starts, func(a, b *sampled) int { return bytes.Compare(a.start, b.start) })
	slices.SortFunc(h.ends, func(a, b *sampled) int { return bytes.Compare(a.end, b.end) })
	return h
}

// next goes to the next key that a request begins with. If the first one is the span's
// own start, all of the load is at one side of it.
func (h *halving) next() bool {
	for h.begun < len(h.starts) {
		s := h.starts[h.begun]
		if !bytes.Equal(s.start, h.key) {
			h.key = s.start
			h.pass()
			return true
		}
		h.take(s)
	}
	return false
}

// take counts s, whose start is below all keys to come.
func (h *halving) take(s *sampled) {
	h.begun++
	h.begin.add(s)
	if s.alone() {
		h.end.add(s)
	}
}

// pass counts the spans that end at or below the key.
func (h *halving) pass() {
	for h.passed < len(h.ends) && bytes.Compare(h.ends[h.passed].end, h.key) <= 0 {
		h.end.add(h.ends[h.passed])
		h.passed++
	}
}

// sides are the loads left and right of the key: what begins below it, and what does
// not end there.
func (h *halving) sides() (left, right both) {
	return h.begin, both{h.total[0] - h.end[0], h.total[1] - h.end[1]}
}

// busier is the load of the busier side.
func (h *halving) busier() float64 {
	left, right := h.sides()
	return max(left.sum(), right.sum())
}

// steady tells whether no side is too busy in either half of the time.
func (h *halving) steady() bool {
	left, right := h.sides()
	for i, total := range h.total {
		if max(left[i], right[i]) > sideMax*total {
			return false
		}
	}
	return true
}

// refusal says why no key is any good; moves tells that one would have been.
func (h *halving) refusal(moves bool) string {
	key, weight := h.hottest()
	switch share := weight / h.total.sum(); {
	case share > 1-sideMax:
		return fmt.Sprintf("one key has the load: %.0f %% of it is of %s", share*100, keyText(key))
	case moves:
		return "its load moves from key to key, and would have left one side of a split"
	}
	return "its scans and batches lie across every key that would divide its load"
}

// hottest is the key that most requests for one key alone are about.
func (h *halving) hottest() (key []byte, weight float64) {
	for _, k := range keysOf(h.starts) {
		if k.weight > weight {
			key, weight = k.key, k.weight
		}
	}
	return key, weight
}

// HotKey is a key with how often it was asked for.
type HotKey struct {
	Key       []byte // full; if it is very long its beginning
	PerSecond float64
}

// HotKeysMax bounds the keys that a replica tells. Fewer than hotMin requests in a
// sample are chance: so many keys of a large even load are met twice.
const (
	HotKeysMax = 5
	hotMin     = 4
)

// hotKeys are those of a sample, taken over so many seconds, that are asked for most,
// in that order.
func hotKeys(sample []sampled, seconds float64) []HotKey {
	all := make([]*sampled, 0, len(sample))
	for i := range sample {
		all = append(all, &sample[i])
	}
	slices.SortFunc(all, func(a, b *sampled) int { return bytes.Compare(a.start, b.start) })
	keys := slices.DeleteFunc(keysOf(all), func(k keyLoad) bool { return k.requests < hotMin })
	slices.SortStableFunc(keys, func(a, b keyLoad) int { return cmp.Compare(b.weight, a.weight) })
	hot := make([]HotKey, 0, HotKeysMax)
	for _, k := range keys[:min(len(keys), HotKeysMax)] {
		hot = append(hot, HotKey{Key: bytes.Clone(k.key), PerSecond: k.weight / seconds})
	}
	return hot
}

// keyLoad is what a sample has of requests for one key alone.
type keyLoad struct {
	key      []byte
	weight   float64
	requests int
}

// keysOf counts requests for one key alone. The sample is in order of start.
func keysOf(sample []*sampled) []keyLoad {
	keys := make([]keyLoad, 0, len(sample))
	for _, s := range sample {
		if !s.alone() {
			continue
		}
		if n := len(keys); n == 0 || !bytes.Equal(keys[n-1].key, s.start) {
			keys = append(keys, keyLoad{key: s.start})
		}
		k := &keys[len(keys)-1]
		k.weight += s.weight
		k.requests++
	}
	return keys
}

// keyText is a key for people, cut off if it is long.
func keyText(key []byte) string {
	const most = 64
	if len(key) > most {
		return shard.FormatKey(key[:most]) + "…"
	}
	return shard.FormatKey(key)
}
