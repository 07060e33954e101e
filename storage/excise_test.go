package storage

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

// installed receives n keys as the content of d to f, over what old covers.
func installed(t *testing.T, e *Engine, n int, old shard.Span) {
	t.Helper()
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), n, "new", 300)
	if err := receive(t, e, transferred, 2, export(t, source, transferred)).Install(old); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotEndsWithAnInstallation: whatever of a snapshot begins to read after its
// content was replaced says so, be it flushed or not; what has begun goes on, and so do
// snapshots of other content and later ones.
func TestSnapshotEndsWithAnInstallation(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		e := open(t, Config{})
		span := userSpan("d", "f")
		state := fill(t, e, span, 3000, "old", 300)
		putVersion(t, e, "c", 1, "beside")
		putVersion(t, e, "f", 1, "beside")
		if flushed {
			e.db.Flush()
		}
		s, digested := e.NewSnapshot(), e.NewSnapshot()
		begun, err := s.Export(transferred)
		if err != nil {
			t.Fatal(err)
		}
		digest := digested.NewDigest(DigestOptions{Span: span, UpTo: state.LastRevision})
		if read, done, err := digest.Part(1 << 10); read == 0 || done || err != nil {
			t.Fatalf("the first part: %d bytes, %t, %v", read, done, err)
		}
		installed(t, e, 2000, span)
		e.db.Flush() // an ingest that overlaps a memtable is excised when that is flushed

		if got, ok, err := s.State(transferred); !ok || err != nil || got.LastRevision != state.LastRevision {
			t.Errorf("the snapshot's state is %+v, %t, %v", got, ok, err)
		}
		if _, err := s.Export(transferred); !errors.Is(err, ErrReplaced) {
			t.Errorf("an export that began afterwards: %v", err)
		}
		if _, err := s.Small(transferred); !errors.Is(err, ErrReplaced) {
			t.Errorf("a look at the size afterwards: %v", err)
		}
		if read, done, err := digest.Part(1 << 30); read != 0 || done || !errors.Is(err, ErrReplaced) {
			t.Errorf("the digest's second part: %d bytes, %t, %v", read, done, err)
		}
		for _, beside := range []shard.Span{userSpan("c", "d"), userSpan("f", "g")} {
			d := s.NewDigest(DigestOptions{Span: beside, UpTo: shard.MaxRevision})
			if _, done, err := d.Part(1 << 30); !done || err != nil || d.Versions != 1 {
				t.Errorf("a digest of what lies beside: %d versions, %t, %v", d.Versions, done, err)
			}
		}
		rows := 0
		for err = nil; err == nil; _, err = begun.Next() {
			rows = int(begun.totals.records)
		}
		if rows != 3000 || err != io.EOF {
			t.Errorf("the export that had begun has %d records, %v", rows, err)
		}
		if err := errors.Join(begun.Close(), s.Close(), digested.Close()); err != nil {
			t.Error(err)
		}
		later := e.NewSnapshot()
		d := later.NewDigest(DigestOptions{Span: span, UpTo: shard.MaxRevision})
		if _, done, err := d.Part(1 << 30); !done || err != nil || d.Versions != 2000 {
			t.Errorf("a later snapshot: %d versions, %t, %v", d.Versions, done, err)
		}
		if err := later.Close(); err != nil {
			t.Error(err)
		}
		if n := len(e.excises.snapshots); n != 0 {
			t.Errorf("%d closed snapshots are kept", n)
		}
	}
}

