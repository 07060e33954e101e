package replica

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

var halvedSpan = shard.Span{Start: []byte("\x02b"), End: []byte("\x02y")}

// times samples n requests, alike in both halves of the time.
func times(n int, start, end string) (sample []sampled) {
	for i := range n {
		sample = append(sample, sampled{asked: asked{start: []byte(start), end: []byte(end)}, weight: 1, late: i%2 == 1})
	}
	return sample
}

// each samples one request for each of n keys between start and end, in turn early and late.
func each(n int, start, end byte) (sample []sampled) {
	for i := range n {
		at := float64(start) + float64(end-start)*float64(i)/float64(n)
		key := fmt.Sprintf("\x02%c%03d", byte(at), int(1000*(at-math.Floor(at))))
		sample = append(sample, sampled{asked: asked{start: []byte(key)}, weight: 1, late: i%2 == 1})
	}
	return sample
}

func late(sample []sampled, is bool) []sampled {
	for i := range sample {
		sample[i].late = is
	}
	return sample
}

func TestHalve(t *testing.T) {
	for _, c := range []struct {
		name     string
		sample   []sampled
		from, to string // the key that is found lies between, both included
		refusal  string
	}{
		{"too few", each(63, 'b', 'x'), "", "", "too few requests"},
		{"uniform", each(400, 'b', 'x'), "\x02l", "\x02n", ""},
		{"in one half of the span", each(400, 'b', 'd'), "\x02b900", "\x02c100", ""},
		{"one hot key alone", times(200, "\x02k", ""), "", "", "one key has the load: 100 % of it is of k"},
		{"one hot key and a few others", slices.Concat(times(200, "\x02k", ""), each(200, 'b', 'x')), "", "", "one key has the load: 50 % of it is of k"},
		{"a hot key with a third", slices.Concat(times(90, "\x02k", ""), each(210, 'b', 'x')), "\x02k", "\x02m", ""},
		{"one hot key at the start, half of the load", slices.Concat(times(200, "\x02b", ""), each(200, 'c', 'x')), "\x02c000", "\x02c000", ""},
		{"a hot key that is all but a few", slices.Concat(times(390, "\x02b", ""), each(10, 'c', 'x')), "", "", "one key has the load: 98 % of it is of b"},
		{"two hot keys", slices.Concat(times(200, "\x02k", ""), times(200, "\x02p", "")), "\x02p", "\x02p", ""},
		{"two hot keys, not alike", slices.Concat(times(300, "\x02k", ""), times(100, "\x02p", "")), "", "", "one key has the load: 75 %"},
		{"two hot keys, side by side", slices.Concat(each(100, 'b', 'x'), times(200, "\x02k", ""), times(200, "\x02k\x00", "")), "\x02k\x00", "\x02k\x00", ""},
		{"short scans", slices.Concat(times(100, "\x02c", "\x02d"), times(100, "\x02e", "\x02g"), times(100, "\x02l", "\x02m"), times(100, "\x02r", "\x02x")), "\x02l", "\x02l", ""},
		{"scans of everything", times(200, "\x02", "\x03"), "", "", "its scans and batches lie across"},
		{"scans that end in the shard", times(200, "\x02", "\x02k"), "", "", "its scans and batches lie across"},
		{"scans of everything beside gets", slices.Concat(times(200, "\x02b", "\x03"), each(200, 'b', 'x')), "", "", "its scans and batches lie across"},
		{"a few scans of everything beside gets", slices.Concat(times(100, "\x02b", "\x03"), each(300, 'b', 'x')), "\x02l", "\x02n", ""},
		{"a hot scan", slices.Concat(times(200, "\x02l", "\x02n"), each(200, 'b', 'x')), "", "", "its scans and batches lie across"},
		{"keys in their order", slices.Concat(late(each(200, 'c', 'f'), false), late(each(200, 'f', 'i'), true)), "", "", "its load moves"},
		{"keys in their order, beside others", slices.Concat(late(each(100, 'c', 'f'), false), late(each(100, 'f', 'i'), true), each(200, 'k', 'x')), "\x02k000", "\x02k000", ""},
		{"what is outside does not count", slices.Concat(times(1000, "\x02a", ""), times(100, "\x02a", "\x02b"), each(400, 'b', 'x')), "\x02l", "\x02n", ""},
		{"all at the start", times(200, "\x02b", ""), "", "", "one key has the load"},
	} {
		at, refusal := halve(c.sample, halvedSpan)
		if string(at) < c.from || string(at) > c.to || !strings.Contains(refusal, c.refusal) || (at == nil) != (refusal != "") {
			t.Errorf("%s: at %q, refused: %s; want it between %q and %q, and %q", c.name, at, refusal, c.from, c.to, c.refusal)
		}
	}
}

