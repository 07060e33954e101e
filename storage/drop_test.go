package storage

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// versionsOf lists every version in the user keyspace: tombstones as "-".
func versionsOf(t testing.TB, e *Engine, keys ...string) []string {
	t.Helper()
	v := e.NewView()
	defer v.Close()
	var all []string
	for _, key := range keys {
		found, err := v.Versions(userKey(key), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			text := fmt.Sprintf("%s@%d", key, f.Revision)
			if f.Header.Tombstone {
				text += "-"
			}
			all = append(all, text)
		}
	}
	return all
}

// sweepOnce drops one part's garbage.
func sweepOnce(t testing.TB, e *Engine, o GarbageOptions) Garbage {
	t.Helper()
	v := e.NewView()
	g, err := v.Garbage(o)
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	commit(t, e, func(b *Batch) { b.Drop(&g) })
	return g
}

func TestGarbage(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		e := open(t, Config{})
		for _, x := range []struct {
			key string
			rev shard.Revision
			del bool
		}{
			{"above", 11, false}, {"above", 12, false},
			{"below", 3, false},
			{"many", 1, false}, {"many", 2, false}, {"many", 5, true}, {"many", 6, false}, {"many", 10, false}, {"many", 14, false},
			{"gone", 4, false}, {"gone", 7, true},
			{"gone again", 4, false}, {"gone again", 7, true}, {"gone again", 11, false},
			{"gone above", 4, false}, {"gone above", 11, true},
			{"only a tombstone", 9, true},
			{"prefix", 8, false}, {"prefix\x00", 7, true}, {"prefix\x00\x00", 6, false}, {"prefix", 2, false},
		} {
			if x.del {
				putTombstone(t, e, x.key, x.rev)
			} else {
				putVersion(t, e, x.key, x.rev, "value")
			}
		}
		if flushed {
			if err := e.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		g := sweepOnce(t, e, GarbageOptions{Span: shard.UserSpan(), Floor: 10, VisitsMax: 1000, DropsMax: 1000})
		if g.Resume != nil || g.Visited != 21 || g.Drops() != 11 || g.Kept != 10 {
			t.Errorf("%+v", g)
		}
		// Those with a value: above, below, gone again, many and both prefixes.
		if want := uint64(len("above"+"below"+"gone again"+"many"+"prefix"+"prefix\x00\x00") + 6*(1+len("value"))); g.Keys != 6 || g.Bytes != want {
			t.Errorf("%d keys of %d bytes, want %d", g.Keys, g.Bytes, want)
		}
		want := []string{"above@12", "above@11", "below@3", "gone above@11-", "gone above@4", "gone again@11", "many@14", "many@10", "prefix@8", "prefix\x00\x00@6"}
		if got := versionsOf(t, e, "above", "below", "gone", "gone above", "gone again", "many", "only a tombstone", "prefix", "prefix\x00", "prefix\x00\x00"); !slices.Equal(got, want) {
			t.Errorf("flushed %t: left are\n%q, want\n%q", flushed, got, want)
		}
		if g := sweepOnce(t, e, GarbageOptions{Span: shard.UserSpan(), Floor: 10, VisitsMax: 1000, DropsMax: 1000}); g.Drops() != 0 {
			t.Errorf("a second sweep finds %+v", g)
		}
	}
}

// A key with more garbage than one part may hold loses the oldest first, and its
// tombstone last: nothing that the tombstone hides is ever read.
func TestGarbageOfOneKeyOldestFirst(t *testing.T) {
	e := open(t, Config{})
	putVersion(t, e, "a", 1, "")
	putVersion(t, e, "a", 2, "")
	for rev := shard.Revision(3); rev < 30; rev++ {
		putVersion(t, e, "k", rev, "value")
	}
	putTombstone(t, e, "k", 30)
	putVersion(t, e, "k\x00", 31, "next")
	o := GarbageOptions{Span: shard.UserSpan(), Floor: 40, VisitsMax: 1000, DropsMax: 10}
	// a's one goes alone: what k has does not fit beside it.
	if g := sweepOnce(t, e, o); g.Drops() != 1 || string(g.Resume) != string(userKey("k")) {
		t.Fatalf("%+v", g)
	}
	o.Span.Start = userKey("k")
	left := 28
	for parts := 0; ; parts++ {
		g := sweepOnce(t, e, o)
		left -= g.Drops()
		if g.Drops() > 10 || len(versionsOf(t, e, "k")) != left {
			t.Fatalf("part %d: %+v, %d are left", parts, g, left)
		}
		if left > 0 && versionsOf(t, e, "k")[0] != "k@30-" {
			t.Fatalf("part %d left %q", parts, versionsOf(t, e, "k"))
		}
		v := e.NewView()
		if _, _, found, err := v.Get(userKey("k"), shard.MaxRevision); found || err != nil {
			t.Fatalf("after part %d the key is back, %v", parts, err)
		}
		v.Close()
		if g.Resume == nil {
			if left != 0 || parts != 2 || g.Keys != 1 {
				t.Errorf("%d are left after part %d, %+v", left, parts, g)
			}
			break
		}
		o.Span.Start = g.Resume
	}
	if got, want := versionsOf(t, e, "a", "k", "k\x00"), []string{"a@2", "k\x00@31"}; !slices.Equal(got, want) {
		t.Errorf("left are %q", got)
	}
}

