package machine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// step is a command at a revision, and what its caller is told.
type step struct {
	rev  shard.Revision
	op   uint64
	c    shard.Command
	want string
}

// play carries the steps out in one turn, in turns of their own, and in turns of
// their own with a restart after each. What a command sees must not depend on that.
func play(t *testing.T, steps []step, check func(t *testing.T, b *bench)) {
	t.Helper()
	for _, turns := range []string{"one turn", "a turn each", "a restart after each"} {
		t.Run(turns, func(t *testing.T) {
			b := newBench(t, userState())
			defer func() { b.close() }()
			for i, s := range steps {
				if got := told(b.must(versioned(s.rev, s.op, s.c))); got != s.want {
					t.Errorf("step %d: %s; want %s", i, got, s.want)
				}
				if turns != "one turn" {
					b.end()
				}
				if turns == "a restart after each" {
					b.restart()
				}
			}
			b.end()
			if check != nil {
				check(t, b)
			}
		})
	}
}

// content is what the shard's keys hold now, and its versions.
func (b *bench) content() string {
	v := b.engine.NewView()
	defer v.Close()
	rows, _, err := v.Scan(storage.ScanOptions{Span: userState().Descriptor.Span, At: shard.MaxRevision, RowsMax: 1000})
	var s []string
	for _, r := range rows {
		s = append(s, fmt.Sprintf("%s=%s@%d", r.Key[1:], r.Value, r.Revision))
	}
	if err != nil {
		b.t.Fatalf("scan: %v", err)
	}
	return strings.Join(s, " ")
}

func expect(t *testing.T, b *bench, content string, last shard.Revision, versions uint64) {
	t.Helper()
	if got := b.content(); got != content {
		t.Errorf("content %q, want %q", got, content)
	}
	if s := b.m.State(); s.LastRevision != last || s.Versions != versions {
		t.Errorf("last revision %d and %d versions, want %d and %d", s.LastRevision, s.Versions, last, versions)
	}
}

func TestBatch(t *testing.T) {
	play(t, []step{
		{5, 1, put("a0", "x"), "*shard.WrongShardError: " + wrongShard},
		{5, 1, put("k", "one"), "at 5"},
		// All writes at one revision; compares and gets are of the state before.
		{7, 2, batch("k=one k@5 +k -l", "k=two l=new ?m ?n", "k=no"), "at 7 holds [ @7] [ @7] [ @0] [ @0]"},
		{9, 3, batch("", "?k ?l k=three -l", ""), "at 9 holds [two @7] [new @7] [ @9] [ @9]"},
		// A key that was removed is as absent as one that never was.
		{10, 4, batch("-l -m", "?l ?m", "k=no"), "at 0 holds [ @0] [ @0]"},
		{11, 5, batch("+l", "k=no", "?k"), "at 0 [three @9]"},
		{12, 6, batch("l@9", "k=no", ""), "at 0"},
		{13, 7, batch("l=", "k=no", ""), "at 0"},
		{14, 8, batch("k@7", "k=no", ""), "at 0"},
		{15, 9, batch("k@10", "k=no", ""), "at 0"},
		{16, 10, batch("k=three k=two", "k=no", "e=else -k"), "at 16 [ @16] [ @16]"},
		{17, 11, batch("-k +e", "k=", ""), "at 17 holds [ @17]"},
		{18, 12, batch("k=", "?k", "k=no"), "at 0 holds [ @17]"}, // empty is not absent
		// A batch that wrote nothing took its revision all the same: what it was told
		// must not be changed below it.
		{18, 13, put("k", "late"), "*errors.errorString: " + ErrStaleRevision.Error()},
	}, func(t *testing.T, b *bench) {
		expect(t, b, "e=else@16 k=@17", 18, 8)
	})
}

const wrongShard = "shard 7 does not serve this key in this epoch here; shard 7 at epoch 2.1 covers [b, y)"

