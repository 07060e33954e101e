package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// Readers see through traces; they are found by their operations, and are garbage at
// and below the floor, but not what those above it name.
func TestTraces(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		b.PutVersion(userKey("a"), 3, VersionHeader{Op: opID(1)}, []byte("one"))
		b.PutVersion(userKey("a"), 5, VersionHeader{Op: opID(2), Trace: true, Origin: 3}, nil)
		b.PutVersion(userKey("a"), 6, VersionHeader{Op: opID(3), Trace: true, Origin: 3}, nil)
		b.PutVersion(userKey("b"), 6, VersionHeader{Op: opID(2), Tombstone: true, Trace: true}, nil)
		b.PutVersion(userKey("c"), 7, VersionHeader{Op: opID(3)}, []byte("first"))
		b.PutVersion(userKey("c"), 8, VersionHeader{Op: opID(4), Trace: true, Origin: 7}, nil)
		b.PutVersion(userKey("c"), 9, VersionHeader{Op: opID(5)}, []byte("second"))
	})
	span := userSpan("a", "z")
	check := func() {
		t.Helper()
		v := e.NewView()
		defer v.Close()
		for _, c := range []struct {
			key   string
			at    shard.Revision
			value string
			rev   shard.Revision
			found bool
		}{{"a", 5, "one", 3, true}, {"a", shard.MaxRevision, "one", 3, true}, {"b", 5, "", 0, false}, {"c", 8, "first", 7, true}, {"c", 9, "second", 9, true}} {
			value, rev, found, err := v.Get(userKey(c.key), c.at)
			if err != nil || found != c.found || rev != c.rev || string(value) != c.value {
				t.Errorf("%s at %d: %q of %d, %v, %v", c.key, c.at, value, rev, found, err)
			}
		}
		for _, reverse := range []bool{false, true} {
			for at, want := range map[shard.Revision]string{5: "a=one@3", 8: "a=one@3 c=first@7", shard.MaxRevision: "a=one@3 c=second@9"} {
				rows, _, err := v.Scan(ScanOptions{Span: span, At: at, Reverse: reverse})
				if reverse {
					slices.Reverse(rows)
				}
				var got []string
				for _, r := range rows {
					got = append(got, fmt.Sprintf("%s=%s@%d", r.Key[1:], r.Value, r.Revision))
				}
				if err != nil || strings.Join(got, " ") != want {
					t.Errorf("at %d, reverse %v: %s, %v; want %s", at, reverse, got, err, want)
				}
			}
		}
		if h, value, rev, found, err := v.VersionAt(userKey("a"), shard.MaxRevision); err != nil || !found || rev != 6 || h.Origin != 3 || !h.Trace || len(value) != 0 {
			t.Errorf("%+v %q of %d, %v, %v", h, value, rev, found, err)
		}
		if rev, found, err := v.FindOp(userKey("a"), opID(3), 5); err != nil || !found || rev != 6 {
			t.Errorf("found at %d, %v, %v", rev, found, err)
		}
	}
	check()
	if g := sweepOnce(t, e, GarbageOptions{Span: span, Floor: 5, VisitsMax: 100, DropsMax: 100}); g.Drops() != 1 {
		t.Fatalf("%d drops", g.Drops())
	}
	check()
	if got, want := versionsOf(t, e, "a", "b", "c"), []string{"a@6", "a@3", "b@6-", "c@9", "c@8", "c@7"}; !slices.Equal(got, want) {
		t.Errorf("left are %q", got)
	}
	if g := sweepOnce(t, e, GarbageOptions{Span: span, Floor: 8, VisitsMax: 100, DropsMax: 100}); g.Drops() != 3 || g.Keys != 2 {
		t.Fatalf("%d drops, %d keys", g.Drops(), g.Keys)
	}
	if got, want := versionsOf(t, e, "a", "b", "c"), []string{"a@3", "c@9", "c@7"}; !slices.Equal(got, want) {
		t.Errorf("left are %q", got)
	}
}

