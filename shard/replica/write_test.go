package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// A draw serves what was waiting when it was sent, and nothing that came later.
func TestWritesWaitForADrawThatIsSentAfterThem(t *testing.T) {
	h := newHome(t)
	h.numbers.held = true
	_, g := h.shard(7, "\x02b", "\x02m")
	first := h.send(target(7), put("\x02k", "1"))
	second := h.send(target(7), put("\x02k", "2"))
	third := h.send(target(7), put("\x02k", "3"))
	if len(h.numbers.draws) != 1 || h.numbers.draws[0].n != 1 {
		t.Fatalf("draws in flight: %+v", h.numbers.draws)
	}
	h.numbers.release(t)
	if len(h.numbers.draws) != 0 {
		t.Error("a draw while writes are on their way through the log")
	}
	if g.turn(t) != 1 {
		t.Fatal("more than the first write was proposed")
	}
	if p := first.once(t); p.Result.Revision != 1 {
		t.Errorf("%+v", p)
	}
	second.waits(t)
	// Both that waited are served by the one draw that follows, in order.
	if len(h.numbers.draws) != 1 || h.numbers.draws[0].n != 2 {
		t.Fatalf("draws in flight: %+v", h.numbers.draws)
	}
	h.numbers.release(t)
	g.turn(t)
	if p := second.once(t); p.Result.Revision != 2 {
		t.Errorf("%+v", p)
	}
	if p := third.once(t); p.Result.Revision != 3 {
		t.Errorf("%+v", p)
	}
	if len(h.numbers.draws) != 0 {
		t.Error("a draw for nobody")
	}
	h.idle()
}

// A write is proposed in the term in which its draw was sent, and in no other.
func TestDrawOfAnEarlierTermIsNotUsed(t *testing.T) {
	h := newHome(t)
	h.numbers.held = true
	_, g := h.shard(7, "\x02b", "\x02m")
	during := h.send(target(7), put("\x02k", "1"))
	after := h.send(target(7), put("\x02k", "2"))
	g.machine.LeaderChanged(raftgroup.Leadership{Term: term + 1, Leader: 2, Node: 2})
	g.lead(term + 2)
	h.numbers.release(t)
	// The one whose draw was out is proposed in the term of then, and dropped.
	if len(g.proposals) != 1 || g.proposals[0].Term != term {
		t.Fatalf("%+v", g.proposals)
	}
	// The one that waited was refused when that term ended: nothing is drawn for it.
	if got := describe(after.once(t).Err); got != "not leader 7: replica 2 on node 2 (node2:7400) in term 6" {
		t.Error(got)
	}
	if len(h.numbers.draws) != 0 {
		t.Error("a revision is drawn for an attempt of an earlier term")
	}
	g.turn(t)
	if got := describe(during.once(t).Err); got != "not leader 7: replica 1 on node 1 (node1:7400) in term 7" {
		t.Error(got)
	}
	if len(g.revisions) != 0 {
		t.Error("applied")
	}
	h.idle()
}

// What waits for the outcome of earlier writes is told at once that the leader has
// gone: that outcome may be unknown for long.
func TestWaitingWritesHearOfANewLeader(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	logged := h.send(target(7), put("\x02k", "1"))
	waits := h.send(target(7), put("\x02k", "2"))
	waits.waits(t)
	g.machine.LeaderChanged(raftgroup.Leadership{Term: term + 1, Leader: 2, Node: 2})
	if got := describe(waits.once(t).Err); got != "not leader 7: replica 2 on node 2 (node2:7400) in term 6" {
		t.Error(got)
	}
	logged.waits(t)
	g.lead(term + 2)
	again := h.send(shard.Target{Shard: 7, Version: 2, Replica: 1, Term: term + 2}, put("\x02k", "3"))
	again.waits(t)
	g.turn(t) // which tells of the old one, and that the new one may draw
	if got := describe(logged.once(t).Err); got != "not leader 7: replica 1 on node 1 (node1:7400) in term 7" {
		t.Error(got)
	}
	g.turn(t)
	if p := again.once(t); p.Err != nil {
		t.Errorf("%+v", p)
	}
	h.idle()
}

