package shard

import (
	"bytes"
	"errors"
	"testing"
)

func TestCommandCheck(t *testing.T) {
	user := func(n int) []byte { return append([]byte{UserKeyspace}, bytes.Repeat([]byte{'k'}, n)...) }
	system := []byte("\x01k")
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
