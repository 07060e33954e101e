package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

func at(rev shard.Revision, c shard.Command) shard.Command { c.Revision = rev; return c }

func anywhere(c shard.Command) shard.Command { c.AnyReplica = true; return c }

// follow makes the replica follow another one in a later term.
func (g *fakeGroup) follow() {
	g.term++
	g.machine.LeaderChanged(raftgroup.Leadership{Term: g.term, Leader: 2, Node: 2})
}

// rows are the rows of a page, or the value of a get.
func rows(p shard.Response) string {
	if p.Err != nil {
		return p.Err.Error()
	}
	s := fmt.Sprintf("at %d:", p.Result.Revision)
	if p.Result.Found {
		s += " " + string(p.Result.Value)
	}
	for _, r := range p.Result.Rows {
		s += fmt.Sprintf(" %s=%s@%d", shard.FormatKey(r.Key), r.Value, r.Revision)
	}
	return s
}

func TestReadsAtARevision(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	for i := range 5 {
		h.write(g, "\x02k", fmt.Sprint(i+1))
	}
	for rev := shard.Revision(1); rev <= 5; rev++ {
		if got, want := rows(h.read(g, at(rev, get("\x02k")))), fmt.Sprintf("at %d: %d", rev, rev); got != want {
			t.Errorf("get at %d: %s", rev, got)
		}
		if got, want := rows(h.read(g, at(rev, scan("\x02b", "\x02m")))), fmt.Sprintf("at %d: k=%d@%d", rev, rev, rev); got != want {
			t.Errorf("scan at %d: %s", rev, got)
		}
	}
	// None of them had to be confirmed or to wait for the log.
	if len(g.reads) != 0 || len(g.proposals) != 0 || len(h.numbers.asked) != 0 {
		t.Errorf("%d reads to confirm, %d proposals, %v asked", len(g.reads), len(g.proposals), h.numbers.asked)
	}
	state, _ := r.State()
	state.Floor = 3
	g.machine.InstallBegin()
	g.machine.InstallEnd(&state)
	for _, c := range []shard.Command{get("\x02k"), scan("\x02b", "\x02m")} {
		if p := h.read(g, at(2, c)); !errors.Is(p.Err, shard.ErrCompacted) {
			t.Errorf("%+v", p)
		}
		if p := h.read(g, at(3, c)); p.Err != nil {
			t.Errorf("%+v", p)
		}
	}
	h.idle()
}

// A revision that nobody was given is refused, and the shard stays where it is.
func TestReadAtAFutureRevision(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "value")
	for _, c := range []shard.Command{get("\x02k"), scan("\x02b", "\x02m")} {
		for _, rev := range []shard.Revision{2, shard.MaxRevision} {
			if p := h.send(target(7), at(rev, c)).once(t); !errors.Is(p.Err, shard.ErrFutureRevision) {
				t.Errorf("%+v", p)
			}
		}
	}
	h.numbers.failAsks = shard.ErrNoRevision
	if p := h.send(target(7), at(2, get("\x02k"))).once(t); !errors.Is(p.Err, shard.ErrNoRevision) {
		t.Errorf("%+v", p)
	}
	if len(g.proposals) != 0 || r.lastRevision.Load() != 1 {
		t.Errorf("%d proposals, last revision %d", len(g.proposals), r.lastRevision.Load())
	}
	h.idle()
}

