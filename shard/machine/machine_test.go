package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

func TestVersions(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	if res := b.must(user(5, shard.KindPut, "k", "one")); res.Revision != 5 || res.Err != nil {
		t.Errorf("%+v", res)
	}
	if res := b.must(user(9, shard.KindPut, "k", "two")); res.Revision != 9 {
		t.Errorf("%+v", res)
	}
	if res := b.must(user(10, shard.KindDelete, "k", "")); res.Revision != 10 || res.Err != nil {
		t.Errorf("%+v", res)
	}
	b.end()
	s := b.m.State()
	if s.LastRevision != 10 || s.Versions != 3 || s.Bytes != 3*2+6 || s.Applied != 13 || b.m.Applied() != (raftgroup.Position{Index: 13, Term: 1}) {
		t.Errorf("%+v", s)
	}
	v := b.engine.NewView()
	defer v.Close()
	for at, want := range map[shard.Revision]string{4: "", 5: "one 5", 8: "one 5", 9: "two 9", 10: "", shard.MaxRevision: ""} { //order-free: independent cases
		value, rev, found, err := v.Get([]byte("\x02k"), at)
		got := ""
		if found {
			got = fmt.Sprint(string(value), " ", rev)
		}
		if err != nil || got != want {
			t.Errorf("at %d: %q, %v, want %q", at, got, err, want)
		}
	}
}

// What every replica refuses alike changes nothing and is told to the proposer.
func TestDeterministicRefusals(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(user(5, shard.KindPut, "k", "one"))
	b.end()
	before := *b.m.State()
	put := shard.Command{Kind: shard.KindPut, Key: []byte("\x02k"), Value: []byte("x")}
	at := func(key string) shard.Command { c := put; c.Key = []byte(key); return c }
	var wrong *shard.WrongShardError
	var invalid *shard.InvalidError
	for _, c := range []struct {
		name string
		op   []byte
		want any
	}{
		{"an older epoch", operation(6, 1, put), &wrong},
		{"a newer epoch", operation(6, 3, put), &wrong},
		{"a key before the span", operation(6, 2, at("\x02a")), &wrong},
		{"the key at the span's end", operation(6, 2, at("\x02y")), &wrong},
		{"a key of the other keyspace", operation(0, 2, at("\x01k")), &wrong},
		{"the same revision again", operation(5, 2, put), ErrStaleRevision},
		{"a smaller revision", operation(4, 2, put), ErrStaleRevision},
		{"no revision", operation(0, 2, put), ErrStaleRevision},
		{"an increment with a revision", operation(6, 2, shard.Command{Kind: shard.KindIncrement, Key: []byte("\x02k")}), &invalid},
	} {
		res := b.must(c.op)
		ok := false
		switch want := c.want.(type) {
		case error:
			ok = errors.Is(res.Err, want)
		default:
			ok = errors.As(res.Err, want)
		}
		if !ok || res.Revision != 0 {
			t.Errorf("%s: %+v", c.name, res)
		}
	}
	if !errors.As(b.must(operation(6, 1, put)).Err, &wrong) || len(wrong.Descriptors) != 1 || wrong.Descriptors[0].Epoch.Version != 2 {
		t.Errorf("the current descriptor is not told: %v", wrong)
	}
	b.end()
	after := *b.m.State()
	if after.LastRevision != before.LastRevision || after.Versions != before.Versions || after.Bytes != before.Bytes {
		t.Errorf("%+v became %+v", before, after)
	}
	if res := b.must(user(6, shard.KindPut, "k", "two")); res.Err != nil {
		t.Error(res.Err)
	}

	meta := newBench(t, systemState())
	defer meta.close()
	if res := meta.must(operation(1, 2, at("\x01k"))); !errors.As(res.Err, &invalid) {
		t.Errorf("a revision in the system keyspace: %+v", res)
	}
}

