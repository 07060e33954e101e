package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

func putVersion(t testing.TB, e *Engine, key string, rev shard.Revision, value string) {
	t.Helper()
	commit(t, e, func(b *Batch) { b.PutVersion(userKey(key), rev, VersionHeader{}, []byte(value)) })
}

func putTombstone(t testing.TB, e *Engine, key string, rev shard.Revision) {
	t.Helper()
	commit(t, e, func(b *Batch) { b.PutVersion(userKey(key), rev, VersionHeader{Tombstone: true}, nil) })
}

func TestGet(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		e := open(t, Config{})
		putVersion(t, e, "k", 5, "five")
		putVersion(t, e, "k", 9, "nine")
		putTombstone(t, e, "k", 7)
		putVersion(t, e, "k\x00", 6, "longer")
		putTombstone(t, e, "gone", 3)
		system := []byte{shard.SystemKeyspace, 'k'}
		commit(t, e, func(b *Batch) { b.PutUnversioned(system, []byte("unversioned")) })
		if flushed {
			if err := e.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		v := e.NewView()
		for _, test := range []struct {
			key   []byte
			at    shard.Revision
			value string
			rev   shard.Revision
			found bool
		}{
			{userKey("k"), shard.MaxRevision, "nine", 9, true},
			{userKey("k"), 9, "nine", 9, true},
			{userKey("k"), 8, "", 7, false},
			{userKey("k"), 7, "", 7, false},
			{userKey("k"), 6, "five", 5, true},
			{userKey("k"), 5, "five", 5, true},
			{userKey("k"), 4, "", 0, false},
			{userKey("k"), 0, "", 0, false},
			{userKey("k\x00"), shard.MaxRevision, "longer", 6, true},
			{userKey("gone"), shard.MaxRevision, "", 3, false},
			{userKey("k\x00\x00"), shard.MaxRevision, "", 0, false},
			{userKey("j"), shard.MaxRevision, "", 0, false},
			{system, shard.MaxRevision, "unversioned", 0, true},
			{system, 1, "unversioned", 0, true},
			{[]byte{shard.SystemKeyspace, 'l'}, shard.MaxRevision, "", 0, false},
		} {
			value, rev, found, err := v.Get(test.key, test.at)
			if err != nil || string(value) != test.value || rev != test.rev || found != test.found {
				t.Errorf("flushed %t: key %x at %d: %q, %d, %t, %v", flushed, test.key, test.at, value, rev, found, err)
			}
		}
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A view stays as it was opened, and its reads may be mixed.
func TestViewIsConsistent(t *testing.T) {
	e := open(t, Config{})
	putVersion(t, e, "a", 1, "old")
	v := e.NewView()
	defer v.Close()
	putVersion(t, e, "a", 2, "new")
	putVersion(t, e, "b", 3, "new")
	for range 2 {
		if value, _, _, err := v.Get(userKey("a"), shard.MaxRevision); string(value) != "old" || err != nil {
			t.Errorf("a is %q, %v", value, err)
		}
		rows, _, err := v.Scan(ScanOptions{Span: userSpan("a", "z"), At: shard.MaxRevision})
		if err != nil || len(rows) != 1 || string(rows[0].Value) != "old" {
			t.Errorf("the scan found %v, %v", rows, err)
		}
		rows, _, _ = v.Scan(ScanOptions{Span: userSpan("x", "z"), At: shard.MaxRevision})
		if len(rows) != 0 {
			t.Errorf("another span holds %v", rows)
		}
	}
}

func TestUnversionedKeys(t *testing.T) {
	e := open(t, Config{})
	key := func(s string) []byte { return append([]byte{shard.SystemKeyspace}, s...) }
	commit(t, e, func(b *Batch) {
		b.PutUnversioned(key("a"), []byte("1"))
		b.PutUnversioned(key("b"), nil)
		b.PutUnversioned(key("c"), []byte("3"))
	})
	commit(t, e, func(b *Batch) { b.DeleteUnversioned(key("a")); b.PutUnversioned(key("c"), []byte("4")) })
	if got, want := dump(t, e, shard.SystemSpan()), []string{"b@0=", "c@0=4"}; !slices.Equal(got, want) {
		t.Errorf("the system keyspace holds %q, want %q", got, want)
	}
	if got := dump(t, e, shard.UserSpan()); len(got) != 0 {
		t.Errorf("the user keyspace holds %q", got)
	}
	v := e.NewView()
	defer v.Close()
	rows, _, err := v.Scan(ScanOptions{Span: shard.SystemSpan(), Reverse: true})
	if err != nil || len(rows) != 2 || string(rows[0].Value) != "4" {
		t.Errorf("in reverse: %v, %v", rows, err)
	}
}

// modelVersion is one version of the model's map from keys to versions.
type modelVersion struct {
	rev       shard.Revision
	value     string
	tombstone bool
}

// TestScanIsLikeAModel reads random histories in pages of random sizes, in both
// directions, at random revisions, partly from files and partly from memory.
func TestScanIsLikeAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Dir: "store", FS: vfs.NewMem()}
		cfg.setDefaults()
		e, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		model := map[string][]modelVersion{}
		alphabet := rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 'a', 0xff}), 1, 3)
		var rev shard.Revision
		for range rapid.IntRange(0, 60).Draw(t, "writes") {
			rev++
			key := string(shard.UserKey(alphabet.Draw(t, "key")))
			if rapid.IntRange(0, 4).Draw(t, "trace") == 0 {
				putTrace(t, e, key, rev, model[key])
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
		v := e.NewView()
		defer v.Close()
		for range 6 {
			o := ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision,
				Reverse: rapid.Bool().Draw(t, "reverse"), KeysOnly: rapid.Bool().Draw(t, "keys only"),
				RowsMax: rapid.IntRange(0, 4).Draw(t, "rows"), BytesMax: rapid.IntRange(0, 12).Draw(t, "bytes")}
			if rapid.Bool().Draw(t, "at a revision") {
				o.At = shard.Revision(rapid.Uint64Range(0, uint64(rev)+1).Draw(t, "revision"))
			}
			if rapid.Bool().Draw(t, "a part") {
				span := shard.Span{Start: shard.UserKey(alphabet.Draw(t, "start")), End: shard.UserKey(alphabet.Draw(t, "end"))}
				if span.Valid() {
					o.Span = span
				}
			}
			if got, want := scanAll(t, v, o), modelScan(model, o); !slices.Equal(got, want) {
				t.Fatalf("scan %+v found\n%q, want\n%q", o, got, want)
			}
			for key := range model { //order-free: every key is checked on its own
				value, rev, found, err := v.Get([]byte(key), o.At)
				want := modelGet(model[key], o.At)
				if err != nil || found != (want != nil) || found && (string(value) != want.value || rev != want.rev) {
					t.Fatalf("key %x at %d is %q, %t, %v, want %v", key, o.At, value, found, err, want)
				}
			}
		}
	})
}