// judged is what a split at key would make of a sample: the load of the busier side,
// of all and of each half of the time. It goes by the definition and not by halving's order.
func judged(sample []sampled, key []byte) (busier, total [3]float64) {
	var left, right [3]float64
	for _, s := range sample {
		if !halvedSpan.Contains(s.start) {
			continue
		}
		part := 1
		if s.late {
			part = 2
		}
		below := bytes.Compare(s.start, key) < 0
		above := !below
		if len(s.end) > 0 && bytes.Compare(s.end, key) > 0 {
			above = true
		}
		for _, i := range []int{0, part} {
			total[i] += s.weight
			if below {
				left[i] += s.weight
			}
			if above {
				right[i] += s.weight
			}
		}
	}
	for i := range busier {
		busier[i] = max(left[i], right[i])
	}
	return busier, total
}

// drawnSample has a load of any of the shapes that occur, over halvedSpan.
func drawnSample(t *rapid.T) (sample []sampled) {
	keys := rapid.IntRange(1, 40).Draw(t, "keys")
	n := rapid.IntRange(requestsMin, 400).Draw(t, "requests")
	skew := rapid.Float64Range(0, 3).Draw(t, "skew") // 0: uniform; 1: zipf; 3: one key
	spans := rapid.IntRange(0, 100).Draw(t, "scans in a hundred")
	wide := rapid.IntRange(1, keys).Draw(t, "keys of a scan")
	moving := rapid.Bool().Draw(t, "moving")
	var sum float64
	share := make([]float64, keys)
	for i := range share {
		share[i] = math.Pow(float64(i+1), -skew)
		sum += share[i]
	}
	place := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
		for i := range keys {
			if !yield(i) {
				return
			}
		}
	})).Draw(t, "places")
	key := func(i int) []byte { return fmt.Appendf(nil, "\x02b%04d", i) }
	random := newSampler(rapid.Uint64().Draw(t, "seed"))
	for i := range n {
		x, k := random.float()*sum, 0
		for ; k < keys-1 && x > share[k]; k++ {
			x -= share[k]
		}
		k = place[k]
		s := sampled{weight: 1 + random.float(), late: i >= n/2}
		if moving {
			k = (k + i*keys/n) % keys
		}
		s.start = key(k)
		if random.float()*100 < float64(spans) {
			s.end = key(k + 1 + int(random.float()*float64(wide)))
		}
		sample = append(sample, s)
	}
	return sample
}

// The key that is found is the best of those that are good, and if none is found
// none is good.
func TestHalveFindsTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sample := drawnSample(t)
		good := func(busier, total [3]float64) bool {
			for i := range busier {
				if busier[i] > sideMax*total[i]+1e-9 {
					return false
				}
			}
			return true
		}
		best := math.Inf(1)
		for _, s := range sample {
			if bytes.Equal(s.start, halvedSpan.Start) {
				continue
			}
			if busier, total := judged(sample, s.start); good(busier, total) {
				best = min(best, busier[0])
			}
		}
		at, refusal := halve(sample, halvedSpan)
		if (at == nil) != math.IsInf(best, 1) || (refusal == "") != (at != nil) {
			t.Fatalf("at %q, refused: %q; the best one has %v", at, refusal, best)
		}
		if at == nil {
			return
		}
		if bytes.Compare(at, halvedSpan.Start) <= 0 || !halvedSpan.Contains(at) {
			t.Fatalf("at %q", at)
		}
		if busier, total := judged(sample, at); !good(busier, total) || busier[0] > best+1e-9 {
			t.Fatalf("at %q: %v of %v, the best one has %v", at, busier, total, best)
		}
	})
}

// Where no key has a third of the load, no request lies across others, and nothing moves,
// there is a key; and a refusal blames a key only if it has that much.
func TestHalveFindsOneOfManyKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sample := drawnSample(t)
		still := slices.Clone(sample)
		for i := range sample {
			sample[i].end = nil
			sample[i].late = false
			still[i] = sample[i]
			still[i].late = true
		}
		sample = append(sample, still...)
		shares, total := map[string]float64{}, 0.0
		for _, s := range sample {
			shares[string(s.start)] += s.weight
			total += s.weight
		}
		hottest := 0.0
		for _, w := range shares {
			hottest = max(hottest, w/total)
		}
		at, refusal := halve(sample, halvedSpan)
		if hottest < 1-sideMax && at == nil {
			t.Fatalf("the hottest key has %.2f of the load, and nothing is found: %s", hottest, refusal)
		}
		if at == nil && !strings.HasPrefix(refusal, "one key has the load") {
			t.Fatalf("the hottest key has %.2f of the load; %s", hottest, refusal)
		}
	})
}

func TestHotKeys(t *testing.T) {
	sample := slices.Concat(each(300, 'b', 'x'), times(60, "\x02k", ""), times(30, "\x02c", ""), times(4, "\x02d", ""), times(3, "\x02e", ""),
		times(100, "\x02m", "\x02n"), times(10, "\x02f", ""), times(11, "\x02g", ""), times(12, "\x02h", ""))
	for i := range sample {
		sample[i].weight = 20
	}
	var got []string
	for _, k := range hotKeys(sample, 10) {
		got = append(got, fmt.Sprintf("%s %.0f", shard.FormatKey(k.Key), k.PerSecond))
	}
	if want := []string{"k 120", "c 60", "h 24", "g 22", "f 20"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := hotKeys(each(500, 'b', 'x'), 10); len(got) != 0 {
		t.Errorf("of an even load %v", got)
	}
}