// TestViewsOpenedDuringAnExcise: every way to read says that content may be missing, and
// only where it may; so does a snapshot that was opened meanwhile, for ever.
func TestViewsOpenedDuringAnExcise(t *testing.T) {
	e := open(t, Config{})
	for _, key := range []string{"c", "d", "e", "f"} {
		putVersion(t, e, key, 1, "v")
	}
	before := e.NewView()
	defer before.Close()
	lower, upper := spanBounds(userSpan("d", "f"))
	other, otherEnd := spanBounds(userSpan("x", "y"))
	end := e.excises.begin(keyBounds{lower, upper})
	endOther := e.excises.begin(keyBounds{other, otherEnd})
	during, s := e.NewView(), e.NewSnapshot()
	defer during.Close()
	defer s.Close()
	endOther()
	end()
	after := e.NewView()
	defer after.Close()

	op := shard.OpID{Session: 1, Sequence: 1}
	reads := map[string]func(v *View, key string) error{
		"Get":       func(v *View, key string) error { _, _, _, err := v.Get(userKey(key), 5); return err },
		"VersionAt": func(v *View, key string) error { _, _, _, _, err := v.VersionAt(userKey(key), 5); return err },
		"Versions":  func(v *View, key string) error { _, err := v.Versions(userKey(key), 5); return err },
		"FindOp":    func(v *View, key string) error { _, _, err := v.FindOp(userKey(key), op, 0); return err },
		"Scan": func(v *View, key string) error {
			_, _, err := v.Scan(ScanOptions{Span: userSpan(key, key+"0"), At: 5})
			return err
		},
		"FindOpInSpan": func(v *View, key string) error {
			_, _, err := v.FindOpInSpan(userSpan(key, key+"0"), op, 0)
			return err
		},
		"Sizes": func(v *View, key string) error {
			_, err := v.Sizes(SizesOptions{Span: userSpan(key, key+"0"), KeysMax: 9, BytesMax: 9}, func([]byte, int) {})
			return err
		},
		"Walk": func(v *View, key string) error { _, err := v.Walk(userSpan(key, key+"0"), 0, 9); return err },
		"Garbage": func(v *View, key string) error {
			_, err := v.Garbage(GarbageOptions{Span: userSpan(key, key+"0"), Floor: 1, VisitsMax: 9, DropsMax: 9})
			return err
		},
	}
	for name, read := range reads {
		for _, key := range []string{"c", "d", "e", "f"} {
			inside := key == "d" || key == "e"
			if err := read(before, key); err != nil {
				t.Errorf("%s of %q, view of before: %v", name, key, err)
			}
			if err := read(during, key); errors.Is(err, ErrReplaced) != inside || !inside && err != nil {
				t.Errorf("%s of %q, view of meanwhile: %v", name, key, err)
			}
			if err := read(after, key); err != nil {
				t.Errorf("%s of %q, view of afterwards: %v", name, key, err)
			}
		}
	}
	for _, span := range []shard.Span{userSpan("d", "f"), userSpan("a", "d0"), userSpan("e", "z"), userSpan("a", "d"), userSpan("f", "g")} {
		overlaps := span.Overlaps(userSpan("d", "f"))
		if _, _, err := s.NewDigest(DigestOptions{Span: span, UpTo: 5}).Part(1 << 20); errors.Is(err, ErrReplaced) != overlaps {
			t.Errorf("a snapshot of meanwhile, %s: %v", span, err)
		}
	}
	if len(e.excises.running) != 0 {
		t.Errorf("%d excises are left", len(e.excises.running))
	}
}

// TestExcisesDuring: what a view lacks is known only if no excise has ended since.
func TestExcisesDuring(t *testing.T) {
	var x excises
	bounds := func(start, end string) keyBounds {
		lower, upper := spanBounds(userSpan(start, end))
		return keyBounds{lower, upper}
	}
	a, b := bounds("a", "b"), bounds("b", "c")
	endA := x.begin(a)
	ended := x.ended.Load()
	endB := x.begin(b)
	if lacks, known := x.during(ended); !known || len(lacks) != 2 {
		t.Errorf("two are running: %v, %t", lacks, known)
	}
	endA()
	if lacks, known := x.during(ended); known {
		t.Errorf("one has ended since: %v", lacks)
	}
	ended = x.ended.Load()
	if lacks, known := x.during(ended); !known || !slices.EqualFunc(lacks, []keyBounds{b}, func(a, b keyBounds) bool { return a.overlaps(b) }) {
		t.Errorf("one is running: %v, %t", lacks, known)
	}
	endB()
	if lacks, known := x.during(x.ended.Load()); !known || len(lacks) != 0 {
		t.Errorf("none is running: %v, %t", lacks, known)
	}
}