func scanAll(t *rapid.T, v *View, o ScanOptions) []string {
	var all []string
	for pages := 0; ; pages++ {
		rows, resume, err := v.Scan(o)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, r := range rows {
			all = append(all, fmt.Sprintf("%x@%d=%s", r.Key, r.Revision, r.Value))
			bytes += len(r.Key) + len(r.Value)
		}
		if o.RowsMax > 0 && len(rows) > o.RowsMax || o.BytesMax > 0 && len(rows) > 1 && bytes > o.BytesMax {
			t.Fatalf("a page of %d rows with %d bytes for %+v", len(rows), bytes, o)
		}
		if resume == nil {
			return all
		}
		if len(rows) == 0 || pages > 1000 {
			t.Fatalf("page %d without a row, and a resume key", pages)
		}
		if o.Reverse {
			o.Span.End = resume
		} else {
			o.Span.Start = resume
		}
	}
}

// putTrace writes a trace at rev of what the model says that a key has.
func putTrace(t *rapid.T, e *Engine, key string, rev shard.Revision, versions []modelVersion) {
	h := VersionHeader{Op: opID(uint64(rev)), Trace: true, Tombstone: true}
	if now := modelGet(versions, rev); now != nil {
		h.Tombstone, h.Origin = false, now.rev
	}
	b := e.NewBatch()
	b.PutVersion([]byte(key), rev, h, nil)
	if err := e.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func modelGet(versions []modelVersion, at shard.Revision) *modelVersion {
	for i := len(versions) - 1; i >= 0; i-- {
		if mv := versions[i]; mv.rev <= at {
			if mv.tombstone {
				return nil
			}
			return &mv
		}
	}
	return nil
}

func modelScan(model map[string][]modelVersion, o ScanOptions) []string {
	var keys []string
	for key := range model { //order-free: sorted below
		if o.Span.Contains([]byte(key)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if o.Reverse {
		slices.Reverse(keys)
	}
	var all []string
	for _, key := range keys {
		if mv := modelGet(model[key], o.At); mv != nil {
			value := mv.value
			if o.KeysOnly {
				value = ""
			}
			all = append(all, fmt.Sprintf("%x@%d=%s", key, mv.rev, value))
		}
	}
	return all
}

// TestScanOverManyTombstones: a page ends after a bounded number of them, and
// its resume key leads on.
func TestScanOverManyTombstones(t *testing.T) {
	e := open(t, Config{})
	const deleted = visitsMax*2 + 500
	commit(t, e, func(b *Batch) {
		for i := range deleted {
			b.PutVersion(userKey(fmt.Sprintf("d%06d", i)), 1, VersionHeader{Tombstone: true}, nil)
		}
		b.PutVersion(userKey("a"), 2, VersionHeader{}, []byte("first"))
		b.PutVersion(userKey("z"), 2, VersionHeader{}, []byte("last"))
	})
	v := e.NewView()
	defer v.Close()
	for _, reverse := range []bool{false, true} {
		o := ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision, Reverse: reverse}
		var rows []shard.Row
		var pages []int
		for {
			page, resume, err := v.Scan(o)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, page...)
			pages = append(pages, len(page))
			if resume == nil {
				break
			}
			if reverse {
				o.Span.End = resume
			} else {
				o.Span.Start = resume
			}
		}
		if len(rows) != 2 || len(pages) != 3 {
			t.Errorf("reverse %t: %d rows in pages %v", reverse, len(rows), pages)
		}
	}
}

// Many versions above the revision of a scan are skipped by a seek, not one by one.
func TestScanSkipsManyVersions(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		for rev := shard.Revision(1); rev <= 3*visitsMax; rev++ {
			b.PutVersion(userKey("hot"), rev, VersionHeader{}, []byte("v"))
		}
		b.PutVersion(userKey("warm"), 1, VersionHeader{}, []byte("v"))
	})
	v := e.NewView()
	defer v.Close()
	for _, reverse := range []bool{false, true} {
		for _, at := range []shard.Revision{2, visitsMax, shard.MaxRevision} {
			rows, resume, err := v.Scan(ScanOptions{Span: shard.UserSpan(), At: at, Reverse: reverse})
			if err != nil || len(rows) != 2 || resume != nil {
				t.Errorf("reverse %t at %d: %d rows, resume %x, %v", reverse, at, len(rows), resume, err)
			}
		}
	}
}