// Bytes that no leader can have proposed stop the replica, and the entry that
// has them counts as not applied.
func TestCorruptionIsAnError(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(user(5, shard.KindPut, "k", "one"))
	before := *b.m.State()
	if _, err := b.apply(user(6, shard.KindPut, "k", "two")); err != nil {
		t.Fatal(err)
	}
	for _, op := range [][]byte{
		nil, {9, 1, 1}, {operationFormat}, user(7, shard.KindPut, "k", "x")[:8],
		operation(7, 2, shard.Command{Kind: shard.KindGet, Key: []byte("\x02k")}),
		operation(7, 2, shard.Command{Kind: shard.KindScan, Start: []byte("\x02k"), End: []byte("\x02l")}),
		operation(7, 2, shard.Command{Kind: shard.KindPut}),
	} {
		if _, err := b.more(op); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%x: %v", op, err)
		}
	}
	if got := *b.m.State(); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("state %+v, before the entry %+v", got, before)
	}
	// The turn ends with the entry before.
	b.index--
	b.end()
	if s := b.m.State(); s.Applied != 11 || s.LastRevision != 5 {
		t.Errorf("%+v", s)
	}
}

func TestTheLogIsWalkedForwardOnce(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(user(5, shard.KindPut, "k", "one"))
	b.end()
	b.index--
	if _, err := b.apply(user(6, shard.KindPut, "k", "two")); err == nil {
		t.Error("an applied entry is applied again")
	}
	if _, err := b.m.Apply(b.batch, raftgroup.Position{Index: 12, Term: 0}, user(6, shard.KindPut, "k", "two")); err == nil {
		t.Error("an entry of an earlier term follows")
	}
	if err := b.m.EndApply(b.batch, raftgroup.Position{Index: 11, Term: 1}); err == nil {
		t.Error("a turn without an entry ends")
	}
	b.batch.Close()
	m := New(nil, nil)
	if _, err := m.Apply(nil, raftgroup.Position{Index: 1, Term: 1}, nil); err == nil || m.Initialized() {
		t.Error("an uninitialized machine applies")
	}
	if err := m.EndApply(nil, raftgroup.Position{Index: 1, Term: 1}); err == nil {
		t.Error("an uninitialized machine ends a turn")
	}
	m.Reset(userState())
	if !m.Initialized() || m.Applied() != (raftgroup.Position{Index: 10, Term: 1}) {
		t.Errorf("after Reset: %+v", m.Applied())
	}
}

func counter(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Each step is carried out in one turn and in turns of its own: what a command
// sees must not depend on that.
func TestUnversionedCommands(t *testing.T) {
	key, other := []byte("\x01k"), []byte("\x01o")
	inc := func(n uint64) shard.Command { return shard.Command{Kind: shard.KindIncrement, Key: key, Delta: n} }
	steps := []struct {
		c    shard.Command
		want string
	}{
		{inc(5), "false " + counter(5)},
		{inc(2), "true " + counter(7)},
		{inc(1<<64 - 1), "invalid"},
		{inc(0), "true " + counter(7)},
		{shard.Command{Kind: shard.KindPut, Key: key, Value: []byte("text")}, "false "},
		{inc(1), "invalid"},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: []byte("wrong"), Value: []byte("x")}, "false text"},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, ExpectAbsent: true, Value: []byte("x")}, "false text"},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: []byte("text"), Value: []byte("next")}, "true "},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: []byte("next"), Remove: true}, "true "},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: []byte{}, Value: []byte("x")}, "false "}, // absent is not empty
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, ExpectAbsent: true, Value: nil}, "true "},
		{shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: []byte{}, Value: []byte("full")}, "true "},
		{shard.Command{Kind: shard.KindDelete, Key: key}, "false "},
		{inc(3), "false " + counter(3)},
		{shard.Command{Kind: shard.KindDelete, Key: other}, "false "},
	}
	for _, turns := range []string{"one turn", "a turn each"} {
		t.Run(turns, func(t *testing.T) {
			b := newBench(t, systemState())
			defer b.close()
			for i, s := range steps {
				res := b.must(system(s.c))
				got := fmt.Sprint(res.Found, " ", string(res.Data))
				var invalid *shard.InvalidError
				if errors.As(res.Err, &invalid) {
					got = "invalid"
				}
				if got != s.want || res.Revision != 0 {
					t.Errorf("step %d: %q %+v, want %q", i, got, res, s.want)
				}
				if turns != "one turn" {
					b.end()
				}
			}
			b.end()
			if s := b.m.State(); s.LastRevision != 0 {
				t.Errorf("%+v", s)
			}
			v := b.engine.NewView()
			defer v.Close()
			if value, rev, found, err := v.Get(key, shard.MaxRevision); string(value) != counter(3) || rev != 0 || !found || err != nil {
				t.Errorf("%x %d %v %v", value, rev, found, err)
			}
			if len(b.m.staged.values) != 0 || b.m.staged.view != nil {
				t.Error("a published turn leaves something staged")
			}
		})
	}
}