// A write drawn below R is in flight on the leader when a read at R comes: in the
// log before the raise, or drawn and not proposed yet. What the read gives stays so.
func TestReadAtWithWritesBelowInFlight(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	first := h.send(target(7), put("\x02c", "proposed before")) // drawn 1
	h.numbers.next = 10
	a := h.send(target(7), at(10, scan("\x02b", "\x02m")))
	h.steps.run()
	a.waits(t)
	g.turn(t)
	h.steps.run()
	if got := rows(a.once(t)); got != "at 10: c=proposed before@1" {
		t.Error(got)
	}
	first.once(t)

	h.numbers.held = true
	second := h.send(target(7), put("\x02d", "proposed after")) // drawn 11, on its way
	h.numbers.held, h.numbers.next = false, 20
	a, b := h.send(target(7), at(20, scan("\x02b", "\x02m"))), h.send(target(7), at(19, get("\x02d")))
	h.steps.run()
	a.waits(t)
	b.waits(t)
	h.numbers.draws[0].done(11, nil)
	g.turn(t)
	h.steps.run() // draws again
	if got := rows(a.once(t)); got != "at 20: c=proposed before@1" {
		t.Error(got)
	}
	if got := rows(b.once(t)); got != "at 0:" {
		t.Error(got)
	}
	second.waits(t)
	g.turn(t)
	if p := second.once(t); p.Err != nil || p.Result.Revision != 21 {
		t.Errorf("%+v", p)
	}
	if got := rows(h.read(g, at(20, scan("\x02b", "\x02m")))); got != "at 20: c=proposed before@1" {
		t.Errorf("read again: %s", got)
	}
	if got := rows(h.read(g, at(21, scan("\x02b", "\x02m")))); got != "at 21: c=proposed before@1 d=proposed after@21" {
		t.Error(got)
	}
	if s := h.store.Stats(); s.Raises != 2 || s.Redraws != 1 {
		t.Errorf("%+v", s)
	}
	h.idle()
}

// A new leader raises in its own term: what the old one had drawn below R was
// applied before that, or never is.
func TestReadAtOnANewLeader(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02c", "of the old term")
	lost := h.send(target(7), put("\x02d", "in flight")) // drawn 2, not in the log yet
	g.lead(6)
	h.numbers.next = 10
	a := h.send(shard.Target{Shard: 7, Version: 2, Replica: 1, Term: 6}, at(10, scan("\x02b", "\x02m")))
	if got := g.proposals[len(g.proposals)-1].Term; got != 6 {
		t.Fatalf("raised in term %d", got)
	}
	g.turn(t)
	h.steps.run()
	if got := rows(a.once(t)); got != "at 10: c=of the old term@1" {
		t.Error(got)
	}
	if got := describe(lost.once(t).Err); got != "not leader 7: replica 1 on node 1 (node1:7400) in term 6" {
		t.Error(got)
	}

	// The old leader, for its part: its raise does not get into the log, and what
	// waits for it is not served.
	a = h.send(shard.Target{Shard: 7, Version: 2, Replica: 1, Term: 6}, at(10, get("\x02c")))
	h.numbers.next = 20
	b := h.send(shard.Target{Shard: 7, Version: 2, Replica: 1, Term: 6}, at(20, get("\x02c")))
	g.follow()
	c := h.send(shard.Target{Shard: 7, Version: 2, Replica: 1, Term: 6}, at(20, get("\x02c")))
	g.turn(t)
	h.steps.run()
	if got := rows(a.once(t)); got != "at 1: of the old term" {
		t.Errorf("a read that the view covers: %s", got)
	}
	for _, a := range []*answer{b, c} {
		if got := describe(a.once(t).Err); got != "not leader 7: replica 2 on node 2 (node2:7400) in term 7" {
			t.Error(got)
		}
	}
	h.idle()
}

