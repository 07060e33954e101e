package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

func TestWriteThenRead(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	if p := h.write(g, "\x02k", "one"); p.Err != nil || p.Result.Revision != 1 {
		t.Fatalf("%+v", p)
	}
	if p := h.write(g, "\x02k", "two"); p.Err != nil || p.Result.Revision != 2 {
		t.Fatalf("%+v", p)
	}
	if p := h.read(g, get("\x02k")); p.Err != nil || !p.Result.Found || string(p.Result.Value) != "two" || p.Result.Revision != 2 {
		t.Errorf("%+v", p)
	}
	if p := h.read(g, get("\x02l")); p.Err != nil || p.Result.Found || p.Result.Revision != 0 {
		t.Errorf("%+v", p)
	}
	a := h.send(target(7), shard.Command{Kind: shard.KindDelete, Key: []byte("\x02k")})
	g.turn(t)
	if p := a.once(t); p.Err != nil || p.Result.Revision != 3 {
		t.Errorf("%+v", p)
	}
	if p := h.read(g, get("\x02k")); p.Err != nil || p.Result.Found {
		t.Errorf("%+v", p)
	}
	if s, ok := r.State(); !ok || s.LastRevision != 3 || s.Versions != 3 || s.Applied != 13 {
		t.Errorf("%+v, %v", s, ok)
	}
	s := h.store.Stats()
	if s.Puts != 2 || s.Deletes != 1 || s.Gets != 3 || s.Errors != (ErrorStats{}) {
		t.Errorf("%+v", s)
	}
	h.idle()
}

// The command travels into the log as the client encoded it, and is not copied.
func TestCommandBytesTravelUnchanged(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	c := put("\x02k", "v")
	c.Retry, c.Birth = true, 77
	q := request(target(7), c)
	h.store.Execute(q, func(shard.Response) {})
	p := g.proposals[0]
	if &p.Body[0] != &q.Command[0] || len(p.Body) != len(q.Command) || p.Term != term {
		t.Errorf("%+v", p)
	}
	if want := []byte{1, 1, 2}; !bytes.Equal(p.Header, want) { // format, revision 1, epoch version 2
		t.Errorf("header %x, want %x", p.Header, want)
	}
}

