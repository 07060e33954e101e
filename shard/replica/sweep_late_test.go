package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// What is too few for a sweep goes once a shard is written no more, by one sweep; an
// idle shard, and one that has got keys and no garbage, is not looked at for ever.
func TestGarbageOfAnIdleShardGoes(t *testing.T) {
	h := newHome(t, retained(time.Second))
	_, g := h.shard(7, "\x02b", "\x02m")
	h.overwrite(g, 1000, 1000)
	h.settle(10*time.Second, g)
	before := h.store.Stats()
	h.overwrite(g, 300, 300)
	h.busy(g, 3*time.Second)
	if s := h.store.Stats(); s.Sweeps != before.Sweeps || s.VersionsDropped != 0 {
		t.Fatalf("%d sweeps while it is written, %d before, %d versions dropped", s.Sweeps, before.Sweeps, s.VersionsDropped)
	}
	h.settle(3*time.Second, g)
	if s := h.store.Stats(); s.Sweeps != before.Sweeps+1 || s.VersionsDropped != 330 || len(h.stored("\x02b key 00000")) != 1 {
		t.Errorf("%d sweeps when it is idle, %d before; %d versions dropped", s.Sweeps, before.Sweeps, s.VersionsDropped)
	}
	h.settle(time.Hour, g)
	if s := h.store.Stats(); s.Sweeps != before.Sweeps+1 {
		t.Errorf("%d more sweeps in an hour without a write", s.Sweeps-before.Sweeps-1)
	}
	h.do(g, put("\x02b other", "value"))
	h.settle(time.Hour, g)
	if s := h.store.Stats(); s.Sweeps != before.Sweeps+2 || s.VersionsDropped != 330 {
		t.Errorf("%d sweeps in an hour after one new key", s.Sweeps-before.Sweeps-1)
	}
	if len(h.steps.timers) != 1 {
		t.Errorf("%d timers", len(h.steps.timers))
	}
}

// However many shards have a little garbage, looking for it takes a small share of
// the rate; a shard that has enough does not wait for that.
func TestLateSweepsAreFew(t *testing.T) {
	const shards, rate = 4, 1000
	h := newHome(t, retained(time.Second), func(c *Config) { c.DropRate = rate })
	var groups []*fakeGroup
	key := func(i, k int) string { return fmt.Sprintf("\x02%d key %05d", i, k) }
	fill := func(i, n int) {
		t.Helper()
		var sent []*answer
		for k := range n {
			sent = append(sent, h.send(target(groups[i].id), put(key(i, k), "value")))
		}
		groups[i].turns(t)
		for _, a := range sent {
			if p := a.once(t); p.Err != nil {
				t.Fatal(p.Err)
			}
		}
	}
	for i := range shards {
		_, g := h.shard(shard.ID(7+i), fmt.Sprintf("\x02%d", i), fmt.Sprintf("\x02%d", i+1))
		groups = append(groups, g)
		fill(i, 1000)
	}
	h.settle(30*time.Second, groups...)
	first := h.store.Stats().Sweeps
	for i := range shards {
		fill(i, 100)
	}
	// Each looks at 1,100 versions, for which the rate allows 275 ms.
	next := func() time.Duration {
		t.Helper()
		began, last := h.steps.now, h.store.Stats().Sweeps
		for h.store.Stats().Sweeps == last {
			h.settle(100*time.Millisecond, groups...)
			if h.steps.now-began > time.Minute {
				t.Fatal("no more sweeps")
			}
		}
		return h.steps.now - began
	}
	next()
	for range 2 {
		if d := next(); d < 5*time.Second || d > 8*time.Second {
			t.Errorf("a late sweep %v after another", d)
		}
	}
	fill(0, 1000)
	if d := next(); d > 3*time.Second {
		t.Errorf("a shard with enough garbage waited for %v", d)
	}
	next()
	h.settle(time.Hour, groups...)
	if s := h.store.Stats(); s.Sweeps != first+shards+1 || s.VersionsDropped != shards*100+1000 {
		t.Errorf("%d sweeps, %d versions dropped", s.Sweeps-first, s.VersionsDropped)
	}
}

// A replica that was away hears of the last writes together with the floor above
// them: it has no sample of them, and yet drops what they have left.
func TestGarbageOfAReplicaThatWasAway(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	h.overwrite(g, 10, 10)
	h.settle(10*time.Second, g)
	h.overwrite(g, 3, 3)
	_, last := r.at()
	g.proposals = append(g.proposals, &raftgroup.Proposal{Term: g.term, Header: machine.AppendHeader(nil, machine.Header{Version: 2}),
		Body: shard.AppendCommand(nil, &shard.Command{Kind: shard.KindFloor, Revision: last}), Done: func(raftgroup.Result, error) {}})
	g.turn(t)
	g.follow()
	if floor, last := r.at(); floor != last {
		t.Fatalf("floor %d, last revision %d", floor, last)
	}
	h.settle(10*time.Second, g)
	if s := h.store.Stats(); s.VersionsDropped != 3 {
		t.Errorf("%d versions dropped", s.VersionsDropped)
	}
}