func TestMembershipIsAppliedOnce(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	d := b.m.State().Descriptor
	m := shard.MembershipChange{Shard: d.ID, Epoch: d.Epoch, Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 2, Node: 2}}}
	change := shard.AppendMembershipChange(nil, &m)
	apply := func(change []byte) (bool, raftgroup.Result, error) {
		b.index++
		return b.m.ApplyMembership(raftgroup.Position{Index: b.index, Term: 1}, change)
	}
	b.batch = b.engine.NewBatch()
	if accepted, res, err := apply(change); !accepted || res.Err != nil || err != nil {
		t.Fatal(accepted, res, err)
	}
	var wrong *shard.WrongShardError
	if accepted, res, err := apply(change); accepted || !errors.As(res.Err, &wrong) || err != nil {
		t.Error(accepted, res, err)
	}
	if _, _, err := apply(change[:3]); !errors.Is(err, shard.ErrMalformed) {
		t.Error(err)
	}
	b.end()
	b.restart()
	got := b.m.State().Descriptor
	if len(got.Replicas) != 2 || got.Epoch != (shard.Epoch{Version: 2, ConfVersion: 2}) || got.NextReplica != 3 || len(d.Replicas) != 1 {
		t.Errorf("%+v, before %+v", got, d)
	}
	// A change of the membership leaves the epoch that operations compare alone.
	if res := b.must(user(5, shard.KindPut, "k", "v")); res.Err != nil {
		t.Error(res.Err)
	}
	b.end()
}

// The same log gives the same results, state and data, wherever its turns are
// cut and whenever the store is closed and opened in between.
func TestStateDoesNotDependOnTheTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := userState
		draw := drawUser
		if rapid.Bool().Draw(t, "system") {
			state, draw = systemState, drawSystem
		}
		var ops [][]byte
		for i := range rapid.IntRange(1, 30).Draw(t, "operations") {
			ops = append(ops, draw(t, i))
		}
		one, cut := newBench(t, state()), newBench(t, state())
		defer one.close()
		defer func() { cut.close() }()
		for _, op := range ops {
			want := one.must(op)
			got := cut.must(op)
			if w, g := fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got); w != g {
				t.Fatalf("%x gave %s and %s", op, w, g)
			}
			switch rapid.IntRange(0, 5).Draw(t, "then") {
			case 0, 1:
				cut.end()
			case 2:
				cut.end()
				cut.restart()
			}
		}
		one.end()
		cut.end()
		if w, g := one.dump(3, 10, 20), cut.dump(3, 10, 20); w != g {
			t.Fatalf("one turn:\n%s\nmany:\n%s", w, g)
		}
	})
}

func drawUser(t *rapid.T, i int) []byte {
	kind := shard.KindPut
	if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
		kind = shard.KindDelete
	}
	key := rapid.SampledFrom([]string{"a", "b", "bb", "k", "x", "y"}).Draw(t, "key")
	value := ""
	if kind == shard.KindPut {
		value = rapid.StringN(0, 5, 10).Draw(t, "value")
	}
	rev := shard.Revision(max(0, i+rapid.IntRange(-2, 2).Draw(t, "revision")))
	return user(rev, kind, key, value)
}

func drawSystem(t *rapid.T, _ int) []byte {
	c := shard.Command{
		Kind: shard.Kind(rapid.IntRange(int(shard.KindPut), int(shard.KindCompareAndPut)).Draw(t, "kind")),
		Key:  []byte("\x01" + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")),
	}
	values := []string{"", "v", counter(1), counter(2)}
	switch c.Kind {
	case shard.KindPut:
		c.Value = []byte(rapid.SampledFrom(values).Draw(t, "value"))
	case shard.KindIncrement:
		c.Delta = rapid.Uint64Range(0, 2).Draw(t, "delta")
	case shard.KindCompareAndPut:
		c.Expect = []byte(rapid.SampledFrom(values).Draw(t, "expect"))
		c.Value = []byte(rapid.SampledFrom(values).Draw(t, "value"))
		c.ExpectAbsent = rapid.Bool().Draw(t, "absent")
		c.Remove = rapid.Bool().Draw(t, "remove")
	}
	return system(c)
}
