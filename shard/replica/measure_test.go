package replica

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// fill writes n keys with values of so many bytes.
func (h *home) fill(g *fakeGroup, n, size int, key string) {
	h.t.Helper()
	for i := range n {
		h.send(target(g.id), put(fmt.Sprintf("\x02%s%05d", key, i), strings.Repeat("v", size)))
		if i%500 == 499 {
			g.turns(h.t)
		}
	}
	g.turns(h.t)
}

func TestWishBySize(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitSize(64 << 10)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.fill(g, 500, 94, "c") // 100 bytes each, with the key
	h.steps.pass(2 * time.Second)
	if w := r.SplitWish(); w.Reason != "" || r.size.Load() != nil {
		t.Errorf("below the limit %+v", w)
	}
	h.fill(g, 500, 94, "d")
	h.steps.pass(2 * time.Second)
	w := r.SplitWish()
	if w.Reason != SplitBySize || w.Refusal != "" || bytes.Compare(w.At, []byte("\x02c00450")) < 0 || bytes.Compare(w.At, []byte("\x02d00050")) > 0 {
		t.Errorf("%+v", w)
	}
	m := r.size.Load()
	if share := shareBelow(t, r, string(w.At)); share != float64(m.below)/float64(m.bytes) || share < 0.45 || share == 0.5 || share > 0.55 {
		t.Errorf("%v of the bytes are below %q, measured were %d of %d", share, w.At, m.below, m.bytes)
	}
	g.follow()
	if w := r.SplitWish(); w.Reason != "" {
		t.Errorf("a follower wishes %+v", w)
	}
	g.lead(term)
	// A limit that is not reached, or none, withdraws it; it is found again without another measurement.
	for limit, want := range map[int64]string{1 << 20: "", 0: "", -1: "", 64 << 10: SplitBySize} { //order-free: each is checked on its own
		h.store.SetSplitSize(limit)
		h.steps.pass(time.Second)
		if w := r.SplitWish(); w.Reason != want {
			t.Errorf("with a limit of %d: %+v", limit, w)
		}
	}
	if r.size.Load() != m {
		t.Error("measured again, for nothing")
	}
	h.idle()
}

// Overwritten and removed keys make a shard look larger than it is; that it is not, is found out once.
func TestMeasureCorrectsTheEstimate(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitSize(64 << 10)
	r, g := h.shard(7, "\x02b", "\x02m")
	for range 20 {
		h.fill(g, 100, 94, "c")
	}
	for i := range 50 {
		h.do(g, del(fmt.Sprintf("\x02c%05d", i)))
	}
	if _, bytes := r.Estimate(); bytes < 128<<10 {
		t.Fatalf("estimated %d", bytes)
	}
	h.steps.pass(2 * time.Second)
	if keys, bytes := r.Estimate(); keys != 50 || bytes != 50*101 || r.SplitWish().Reason != "" {
		t.Errorf("%d keys, %d bytes, %+v", keys, bytes, r.SplitWish())
	}
	first := r.size.Load()
	for range 20 {
		h.fill(g, 50, 94, "c")
		h.steps.pass(2 * time.Second)
	}
	if r.size.Load() != first {
		t.Errorf("measured again: %+v", r.size.Load())
	}
}

func TestOneKeyHasTheBytes(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitSize(64 << 10)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.fill(g, 20, 100, "c")
	h.do(g, put("\x02huge", strings.Repeat("v", 100<<10)))
	h.fill(g, 20, 100, "k")
	h.steps.pass(2 * time.Second)
	if w := r.SplitWish(); len(w.At) != 0 || w.Reason != SplitBySize || !strings.HasPrefix(w.Refusal, "one key has the bytes: 96 % of them are of huge") {
		t.Errorf("%+v", w)
	}
	// When others have come there is a key.
	h.fill(g, 400, 400, "d")
	h.steps.pass(2 * time.Second)
	if w := r.SplitWish(); len(w.At) == 0 {
		t.Errorf("%+v", w)
	}
}

// One shard at a time is measured, and each in its turn; a split under way ends it.
func TestMeasuresOneShardAtATime(t *testing.T) {
	h := newHome(t)
	var all []*Replica
	var groups []*fakeGroup
	for i := range 3 {
		start := string(rune('b' + i))
		r, g := h.shard(shard.ID(7+i), "\x02"+start, "\x02"+start+"\xff")
		h.fill(g, 1000, 94, start)
		all, groups = append(all, r), append(groups, g)
	}
	h.store.SetSplitSize(64 << 10)
	z := &h.store.upkeep.sizes
	for z.run == nil && len(h.steps.queue) > 0 {
		step := h.steps.queue[0]
		h.steps.queue = h.steps.queue[1:]
		step()
	}
	if z.run == nil || z.run.r != all[0] {
		t.Fatalf("%+v", z.run)
	}
	first := z.run
	if z.lookAtAll(); z.run != first {
		t.Error("a second one is measured at the same time")
	}
	all[0].nextVersion()
	groups[1].follow()
	h.steps.run()
	if all[0].size.Load() != nil || all[1].size.Load() != nil {
		t.Error("measured, and the one was split, the other one follows")
	}
	h.steps.pass(2 * time.Second)
	for i, r := range all {
		if m := r.size.Load(); (m != nil) != (i != 1) {
			t.Errorf("shard %d: %+v", r.id, m)
		}
	}
	if all[0].size.Load().version != 3 {
		t.Errorf("%+v", all[0].size.Load())
	}
	// What is still too large after another split is measured anew.
	all[0].nextVersion()
	h.steps.pass(time.Minute)
	if all[0].size.Load().version != 4 || len(all[0].SplitWish().At) == 0 {
		t.Errorf("%+v", all[0].size.Load())
	}
}