// A revision that came too late is drawn again, and the write is done once.
func TestStaleRevisionIsDrawnAgain(t *testing.T) {
	h := newHome(t)
	h.numbers.next = 100
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "old")
	h.numbers.next = 50
	a := h.send(target(7), put("\x02k", "new"))
	g.turn(t)
	a.waits(t)
	h.numbers.next = 200
	h.steps.run()
	g.turn(t)
	if p := a.once(t); p.Err != nil || p.Result.Revision != 201 {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(g.revisions, []shard.Revision{101, 201}) {
		t.Errorf("applied %v", g.revisions)
	}
	if p := h.read(g, get("\x02k")); string(p.Result.Value) != "new" {
		t.Errorf("%+v", p)
	}
	if s := h.store.Stats(); s.Redraws != 1 {
		t.Errorf("%+v", s)
	}
	h.idle()
}

func TestDrawingAgainIsBounded(t *testing.T) {
	h := newHome(t)
	h.numbers.next = 100
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "old")
	// What is drawn from now on is always below what was applied.
	h.numbers.next = 50
	a := h.send(target(7), put("\x02k", "never"))
	turns := 0
	for ; a.times == 0 && turns < 100; turns++ {
		g.turn(t)
		h.steps.run()
	}
	if p := a.once(t); !errors.Is(p.Err, shard.ErrDropped) || turns != drawsMax {
		t.Errorf("%+v after %d turns", p, turns)
	}
	if len(g.revisions) != 1 {
		t.Errorf("applied %v", g.revisions)
	}
	h.idle()
}

// Whatever happens to a write, its caller hears of it exactly once.
func TestWritesAreAnsweredOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(h *home, g *fakeGroup) *answer
		want string
	}{
		{"revisions run out", func(h *home, g *fakeGroup) *answer {
			h.numbers.fail = shard.ErrUnavailable
			return h.send(target(7), put("\x02k", "v"))
		}, shard.ErrUnavailable.Error()},
		{"the group is busy", func(h *home, g *fakeGroup) *answer {
			g.refusal = shard.ErrBusy
			return h.send(target(7), put("\x02k", "v"))
		}, shard.ErrBusy.Error()},
		{"the group has stopped", func(h *home, g *fakeGroup) *answer {
			g.refusal = shard.ErrStopped
			return h.send(target(7), put("\x02k", "v"))
		}, shard.ErrStopped.Error()},
		{"undetermined", func(h *home, g *fakeGroup) *answer {
			a := h.send(target(7), put("\x02k", "v"))
			g.proposals[0].Done(raftgroup.Result{}, shard.ErrUndetermined)
			return a
		}, shard.ErrUndetermined.Error()},
		{"dropped", func(h *home, g *fakeGroup) *answer {
			a := h.send(target(7), put("\x02k", "v"))
			g.proposals[0].Done(raftgroup.Result{}, shard.ErrDropped)
			return a
		}, shard.ErrDropped.Error()},
		{"another leads, who is told", func(h *home, g *fakeGroup) *answer {
			a := h.send(target(7), put("\x02k", "v"))
			g.proposals[0].Done(raftgroup.Result{}, &shard.NotLeaderError{Shard: 7, Leader: shard.LeaderHint{Replica: 2, Node: 22, Term: 9}})
			return a
		}, "not leader 7: replica 2 on node 22 (node22:7400) in term 9"},
		{"refused when applied", func(h *home, g *fakeGroup) *answer {
			a := h.send(target(7), put("\x02k", "v"))
			g.proposals[0].Header = []byte{1, 1, 9}
			g.turn(h.t)
			return a
		}, "wrong shard 7 [7]"},
		{"not leader when drawn", func(h *home, g *fakeGroup) *answer {
			h.numbers.held = true
			h.send(target(7), put("\x02k", "v"))
			a := h.send(target(7), put("\x02k", "v"))
			g.machine.LeaderChanged(raftgroup.Leadership{Term: 9})
			h.numbers.release(h.t)
			g.turn(h.t)
			return a
		}, "not leader 7: replica 0 on node 0 () in term 0"},
		{"stopped when drawn", func(h *home, g *fakeGroup) *answer {
			h.numbers.held = true
			h.send(target(7), put("\x02k", "v"))
			a := h.send(target(7), put("\x02k", "v"))
			g.machine.Stopped(shard.ErrStopped)
			h.numbers.release(h.t)
			g.turn(h.t)
			return a
		}, "not leader 7: replica 0 on node 0 () in term 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHome(t)
			_, g := h.shard(7, "\x02b", "\x02m")
			a := c.do(h, g)
			if got := describe(a.once(t).Err); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			h.idle()
		})
	}
}

