package machine

import (
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

const (
	reused = "*shard.InvalidError: operation ID was used before for something else"
	lost   = "*shard.OutcomeLostError: undetermined: the write may or may not have taken effect: "
	tooOld = lost + "it is older than the retention"
	parted = lost + "a split may have parted its keys since an earlier attempt"
)

// A later attempt of an operation that took effect is told how it came out then,
// whatever was written since, and writes nothing.
func TestLaterAttemptFindsTheEarlier(t *testing.T) {
	first := batch("k=one", "k=two l=2 ?k -m", "l=no ?l")
	other := batch("k=one", "k=two l=2", "e=else ?k ?l")
	part := deleteRange("k", "m\x00", 1)
	play(t, []step{
		{5, 1, put("k", "one"), "at 5"},
		{6, 1, again(put("k", "one"), 4), "at 5"},
		{6, 2, first, "at 6 holds [ @6] [ @6] [one @5] [ @6]"},
		{7, 2, again(first, 5), "at 6 holds [ @6] [ @6] [one @5] [ @6]"},
		{7, 1, again(put("k", "one"), 4), "at 5"}, // overwritten since
		{7, 3, put("l", "3"), "at 7"},
		{8, 2, again(first, 5), "at 6 holds [ @6] [ @6] [one @5] [ @6]"},
		// The other list was carried out: it is looked for in the keys of both.
		{8, 4, other, "at 8 [ @8] [two @6] [3 @7]"},
		{9, 5, batch("", "k=one e=1", ""), "at 9 holds [ @9] [ @9]"},
		{10, 4, again(other, 7), "at 8 [ @8] [two @6] [3 @7]"},
		{10, 6, remove("e"), "at 10"},
		{11, 6, again(remove("e"), 9), "at 10"},
		{11, 7, part, "at 11 count 1 resume \"k\\x00\""},
		{12, 8, put("k", "back"), "at 12"},
		{13, 9, put("e", "back"), "at 13"},
		{14, 7, again(part, 10), "at 11 count 1 resume \"k\\x00\""},
		{14, 6, again(remove("e"), 9), "at 10"},
		// None of the attempts since has taken a revision.
		{14, 10, put("m", "x"), "at 14"},
	}, func(t *testing.T, b *bench) {
		expect(t, b, "e=back@13 k=back@12 l=3@7 m=x@14", 14, 1+3+1+1+2+1+1+2+1)
	})
}

// A later attempt runs if there was no earlier one, or if that one did nothing.
func TestLaterAttemptRuns(t *testing.T) {
	swap := batch("k=one", "k=two", "?k")
	play(t, []step{
		{5, 1, again(put("k", "zero"), 4), "at 5"},
		{6, 2, swap, "at 0 [zero @5]"},
		{7, 3, put("k", "one"), "at 7"},
		{8, 2, again(swap, 5), "at 8 holds [ @8]"},
		{9, 2, again(swap, 5), "at 8 holds [ @8]"},
		{9, 4, deleteRange("l", "m", 5), "at 0"},
		{10, 5, put("l", "x"), "at 10"},
		{11, 4, again(deleteRange("l", "m", 5), 8), "at 11 count 1"},
		{12, 4, again(deleteRange("l", "m", 5), 8), "at 11 count 1"},
		// Only what is above the birth can be the operation's own, and only what has
		// its ID.
		{12, 1, again(put("k", "three"), 5), "at 12"},
		{13, 6, again(put("k", "three"), 11), "at 13"},
		{14, 7, again(remove("k"), 13), "at 14"},
		{15, 8, again(batch("", "k=b l=b", ""), 14), "at 15 holds [ @15] [ @15]"},
	}, func(t *testing.T, b *bench) {
		expect(t, b, "k=b@15 l=b@15", 15, 1+1+1+1+1+1+1+1+2)
	})
}

// A later attempt is refused, and changes nothing, where the look-up cannot tell.
func TestLaterAttemptIsUndetermined(t *testing.T) {
	floor := func(b *bench, rev shard.Revision) {
		b.must(operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: rev}))
	}
	b := newBench(t, userState())
	defer b.close()
	for rev := range shard.Revision(9) {
		b.must(versioned(rev+1, uint64(rev+1), put("k", fmt.Sprint(rev+1))))
	}
	floor(b, 6)
	b.end()
	apart := batch("", "k=x z=x", "")
	for _, c := range []struct {
		name string
		op   []byte
		want string
	}{
		{"born below the floor", versioned(10, 6, again(put("k", "6"), 5)), tooOld},
		{"a batch that was", versioned(10, 7, again(batch("", "k=7", ""), 5)), tooOld},
		{"a delete-range that was", versioned(10, 7, again(deleteRange("k", "l", 1), 5)), tooOld},
		{"a delete that was", versioned(10, 20, again(remove("k"), 0)), tooOld},
		{"born at the floor", versioned(10, 7, again(put("k", "7"), 6)), "at 7"},
		{"a revision that is not larger, before all", versioned(9, 6, again(put("k", "6"), 5)), "*errors.errorString: " + ErrStaleRevision.Error()},
		{"a birth that is not below the revision", versioned(10, 9, again(put("k", "9"), 10)), "*shard.InvalidError: birth is not below the revisions that the operation may have"},
		{"a batch that is parted now", versioned(10, 9, again(apart, 8)), parted},
		{"a batch that was parted after it was proposed", operation(10, 1, again(apart, 8)), parted},
		{"the first attempt of one", operation(10, 1, apart), "*shard.WrongShardError: " + wrongShard},
		{"a delete-range that is parted now", versioned(10, 9, again(deleteRange("k", "z", 1), 8)), parted},
		{"one that begins elsewhere", versioned(10, 9, again(deleteRange("a", "k", 1), 8)), "*shard.WrongShardError: " + wrongShard},
		{"a put in another epoch", operation(10, 1, again(put("k", "9"), 8)), "*shard.WrongShardError: " + wrongShard},
	} {
		if got := told(b.must(c.op)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	b.end()
	expect(t, b, "k=9@9", 9, 9)

	meta := newBench(t, systemState())
	defer meta.close()
	for _, c := range []shard.Command{
		{Kind: shard.KindPut, Key: []byte("\x01k")}, {Kind: shard.KindDelete, Key: []byte("\x01k")},
		{Kind: shard.KindIncrement, Key: []byte("\x01k"), Delta: 1},
		{Kind: shard.KindCompareAndPut, Key: []byte("\x01k"), ExpectAbsent: true},
	} {
		if got := told(meta.must(system(again(c, 0)))); got != lost+"records of the system keyspace name no operation" {
			t.Errorf("kind %d without versions: %s", c.Kind, got)
		}
	}
	meta.end()
	if s := meta.m.State(); s.Versions != 0 {
		t.Errorf("%+v", s)
	}
}

// An ID that was used for another operation, as far as the data show it.
func TestReusedOperationID(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(versioned(1, 1, batch("", "d=0 e=0", "")))
	b.must(versioned(5, 2, put("k", "one")))
	b.must(versioned(6, 3, remove("k")))
	b.must(versioned(7, 4, batch("-k", "k=two l=two", "m=two")))
	b.must(versioned(8, 5, deleteRange("d", "f", 2)))
	b.must(versioned(9, 6, put("k", "")))
	b.end()
	versions := b.m.State().Versions
	for _, c := range []struct {
		name string
		op   uint64
		c    shard.Command
		want string
	}{
		{"another value", 2, put("k", "other"), reused},
		{"a delete for a put", 2, remove("k"), reused},
		{"a delete for a put of nothing", 6, remove("k"), reused},
		{"a put for a delete", 3, put("k", ""), reused},
		{"a batch for a put", 2, batch("", "k=one l=x", ""), reused},
		{"a put for a batch", 4, put("k", "two"), "at 7"}, // its key says no more
		{"a put of another value for a batch", 4, put("l", "one"), reused},
		{"fewer keys", 4, batch("-k", "k=two", ""), "at 7 holds [ @7]"},
		{"more keys", 4, batch("-k", "k=two l=two n=two", "m=two"), reused},
		{"the other list", 4, batch("+k", "k=two l=two", "m=two"), reused},
		{"nothing in the list", 4, batch("+k", "k=two l=two", "?k"), reused},
		{"another value in one of two", 4, batch("-k", "k=two l=one", "m=two"), reused},
		{"other compares, same writes", 4, batch("-k -l", "k=two l=two", "m=two"), "at 7 holds [ @7] [ @7]"},
		{"a shorter delete-range", 5, deleteRange("d", "f", 1), reused},
		{"a shorter range", 5, deleteRange("d", "e", 2), "at 8 count 1"},
		{"a wider range", 5, deleteRange("d", "m", 9), reused},
		{"a delete-range for a batch", 4, deleteRange("k", "m", 9), reused},
		{"the same", 4, batch("-k", "k=two l=two", "m=two"), "at 7 holds [ @7] [ @7]"},
		{"the same delete-range", 5, deleteRange("d", "f", 2), "at 8 count 2 resume \"e\\x00\""},
		{"another key", 2, put("x", "one"), "at 10"}, // nothing tells of it
	} {
		if got := told(b.must(versioned(10, c.op, again(c.c, 0)))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	b.end()
	expect(t, b, "k=@9 l=two@7 x=one@10", 10, versions+1)
}

// While a shard has the span that it was made with, no attempt over its bounds can
// have been carried out.
func TestLaterAttemptOverTheSpanOfAShardThatWasNeverSplit(t *testing.T) {
	state := userState()
	state.Descriptor.Epoch.Version = shard.FirstVersion
	b := newBench(t, state)
	defer b.close()
	for _, c := range []shard.Command{batch("", "k=x z=x", ""), deleteRange("k", "z", 1)} {
		c.Op = shard.OpID{Session: 5, Sequence: 1}
		if got := told(b.must(operation(1, shard.FirstVersion, again(c, 0)))); got != "*errors.errorString: "+shard.ErrSpansShards.Error() {
			t.Errorf("kind %d: %s", c.Kind, got)
		}
	}
	b.end()
}

// An operation whose attempts are all marked, because its caller chose it, is decided
// by the first of them in the log: those that come later change nothing, though they
// were made earlier and their condition holds by now.
func TestWhatDidNothingIsDecidedToo(t *testing.T) {
	swap := again(batch("k=one", "k=two", "?k"), 4)
	several := again(batch("k=one -m", "-l n=1", "?k ?m"), 4)
	otherwise := again(batch("k=one", "?k", "e=1"), 4)
	empty := again(deleteRange("d", "f", 5), 4)
	reads := again(batch("k=one", "?k", ""), 4)
	play(t, []step{
		{5, 1, put("k", "zero"), "at 5"},
		{6, 2, swap, "at 0 [zero @5]"}, // of the caller's second process
		{7, 3, several, "at 0 [zero @5] [ @0]"},
		{8, 4, empty, "at 0"},
		{9, 5, reads, "at 0"},
		// To all others nothing has happened.
		{10, 6, batch("k@5 -e -d -l -n", "?k ?n", ""), "at 0 holds [zero @5] [ @0]"},
		{11, 7, put("k", "one"), "at 11"},
		{12, 8, put("e", "here"), "at 12"},
		// The conditions hold, and the attempts of the first process arrive.
		{13, 2, swap, "at 0 [zero @5]"},
		{13, 3, several, "at 0 [zero @5] [ @0]"},
		{13, 4, empty, "at 0"},
		{13, 2, swap, "at 0 [zero @5]"},
		// Who writes nothing, whatever holds, is told what there is.
		{13, 5, reads, "at 0 holds [one @11]"},
		{14, 9, otherwise, "at 0 holds [one @11]"},
		{15, 10, put("k", "three"), "at 15"},
		{16, 9, otherwise, "at 0 holds [one @11]"},
		// Other operations have not met these.
		{16, 11, batch("k=three", "k=four", "?k"), "at 16 holds [ @16]"},
		{17, 12, again(batch("k=four", "k=five", "?k"), 16), "at 17 holds [ @17]"},
		{18, 13, again(batch("k=four", "k=six", "?k"), 17), "at 0 [five @17]"},
	}, func(t *testing.T, b *bench) {
		// A trace each of 2, 3, 4, 9 and 13.
		expect(t, b, "e=here@12 k=five@17", 18, 1+1+1+1+1+1+1+1+1+1+1)
	})
}

// A trace is no write of an operation that has the same ID by mistake, and no write
// is a trace.
func TestReusedOperationIDOfWhatDidNothing(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(versioned(1, 1, put("k", "one")))
	b.must(versioned(2, 2, again(batch("-k", "k=one", "?k"), 0)))
	b.must(versioned(3, 3, again(batch("+l", "l=one", "?l"), 0)))
	b.must(versioned(4, 4, remove("l")))
	b.end()
	for _, c := range []struct {
		name string
		op   uint64
		c    shard.Command
		want string
	}{
		{"a put of the value that the trace repeats", 2, put("k", "one"), reused},
		{"a delete where the trace repeats absence", 3, remove("l"), reused},
		{"a batch that writes", 2, batch("", "k=one", ""), reused},
		{"a batch that would have done nothing", 4, batch("+l", "l=one", "?l"), reused},
		{"other compares that do not hold either", 2, batch("-k k=two", "k=x", "?k"), "at 0 [one @1]"},
		{"an empty range for it", 3, deleteRange("l", "m", 3), "at 0"},
		{"the same", 3, batch("+l", "l=one", "?l"), "at 0 [ @0]"},
	} {
		if got := told(b.must(versioned(10, c.op, again(c.c, 0)))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	b.end()
	expect(t, b, "k=one@1", 4, 4)
}