// TestInstalledContentGoesToTheBottom: nothing of a large snapshot's data is written
// again, whatever lay in its span.
func TestInstalledContentGoesToTheBottom(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		e := open(t, Config{})
		fill(t, e, userSpan("d", "f"), 2000, "old", 300)
		if flushed {
			e.db.Flush()
		}
		installed(t, e, 3000, userSpan("d", "f"))
		e.db.Flush()
		m := e.db.Metrics()
		var above uint64
		for level := range 6 {
			above += m.Levels[level].TableBytesIngested
		}
		if bottom := m.Levels[6].TableBytesIngested; bottom < 16<<10 || above > 4<<10 {
			t.Errorf("flushed %t: %d bytes were ingested at the bottom, %d above", flushed, bottom, above)
		}
	}
}

// linkingFS calls before before each link: an ingest links its files.
type linkingFS struct {
	vfs.FS
	before func()
}

func (fs *linkingFS) Link(from, to string) error {
	fs.before()
	return fs.FS.Link(from, to)
}

func (fs *linkingFS) Unwrap() vfs.FS { return fs.FS }

// TestInstallTellsOfItsExcise: a view that is opened while Install is at work says so.
func TestInstallTellsOfItsExcise(t *testing.T) {
	fs := &linkingFS{FS: vfs.NewMem(), before: func() {}}
	e := open(t, Config{FS: fs})
	span := userSpan("d", "f")
	fill(t, e, span, 100, "old", 300)
	links := 0
	fs.before = func() {
		links++
		v := e.NewView()
		if _, _, err := v.Scan(ScanOptions{Span: span, At: shard.MaxRevision}); !errors.Is(err, ErrReplaced) {
			t.Errorf("a view during link %d of the installation: %v", links, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	installed(t, e, 2000, span)
	if links == 0 {
		t.Error("nothing was linked")
	}
}

// gatedFS holds up the second table that is made while the gate is armed, those of
// installations apart.
type gatedFS struct {
	vfs.FS
	mu     sync.Mutex // guards what follows
	armed  bool
	tables int

	reached, open chan struct{}
}

func (fs *gatedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.mu.Lock()
	wait := false
	if fs.armed && strings.HasSuffix(name, ".sst") && !strings.Contains(name, "incoming") {
		fs.tables++
		wait = fs.tables == 2
	}
	fs.mu.Unlock()
	if wait {
		close(fs.reached)
		<-fs.open
	}
	return fs.FS.Create(name, c)
}

func (fs *gatedFS) Unwrap() vfs.FS { return fs.FS }

// TestExciseDuringAFlush: an installation cancels a flush that is under way across its
// span, of keys on both sides of it. The flush is begun anew, and nothing has failed.
func TestExciseDuringAFlush(t *testing.T) {
	fs := &gatedFS{FS: vfs.NewMem(), reached: make(chan struct{}), open: make(chan struct{})}
	e := open(t, Config{FS: fs, MemoryBytes: 256 << 20, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	random := rand.NewChaCha8([32]byte{1})
	value := make([]byte, 16<<10)
	keys := []string{}
	for i := range 1200 {
		_, _ = random.Read(value)
		keys = append(keys, fmt.Sprintf("%c%04d", "cz"[i%2], i))
		putVersion(t, e, keys[i], 1, string(value))
	}
	fs.mu.Lock()
	fs.armed = true
	fs.mu.Unlock()
	flushed, err := e.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	<-fs.reached
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 2000, "new", 300)
	install := receive(t, e, transferred, 2, export(t, source, transferred))
	if err := install.Install(userSpan("d", "f")); err != nil {
		t.Fatal(err)
	}
	close(fs.open)
	<-flushed
	if err := e.failure(); err != nil {
		t.Error(err)
	}
	v := e.NewView()
	defer v.Close()
	for _, key := range keys {
		if _, _, found, err := v.Get(userKey(key), shard.MaxRevision); !found || err != nil {
			t.Fatalf("%s: %t, %v", key, found, err)
		}
	}
	if rows, _, err := v.Scan(ScanOptions{Span: userSpan("d", "f"), At: shard.MaxRevision, RowsMax: 3000}); err != nil || len(rows) != 2000 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}