// One raise is in flight; the next one goes to the largest revision that waits.
func TestRaisesAreBatched(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.numbers.highest = 100
	var answers []*answer
	for _, rev := range []shard.Revision{10, 20, 40, 30, 20, 5} {
		answers = append(answers, h.send(target(7), at(rev, scan("\x02b", "\x02m"))))
	}
	if len(g.proposals) != 1 {
		t.Fatalf("%d raises in flight", len(g.proposals))
	}
	g.turn(t)
	if n := h.steps.run(); len(g.proposals) != 1 {
		t.Fatalf("%d raises in flight after %d steps", len(g.proposals), n)
	}
	if got := rows(answers[0].once(t)); got != "at 10:" {
		t.Error(got)
	}
	if got := rows(answers[5].once(t)); got != "at 5:" { // served on the way
		t.Error(got)
	}
	answers[1].waits(t)
	g.turn(t)
	h.steps.run()
	for i, want := range []string{"at 10:", "at 20:", "at 40:", "at 30:", "at 20:", "at 5:"} {
		if got := rows(answers[i].once(t)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if s := h.store.Stats(); s.Raises != 2 || r.lastRevision.Load() != 40 || len(g.proposals) != 0 {
		t.Errorf("%d raises, to %d", s.Raises, r.lastRevision.Load())
	}
	h.idle()
}

// However a raise ends, those who wait for it hear of it, and the next one is sent.
func TestRaiseErrors(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.numbers.highest = 100
	g.refusal = shard.ErrBusy
	if p := h.send(target(7), at(10, get("\x02k"))).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	g.refusal = nil
	for _, x := range []struct {
		res       raftgroup.Result
		err, want error
	}{
		{err: shard.ErrUndetermined, want: shard.ErrUnavailable},
		{err: shard.ErrDropped, want: shard.ErrUnavailable},
		{err: shard.ErrStopped, want: shard.ErrStopped},
		{res: raftgroup.Result{Err: &shard.WrongShardError{Shard: 7}}},
	} {
		a := h.send(target(7), at(10, get("\x02k")))
		a.waits(t)
		p := g.proposals[0]
		g.proposals = nil
		b := h.send(target(7), at(10, get("\x02k"))) // for the next one
		p.Done(x.res, x.err)
		got := a.once(t).Err
		var wrong *shard.WrongShardError
		if x.want != nil && !errors.Is(got, x.want) || x.want == nil && !errors.As(got, &wrong) {
			t.Errorf("%v, want %v", got, x.want)
		}
		b.waits(t)
		h.steps.run()
		if len(g.proposals) != 1 {
			t.Fatalf("%d raises are in flight", len(g.proposals))
		}
		p = g.proposals[0]
		g.proposals = nil
		p.Done(raftgroup.Result{}, shard.ErrUndetermined)
		b.once(t)
	}
	h.idle()
}

// Any replica serves what it has, and sends away what it has not.
func TestReadAtAnyReplica(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	for i := range 3 {
		h.write(g, "\x02k", fmt.Sprint(i+1))
	}
	h.numbers.next = 10
	g.follow()
	if got := rows(h.read(g, anywhere(at(2, get("\x02k"))))); got != "at 2: 2" {
		t.Error(got)
	}
	if got := rows(h.read(g, anywhere(at(3, scan("\x02b", "\x02m"))))); got != "at 3: k=3@3" {
		t.Error(got)
	}
	tg := target(7)
	tg.Version++
	for _, x := range []struct {
		t shard.Target
		c shard.Command
	}{
		{target(7), at(2, get("\x02k"))},            // wants the leader
		{target(7), anywhere(at(4, get("\x02k")))},  // too new
		{tg, anywhere(at(2, get("\x02k")))},         // knows a newer epoch
		{target(7), anywhere(at(10, get("\x02k")))}, // a raise is the leader's
	} {
		if got := describe(h.send(x.t, x.c).once(t).Err); got != "not leader 7: replica 2 on node 2 (node2:7400) in term 6" {
			t.Errorf("%+v: %s", x.c, got)
		}
	}
	if got := describe(h.send(target(7), anywhere(at(2, get("\x02z")))).once(t).Err); got != "wrong shard 7 [7]" {
		t.Error(got)
	}
	tg.Version = 1
	if got := describe(h.send(tg, anywhere(at(2, get("\x02k")))).once(t).Err); got != "wrong shard 7 [7]" {
		t.Error(got)
	}
	if len(h.numbers.asked) != 0 || len(g.proposals) != 0 || len(g.reads) != 0 {
		t.Error("a follower asks or proposes")
	}
	// The leader raises its shard for a read that it might have been spared.
	g.lead(7)
	a := h.send(target(7), anywhere(at(10, get("\x02k"))))
	g.turn(t)
	h.steps.run()
	if got := rows(a.once(t)); got != "at 3: 3" {
		t.Error(got)
	}
	h.idle()
}

// A scan of the latest state is one of the revision that was noted before its view
// was opened, so that its later pages can be read at it.
func TestScanOfTheLatestStateHasARevision(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	if got := rows(h.read(g, scan("\x02b", "\x02m"))); got != "at 0:" {
		t.Errorf("of an empty shard: %s", got)
	}
	h.write(g, "\x02c", "old")
	h.write(g, "\x02d", "old")
	open := h.store.openView
	h.store.openView = func() view {
		h.store.openView = open
		h.write(g, "\x02c", "new") // after the note, before the view is opened
		return open()
	}
	c := scan("\x02b", "\x02m")
	c.Limit = 1
	p := h.read(g, c)
	if got := rows(p); got != "at 2: c=old@1" {
		t.Fatal(got)
	}
	h.write(g, "\x02d", "new")
	c.Start, c.Revision = p.Result.Resume, p.Result.Revision
	if got := rows(h.read(g, c)); got != "at 2: d=old@2" {
		t.Error(got)
	}
	if got := rows(h.read(g, scan("\x02b", "\x02m"))); got != "at 4: c=new@3 d=new@4" {
		t.Error(got)
	}
	_, meta := h.shard(shard.MetaID, "\x01", "\x02")
	a := h.send(target(1), put("\x01k", "value"))
	meta.turn(t)
	a.once(t)
	if got := rows(h.read(meta, scan("\x01", "\x02"))); got != "at 0: k=value@0" {
		t.Errorf("of the system keyspace: %s", got)
	}
	h.idle()
}

// The floor passes a read on its way: the view that it gets may lack versions.
func TestFloorOvertakesARead(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	for i := range 5 {
		h.write(g, "\x02k", fmt.Sprint(i+1))
	}
	overtake := func(floor shard.Revision) {
		open := h.store.openView
		h.store.openView = func() view {
			h.store.openView = open
			h.write(g, "\x02k", "later")
			g.floor(t, floor)
			return open()
		}
	}
	overtake(4)
	a := h.send(target(7), at(3, get("\x02k")))
	h.steps.run()
	if p := a.once(t); !errors.Is(p.Err, shard.ErrCompacted) {
		t.Errorf("%+v", p)
	}
	// A scan of the latest state has a revision above it by then.
	overtake(7)
	if got := rows(h.read(g, scan("\x02b", "\x02m"))); got != "at 7: k=later@7" {
		t.Error(got)
	}
	if s := h.store.Stats(); s.ReadRetries != 1 {
		t.Errorf("%+v", s)
	}
	h.idle()
}

// floor applies a floor, as a leader proposes it.
func (g *fakeGroup) floor(t testing.TB, floor shard.Revision) {
	t.Helper()
	g.mu.Lock()
	others := g.proposals
	g.proposals = nil
	g.mu.Unlock()
	p := &raftgroup.Proposal{Term: g.term,
		Header: machine.AppendHeader(nil, machine.Header{Version: g.machine.(turn).machine.State().Descriptor.Epoch.Version}),
		Body:   shard.AppendCommand(nil, &shard.Command{Kind: shard.KindFloor, Revision: floor}),
		Done: func(res raftgroup.Result, err error) {
			if err != nil || res.Err != nil {
				t.Error(res, err)
			}
		}}
	g.proposals = []*raftgroup.Proposal{p}
	g.turn(t)
	g.proposals = slices.Concat(others, g.proposals)
}

// A replica that lost its leadership while it was asked whether the revision was
// handed out proposes nothing.
func TestReadAtOfALeaderThatWas(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.numbers.heldAsks, h.numbers.highest = true, 10
	a := h.send(target(7), at(10, get("\x02k")))
	g.follow()
	h.numbers.questions[0]()
	if got := describe(a.once(t).Err); got != "not leader 7: replica 2 on node 2 (node2:7400) in term 6" {
		t.Error(got)
	}
	if len(g.proposals) != 0 {
		t.Error("it proposes a raise")
	}
	h.idle()
}
