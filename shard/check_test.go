package shard

import (
	"bytes"
	"errors"
	"testing"
)

func TestCommandCheck(t *testing.T) {
	user := func(n int) []byte { return append([]byte{UserKeyspace}, bytes.Repeat([]byte{'k'}, n)...) }
	system := []byte("\x01k")
	put := func(n int) BatchOp { return BatchOp{Kind: KindPut, Key: user(n), Value: []byte("v")} }
	batch := func(ops ...BatchOp) Command { return Command{Kind: KindBatch, Then: ops} }
	for _, c := range []struct {
		name  string
		c     Command
		field string // of the refusal; empty: accepted
	}{
		{"shortest key", Command{Kind: KindPut, Key: user(1)}, ""},
		{"longest key and value", Command{Kind: KindPut, Key: user(KeyBytesMax), Value: make([]byte, ValueBytesMax)}, ""},
		{"empty key", Command{Kind: KindPut, Key: user(0)}, "key"},
		{"no key at all", Command{Kind: KindGet}, "key"},
		{"key too long", Command{Kind: KindPut, Key: user(KeyBytesMax + 1)}, "key"},
		{"value too long", Command{Kind: KindPut, Key: user(1), Value: make([]byte, ValueBytesMax+1)}, "value"},
		{"expected value too long", Command{Kind: KindCompareAndPut, Key: system, Expect: make([]byte, ValueBytesMax+1)}, "value"},
		{"no keyspace", Command{Kind: KindPut, Key: []byte("\x00k")}, "key"},
		{"keyspace to come", Command{Kind: KindPut, Key: []byte("\x03k")}, "key"},
		{"system put", Command{Kind: KindPut, Key: system}, ""},
		{"system increment", Command{Kind: KindIncrement, Key: system}, ""},
		{"user increment", Command{Kind: KindIncrement, Key: user(1)}, "key"},
		{"user compare", Command{Kind: KindCompareAndPut, Key: user(1)}, "key"},
		{"whole keyspace", Command{Kind: KindScan, Start: UserSpan().Start, End: UserSpan().End}, ""},
		{"range of a longest key", Command{Kind: KindScan, Start: user(KeyBytesMax), End: append(user(KeyBytesMax), 0)}, ""},
		{"range bound too long", Command{Kind: KindScan, Start: user(KeyBytesMax), End: user(KeyBytesMax + 2)}, "range"},
		{"empty range", Command{Kind: KindScan, Start: user(1), End: user(1)}, "range"},
		{"inverted range", Command{Kind: KindScan, Start: user(2), End: user(1)}, "range"},
		{"range over keyspaces", Command{Kind: KindScan, Start: SystemSpan().Start, End: UserSpan().End}, "range"},
		{"unbounded range", Command{Kind: KindScan}, "range"},
		{"delete range", Command{Kind: KindDeleteRange, Start: user(1), End: user(2), Limit: DeleteRangeMax}, ""},
		{"delete range without a limit", Command{Kind: KindDeleteRange, Start: user(1), End: user(2)}, "limit"},
		{"delete range of too many", Command{Kind: KindDeleteRange, Start: user(1), End: user(2), Limit: DeleteRangeMax + 1}, "limit"},
		{"delete range of the system", Command{Kind: KindDeleteRange, Start: SystemSpan().Start, End: SystemSpan().End, Limit: 1}, "range"},
		{"delete range in reverse", Command{Kind: KindDeleteRange, Start: user(1), End: user(2), Limit: 1, Reverse: true}, "range"},
		{"draw", Command{Kind: KindDraw, Limit: DrawMax}, ""},
		{"draw of nothing", Command{Kind: KindDraw}, "draw"},
		{"draw of too many", Command{Kind: KindDraw, Limit: DrawMax + 1}, "draw"},
		{"latest state at any replica", Command{Kind: KindGet, Key: user(1), AnyReplica: true}, "revision"},
		{"raise from outside", Command{Kind: KindRaise}, "command"},
		{"floor from outside", Command{Kind: KindFloor, Revision: 5}, "command"},
		{"digest from outside", Command{Kind: KindDigest}, "command"},
		{"verify from outside", Command{Kind: KindVerify, Digested: 5}, "command"},
		{"split from outside", Command{Kind: KindSplit, Key: UserKey([]byte("m")), Right: 5}, "command"},
		{"batch", batch(put(1)), ""},
		{"batch of gets", batch(BatchOp{Kind: KindGet, Key: user(1)}), ""},
		{"empty batch", batch(), "batch"},
		{"batch with a doubled key", batch(put(1), put(2), BatchOp{Kind: KindDelete, Key: user(1)}), "batch"},
		{"batch with one key in both lists", Command{Kind: KindBatch, Then: []BatchOp{put(1)}, Else: []BatchOp{put(1)}}, ""},
		{"batch of too many", batch(make([]BatchOp, BatchOpsMax+1)...), "batch"},
		{"batch of too many bytes", batch(BatchOp{Kind: KindPut, Key: user(1), Value: make([]byte, ValueBytesMax)}, BatchOp{Kind: KindPut, Key: user(2), Value: make([]byte, ValueBytesMax)}), "batch"},
		{"batch with a key too long", batch(put(KeyBytesMax + 1)), "key"},
		{"batch with a system key", batch(BatchOp{Kind: KindPut, Key: system}), "key"},
		{"batch with a scan", batch(BatchOp{Kind: KindScan, Key: user(1)}), "batch"},
		{"compare with an empty key", Command{Kind: KindBatch, Compares: []Compare{{Kind: CompareAbsent, Key: user(0)}}, Then: []BatchOp{put(1)}}, "key"},
		{"compare with revision zero", Command{Kind: KindBatch, Compares: []Compare{{Kind: CompareRevision, Key: user(1)}}, Then: []BatchOp{put(1)}}, "revision"},
		{"compare of no kind", Command{Kind: KindBatch, Compares: []Compare{{Key: user(1)}}, Then: []BatchOp{put(1)}}, "compare"},
		{"unknown kind", Command{Kind: 99, Key: user(1)}, "command"},
		{"no kind", Command{}, "command"},
	} {
		err := c.c.Check()
		var invalid *InvalidError
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.field != "" && (!errors.As(err, &invalid) || invalid.Field != c.field):
			t.Errorf("%s: %v, want a refusal of the %s", c.name, err, c.field)
		}
	}
}

