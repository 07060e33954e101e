package replica

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// split makes the state of r that of the left side of a split at key, and a replica of the
// right side, as the apply of a split does.
func (h *home) split(r *Replica, id shard.ID, key string, share float64) *Replica {
	s := r.machine.State()
	right := *s
	right.Descriptor = shard.Descriptor{ID: id, Epoch: s.Descriptor.Epoch, Span: shard.Span{Start: []byte(key), End: s.Descriptor.Span.End},
		Replicas: s.Descriptor.Replicas, NextReplica: 2}
	s.Descriptor.Span.End = []byte(key)
	s.Descriptor.Epoch.Version++
	right.Descriptor.Epoch = s.Descriptor.Epoch
	right.Versions, right.Bytes = portion(s.Versions, 1-share), portion(s.Bytes, 1-share)
	s.Versions, s.Bytes = portion(s.Versions, share), portion(s.Bytes, share)
	r.publish()
	r.publishDescriptor()
	other, g := h.replica(id, &right)
	g.lead(term)
	r.Divided(other, share)
	h.steps.run()
	return other
}

// Both sides of a split have an estimate that fits, measured before or not, and
// garbage that is written later is swept as before.
func TestEstimatesOfBothSides(t *testing.T) {
	for _, measured := range []bool{false, true} {
		h := newHome(t, retained(time.Second))
		r, g := h.shard(7, "\x02b", "\x02m")
		h.fill(g, 1000, 94, "c")
		h.fill(g, 1000, 94, "c")
		if measured {
			h.store.SetSplitSize(64 << 10)
		}
		h.steps.pass(900 * time.Millisecond)
		all, allBytes := r.Estimate()
		at, share := "\x02c00250", 0.25
		if measured {
			share = 0.5
			at = string(r.SplitWish().At)
			share = r.ShareBelow([]byte(at))
			if all != 1000 {
				t.Fatalf("%d keys", all)
			}
		}
		right := h.split(r, 8, at, share)
		for i, side := range []*Replica{r, right} {
			want := share
			if i == 1 {
				want = 1 - share
			}
			keys, bytes := side.Estimate()
			if diff := float64(keys) - want*float64(all); diff < -2 || diff > 2 {
				t.Errorf("measured %v, side %d: %d keys, want %.2f of %d", measured, i, keys, want, all)
			}
			if diff := float64(bytes) - want*float64(allBytes); diff < -200 || diff > 200 {
				t.Errorf("measured %v, side %d: %d bytes, want %.2f of %d", measured, i, bytes, want, allBytes)
			}
		}
		if w := r.SplitWish(); w.Reason == SplitBySize && string(w.At) >= at {
			t.Errorf("a wish of before the split: %+v", w)
		}
	}
}

func TestSweepsGoOnAfterASplit(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	for range 4 {
		h.fill(g, 200, 10, "c")
	}
	h.settle(3*time.Second, g)
	before := h.store.Stats()
	if before.VersionsDropped < 500 {
		t.Fatalf("%+v", before)
	}
	h.split(r, 8, "\x02c00100", 0.5)
	to := target(7)
	to.Version++
	for range 4 {
		for i := range 100 {
			a := h.send(to, put(fmt.Sprintf("\x02c%05d", i), "later"))
			g.turns(t)
			if p := a.once(t); p.Err != nil {
				t.Fatal(p.Err)
			}
		}
		h.settle(500*time.Millisecond, g)
	}
	h.settle(3*time.Second, g)
	if got := h.store.Stats(); got.VersionsDropped < before.VersionsDropped+300 {
		t.Errorf("dropped %d before the split and %d after it", before.VersionsDropped, got.VersionsDropped-before.VersionsDropped)
	}
}

func TestShareBelow(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	if s := r.ShareBelow([]byte("\x02c00100")); s != 0.5 {
		t.Errorf("of an empty shard %.2f", s)
	}
	h.fill(g, 100, 10, "c")
	if s := r.ShareBelow([]byte("\x02c00001")); s != 0.5 {
		t.Errorf("of a small one %.2f", s)
	}
	if s := r.ShareBelow([]byte("\x02z")); s != 0.5 {
		t.Errorf("below a key elsewhere %.2f", s)
	}
	random := newSampler(1)
	for i := range 300 { // 18 MiB that cannot be compressed
		value := make([]byte, 0, 60<<10)
		for len(value) < 60<<10 {
			value = binary.BigEndian.AppendUint32(value, uint32(random.float()*(1<<32)))
		}
		h.do(g, put(fmt.Sprintf("\x02d%05d", i), string(value)))
	}
	for key, want := range map[string]float64{"\x02d00060": 0.2, "\x02d00240": 0.8} { //order-free: each is checked on its own
		if s := r.ShareBelow([]byte(key)); s < want-0.1 || s > want+0.1 {
			t.Errorf("%.2f below %q, want %.2f", s, key, want)
		}
	}
}