// A batch that asks for more than an answer can hold is refused whole.
func TestBatchGetsAreBounded(t *testing.T) {
	half := string(make([]byte, shard.PageBytesMax/2))
	play(t, []step{
		{1, 1, put("a", half), "*shard.WrongShardError: " + wrongShard},
		{1, 1, put("c", half), "at 1"},
		{2, 2, put("d", half), "at 2"},
		{3, 3, put("e", "x"), "at 3"},
		{4, 4, batch("", "?c ?d ?e x=1", ""), "*shard.InvalidError: batch gets more than 4194304 bytes of values"},
		{4, 5, batch("+x", "", "x=2"), "at 4 [ @4]"},
	}, func(t *testing.T, b *bench) {
		if s := b.m.State(); s.LastRevision != 4 || s.Versions != 4 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeleteRange(t *testing.T) {
	play(t, []step{
		{1, 1, batch("", "c=1 d=1 e=1 f=1 g=1 h=1", ""), "at 1 holds [ @1] [ @1] [ @1] [ @1] [ @1] [ @1]"},
		{2, 2, remove("d"), "at 2"},
		{3, 3, put("g", "2"), "at 3"},
		// The first two that have a value; the next piece begins after the last one.
		{4, 4, deleteRange("c", "h", 2), "at 4 count 2 resume \"e\\x00\""},
		{5, 5, put("d", "back"), "at 5"},
		{6, 6, deleteRange("d\x00", "h", 9), "at 6 count 2"},
		{7, 7, deleteRange("e", "h", 9), "at 0"},
		{8, 8, deleteRange("b", "d\x00", 1), "at 8 count 1"}, // nothing is left behind its last key
		{8, 9, put("h", "late"), "*errors.errorString: " + ErrStaleRevision.Error()},
		{9, 9, deleteRange("b", "y", 1), "at 9 count 1 resume \"h\\x00\""},
		{10, 10, deleteRange("b", "y", 1), "at 0"},
		{11, 11, deleteRange("a", "y", 1), "*shard.WrongShardError: " + wrongShard},
		{11, 12, deleteRange("b", "z", 1), "*shard.WrongShardError: " + wrongShard},
	}, func(t *testing.T, b *bench) {
		expect(t, b, "", 10, 6+1+1+2+1+2+1+1)
	})
}

// How many versions and tombstones lie on the way differs from replica to replica:
// a delete-range must not end early because of them, as a page of a scan does.
func TestDeleteRangePassesLongRunsOfTombstones(t *testing.T) {
	full, swept := newBench(t, userState()), newBench(t, userState())
	defer full.close()
	defer swept.close()
	batch := full.engine.NewBatch()
	for i := range 41_000 { // more than two pages look at
		batch.PutVersion(fmt.Appendf(nil, "\x02c%05d", i), 1, storage.VersionHeader{Tombstone: true}, nil)
	}
	if err := full.engine.Commit(batch); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*bench{full, swept} {
		b.must(versioned(2, 1, put("d", "x")))
		b.end()
		for i, want := range []string{"at 3 count 1", "at 0"} {
			if got := told(b.must(versioned(shard.Revision(3+i), 2, deleteRange("c", "e", 7)))); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		b.end()
	}
}

func TestRaise(t *testing.T) {
	b := newBench(t, userState())
	defer func() { b.close() }()
	b.must(user(5, shard.KindPut, "k", "one"))
	raise := func(rev, want shard.Revision) {
		t.Helper()
		got := told(b.must(operation(rev, 2, shard.Command{Kind: shard.KindRaise})))
		if last := b.m.State().LastRevision; got != "at 0" || last != want {
			t.Errorf("to %d: %s, to %d; want %d", rev, got, last, want)
		}
	}
	raise(9, 9)
	raise(7, 9) // one that comes too late is no mistake
	raise(0, 9)
	if res := b.must(user(9, shard.KindPut, "k", "below")); res.Err != ErrStaleRevision {
		t.Errorf("a write at a revision that may have been read at: %+v", res)
	}
	b.must(user(10, shard.KindPut, "k", "two"))
	b.end()
	b.restart()
	expect(t, b, "k=two@10", 10, 2)
	if got := told(b.must(operation(11, 1, shard.Command{Kind: shard.KindRaise}))); got != "*shard.WrongShardError: "+wrongShard {
		t.Error("in another epoch:", got)
	}
	b.end()
	expect(t, b, "k=two@10", 10, 2)
}

func TestFloor(t *testing.T) {
	b := newBench(t, userState())
	defer func() { b.close() }()
	floor := func(c, want shard.Revision) {
		t.Helper()
		res := b.must(operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: c}))
		if got := b.m.State().Floor; res.Err != nil || got != want {
			t.Errorf("to %d: %d, %v; want %d", c, got, res.Err, want)
		}
	}
	floor(9, 0) // never above what there is
	b.must(user(5, shard.KindPut, "k", "one"))
	floor(3, 3)
	floor(2, 3) // never down
	floor(9, 5)
	b.must(user(8, shard.KindPut, "k", "two"))
	b.end()
	b.restart()
	floor(0, 5)
	floor(6, 6)
	if got := told(b.must(operation(0, 3, shard.Command{Kind: shard.KindFloor, Revision: 7}))); got != "*shard.WrongShardError: "+wrongShard {
		t.Error("in another epoch:", got)
	}
	floor(0, 6)
	b.end()
	expect(t, b, "k=two@8", 8, 2)
}

// Kinds that are for keys with versions, on the shard that has none, and the other
// way round.
func TestCommandsKeepToTheirKeyspace(t *testing.T) {
	meta := newBench(t, systemState())
	defer meta.close()
	meta.must(system(shard.Command{Kind: shard.KindPut, Key: []byte("\x01k"), Value: []byte("v")}))
	const forVersions = "*shard.InvalidError: command is for keys with versions"
	for _, c := range []struct {
		op   []byte
		want string
	}{
		{operation(0, 2, shard.Command{Kind: shard.KindRaise}), forVersions},
		{operation(9, 2, shard.Command{Kind: shard.KindRaise}), forVersions},
		{operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: 1}), forVersions},
		{operation(9, 2, shard.Command{Kind: shard.KindBatch, Then: []shard.BatchOp{{Kind: shard.KindPut, Key: []byte("\x01k")}}}), forVersions},
		{operation(9, 2, shard.Command{Kind: shard.KindDeleteRange, Start: []byte("\x01a"), End: []byte("\x01z"), Limit: 1}), forVersions},
	} {
		if got := told(meta.must(c.op)); got != c.want {
			t.Errorf("%x: %s, want %s", c.op, got, c.want)
		}
	}
	meta.end()
	if s := meta.m.State(); s.LastRevision != 0 || s.Floor != 0 || s.Versions != 1 {
		t.Errorf("%+v", s)
	}
}

