package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// retried is the put of a command as an attempt after the first.
func retried(c shard.Command) shard.Command {
	c.Retry = true
	return c
}

// log is what a group was handed, in order, with what was cancelled left out as the
// group would: the attempts that get into the log.
func (g *fakeGroup) log(t testing.TB) (marked []bool) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.proposals {
		if p.Cancelled.Load() {
			continue
		}
		var h machine.Header
		var c shard.Command
		if err := machine.DecodeOperation(slices.Concat(p.Header, p.Body), &h, &c); err != nil {
			t.Fatal(err)
		}
		marked = append(marked, c.Retry)
	}
	return marked
}

// A write that a stalled stream has left waiting, wherever it waits, does not
// follow the later attempt that a newer stream brings.
func TestAStreamThatOvertakesAStalledOne(t *testing.T) {
	for _, c := range []struct {
		name string
		// stall brings the first attempt to where it waits; then lets it go on
		// after the second one was handed to the group.
		stall, then func(h *home, g *fakeGroup, older *Stream, first func() *answer) *answer
		inLog       bool // it got there before the newer stream was opened
	}{
		{name: "waiting for a draw in flight", stall: func(h *home, g *fakeGroup, _ *Stream, first func() *answer) *answer {
			h.numbers.held = true
			h.send(target(7), put("\x02z", "another"))
			return first()
		}},
		{name: "its draw in flight", stall: func(h *home, g *fakeGroup, _ *Stream, first func() *answer) *answer {
			h.numbers.held = true
			return first()
		}},
		{name: "handed to the group", stall: func(h *home, g *fakeGroup, _ *Stream, first func() *answer) *answer {
			return first()
		}},
		{name: "its stream closed by the server", stall: func(h *home, g *fakeGroup, older *Stream, first func() *answer) *answer {
			h.numbers.held = true
			a := first()
			older.Close()
			return a
		}},
		{name: "drawing again", stall: func(h *home, g *fakeGroup, _ *Stream, first func() *answer) *answer {
			h.numbers.next = 50 // below what was applied
			a := first()
			g.turn(h.t)
			a.waits(h.t)
			h.numbers.next = 200
			return a // its next draw waits for a step
		}},
		{name: "in the log", inLog: true, stall: func(h *home, g *fakeGroup, _ *Stream, first func() *answer) *answer {
			a := first()
			g.turn(h.t)
			return a
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHome(t)
			h.numbers.next = 100
			_, g := h.shard(7, "\x02b", "\x02{")
			h.write(g, "\x02k", "old")
			older := h.stream(1)
			a := c.stall(h, g, older, func() *answer { return older.send(t, target(7), one(put("\x02k", "v"))) })
			newer := h.stream(2)
			b := newer.send(t, target(7), retried(one(put("\x02k", "v"))))
			late := older.send(t, target(7), one(put("\x02k", "v")))
			if p := late.once(t); !errors.Is(p.Err, shard.ErrDropped) {
				t.Errorf("what the older stream still brings: %+v", p)
			}
			for len(h.numbers.draws) > 0 {
				h.numbers.release(t)
			}
			h.numbers.held = false
			h.steps.run()
			marks := g.log(t)
			for g.turn(t) > 0 {
				h.steps.run()
				marks = append(marks, g.log(t)...)
			}
			if slices.Contains(marks, false) && marks[len(marks)-1] != true || len(marks) > 2 {
				t.Errorf("the log goes on with attempts, marked or not: %v", marks)
			}
			if p := b.once(t); p.Err != nil {
				t.Errorf("the later attempt: %+v", p)
			}
			if p := a.once(t); errors.Is(p.Err, shard.ErrDropped) == c.inLog {
				t.Errorf("the earlier attempt: %+v", p)
			}
			newer.Close()
			older.Close()
			h.idle()
			if len(h.store.sessions.streams) != 0 {
				t.Errorf("streams are kept: %v", h.store.sessions.streams)
			}
		})
	}
}

// A proposal that was applied in vain, because its revision came too late, is not
// made again after a later attempt was.
func TestASupersededWriteIsNotDrawnForAgain(t *testing.T) {
	h := newHome(t)
	h.numbers.next = 100
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "old")
	older := h.stream(1)
	h.numbers.next = 50
	a := older.send(t, target(7), one(put("\x02k", "v")))
	h.numbers.next = 200
	g.mu.Lock()
	p := g.proposals[0]
	g.proposals = nil
	g.mu.Unlock()
	// It is in the log when the newer stream is opened, and refused when applied.
	newer := h.stream(2)
	b := newer.send(t, target(7), retried(one(put("\x02k", "v"))))
	p.Done(raftgroup.Result{Err: machine.ErrStaleRevision}, nil)
	h.steps.run()
	if marks := g.log(t); !slices.Equal(marks, []bool{true}) {
		t.Errorf("the log goes on with attempts, marked or not: %v", marks)
	}
	g.turn(t)
	if p := a.once(t); !errors.Is(p.Err, shard.ErrDropped) {
		t.Errorf("%+v", p)
	}
	if p := b.once(t); p.Err != nil {
		t.Errorf("%+v", p)
	}
	h.idle()
}

