package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// watched calls a function after the store has opened a view, and counts views.
func (h *home) watched(opened func(n int)) {
	open, n := h.store.openView, 0
	h.store.openView = func() view {
		v := open()
		n++
		opened(n)
		return v
	}
}

// addLearner applies a membership change; during runs when its batch is
// committed and not published yet.
func (g *fakeGroup) addLearner(t testing.TB, during func()) {
	t.Helper()
	d := g.machine.(turn).machine.State().Descriptor
	m := shard.MembershipChange{Shard: d.ID, Epoch: d.Epoch, Changes: []shard.Change{{Kind: shard.AddLearner, Replica: d.NextReplica, Node: shard.NodeID(d.NextReplica)}}}
	b := g.h.engine.NewBatch()
	g.index++
	at := raftgroup.Position{Index: g.index, Term: g.term}
	accepted, res, err := g.machine.ApplyMembership(b, at, shard.AppendMembershipChange(nil, &m))
	if !accepted || res.Err != nil || err != nil {
		t.Fatal(accepted, res, err)
	}
	g.machine.EndApply(b, at)
	if err := g.h.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	during()
	g.machine.Published()
}

// A read whose view was opened before a change of the descriptor is read again.
func TestReadIsRetriedAcrossADescriptorChange(t *testing.T) {
	for _, kind := range []shard.Command{get("\x02k"), scan("\x02b", "\x02m")} {
		p, views := readAcrossAChange(t, kind)
		value := p.Result.Value
		if len(p.Result.Rows) > 0 {
			value = p.Result.Rows[0].Value
		}
		if p.Err != nil || string(value) != "new" || views != 2 {
			t.Errorf("%+v from %d views", p, views)
		}
	}
}

// readAcrossAChange reads a key that is written, and whose shard's descriptor changes,
// when the first view has been opened.
func readAcrossAChange(t *testing.T, c shard.Command) (p shard.Response, views int) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "old")
	h.watched(func(n int) {
		views = n
		if n == 1 {
			h.write(g, "\x02k", "new")
			g.addLearner(t, func() {})
		}
	})
	p = h.read(g, c)
	if s := h.store.Stats(); s.ReadRetries != uint64(views-1) {
		t.Errorf("%+v", s)
	}
	h.idle()
	return p, views
}

// While the descriptor changes or a snapshot is installed reads wait, and are
// answered when it is over.
func TestReadsWaitWhileTheGenerationIsOdd(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "old")
	send := func(c shard.Command) *answer {
		a := h.send(target(7), c)
		g.confirm(nil)
		h.steps.run()
		return a
	}
	var during []*answer
	g.addLearner(t, func() {
		during = append(during, send(get("\x02k")), send(scan("\x02b", "\x02m")))
		for _, a := range during {
			a.waits(t)
		}
	})
	h.steps.run()
	for _, a := range during {
		if p := a.once(t); p.Err != nil {
			t.Error(p.Err)
		}
	}

	// A snapshot that was given up: nothing has changed.
	g.machine.InstallBegin()
	a := send(get("\x02k"))
	a.waits(t)
	g.machine.InstallEnd(nil)
	h.steps.run()
	if p := a.once(t); string(p.Result.Value) != "old" {
		t.Errorf("%+v", p)
	}

	// One that narrows the span: the read finds out that it came to the wrong place.
	g.machine.InstallBegin()
	a = send(get("\x02k"))
	state, _ := r.State()
	state.Applied, state.LastRevision = 500, 90
	state.Descriptor.Span.End = []byte("\x02c")
	state.Descriptor.Epoch.Version++
	g.machine.InstallEnd(&state)
	h.steps.run()
	if got := describe(a.once(t).Err); got != "wrong shard 7 [7]" {
		t.Error(got)
	}
	if s, _ := r.State(); s.Applied != 500 || s.LastRevision != 90 {
		t.Errorf("%+v", s)
	}

	// And one that never ends, because the replica stops.
	g.machine.InstallBegin()
	tg := target(7)
	tg.Version++
	a = h.send(tg, get("\x02bb"))
	g.confirm(nil)
	h.steps.run()
	a.waits(t)
	g.machine.Stopped(shard.ErrStopped)
	if p := a.once(t); !errors.Is(p.Err, shard.ErrUnavailable) {
		t.Errorf("%+v", p)
	}
	h.idle()
}

