package storage

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// Part by part, Sizes tells of just the keys that a scan finds, with their sizes.
func TestSizesAreThoseOfAScan(t *testing.T) {
	e, n := open(t, Config{}), 0
	rapid.Check(t, func(t *rapid.T) {
		n++ // each has keys of its own
		key := func(i int) []byte { return fmt.Appendf(nil, "\x02%06d/%02d", n, i) }
		var last [12]shard.Revision // of the newest version with a value, by key
		b := e.NewBatch()
		for rev := shard.Revision(1); rev <= shard.Revision(rapid.IntRange(1, 60).Draw(t, "versions")); rev++ {
			i := rapid.IntRange(0, len(last)-1).Draw(t, "key")
			switch rapid.SampledFrom([]string{"put", "put", "delete", "trace", "trace"}).Draw(t, "kind") {
			case "put":
				b.PutVersion(key(i), rev, VersionHeader{}, make([]byte, rapid.IntRange(0, 40).Draw(t, "bytes")))
				last[i] = rev
			case "delete":
				b.PutVersion(key(i), rev, VersionHeader{Tombstone: true}, nil)
				last[i] = 0
			case "trace":
				b.PutVersion(key(i), rev, VersionHeader{Trace: true, Tombstone: last[i] == 0, Origin: last[i]}, nil)
			}
		}
		must(e.Commit(b))
		v := e.NewView()
		defer v.Close()
		span := shard.Span{Start: key(rapid.IntRange(0, 5).Draw(t, "start")), End: key(rapid.IntRange(6, 12).Draw(t, "end"))}
		rows, _, err := v.Scan(ScanOptions{Span: span, At: shard.MaxRevision})
		must(err)
		var want, got []string
		for _, r := range rows {
			want = append(want, fmt.Sprint(string(r.Key), len(r.Key)+len(r.Value)))
		}
		o := SizesOptions{Span: span, KeysMax: rapid.IntRange(1, 5).Draw(t, "keys"), BytesMax: rapid.IntRange(1, 100).Draw(t, "bytes of a part")}
		for parts := 0; ; parts++ {
			part, err := v.Sizes(o, func(key []byte, bytes int) { got = append(got, fmt.Sprint(string(key), bytes)) })
			must(err)
			if part.Visited > o.KeysMax || part.Bytes > o.BytesMax+60 || parts > len(last) {
				t.Fatalf("part %d: %+v of %+v", parts, part, o)
			}
			if part.Resume == nil {
				break
			}
			o.Span.Start = part.Resume
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("sizes %v, scanned %v", got, want)
		}
	})
}

func TestSizesOfWhatCannotBeRead(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) { must(b.p.Set(appendVersionKey(nil, []byte("\x02k"), 7), []byte{0xee}, nil)) })
	v := e.NewView()
	defer v.Close()
	o := SizesOptions{Span: shard.Span{Start: []byte("\x02b"), End: []byte("\x02x")}, KeysMax: 10, BytesMax: 10}
	if _, err := v.Sizes(o, func([]byte, int) { t.Error("told of it") }); !errors.Is(err, shard.ErrMalformed) {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("options out of their bounds are taken")
		}
	}()
	o.KeysMax = 0
	_, _ = v.Sizes(o, nil)
}
