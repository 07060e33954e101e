package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

func retained(d time.Duration) func(*Config) { return func(c *Config) { c.Retention = d } }

// settle lets time pass in steps, and applies what is proposed meanwhile.
func (h *home) settle(d time.Duration, groups ...*fakeGroup) {
	h.t.Helper()
	const step = 100 * time.Millisecond
	for ; d > 0; d -= step {
		h.steps.pass(min(d, step))
		for _, g := range groups {
			g.mu.Lock()
			work := len(g.proposals)
			g.mu.Unlock()
			if work > 0 {
				g.turn(h.t)
			}
			for g.drops() > 0 {
				h.steps.run()
			}
		}
	}
	h.steps.run()
}

func (r *Replica) at() (floor, last shard.Revision) {
	s, _ := r.State()
	return s.Floor, s.LastRevision
}

// The floor follows the revisions at a distance of the retention: a revision stays
// readable that long after it was handed out, and not much longer.
func TestFloorFollowsAtTheRetention(t *testing.T) {
	const retention = 10 * time.Second
	h := newHome(t, retained(retention))
	r, g := h.shard(7, "\x02b", "\x02m")
	written := map[shard.Revision]time.Duration{}
	for i := range 300 {
		p := h.write(g, "\x02k", fmt.Sprint(i))
		written[p.Result.Revision] = h.steps.now
		h.settle(100*time.Millisecond, g)
		floor, last := r.at()
		if age := h.steps.now - written[floor+1]; floor > 0 && age < retention {
			t.Fatalf("after %v revision %d, %v old, is below the floor", h.steps.now, floor-1, age)
		}
		if oldest := h.steps.now - written[floor+1]; floor < last && oldest > retention+2*h.store.upkeep.interval()+time.Second {
			t.Fatalf("after %v revision %d, %v old, is not below the floor %d", h.steps.now, floor+1, oldest, floor)
		}
		if n := len(r.history.samples); n > 25 {
			t.Fatalf("%d samples", n)
		}
	}
	// Idle, it comes up to the last revision, and nothing more is proposed.
	h.settle(20*time.Second, g)
	if floor, last := r.at(); floor != last {
		t.Errorf("floor %d, last revision %d", floor, last)
	}
	proposed := h.store.Stats().FloorsProposed
	h.settle(time.Minute, g)
	if s := h.store.Stats(); s.FloorsProposed != proposed || proposed < 10 || proposed > 100 || len(g.proposals) != 0 || len(r.history.samples) != 0 {
		t.Errorf("%d floors proposed, then %d", proposed, s.FloorsProposed)
	}
	if p := h.read(g, at(299, get("\x02k"))); !errors.Is(p.Err, shard.ErrCompacted) {
		t.Errorf("%+v", p)
	}
	if len(h.steps.timers) != 1 {
		t.Errorf("%d timers", len(h.steps.timers))
	}
}

// A shorter retention holds at once, for what was written before too.
func TestRetentionIsChangedAtRunTime(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	for i := range 4 {
		h.write(g, "\x02k", fmt.Sprint(i))
		h.settle(time.Minute, g)
	}
	if floor, last := r.at(); floor != 0 || last != 4 {
		t.Fatalf("floor %d, last %d", floor, last)
	}
	h.store.SetRetention(90 * time.Second)
	h.steps.run()
	g.turn(t)
	if floor, _ := r.at(); floor != 3 { // handed out more than two minutes ago
		t.Errorf("floor %d", floor)
	}
	// A longer one does not lower it.
	h.store.SetRetention(time.Hour)
	h.settle(10*time.Minute, g)
	if floor, _ := r.at(); floor != 3 {
		t.Errorf("floor %d", floor)
	}
	if got, want := h.store.upkeep.interval(), intervalMax; got != want {
		t.Errorf("interval %v", got)
	}
	h.store.SetRetention(-1)
	h.settle(time.Second, g)
	if floor, _ := r.at(); floor != 4 {
		t.Errorf("floor %d", floor)
	}
	if got, want := h.store.upkeep.interval(), intervalMin; got != want || len(h.steps.timers) != 1 {
		t.Errorf("interval %v, %d timers", got, len(h.steps.timers))
	}
}