func TestRefusals(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.shard(8, "\x02m", "\x02q")
	follower, fg := h.shard(9, "\x02q", "\x02s")
	fg.machine.LeaderChanged(raftgroup.Leadership{Term: 6, Leader: 3, Node: 33})
	_ = follower
	elected, eg := h.shard(10, "\x02s", "\x02t")
	eg.machine.LeaderChanged(raftgroup.Leadership{Term: 6, Leader: 1, Node: 1})
	_ = elected
	h.replica(11, nil)

	with := func(f func(*shard.Target)) shard.Target {
		tg := target(7)
		f(&tg)
		return tg
	}
	epoch := func(v uint64) shard.Target { return with(func(t *shard.Target) { t.Version = v }) }
	of := func(id shard.ID) shard.Target { return with(func(t *shard.Target) { t.Shard = id }) }
	reverse := func(start, end string) shard.Command { c := scan(start, end); c.Reverse = true; return c }
	for _, c := range []struct {
		name string
		to   shard.Target
		c    shard.Command
		want string
	}{
		{"older epoch", epoch(1), put("\x02k", "v"), "wrong shard 7 [7]"},
		{"newer epoch", epoch(3), put("\x02k", "v"), "wrong shard 7 [7]"},
		{"older epoch, read", epoch(1), get("\x02k"), "wrong shard 7 [7]"},
		{"key of a neighbour", target(7), put("\x02n", "v"), "wrong shard 7 [7 8]"},
		{"key of nobody here", target(7), put("\x02z", "v"), "wrong shard 7 [7]"},
		{"key at the end", target(7), get("\x02m"), "wrong shard 7 [7 8]"},
		{"scan from a neighbour", target(7), scan("\x02a", "\x02c"), "wrong shard 7 [7]"},
		{"scan from the end", target(7), scan("\x02m", "\x02n"), "wrong shard 7 [7 8]"},
		{"reverse scan from the start", target(7), reverse("\x02a", "\x02b"), "wrong shard 7 [7]"},
		{"reverse scan from beyond", target(7), reverse("\x02c", "\x02n"), "wrong shard 7 [7 8]"},
		{"shard not here", of(99), put("\x02n", "v"), "wrong shard 99 [8]"},
		{"shard not here, nor the key", of(99), put("\x02z", "v"), "wrong shard 99 []"},
		{"no shard", of(0), get("\x02k"), "wrong shard 0 [7]"},
		{"term 0", with(func(t *shard.Target) { t.Term = 0 }), put("\x02k", "v"), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"term that is over", with(func(t *shard.Target) { t.Term = term - 1 }), put("\x02k", "v"), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"term to come", with(func(t *shard.Target) { t.Term = term + 1 }), put("\x02k", "v"), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"wrong replica", with(func(t *shard.Target) { t.Replica = 2 }), put("\x02k", "v"), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"wrong replica, read", with(func(t *shard.Target) { t.Replica = 2 }), get("\x02k"), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"follower", of(9), put("\x02q", "v"), "not leader 9: replica 3 on node 33 (node33:7400) in term 6"},
		{"follower, read", of(9), get("\x02q"), "not leader 9: replica 3 on node 33 (node33:7400) in term 6"},
		{"follower, older epoch", with(func(t *shard.Target) { t.Shard = 9; t.Version = 1 }), get("\x02q"), "wrong shard 9 [9]"},
		{"follower that lags behind", with(func(t *shard.Target) { t.Shard = 9; t.Version = 3 }), get("\x02q"), "not leader 9: replica 3 on node 33 (node33:7400) in term 6"},
		{"elected and not ready", with(func(t *shard.Target) { t.Shard = 10; t.Term = 6 }), put("\x02s", "v"), "not leader 10: replica 0 on node 0 () in term 0"},
		{"not initialized", of(11), put("\x02k", "v"), "not leader 11: replica 0 on node 0 () in term 0"},
		{"empty key", target(7), put("\x02", "v"), "invalid key"},
		{"no key", target(7), put("", "v"), "invalid key"},
		{"key too long", target(7), put("\x02"+string(make([]byte, shard.KeyBytesMax+1)), "v"), "invalid key"},
		{"value too long", target(7), put("\x02k", string(make([]byte, shard.ValueBytesMax+1))), "invalid value"},
		{"request too long", target(7), put("\x02k", string(make([]byte, shard.RequestBytesMax))), "invalid request"},
		{"inverted range", target(7), scan("\x02d", "\x02c"), "invalid range"},
		{"increment of a user key", target(7), shard.Command{Kind: shard.KindIncrement, Key: []byte("\x02k")}, "invalid key"},
	} {
		p := h.send(c.to, c.c).once(t)
		if got := describe(p.Err); got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, p.Err, c.want)
		}
	}
	for _, b := range [][]byte{nil, {1}, {99, 0}, bytes.Repeat([]byte{0xff}, 100)} {
		a := new(answer)
		h.store.Execute(shard.Request{ID: 1, Target: target(7), Command: b}, a.take)
		if p := a.once(t); !errors.Is(p.Err, shard.ErrMalformed) {
			t.Errorf("%x: %v", b, p.Err)
		}
	}
	if len(g.proposals)+len(g.reads)+len(fg.proposals)+len(fg.reads) != 0 {
		t.Error("something refused reached a group")
	}
	// A read is good in any term.
	late := target(7)
	late.Term = 0
	a := h.send(late, get("\x02k"))
	g.confirm(nil)
	h.steps.run()
	if p := a.once(t); p.Err != nil {
		t.Error(p.Err)
	}
	e := h.store.Stats().Errors
	if e.Invalid != 11 || e.WrongShard != 14 || e.NotLeader != 10 {
		t.Errorf("%+v", e)
	}
	h.idle()
}

