package replica

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// serve has a replica note so many gets per second of keys for some time: of every second the
// key with its number in the second.
func (h *home) serve(r *Replica, d time.Duration, perSecond int, key func(i int) string) {
	for ; d > 0; d -= time.Second {
		for i := range perSecond {
			c := get(key(i))
			r.load.read(&c, nil)
		}
		h.steps.pass(time.Second)
	}
}

// evenly are keys all over a shard of [b, m), whatever comes first.
func evenly(i int) string { return fmt.Sprintf("\x02%c%03d", 'b'+i%11, i*7919%1000) }

func TestLoadFollowsWhatIsAsked(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	if l := r.Load(); l.Reads != 0 || l.Writes != 0 || l.Hot != nil {
		t.Errorf("at first %+v", l)
	}
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > want/20+0.01 {
			t.Errorf("%s: %.2f, want %.2f", name, got, want)
		}
	}
	// Through the store, each kind of request once per round.
	write, bytes := put("\x02c", "1234567890"), 0
	for range 30 {
		a := h.send(target(7), write)
		g.turn(t)
		a.once(t)
		bytes = len(request(target(7), write).Command)
		for _, c := range []shard.Command{get("\x02c"), get("\x02d"), scan("\x02b", "\x02m")} {
			h.read(g, c)
		}
		if p := h.read(g, get("\x02z")); p.Err == nil { // of another shard
			t.Error("served a key of another shard")
		}
		h.store.openView = func() view { return broken{} }
		if p := h.read(g, get("\x02c")); p.Err == nil {
			t.Error("read a disk that cannot be read")
		}
		h.store.openView = func() view { return h.engine.NewView() }
		h.steps.pass(time.Second)
	}
	l := r.Load()
	near("reads", l.Reads, 3)
	near("writes", l.Writes, 1)
	near("bytes written", l.BytesWritten, float64(bytes))
	// Decay: 1/e of it is left after loadDecay.
	h.steps.pass(loadDecay)
	near("reads, later", r.Load().Reads, 3/math.E)
	// And then nothing, with no timer but the upkeep's.
	h.steps.pass(time.Minute)
	if l := r.Load(); l.Reads != 0 || l.Writes != 0 || len(h.steps.timers) != 1 || len(h.store.upkeep.loads.watched) != 0 {
		t.Errorf("asleep %+v, %d timers", l, len(h.steps.timers))
	}
	// It wakes again.
	h.serve(r, time.Second, 100, evenly)
	near("awake", r.Load().Reads, 100*(1-math.Exp(-1.0/4)))
	h.idle()
}

// Nothing but the load of the leader's samples keys, and what was found goes with the leadership.
func TestFollowersWishNothing(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitLoad(500)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.serve(r, 15*time.Second, 1000, evenly)
	if w := r.SplitWish(); len(w.At) == 0 {
		t.Fatalf("%+v", w)
	}
	g.follow()
	if w := r.SplitWish(); w.Reason != "" {
		t.Errorf("a follower wishes %+v", w)
	}
	h.serve(r, 15*time.Second, 1000, func(int) string { return "\x02k" })
	if l, w := r.Load(), r.SplitWish(); l.Hot != nil || w.Reason != "" || r.load.sampler.Load() != nil || l.Reads < 900 {
		t.Errorf("%+v, %+v", l, w)
	}
	g.lead(g.term + 1)
	h.serve(r, windowTime*windowsKept, 1000, evenly)
	if w := r.SplitWish(); w.Reason != "" {
		t.Errorf("wishes %+v before it has led for long enough", w)
	}
}

func TestMetaShardIsNotSplit(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitLoad(10)
	h.store.SetSplitSize(64 << 10)
	r, _ := h.shard(shard.MetaID, "\x01", "\x02")
	h.serve(r, 20*time.Second, 1000, func(i int) string { return fmt.Sprintf("\x01%04d", i) })
	if l, w := r.Load(), r.SplitWish(); l.Reads < 900 || l.Hot != nil || w.Reason != "" {
		t.Errorf("%+v, %+v", l, w)
	}
}