// nextVersion is that of the epoch after a split, which leaves the rest as it is.
func (r *Replica) nextVersion() {
	d := *r.descriptor.Load()
	d.Epoch.Version++
	r.descriptor.Store(&d)
}

// A split that comes between the last part of a measurement and its end has divided the
// estimate: what was measured of the whole must not take its place.
func TestSplitAtTheEndOfAMeasurement(t *testing.T) {
	for _, published := range []bool{true, false} {
		h := newHome(t)
		r, g := h.shard(7, "\x02b", "\x02m")
		h.fill(g, 1000, 94, "c")
		h.store.SetSplitSize(64 << 10)
		z := &h.store.upkeep.sizes
		for z.run == nil || !z.run.end {
			step := h.steps.queue[0]
			h.steps.queue = h.steps.queue[1:]
			step()
		}
		g.machine.(turn).change()
		r.sweep.estimate.Store(&estimate{keys: 500, bytes: 50_500})
		if published {
			r.machine.State().Descriptor.Epoch.Version++
			r.publishDescriptor()
			r.settle()
		}
		h.steps.run()
		if keys, _ := r.Estimate(); keys > 1500 || r.size.Load() != nil { // versions since the estimate count
			t.Errorf("published %v: %d keys, %+v", published, keys, r.size.Load())
		}
		if e := r.sweep.estimate.Load(); e.keys != 500 {
			t.Errorf("published %v: %+v", published, e)
		}
	}
}

// A measurement takes as long as its rate says, however large the shard, and ends with the store.
func TestMeasureIsPaced(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.fill(g, 20, 1<<20, "c")
	h.store.SetSplitSize(1 << 20)
	h.steps.pass(time.Second / 5)
	if r.size.Load() != nil {
		t.Error("20 MiB are measured within a fifth of a second")
	}
	h.steps.pass(time.Second)
	if m := r.size.Load(); m == nil || m.bytes < 20<<20 {
		t.Errorf("%+v", m)
	}
	h.fill(g, 5, 1<<20, "d")
	h.steps.pass(time.Second) // it has begun
	h.store.Close()
	h.steps.run()
	if len(h.steps.timers) != 0 {
		t.Errorf("%d timers", len(h.steps.timers))
	}
}

// A disk that cannot be read leaves things as they are, and is asked again with the next tick alone.
func TestMeasureOfABrokenDisk(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.fill(g, 1000, 94, "c")
	opened := 0
	h.store.openView = func() view { opened++; return broken{} }
	h.store.SetSplitSize(64 << 10)
	h.steps.run()
	if opened != 1 || r.SplitWish().Reason != "" {
		t.Errorf("%d views, %+v", opened, r.SplitWish())
	}
	h.store.openView = func() view { return h.engine.NewView() }
	h.steps.pass(time.Minute)
	if w := r.SplitWish(); len(w.At) == 0 {
		t.Errorf("%+v", w)
	}
}

// Whatever the sizes, the middle leaves neither side with less than shareMin, unless one key
// has more than a third.
func TestSketchFindsTheMiddle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3000).Draw(t, "keys")
		shape := rapid.SampledFrom([]string{"even", "grow", "shrink", "spread"}).Draw(t, "shape")
		huge, hugeAt := rapid.IntRange(0, 1<<22).Draw(t, "huge"), rapid.IntRange(0, n-1).Draw(t, "huge at")
		random := newSampler(rapid.Uint64().Draw(t, "seed"))
		var k sketch
		below := map[string]uint64{}
		var total, largest uint64
		for i := range n {
			size := 100
			switch shape {
			case "grow":
				size = 1 + i*i
			case "shrink":
				size = 1 + (n-i)*(n-i)
			case "spread":
				size = 1 + int(1/(random.float()+1e-6))
			}
			if i == hugeAt {
				size += huge
			}
			key := fmt.Sprintf("%08d", i)
			below[key] = total
			k.add([]byte(key), size)
			total += uint64(size)
			largest = max(largest, uint64(size))
			if len(k.marks) > marksMax {
				t.Fatalf("%d marks", len(k.marks))
			}
		}
		at, key := k.middle()
		if at != below[string(key)] || k.bytes != total || k.keys != uint64(n) {
			t.Fatalf("%d bytes below %s, counted %d; of %d bytes", at, key, below[string(key)], total)
		}
		if share := float64(min(at, total-at)) / float64(total); share < shareMin && largest <= total/3 {
			t.Fatalf("%.3f at %s", share, key)
		}
		if refusal := k.refusal(); strings.HasPrefix(refusal, "one key has the bytes") != (largest > total/3) {
			t.Fatalf("the largest key has %d of %d bytes; %s", largest, total, refusal)
		}
	})
}