// An entry that cannot be applied leaves nothing, neither in the state nor for
// what later operations would see.
func TestFailedEntryLeavesNothing(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(versioned(5, 1, put("k", "one")))
	b.must(operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: 3}))
	if _, err := b.apply(versioned(6, 2, put("k", "two"))); err != nil {
		t.Fatal(err)
	}
	for _, op := range [][]byte{
		versioned(7, 3, batch("k=two", "l=1", "")), operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: 6}),
		operation(8, 2, shard.Command{Kind: shard.KindRaise}),
	} {
		if res, err := b.more(op); res.Err != nil || err != nil {
			t.Fatal(res, err)
		}
	}
	if s := b.m.State(); s.LastRevision != 8 || s.Floor != 6 || s.Versions != 3 {
		t.Errorf("%+v", s)
	}
	if _, err := b.more([]byte{9}); err == nil {
		t.Fatal("no error")
	}
	if s := b.m.State(); s.LastRevision != 5 || s.Floor != 3 || s.Versions != 1 {
		t.Errorf("%+v", s)
	}
	if got := told(b.must(versioned(6, 4, batch("", "?k ?l", "")))); got != "at 0 holds [one @5] [ @0]" {
		t.Error(got)
	}
	b.end()

	meta := newBench(t, systemState())
	defer meta.close()
	inc := system(shard.Command{Kind: shard.KindIncrement, Key: []byte("\x01k"), Delta: 5})
	meta.must(inc)
	meta.must(inc)
	for _, op := range [][]byte{inc, system(shard.Command{Kind: shard.KindPut, Key: []byte("\x01l")}), inc} {
		if _, err := meta.more(op); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := meta.more([]byte{9}); err == nil {
		t.Fatal("no error")
	}
	if meta.m.staged.view != nil {
		t.Error("a view stays open")
	}
	if res := meta.must(inc); string(res.Data) != counter(10) {
		t.Errorf("%x", res.Data)
	}
	if res := meta.must(system(shard.Command{Kind: shard.KindCompareAndPut, Key: []byte("\x01l"), ExpectAbsent: true})); !res.Found {
		t.Errorf("%+v", res)
	}
	meta.end()
}
