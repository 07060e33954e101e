package router

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func sampleEntries() []Entry {
	joint := describe(300, "a", "m", 1000, 77)
	joint.Replicas[1].Role = shard.Outgoing
	joint.Replicas[2].Role = shard.Incoming
	meta := describe(1, "", "", 1, 1)
	meta.Span = shard.SystemSpan()
	return []Entry{
		{Descriptor: describe(7, "", "", 1, 1)},
		{Descriptor: joint, Leader: shard.LeaderHint{Replica: 2, Node: 200, Term: 3000}},
		{Descriptor: meta, Leader: shard.LeaderHint{Replica: 1, Node: 1, Term: 6}},
	}
}

func sampleNodes() []Node {
	return []Node{
		{ID: 1},
		{ID: 300, Address: "127.0.0.1:7400", HTTPAddress: "127.0.0.1:7401", Incarnation: 1234, StartNonce: 1<<63 + 5, Version: "0.1.0"},
		{ID: 2, Address: "b:1", State: shard.Leaving, Operation: 300, Since: 1_700_000_000},
		{ID: 5, Address: "c:1", State: shard.Removed, Operation: 7, Since: 1_700_000_000, Ended: 1_700_000_060},
	}
}

// TestRecordBytes: these bytes rest on disk; a difference is a format change.
func TestRecordBytes(t *testing.T) {
	var text strings.Builder
	add := func(name string, key, value []byte) {
		fmt.Fprintf(&text, "%s\n  key   %s\n  value %s\n", name, hex.EncodeToString(key), hex.EncodeToString(value))
	}
	for i, e := range sampleEntries() {
		add(fmt.Sprintf("directory %d", i), DirectoryKey(e.Descriptor.Span.Start), AppendEntry(nil, &e))
	}
	for i, n := range sampleNodes() {
		add(fmt.Sprintf("node %d", i), NodeKey(n.ID), AppendNode(nil, &n))
	}
	const file = "testdata/records.golden"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text.String() {
		t.Errorf("the bytes changed; got\n%s", text.String())
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	for _, e := range sampleEntries() {
		got, err := DecodeEntry(AppendEntry(nil, &e))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(e) {
			t.Errorf("%+v became %+v, %v", e, got, err)
		}
	}
	for _, n := range sampleNodes() {
		got, err := DecodeNode(AppendNode(nil, &n))
		if err != nil || got != n {
			t.Errorf("%+v became %+v, %v", n, got, err)
		}
	}
}

func TestForeignRecordsAreRefused(t *testing.T) {
	long := sampleNodes()[1]
	long.Version = strings.Repeat("v", nodeStringBytesMax+1)
	for _, b := range [][]byte{nil, {}, {0}, {2, 1}, {3, 1}, AppendNode(nil, &long), AppendNode(nil, &Node{})} {
		if _, err := DecodeNode(b); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("node record %.20x: %v", b, err)
		}
		if _, err := DecodeEntry(b); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("directory record %.20x: %v", b, err)
		}
	}
	for _, e := range sampleEntries() {
		b := AppendEntry(nil, &e)
		for n := range b {
			if _, err := DecodeEntry(b[:n]); !errors.Is(err, shard.ErrMalformed) {
				t.Fatalf("%d of %d bytes: %v", n, len(b), err)
			}
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range sampleEntries() {
		b := AppendEntry(nil, &e)
		f.Add(b)
		f.Add(append(b, 0))
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again, err := DecodeEntry(AppendEntry(nil, &e)); err != nil || fmt.Sprint(again) != fmt.Sprint(e) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func FuzzDecodeNode(f *testing.F) {
	for _, n := range sampleNodes() {
		b := AppendNode(nil, &n)
		f.Add(b)
		f.Add(append(b, 0))
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNode(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again, err := DecodeNode(AppendNode(nil, &n)); err != nil || again != n {
			t.Fatalf("%+v became %+v, %v", n, again, err)
		}
	})
}

// TestDirectorySpans: the last record of DirectoryBefore is that of the shard
// with the largest start at or below a key, for keys of every legal length, and
// every key and span is one that a command may name.
func TestDirectorySpans(t *testing.T) {
	pad := bytes.Repeat([]byte("x"), shard.KeyBytesMax)
	anyKey := rapid.Custom(func(t *rapid.T) []byte {
		k := userKey(rapid.StringMatching(`[a-c]{0,3}`).Draw(t, "head"))
		if rapid.Bool().Draw(t, "long") {
			k = append(k, pad...)[:shard.StartKeyBytesMax-1+rapid.IntRange(0, 4).Draw(t, "length")]
			k[len(k)-1] = "abx"[rapid.IntRange(0, 2).Draw(t, "last")]
		}
		return k
	})
	rapid.Check(t, func(t *rapid.T) {
		start, key := anyKey.Draw(t, "start"), anyKey.Draw(t, "key")
		start = start[:min(len(start), shard.StartKeyBytesMax)]
		record := DirectoryKey(start)
		if err := shard.CheckKey(record); err != nil {
			t.Fatalf("the record of a shard that starts at %d bytes: %v", len(start), err)
		}
		for _, inclusive := range []bool{true, false} {
			s := DirectoryBefore(key, inclusive)
			c := shard.Command{Kind: shard.KindScan, Start: s.Start, End: s.End, Reverse: true, Limit: 1}
			if err := c.Check(); err != nil {
				t.Fatal(err)
			}
			below := bytes.Compare(start, key) < 0 || inclusive && bytes.Equal(start, key)
			if s.Contains(record) != below {
				t.Fatalf("start %q, key %q, inclusive %v: in the span %v", start, key, inclusive, !below)
			}
		}
		s := DirectoryFrom(start)
		if !s.Valid() || !s.Contains(record) {
			t.Fatalf("records from %q lack its own", start)
		}
	})
	if !shard.SystemSpan().Covers(DirectorySpan()) || !shard.SystemSpan().Covers(NodeSpan()) || DirectorySpan().Overlaps(NodeSpan()) {
		t.Error("spans of records")
	}
	if !NodeSpan().Contains(NodeKey(1<<64-1)) || !NodeSpan().Contains(NodeKey(0)) {
		t.Error("a node's key outside the span of nodes")
	}
}