func TestScannedRowsAreTheCallersToKeep(t *testing.T) {
	e := open(t, Config{})
	for i := range 100 {
		putVersion(t, e, fmt.Sprint("k", i), 1, fmt.Sprint("value ", i))
	}
	v := e.NewView()
	rows, _, err := v.Scan(ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision})
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows { // neighbours share memory, but not a byte
		rows[i].Key = append(rows[i].Key, '!')
		rows[i].Value = append(rows[i].Value, '!')
	}
	v.Scan(ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision, Reverse: true})
	v.Close()
	for _, r := range rows {
		n := bytes.TrimSuffix(r.Key[2:], []byte("!"))
		if want := fmt.Sprintf("value %s!", n); string(r.Value) != want {
			t.Errorf("the row of %s holds %q", n, r.Value)
		}
	}
}

func TestViewReportsCorruption(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		b.set(appendVersionKey(nil, userKey("bad"), 1), []byte{99})
		b.set(append(append(appendDataKey(nil, userKey("lock")), append([]byte{0xff}, make([]byte, 16)...)...), 18), nil)
	})
	v := e.NewView()
	defer v.Close()
	for _, key := range []string{"bad", "lock"} {
		if _, _, _, err := v.Get(userKey(key), shard.MaxRevision); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("get %s: %v", key, err)
		}
		for _, reverse := range []bool{false, true} {
			o := ScanOptions{Span: userSpan(key, key+"x"), At: shard.MaxRevision, Reverse: reverse}
			if _, _, err := v.Scan(o); !errors.Is(err, shard.ErrMalformed) {
				t.Errorf("scan %s: %v", key, err)
			}
		}
	}
}

func TestPutVersionRefusesNonsense(t *testing.T) {
	e := open(t, Config{})
	b := e.NewBatch()
	defer b.Close()
	for name, put := range map[string]func(){
		"revision 0":           func() { b.PutVersion(userKey("k"), 0, VersionHeader{}, nil) },
		"a system key":         func() { b.PutVersion([]byte{shard.SystemKeyspace, 1}, 1, VersionHeader{}, nil) },
		"a tombstone's value":  func() { b.PutVersion(userKey("k"), 1, VersionHeader{Tombstone: true}, []byte("v")) },
		"a trace of nothing":   func() { b.PutVersion(userKey("k"), 2, VersionHeader{Trace: true}, nil) },
		"a trace of later":     func() { b.PutVersion(userKey("k"), 2, VersionHeader{Trace: true, Origin: 2}, nil) },
		"a trace's value":      func() { b.PutVersion(userKey("k"), 2, VersionHeader{Trace: true, Origin: 1}, []byte("v")) },
		"an origin of a write": func() { b.PutVersion(userKey("k"), 2, VersionHeader{Origin: 1}, []byte("v")) },
		"an unversioned user":  func() { b.PutUnversioned(userKey("k"), nil) },
		"another shard's name": func() { b.PutReplicaState(6, testState(5, shard.UserSpan())) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was accepted", name)
				}
			}()
			put()
		}()
	}
}