func describe(err error) string {
	var wrong *shard.WrongShardError
	var leader *shard.NotLeaderError
	var invalid *shard.InvalidError
	switch {
	case errors.As(err, &wrong):
		ids := []shard.ID{}
		for _, d := range wrong.Descriptors {
			ids = append(ids, d.ID)
		}
		return fmt.Sprint("wrong shard ", wrong.Shard, " ", ids)
	case errors.As(err, &leader):
		l := leader.Leader
		return fmt.Sprintf("not leader %d: replica %d on node %d (%s) in term %d", leader.Shard, l.Replica, l.Node, l.Address, l.Term)
	case errors.As(err, &invalid):
		return "invalid " + invalid.Field
	}
	return fmt.Sprint(err)
}

// Clients read the system keyspace; only nodes write it.
func TestSystemKeyspaceIsGuarded(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(shard.MetaID, "\x01", "\x02")
	for _, c := range []shard.Command{
		put("\x01k", "v"),
		{Kind: shard.KindDelete, Key: []byte("\x01k")},
		{Kind: shard.KindIncrement, Key: []byte("\x01k"), Delta: 1},
		{Kind: shard.KindCompareAndPut, Key: []byte("\x01k"), ExpectAbsent: true},
	} {
		a := new(answer)
		h.store.Execute(request(target(shard.MetaID), c), a.take)
		if got := describe(a.once(t).Err); got != "invalid key" {
			t.Errorf("kind %d: %s", c.Kind, got)
		}
	}
	// A node's write is for one term too, though it waits for no draw.
	late := target(shard.MetaID)
	late.Term--
	if got := describe(h.send(late, put("\x01k", "v")).once(t).Err); got != "not leader 1: replica 1 on node 1 (node1:7400) in term 5" {
		t.Error(got)
	}
	if len(g.proposals) != 0 {
		t.Error("what is refused was proposed")
	}
	if p := h.write(g, "\x01k", "v"); p.Err != nil || p.Result.Revision != 0 {
		t.Errorf("%+v", p)
	}
	for _, c := range []shard.Command{get("\x01k"), scan("\x01", "\x02")} {
		a := new(answer)
		h.store.Execute(request(target(shard.MetaID), c), a.take)
		g.confirm(nil)
		h.steps.run()
		if p := a.once(t); p.Err != nil || !p.Result.Found && len(p.Result.Rows) != 1 {
			t.Errorf("%+v", p)
		}
		c.Revision = 1
		if got := describe(h.send(target(shard.MetaID), c).once(t).Err); got != "invalid revision" {
			t.Errorf("at a revision: %s", got)
		}
	}
}

// Writes without versions draw no revision, and see each other within a turn.
func TestUnversionedWritesSeeEachOther(t *testing.T) {
	h := newHome(t)
	h.numbers.fail = errors.New("nothing may be drawn")
	_, g := h.shard(shard.MetaID, "\x01", "\x02")
	inc := shard.Command{Kind: shard.KindIncrement, Key: []byte("\x01k"), Delta: 2}
	a, b := h.send(target(shard.MetaID), inc), h.send(target(shard.MetaID), inc)
	cas := h.send(target(shard.MetaID), shard.Command{Kind: shard.KindCompareAndPut, Key: []byte("\x01k"), Expect: []byte{0, 0, 0, 0, 0, 0, 0, 4}, Value: []byte("four")})
	if n := g.turn(t); n != 3 {
		t.Fatalf("%d proposals", n)
	}
	if p := a.once(t); p.Err != nil || p.Result.Value[7] != 2 {
		t.Errorf("%+v", p)
	}
	if p := b.once(t); p.Err != nil || p.Result.Value[7] != 4 {
		t.Errorf("%+v", p)
	}
	if p := cas.once(t); p.Err != nil || !p.Result.Found {
		t.Errorf("%+v", p)
	}
	if p := h.read(g, get("\x01k")); string(p.Result.Value) != "four" || p.Result.Revision != 0 {
		t.Errorf("%+v", p)
	}
	if s := h.store.Stats(); s.SystemWrites != 3 || s.Puts != 0 {
		t.Errorf("%+v", s)
	}
}