// A read that was confirmed just before the replica stopped does not look at
// data that may be on its way out.
func TestReadAfterTheReplicaStopped(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	a := h.send(target(7), get("\x02k"))
	g.confirm(nil)
	g.machine.Stopped(shard.ErrStopped)
	h.steps.run()
	if p := a.once(t); !errors.Is(p.Err, shard.ErrUnavailable) {
		t.Errorf("%+v", p)
	}
	h.idle()
}

func TestUnconfirmedReadsAreRefused(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	a, b := h.send(target(7), get("\x02k")), h.send(target(7), scan("\x02b", "\x02m"))
	g.confirm(&shard.NotLeaderError{Shard: 7, Leader: shard.LeaderHint{Replica: 2, Node: 22, Term: 9}})
	for _, a := range []*answer{a, b} {
		if got := describe(a.once(t).Err); got != "not leader 7: replica 2 on node 22 (node22:7400) in term 9" {
			t.Error(got)
		}
	}
	g.refusal = shard.ErrBusy
	if p := h.send(target(7), get("\x02k")).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	if h.steps.run() != 0 {
		t.Error("something is read nevertheless")
	}
	h.idle()
}

// Gets of several shards share a view; no step serves more than its share.
func TestGetsShareViews(t *testing.T) {
	h := newHome(t)
	var groups []*fakeGroup
	for i := range 4 {
		_, g := h.shard(shard.ID(7+i), fmt.Sprintf("\x02%d", i), fmt.Sprintf("\x02%d", i+1))
		h.write(g, fmt.Sprintf("\x02%dk", i), fmt.Sprint("value ", i))
		groups = append(groups, g)
	}
	views := 0
	h.watched(func(n int) { views = n })
	answers := map[int][]*answer{}
	const each = getsPerView/2 + 1
	for range each {
		for i, g := range groups {
			answers[i] = append(answers[i], h.send(target(g.id), get(fmt.Sprintf("\x02%dk", i))))
		}
	}
	for _, g := range groups {
		g.confirm(nil)
	}
	h.steps.run()
	for i := range groups {
		for _, a := range answers[i] {
			if p := a.once(t); string(p.Result.Value) != fmt.Sprint("value ", i) {
				t.Fatalf("%+v", p)
			}
		}
	}
	if want := 4*each/getsPerView + 1; views != want {
		t.Errorf("%d views, want %d", views, want)
	}
	h.idle()
}