// A shard is to be split where its load halves once that has been too much in windowsKept
// windows, and for as long as it is.
func TestWishByLoad(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitLoad(500)
	r, _ := h.shard(7, "\x02b", "\x02m")
	wish := func() string {
		w := r.SplitWish()
		switch {
		case w.Refusal != "":
			return w.Reason + ": " + w.Refusal
		case len(w.At) > 0:
			return fmt.Sprintf("%s: %s", w.Reason, w.At[1:2])
		}
		return w.Reason
	}
	h.serve(r, time.Minute, 450, evenly)
	if w := wish(); w != "" {
		t.Errorf("below the limit: %s", w)
	}
	h.serve(r, windowTime*(windowsKept-1)-time.Second, 1000, evenly)
	if w := wish(); w != "" {
		t.Errorf("not for long enough: %s", w)
	}
	h.serve(r, 2*windowTime, 1000, evenly)
	if w := wish(); w != "load: g" {
		t.Errorf("%s", w)
	}
	// The span has become smaller, by a split: what was found is of the old one, and
	// the load is judged anew.
	d := *r.descriptor.Load()
	d.Epoch.Version++
	d.Span.End = []byte("\x02g")
	r.descriptor.Store(&d)
	if w := wish(); w != "" {
		t.Errorf("just after a split: %s", w)
	}
	left := func(i int) string { return evenly(i % 5) }
	h.serve(r, windowTime*windowsKept, 1000, left)
	if w := wish(); w != "" {
		t.Errorf("soon after a split: %s", w)
	}
	h.serve(r, 2*time.Second, 1000, left)
	if w := wish(); !strings.HasPrefix(w, "load: ") || w > "load: g" {
		t.Errorf("long after a split: %s", w)
	}
	h.serve(r, windowTime*(windowsKept+1), 1000, func(int) string { return "\x02c" })
	if w := wish(); w != "load: one key has the load: 100 % of it is of c" {
		t.Errorf("%s", w)
	}
	h.store.SetSplitLoad(1001)
	h.serve(r, 2*windowTime, 1000, left)
	if w := wish(); w != "" {
		t.Errorf("the limit was raised: %s", w)
	}
	h.store.SetSplitLoad(500)
	h.serve(r, windowTime*windowsKept, 1000, left)
	if w := wish(); w == "" {
		t.Error("the limit was lowered, and nothing wished")
	}
	h.store.SetSplitLoad(-1)
	h.serve(r, windowTime, 1000, left)
	if w := wish(); w != "" {
		t.Errorf("without a limit: %s", w)
	}
	h.store.SetSplitLoad(500)
	h.serve(r, windowTime, 1000, left)
	if w := wish(); w == "" {
		t.Error("the limit is back, and nothing wished")
	}
	h.serve(r, 2*windowTime, 300, left)
	if w := wish(); w != "" {
		t.Errorf("the load has gone: %s", w)
	}
}

// Keys in their order never make a shard split by load, however long.
func TestNoWishByLoadThatMoves(t *testing.T) {
	h := newHome(t)
	h.store.SetSplitLoad(500)
	r, _ := h.shard(7, "\x02b", "\x02m")
	n := 0
	for range 60 {
		h.serve(r, time.Second, 1000, func(int) string { n++; return fmt.Sprintf("\x02c%09d", n) })
		if w := r.SplitWish(); len(w.At) > 0 {
			t.Fatalf("after %d keys at %q", n, w.At)
		}
	}
	if w := r.SplitWish(); !strings.HasPrefix(w.Refusal, "its load moves") {
		t.Errorf("%+v", w)
	}
}

func TestHotKeysOfAReplica(t *testing.T) {
	h := newHome(t)
	r, _ := h.shard(7, "\x02b", "\x02m")
	h.serve(r, 10*time.Second, 1000, func(i int) string {
		switch {
		case i%10 == 0:
			return "\x02k"
		case i%25 == 1:
			return "\x02l"
		}
		return evenly(i)
	})
	hot := r.Load().Hot
	if len(hot) < 2 || string(hot[0].Key) != "\x02k" || string(hot[1].Key) != "\x02l" ||
		math.Abs(hot[0].PerSecond-100) > 40 || math.Abs(hot[1].PerSecond-40) > 25 {
		t.Errorf("%v", hot)
	}
	if r.SplitWish().Reason != "" {
		t.Error("a wish without a limit")
	}
}

// However many shards are busy, the samples of few take memory, and those are the busiest.
func TestKeySamplesAreBounded(t *testing.T) {
	h := newHome(t)
	var all []*Replica
	for i := range 2 * sampledMax {
		r, _ := h.shard(shard.ID(100+i), fmt.Sprintf("\x02%03d", i), fmt.Sprintf("\x02%03d", i+1))
		all = append(all, r)
	}
	idle, _ := h.shard(99, "\x02x", "\x02z")
	second := func(busy func(i int) int) {
		for i, r := range all {
			for range busy(i) {
				c := get(fmt.Sprintf("\x02%03d", i))
				r.load.read(&c, nil)
			}
		}
		h.steps.pass(time.Second)
	}
	sampled := func() (from, n int) {
		from = -1
		for i, r := range all {
			if r.load.sampler.Load() != nil {
				if n++; from < 0 {
					from = i
				}
			}
		}
		return from, n
	}
	for range 10 {
		second(func(i int) int { return 50 + i })
	}
	if from, n := sampled(); n != sampledMax || from != sampledMax {
		t.Errorf("%d are sampled, from %d on", n, from)
	}
	for range 20 {
		second(func(i int) int { return 200 - i })
	}
	if from, n := sampled(); n != sampledMax || from != 0 {
		t.Errorf("%d are sampled, from %d on", n, from)
	}
	for range 40 {
		second(func(int) int { return 1 })
	}
	if _, n := sampled(); n != 0 {
		t.Errorf("%d are sampled, with 1 request per second", n)
	}
	if idle.load.seen.Load() != nil || len(h.store.upkeep.loads.watched) != len(all) {
		t.Errorf("%d are looked at", len(h.store.upkeep.loads.watched))
	}
}

// A replica that is removed is let go.
func TestLoadOfARemovedReplica(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.serve(r, 5*time.Second, 1000, evenly)
	g.machine.Stopped(nil)
	h.steps.pass(time.Second)
	if len(h.store.upkeep.loads.watched) != 0 || r.load.sampler.Load() != nil {
		t.Error("it is still looked at")
	}
	h.store.Close()
	h.steps.run()
	if len(h.steps.timers) != 0 {
		t.Errorf("%d timers", len(h.steps.timers))
	}
}