func TestWritesAreBounded(t *testing.T) {
	h := newHome(t, func(c *Config) { c.WritesMax, c.WriteBytesMax = 3, 300 })
	h.numbers.held = true
	_, g := h.shard(7, "\x02b", "\x02m")
	big := h.send(target(7), put("\x02k", string(make([]byte, 300))))
	if p := big.once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	var kept []*answer
	for range 3 {
		kept = append(kept, h.send(target(7), put("\x02k", "v")))
	}
	if p := h.send(target(7), put("\x02k", "v")).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	h.numbers.release(t)
	g.turn(t)
	h.numbers.release(t)
	g.turn(t)
	for _, a := range kept {
		if p := a.once(t); p.Err != nil {
			t.Error(p.Err)
		}
	}
	h.idle()
	if p := h.send(target(7), put("\x02k", "v")); p.times != 0 {
		t.Errorf("there is room again: %+v", p)
	}
}

// Many callers at once: all are answered once, and revisions rise along the log.
func TestConcurrentWrites(t *testing.T) {
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprintf("held %v", held), func(t *testing.T) {
			h := newHome(t)
			h.numbers.held = held
			_, g := h.shard(7, "\x02b", "\x02m")
			const callers, each = 8, 50
			var answers [callers][each]answer
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for k := range each {
						q := shard.Request{ID: uint64(i*each + k), Target: target(7)}
						c := put("\x02k", fmt.Sprint(i, k))
						q.Command = shard.AppendCommand(nil, &c)
						h.store.Execute(q, answers[i][k].take)
					}
				})
			}
			answered := make(chan struct{})
			go func() { wg.Wait(); close(answered) }()
			for over, more := false, true; !over || more; {
				select {
				case <-answered:
					over = true
				default:
				}
				h.numbers.mu.Lock()
				out := len(h.numbers.draws)
				h.numbers.mu.Unlock()
				if out > 1 {
					t.Errorf("%d draws in flight", out)
				}
				if out > 0 {
					h.numbers.release(t)
				}
				more = g.turn(t) > 0 || out > 0
			}
			var all []shard.Revision
			for i := range callers {
				last := shard.Revision(0)
				for k := range each {
					p := answers[i][k].once(t)
					if p.Err != nil || p.Result.Revision <= last {
						t.Fatalf("caller %d, write %d: %+v after revision %d", i, k, p, last)
					}
					last = p.Result.Revision
					all = append(all, last)
				}
			}
			if len(g.revisions) != callers*each || !slices.IsSorted(g.revisions) {
				t.Errorf("applied %d revisions", len(g.revisions))
			}
			slices.Sort(all)
			if !slices.Equal(slices.Compact(all), g.revisions) {
				t.Error("callers were told other revisions than were applied")
			}
			h.idle()
		})
	}
}