func TestPages(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	for _, k := range []string{"b", "c", "d", "e", "f"} {
		h.write(g, "\x02"+k, "value")
	}
	keys := func(p shard.Response) string {
		s := ""
		for _, r := range p.Result.Rows {
			s += shard.FormatKey(r.Key)
			if len(r.Value) == 0 {
				s += "-"
			}
		}
		if p.Result.Resume != nil {
			s += " then " + shard.FormatKey(p.Result.Resume)
		}
		if p.Err != nil {
			s += p.Err.Error()
		}
		return s
	}
	c := func(start, end string, set func(*shard.Command)) shard.Command {
		c := scan("\x02"+start, "\x02"+end)
		if end == "" {
			c.End = []byte{3}
		}
		set(&c)
		return c
	}
	for _, x := range []struct {
		name string
		c    shard.Command
		want string
	}{
		{"all of the shard", c("b", "m", func(c *shard.Command) {}), "bcdef"},
		{"within", c("c", "e", func(c *shard.Command) {}), "cd"},
		{"nothing", c("g", "h", func(c *shard.Command) {}), ""},
		{"on to the neighbour", c("d", "z", func(c *shard.Command) {}), "def then m"},
		{"nothing, and on", c("g", "", func(c *shard.Command) {}), " then m"},
		{"keys only", c("b", "d", func(c *shard.Command) { c.KeysOnly = true }), "b-c-"},
		{"reverse", c("b", "m", func(c *shard.Command) { c.Reverse = true }), "fedcb"},
		{"reverse, on to the neighbour", c("a", "d", func(c *shard.Command) { c.Reverse = true }), "cb then b"},
		{"reverse, everything below", c("", "m", func(c *shard.Command) { c.Reverse, c.Limit = true, 100 }), "fedcb then b"},
	} {
		if got := keys(h.read(g, x.c)); got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
	// Page by page, in both directions and by rows or bytes, all keys come once.
	for _, reverse := range []bool{false, true} {
		for _, set := range []func(*shard.Command){
			func(c *shard.Command) { c.Limit = 2 },
			func(c *shard.Command) { c.Bytes = 1 },
			func(c *shard.Command) { c.Limit, c.Bytes = 1<<63, 1<<63 },
		} {
			next := scan("\x02b", "\x02m")
			next.Reverse = reverse
			set(&next)
			all := ""
			for pages := 0; ; pages++ {
				p := h.read(g, next)
				for _, r := range p.Result.Rows {
					all += shard.FormatKey(r.Key)
				}
				if p.Result.Resume == nil || p.Err != nil || pages > 10 {
					break
				}
				if reverse {
					next.End = p.Result.Resume
				} else {
					next.Start = p.Result.Resume
				}
			}
			want := "bcdef"
			if reverse {
				want = "fedcb"
			}
			if all != want {
				t.Errorf("reverse %v: %q", reverse, all)
			}
		}
	}
	if bounded(0, 10) != 10 || bounded(11, 10) != 10 || bounded(9, 10) != 9 || bounded(1<<64-1, 10) != 10 {
		t.Error("bounds of a page")
	}
}

func TestReadsAreBounded(t *testing.T) {
	h := newHome(t, func(c *Config) { c.ReadsMax = 2 })
	_, g := h.shard(7, "\x02b", "\x02m")
	a, b := h.send(target(7), get("\x02k")), h.send(target(7), get("\x02k"))
	if p := h.send(target(7), get("\x02k")).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	g.confirm(nil)
	h.steps.run()
	a.once(t)
	b.once(t)
	h.idle()
	if p := h.read(g, get("\x02k")); p.Err != nil {
		t.Error(p.Err)
	}
}

// A store that cannot be read answers in words.
func TestReadErrors(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.store.openView = func() view { return broken{} }
	for _, c := range []shard.Command{get("\x02k"), scan("\x02b", "\x02m")} {
		var internal *shard.InternalError
		if p := h.read(g, c); !errors.As(p.Err, &internal) {
			t.Errorf("%+v", p)
		}
	}
	h.idle()
}

type broken struct{}

var errBroken = errors.New("a block with a bad checksum")

func (broken) Get([]byte, shard.Revision) ([]byte, shard.Revision, bool, error) {
	return nil, 0, false, errBroken
}
func (broken) Scan(storage.ScanOptions) ([]shard.Row, []byte, error) { return nil, nil, errBroken }
func (broken) Garbage(storage.GarbageOptions) (storage.Garbage, error) {
	return storage.Garbage{}, errBroken
}
func (broken) Versions([]byte, int) ([]storage.Version, error)   { return nil, errBroken }
func (broken) Walk(shard.Span, shard.Revision, int) (int, error) { return 0, errBroken }
func (broken) Sizes(storage.SizesOptions, func([]byte, int)) (storage.Sizes, error) {
	return storage.Sizes{}, errBroken
}
func (broken) Close() error { return errBroken }

func TestFifo(t *testing.T) {
	var f fifo
	pushed, taken := 0, 0
	items := make([]*read, 5000)
	for i := range items {
		items[i] = &read{id: uint64(i)}
	}
	into := make([]*read, 3)
	for pushed < len(items) {
		for range 4 {
			if pushed < len(items) {
				f.push(items[pushed])
				pushed++
			}
		}
		for range 2 {
			n := f.take(into)
			for _, rd := range into[:n] {
				if rd.id != uint64(taken) {
					t.Fatalf("%d came as number %d", rd.id, taken)
				}
				taken++
			}
		}
		if f.len() != pushed-taken {
			t.Fatalf("%d are left of %d", f.len(), pushed-taken)
		}
	}
	// Never empty and always moving, it stays small.
	for i := range 100 {
		f.push(items[i])
	}
	for range 100_000 {
		f.push(items[0])
		f.take(into[:1])
	}
	if cap(f.items) > 2048 {
		t.Errorf("grew to %d", cap(f.items))
	}
}