// Streams come in the order of their numbers; sessions do not know of each other.
func TestStreamNumbers(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.numbers.held = true
	open := func(session shard.Session, number uint64) error {
		st, err := h.store.OpenStream(session, number, false)
		if err == nil && session != 1 {
			st.Close()
		}
		return err
	}
	five := h.stream(5)
	waiting := five.send(t, target(7), one(put("\x02k", "v")))
	for _, c := range []struct {
		session shard.Session
		number  uint64
		ok      bool
	}{{0, 1, false}, {1, 0, false}, {1, 4, false}, {1, 5, false}, {2, 1, true}, {2, 1, true}} {
		err := open(c.session, c.number)
		var invalid *shard.InvalidError
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &invalid) || invalid.Field != "stream") {
			t.Errorf("session %d, stream %d: %v", c.session, c.number, err)
		}
	}
	// A stream of another session, or one that was refused, supersedes nothing; nor
	// does closing.
	five.Close()
	if err := open(1, 3); err == nil {
		t.Error("an older stream was opened while a newer one has writes under way")
	}
	h.numbers.release(t)
	g.turn(t)
	if p := waiting.once(t); p.Err != nil {
		t.Errorf("%+v", p)
	}
	if p := five.send(t, target(7), put("\x02k", "w")).once(t); !errors.Is(p.Err, shard.ErrDropped) {
		t.Errorf("a write on a closed stream: %+v", p)
	}
	if n := len(h.store.sessions.streams); n != 0 {
		t.Errorf("%d streams are kept", n)
	}
	if err := open(1, 3); err != nil {
		t.Errorf("nothing is left of the session: %v", err)
	}
	h.idle()
}

// Streams are opened while writes come on older ones and are proposed: whatever
// comes of it, no unmarked attempt follows a marked one into the log.
func TestStreamsAreSupersededWhileWritesFly(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	stop, turns := make(chan struct{}), sync.WaitGroup{}
	seen := map[uint64]bool{} // operations of which a marked attempt is in the log
	turns.Go(func() {
		for ended, more := false, true; !ended || more; {
			select {
			case <-stop:
				ended = true
			default:
			}
			g.mu.Lock()
			proposals := g.proposals
			g.proposals = nil
			g.mu.Unlock()
			more = len(proposals) > 0
			for _, p := range proposals {
				if p.Cancelled.Load() {
					p.Done(raftgroup.Result{}, shard.ErrDropped)
					continue
				}
				var head machine.Header
				var c shard.Command
				if err := machine.DecodeOperation(slices.Concat(p.Header, p.Body), &head, &c); err != nil {
					t.Error(err)
				}
				if seen[c.Op.Sequence] && !c.Retry {
					t.Errorf("operation %d is in the log without a mark after one with it", c.Op.Sequence)
				}
				seen[c.Op.Sequence] = seen[c.Op.Sequence] || c.Retry
				p.Done(raftgroup.Result{Revision: head.Revision}, nil)
			}
		}
	})
	const streams, each = 200, 20
	var late sync.WaitGroup
	for n := range uint64(streams) {
		st := h.stream(n + 1)
		var first []shard.Request
		var again sync.WaitGroup
		for i := range uint64(each) {
			c := put("\x02k", fmt.Sprint(n))
			c.Op.Sequence = n*each + i
			first = append(first, request(target(7), c))
			if n > 0 {
				c.Op.Sequence -= each
				c.Retry = true
				again.Add(1)
				st.Execute(request(target(7), c), func(p shard.Response) {
					if p.Err != nil {
						t.Errorf("the later attempt: %v", p.Err)
					}
					again.Done()
				})
			}
		}
		again.Wait()
		// What the stream brings arrives while the next one is opened.
		late.Go(func() {
			for _, q := range first {
				st.Execute(q, func(shard.Response) {})
			}
			st.Close()
		})
	}
	late.Wait()
	close(stop)
	turns.Wait()
	if len(seen) < (streams-1)*each {
		t.Errorf("%d operations got into the log", len(seen))
	}
	h.idle()
}

// one is the command as an attempt of one operation, apart from all others.
func one(c shard.Command) shard.Command {
	c.Op = shard.OpID{Session: 5, Sequence: 1}
	return c
}

// What a node tells clients as the newest revision is what its replicas have
// applied too: one that has just come to lead has drawn nothing itself.
func TestNewestIsWhatWasApplied(t *testing.T) {
	h := newHome(t)
	h.numbers.next = 40
	_, g := h.shard(7, "\x02b", "\x02m")
	if n := h.store.Newest(); n != 0 {
		t.Errorf("%d before any write", n)
	}
	h.write(g, "\x02k", "v")
	if n := h.store.Newest(); n != 41 {
		t.Errorf("%d, applied is 41", n)
	}
}

// Clients of streams on which nothing goes hear how far revisions have got, several
// times in each retention; those of streams that are closed or superseded do not.
func TestStreamsHearTheNews(t *testing.T) {
	const retention = 10 * time.Second
	h := newHome(t, retained(retention))
	_, g := h.shard(7, "\x02b", "\x02m")
	heard := map[uint64][]shard.Revision{}
	open := func(number uint64) *Stream {
		st := h.stream(number)
		st.OnNews(func(newest shard.Revision) { heard[number] = append(heard[number], newest) })
		return st
	}
	open(1)
	rev := h.write(g, "\x02k", "v").Result.Revision
	h.settle(retention, g)
	if n := len(heard[1]); n < 9 || heard[1][0] != rev || heard[1][n-1] != rev {
		t.Errorf("heard of %v, newest is %d", heard[1], rev)
	}
	second := open(2)
	clear(heard)
	rev = h.write(g, "\x02k", "w").Result.Revision
	h.settle(retention/5, g)
	if n := len(heard[2]); len(heard[1]) != 0 || n == 0 || heard[2][n-1] != rev {
		t.Errorf("heard of %v, newest is %d", heard, rev)
	}
	second.Close()
	clear(heard)
	h.settle(time.Minute, g) // until its load is forgotten as well
	if len(heard) != 0 || len(h.steps.timers) != 1 {
		t.Errorf("heard of %v; %d timers", heard, len(h.steps.timers))
	}
}