// A trace whose version is missing is corruption, and not an absent key.
func TestATraceOfNothing(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		b.PutVersion(userKey("a"), 2, VersionHeader{}, []byte("older"))
		b.PutVersion(userKey("a"), 5, VersionHeader{Trace: true, Origin: 3}, nil)
		b.PutVersion(userKey("b"), 3, VersionHeader{Tombstone: true}, nil)
		b.PutVersion(userKey("b"), 5, VersionHeader{Trace: true, Origin: 3}, nil)
		b.PutVersion(userKey("c"), 5, VersionHeader{Trace: true, Origin: 3}, nil)
	})
	v := e.NewView()
	defer v.Close()
	for _, key := range []string{"a", "b", "c"} {
		if value, rev, found, err := v.Get(userKey(key), shard.MaxRevision); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s: %q of %d, %v, %v", key, value, rev, found, err)
		}
		for _, reverse := range []bool{false, true} {
			if rows, _, err := v.Scan(ScanOptions{Span: userSpan(key, key+"\x00"), At: shard.MaxRevision, Reverse: reverse}); !errors.Is(err, shard.ErrMalformed) {
				t.Errorf("%s: %v, %v", key, rows, err)
			}
		}
	}
}

// A key with more traces than one part may hold loses them in parts, whatever is
// above and below them, and never what shows.
func TestGarbageOfManyTraces(t *testing.T) {
	for _, live := range []bool{true, false} {
		e := open(t, Config{})
		commit(t, e, func(b *Batch) {
			for rev := shard.Revision(1); rev < 15; rev++ {
				b.PutVersion(userKey("k"), rev, VersionHeader{Op: opID(1)}, []byte("old"))
			}
			h := VersionHeader{Op: opID(2), Trace: true, Origin: 15}
			if live {
				b.PutVersion(userKey("k"), 15, VersionHeader{Op: opID(1)}, []byte("live"))
			} else {
				b.PutVersion(userKey("k"), 15, VersionHeader{Op: opID(1), Tombstone: true}, nil)
				h.Tombstone, h.Origin = true, 0
			}
			for rev := shard.Revision(16); rev < 50; rev++ {
				b.PutVersion(userKey("k"), rev, h, nil)
			}
		})
		o := GarbageOptions{Span: shard.UserSpan(), Floor: 45, VisitsMax: 1000, DropsMax: 10}
		for parts := 0; ; parts++ {
			g := sweepOnce(t, e, o)
			v := e.NewView()
			for at := o.Floor; at < 52; at++ {
				value, rev, found, err := v.Get(userKey("k"), at)
				if err != nil || found != live || live && (string(value) != "live" || rev != 15) {
					t.Fatalf("live %v, part %d, at %d: %q of %d, %v, %v", live, parts, at, value, rev, found, err)
				}
			}
			v.Close()
			if g.Resume == nil {
				break
			}
			if parts > 10 || g.Drops() == 0 || g.Drops() > 10 {
				t.Fatalf("live %v, part %d: %+v", live, parts, g)
			}
			o.Span.Start = g.Resume
		}
		want := []string{"k@49", "k@48", "k@47", "k@46", "k@15"}
		if !live {
			want = []string{"k@49-", "k@48-", "k@47-", "k@46-"}
		}
		if got := versionsOf(t, e, "k"); !slices.Equal(got, want) {
			t.Errorf("live %v: left are %q", live, got)
		}
	}
}

// However many traces there are of it above the floor, a value counts with its bytes.
func TestTracedValuesCount(t *testing.T) {
	for traces := range 3 * (versionsSkipped + 1) {
		e := open(t, Config{})
		commit(t, e, func(b *Batch) {
			b.PutVersion(userKey("a"), 3, VersionHeader{Op: opID(1)}, []byte("older and longer"))
			b.PutVersion(userKey("a"), 5, VersionHeader{Op: opID(2)}, []byte("hidden"))
			b.PutVersion(userKey("a"), 6, VersionHeader{Op: opID(3)}, []byte("value"))
			for i := range traces {
				b.PutVersion(userKey("a"), shard.Revision(7+i), VersionHeader{Op: opID(uint64(4 + i)), Trace: true, Origin: 6}, nil)
			}
		})
		g := sweepOnce(t, e, GarbageOptions{Span: shard.UserSpan(), Floor: 4, VisitsMax: 100, DropsMax: 100})
		if want := uint64(len(userKey("a")) + len("value")); g.Keys != 1 || g.Bytes != want || g.Drops() != 0 {
			t.Errorf("%d traces: %d keys of %d bytes, want %d; %d drops", traces, g.Keys, g.Bytes, want, g.Drops())
		}
	}
}