// A new leader lets the floor rise by its own samples, of the time when it followed
// too, and in its own term; the old one proposes no more.
func TestFloorAfterLeaderChange(t *testing.T) {
	h := newHome(t, retained(10*time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "1")
	h.write(g, "\x02k", "2")
	h.settle(5*time.Second, g)
	h.write(g, "\x02k", "3")
	g.follow()
	h.settle(6*time.Second, g)
	if floor, _ := r.at(); floor != 0 || h.store.Stats().FloorsProposed != 0 {
		t.Fatalf("a follower raises the floor to %d", floor)
	}
	g.lead(8)
	h.steps.pass(time.Second)
	if len(g.proposals) != 1 || g.proposals[0].Term != 8 {
		t.Fatalf("%d proposals", len(g.proposals))
	}
	g.turn(t)
	if floor, _ := r.at(); floor != 2 {
		t.Errorf("floor %d", floor)
	}
	// One that gets lost is proposed again, and only one at a time.
	h.steps.pass(10 * time.Second)
	if len(g.proposals) != 1 {
		t.Fatalf("%d floors are in flight", len(g.proposals))
	}
	g.follow()
	g.turn(t)
	if floor, _ := r.at(); floor != 2 {
		t.Errorf("the floor of an earlier term was applied: %d", floor)
	}
	g.lead(10)
	g.refusal = shard.ErrBusy
	h.steps.pass(2 * time.Second)
	g.refusal = nil
	h.settle(2*time.Second, g)
	if floor, _ := r.at(); floor != 3 {
		t.Errorf("floor %d", floor)
	}
}

// A floor that does not rise keeps the samples bounded, and rises later.
func TestSamplesAreBounded(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	g.refusal = shard.ErrBusy
	for i := range 200 {
		g.refusal = nil
		h.write(g, "\x02k", fmt.Sprint(i))
		g.refusal = shard.ErrBusy
		h.steps.pass(100 * time.Millisecond)
		if n := len(r.history.samples); n > samplesMax {
			t.Fatalf("%d samples", n)
		}
	}
	g.refusal = nil
	h.settle(5*time.Second, g)
	if floor, last := r.at(); floor != last {
		t.Errorf("floor %d, last revision %d", floor, last)
	}
}

// Of too many samples the one goes that is closest to its neighbours: the oldest is
// what the floor rises to next, the newest tells how far the shard has come, and
// wherever between them the retention ends there is a sample not much older.
func TestThinnedSamplesAreSpread(t *testing.T) {
	at := func(h *history) (seconds []int) {
		for _, s := range h.samples {
			seconds = append(seconds, int(s.at/time.Second))
		}
		return seconds
	}
	sampled := func(seconds ...int) *history {
		h := new(history)
		for _, s := range seconds {
			h.samples = append(h.samples, sample{at: time.Duration(s) * time.Second, revision: shard.Revision(s + 1)})
		}
		return h
	}
	for _, c := range []struct{ samples, want []int }{
		{[]int{0, 1, 2, 10, 20}, []int{0, 2, 10, 20}},
		{[]int{0, 10, 20, 21, 22}, []int{0, 10, 20, 22}},
		{[]int{0, 10, 11, 12, 22}, []int{0, 10, 12, 22}},
		{[]int{0, 10, 20, 30}, []int{0, 20, 30}},
		{[]int{0, 1, 100}, []int{0, 100}},
	} {
		h := sampled(c.samples...)
		h.thin()
		if got := at(h); !slices.Equal(got, c.want) {
			t.Errorf("%v became %v, want %v", c.samples, got, c.want)
		}
	}
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	g.follow() // nobody raises the floor
	const seconds = 300
	var began time.Duration
	for i := range seconds * 10 {
		g.lead(term)
		h.write(g, "\x02k", fmt.Sprint(i))
		g.follow()
		h.steps.pass(100 * time.Millisecond)
		if i == 0 {
			began = r.history.samples[0].at
		}
	}
	all := r.history.samples
	if len(all) != samplesMax || all[0].at != began || h.steps.now-all[len(all)-1].at > 200*time.Millisecond {
		t.Errorf("%d samples from %v to %v, now %v; the first one was of %v", len(all), all[0].at, all[len(all)-1].at, h.steps.now, began)
	}
	for i := 1; i < len(all); i++ {
		if gap, even := all[i].at-all[i-1].at, seconds*time.Second/samplesMax; gap > 3*even {
			t.Errorf("%v between two samples of %d in %d s: %v", gap, len(all), seconds, at(&r.history))
		}
		if all[i].revision <= all[i-1].revision {
			t.Errorf("revision %d after %d", all[i].revision, all[i-1].revision)
		}
	}
}

// The system keyspace has no revisions and no floor; a closed store does nothing.
func TestFloorOfOthers(t *testing.T) {
	h := newHome(t, retained(time.Second))
	_, meta := h.shard(shard.MetaID, "\x01", "\x02")
	h.write(meta, "\x01k", "value")
	h.replica(9, nil)
	h.settle(10*time.Second, meta)
	if s := h.store.Stats(); s.FloorsProposed != 0 || s.Sweeps != 0 {
		t.Errorf("%+v", s)
	}
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "value")
	h.store.Close()
	h.settle(10*time.Second, g)
	h.store.SetRetention(2 * time.Second)
	h.store.SetDropRate(5)
	h.settle(10*time.Second, g)
	if s := h.store.Stats(); s.FloorsProposed != 0 || len(h.steps.timers) != 0 {
		t.Errorf("%+v, %d timers", s, len(h.steps.timers))
	}
}