// Whatever the history, the floor and the size of the parts: no read at or above
// the floor changes at any moment of a sweep, and at its end no garbage is left.
func TestSweepChangesNoRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Dir: "store", FS: vfs.NewMem()}
		cfg.setDefaults()
		e, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		model := map[string][]modelVersion{}
		alphabet := rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 'a', 0xff}), 1, 2)
		traces := map[shard.Revision]bool{}
		last := shard.Revision(rapid.IntRange(0, 80).Draw(t, "writes"))
		for rev := shard.Revision(1); rev <= last; rev++ {
			key := string(shard.UserKey(alphabet.Draw(t, "key")))
			if rapid.IntRange(0, 3).Draw(t, "trace") == 0 {
				putTrace(t, e, key, rev, model[key])
				model[key] = model[key][:len(model[key]):len(model[key])] // the key is known
				traces[rev] = true
				continue
			}
			mv := modelVersion{rev: rev, tombstone: rapid.IntRange(0, 3).Draw(t, "delete") == 0}
			if !mv.tombstone {
				mv.value = fmt.Sprint("v", rev)
			}
			model[key] = append(model[key], mv)
			b := e.NewBatch()
			b.PutVersion([]byte(key), rev, VersionHeader{Tombstone: mv.tombstone}, []byte(mv.value))
			if err := e.Commit(b); err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 20).Draw(t, "flush") == 0 {
				e.db.Flush()
			}
		}
		o := GarbageOptions{Span: shard.UserSpan(), Floor: shard.Revision(rapid.Uint64Range(0, uint64(last)).Draw(t, "floor")),
			VisitsMax: rapid.IntRange(1, 30).Draw(t, "visits"), DropsMax: rapid.IntRange(1, 6).Draw(t, "drops")}
		keys := uint64(0)
		for parts := 0; ; parts++ {
			v := e.NewView()
			g, err := v.Garbage(o)
			v.Close()
			if err != nil || g.Drops() > o.DropsMax || parts > 1000 {
				t.Fatalf("%+v, %v", g, err)
			}
			b := e.NewBatch()
			b.Drop(&g)
			if err := e.Commit(b); err != nil {
				t.Fatal(err)
			}
			keys += g.Keys
			v = e.NewView()
			for at := o.Floor; at <= last; at++ {
				s := ScanOptions{Span: shard.UserSpan(), At: at}
				if got, want := scanAll(t, v, s), modelScan(model, s); !slices.Equal(got, want) {
					t.Fatalf("floor %d, part %d: at %d\n%q, want\n%q", o.Floor, parts, at, got, want)
				}
			}
			v.Close()
			if g.Resume == nil {
				break
			}
			o.Span.Start = g.Resume
		}
		if want := len(modelScan(model, ScanOptions{Span: shard.UserSpan(), At: last})); keys != uint64(want) {
			t.Fatalf("%d keys were counted, want %d", keys, want)
		}
		v := e.NewView()
		defer v.Close()
		left, want := 0, 0
		for key, versions := range model { //order-free: sums
			found, err := v.Versions([]byte(key), 1000)
			if err != nil {
				t.Fatal(err)
			}
			left += len(found)
			if modelGet(versions, o.Floor) != nil {
				want++
			}
			for _, mv := range versions {
				if mv.rev > o.Floor {
					want++
				}
			}
		}
		for rev := range traces { //order-free: a sum
			if rev > o.Floor {
				want++
			}
		}
		if left != want {
			t.Fatalf("%d versions are left, want %d", left, want)
		}
	})
}

// BenchmarkSweep is what dropping costs: of each key all versions but the newest
// are garbage, which is found and dropped in parts as a node does.
func BenchmarkSweep(b *testing.B) {
	for _, versions := range []int{1, 2, 10} {
		b.Run(fmt.Sprintf("versions=%d", versions), func(b *testing.B) {
			e := open(b, Config{MemoryBytes: 256 << 20})
			const keys = 10_000
			value := make([]byte, 256)
			visited, dropped := 0, 0
			rev := shard.Revision(0)
			for b.Loop() {
				b.StopTimer()
				for range versions {
					batch := e.NewBatch()
					for k := range keys {
						rev++
						batch.PutVersion(userKey(fmt.Sprintf("key %08d", k)), rev, VersionHeader{}, value)
					}
					if err := e.Commit(batch); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				o := GarbageOptions{Span: shard.UserSpan(), Floor: rev, VisitsMax: 4096, DropsMax: 1024}
				for o.Span.Start != nil {
					g := sweepOnce(b, e, o)
					visited += g.Visited
					dropped += g.Drops()
					o.Span.Start = g.Resume
				}
			}
			b.ReportMetric(float64(visited)/b.Elapsed().Seconds(), "visits/s")
			b.ReportMetric(float64(dropped)/b.Elapsed().Seconds(), "drops/s")
		})
	}
}