func TestOneCommandOfTheLargestSizeFitsAFrame(t *testing.T) {
	b := AppendRequest(BeginRequests(nil), &Request{ID: 1 << 63, Target: Target{1 << 63, 1 << 63, 1 << 63, 1 << 63}, Command: make([]byte, RequestBytesMax)})
	if len(b) > FrameBytesMax {
		t.Errorf("%d bytes", len(b))
	}
	c := Command{Kind: KindPut, Key: make([]byte, 1+KeyBytesMax), Value: make([]byte, ValueBytesMax)}
	if n := len(AppendCommand(nil, &c)); n > RequestBytesMax {
		t.Errorf("a put of the largest key and value has %d bytes", n)
	}
}

func TestSpans(t *testing.T) {
	s := Span{Start: []byte("\x02b"), End: []byte("\x02d")}
	for key, want := range map[string]bool{"\x02a": false, "\x02b": true, "\x02c": true, "\x02cz": true, "\x02d": false, "\x01c": false} { //order-free: each key is judged by itself
		if s.Contains([]byte(key)) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
	o := Span{Start: []byte("\x02d"), End: []byte("\x02e")}
	if s.Overlaps(o) || o.Overlaps(s) || !s.Overlaps(UserSpan()) || !UserSpan().Covers(s) || s.Covers(UserSpan()) || s.Equal(o) || !s.Valid() {
		t.Error("neighbours")
	}
	if (Span{}).Valid() || (Span{Start: []byte("\x02"), End: []byte("\x03\x00")}).Valid() {
		t.Error("a span outside a keyspace is valid")
	}
}

func TestEpochsAreOrdered(t *testing.T) {
	if !(Epoch{2, 1}).Newer(Epoch{1, 9}) || !(Epoch{1, 2}).Newer(Epoch{1, 1}) || (Epoch{1, 1}).Newer(Epoch{1, 1}) || (Epoch{1, 9}).Newer(Epoch{2, 1}) {
		t.Error("order of epochs")
	}
}

func TestBatchWithinASpan(t *testing.T) {
	key := func(s string) []byte { return UserKey([]byte(s)) }
	span := Span{Start: key("b"), End: key("d")}
	for _, c := range []struct {
		c    Command
		want bool
	}{
		{Command{Kind: KindBatch, Compares: []Compare{{Key: key("b")}}, Then: []BatchOp{{Key: key("c")}}, Else: []BatchOp{{Key: key("cz")}}}, true},
		{Command{Kind: KindBatch, Compares: []Compare{{Key: key("a")}}, Then: []BatchOp{{Key: key("c")}}}, false},
		{Command{Kind: KindBatch, Then: []BatchOp{{Key: key("c")}, {Key: key("d")}}}, false},
		{Command{Kind: KindBatch, Then: []BatchOp{{Key: key("c")}}, Else: []BatchOp{{Key: key("d")}}}, false},
		{Command{Kind: KindPut, Key: key("c")}, true},
		{Command{Kind: KindPut, Key: key("d")}, false},
		{Command{Kind: KindDeleteRange, Start: key("b"), End: key("d")}, true},
		{Command{Kind: KindDeleteRange, Start: key("b"), End: key("e")}, false},
		{Command{Kind: KindRaise}, true},
		{Command{Kind: KindDigest}, true},
		{Command{Kind: KindVerify}, true},
	} {
		if got := c.c.Within(span); got != c.want {
			t.Errorf("%+v: %v", c.c, got)
		}
	}
}

func TestMarkRetry(t *testing.T) {
	for _, s := range sampleCommands() {
		b := AppendCommand(nil, &s.c)
		MarkRetry(b)
		want := s.c
		want.Retry = true
		var c Command
		if err := DecodeCommand(b, &c); err != nil || !sameCommand(&c, &want) {
			t.Errorf("%s: %+v, %v", s.name, c, err)
		}
	}
}
