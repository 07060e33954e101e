package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

func TestStoreOnARealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	cfg := Config{Dir: dir, FS: vfs.Default}
	e := open(t, cfg)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("the store's directory has mode %v, %v", info.Mode(), err)
	}
	for i := range 2000 {
		commit(t, e, func(b *Batch) {
			b.PutVersion(userKey(fmt.Sprintf("k%04d", i)), shard.Revision(i+1), VersionHeader{}, make([]byte, 100))
		})
	}
	commitSync(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 7, Incarnation: 1}) })
	if s := e.Stats(); s.WALSyncs == 0 || s.Commits != 2001 || s.WALBytes == 0 || s.DiskBytes == 0 || s.MemtableBytes == 0 {
		t.Errorf("stats %+v", s)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second open of the store: %v", err)
	}
	closeEngine(t, e)
	e = open(t, cfg)
	if id, found, err := e.Identity(); err != nil || !found || id.Node != 7 {
		t.Fatalf("identity %+v, %t, %v", id, found, err)
	}
	if rows := dump(t, e, shard.UserSpan()); len(rows) != 2000 {
		t.Fatalf("%d rows after the restart", len(rows))
	}
	if n, err := e.SpanBytes(shard.UserSpan()); err != nil || n == 0 {
		t.Errorf("the span has %d bytes, %v", n, err)
	}
}

func TestOpenTakesALock(t *testing.T) {
	fs := vfs.NewMem()
	e := open(t, Config{FS: fs})
	if _, err := Open(Config{Dir: "store", FS: fs}); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second open: %v", err)
	}
	closeEngine(t, e)
	open(t, Config{FS: fs})
}

// files is everything in a directory, with contents.
func files(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(f)
		f.Close()
		all[name] = string(b)
	}
	return all
}

func writeFile(t *testing.T, fs vfs.FS, name, text string) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte(text))
	f.Close()
}

func TestOpenRefusesAndChangesNothing(t *testing.T) {
	kiloraft := func(t *testing.T, fs vfs.FS) {
		closeEngine(t, open(t, Config{FS: fs}))
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, fs vfs.FS)
		want    error
	}{
		{"a Pebble store", func(t *testing.T, fs vfs.FS) {
			db, err := pebble.Open("store", &pebble.Options{FS: fs, Logger: pebbleLogger{newEngine(quietConfig())}})
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
		}, ErrForeign},
		{"some files", func(t *testing.T, fs vfs.FS) {
			fs.MkdirAll("store", 0o755)
			writeFile(t, fs, "store/notes.txt", "mine")
		}, ErrForeign},
		{"another marker", func(t *testing.T, fs vfs.FS) {
			fs.MkdirAll("store", 0o755)
			writeFile(t, fs, "store/"+markerName, "a poem")
		}, ErrForeign},
		{"a newer marker", func(t *testing.T, fs vfs.FS) {
			kiloraft(t, fs)
			writeFile(t, fs, "store/"+markerName, "kiloraft store, format 2, ready, with a twist\n")
		}, ErrNewer},
		{"a newer Pebble", func(t *testing.T, fs vfs.FS) {
			kiloraft(t, fs)
			for name := range files(t, fs, "store") {
				if strings.HasPrefix(name, "marker.format-version") {
					fs.Remove("store/" + name)
				}
			}
			writeFile(t, fs, "store/marker.format-version.000099.999", "")
		}, ErrNewer},
		{"a malformed marker", func(t *testing.T, fs vfs.FS) {
			kiloraft(t, fs)
			writeFile(t, fs, "store/"+markerName, "kiloraft store, format 1, rea")
		}, ErrDamaged},
		{"a marker without a database", func(t *testing.T, fs vfs.FS) {
			fs.MkdirAll("store", 0o755)
			writeFile(t, fs, "store/"+markerName, formatMarker(markerReady))
		}, ErrDamaged},
		{"a file in its place", func(t *testing.T, fs vfs.FS) { writeFile(t, fs, "store", "") }, ErrUnusable},
		{"a file in a parent's place", func(t *testing.T, fs vfs.FS) { writeFile(t, fs, "parent", "") }, ErrUnusable},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := vfs.NewMem()
			test.prepare(t, fs)
			dir := "store"
			if strings.Contains(test.name, "parent") {
				dir = "parent/store"
			}
			var before map[string]string
			if test.want != ErrUnusable {
				before = files(t, fs, dir)
			}
			e, err := Open(Config{Dir: dir, FS: fs})
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if e != nil {
				t.Fatal("an engine and an error")
			}
			if before == nil {
				return
			}
			after := files(t, fs, dir)
			delete(after, "LOCK")
			delete(before, "LOCK")
			if fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the directory changed from %q to %q", before, after)
			}
		})
	}
}

func quietConfig() Config {
	cfg := Config{Dir: "store"}
	cfg.setDefaults()
	return cfg
}

// TestOpenAfterACrashWhileMaking crashes at every sync and rename of the first
// start; each state must open.
func TestOpenAfterACrashWhileMaking(t *testing.T) {
	fs := &crashingFS{FS: vfs.NewCrashableMem()}
	closeEngine(t, open(t, Config{FS: fs, Dir: "a/b/store"}))
	if len(fs.clones()) < 5 {
		t.Fatalf("only %d moments to crash at", len(fs.clones()))
	}
	for _, clone := range fs.clones() {
		e := open(t, Config{FS: clone, Dir: "a/b/store"})
		commitSync(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 1}) })
		closeEngine(t, e)
	}
}

// crashingFS keeps what a crash would leave after each sync, rename and link.
type crashingFS struct {
	vfs.FS
	collector[*vfs.MemFS]
}

func (fs *crashingFS) clones() []*vfs.MemFS { return fs.all() }

func (fs *crashingFS) crash() {
	fs.add(fs.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{}))
}

func (fs *crashingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return &crashingFile{f, fs}, err
}

func (fs *crashingFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &crashingFile{f, fs}, nil
}

func (fs *crashingFS) Rename(from, to string) error {
	defer fs.crash()
	return fs.FS.Rename(from, to)
}

func (fs *crashingFS) Link(from, to string) error {
	defer fs.crash()
	return fs.FS.Link(from, to)
}

type crashingFile struct {
	vfs.File
	fs *crashingFS
}

func (f *crashingFile) Sync() error {
	defer f.fs.crash()
	return f.File.Sync()
}

func (f *crashingFile) SyncData() error {
	defer f.fs.crash()
	return f.File.SyncData()
}

func TestCommitSyncCompletesInOrder(t *testing.T) {
	e := open(t, Config{})
	const lanes, each = 6, 300
	var wg sync.WaitGroup
	wg.Add(lanes * each)
	var order [lanes]collector[int]
	for i := range each {
		for lane := range lanes {
			b := e.NewBatch()
			if i%3 != 0 { // some are empty
				b.PutVersion(userKey(fmt.Sprintf("%d-%d", lane, i)), 1, VersionHeader{}, nil)
			}
			if err := e.CommitSync(b, lane, func() { order[lane].add(i); wg.Done() }); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	for lane := range order {
		if got := order[lane].all(); !slices.IsSorted(got) || len(got) != each {
			t.Errorf("lane %d: completions %v", lane, got)
		}
	}
}

// TestCommitSyncNeverBlocksOnCallbacks holds a lock that the first done needs,
// and commits more than any queue between would hold.
func TestCommitSyncNeverBlocksOnCallbacks(t *testing.T) {
	e := open(t, Config{})
	var mu sync.Mutex
	const commits = 6000
	var wg sync.WaitGroup
	wg.Add(commits)
	mu.Lock()
	for range commits {
		if err := e.CommitSync(e.NewBatch(), 1, func() { mu.Lock(); wg.Done(); mu.Unlock() }); err != nil {
			t.Fatal(err)
		}
	}
	mu.Unlock()
	wg.Wait()
}

// TestEmptyCommitSyncWaitsForEarlierCommits: a response that waits for an empty
// batch must not leave before what was committed earlier is durable.
func TestEmptyCommitSyncWaitsForEarlierCommits(t *testing.T) {
	for range 20 {
		fs := vfs.NewCrashableMem()
		e := open(t, Config{FS: fs})
		commit(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 3}) })
		commitSync(t, e, func(*Batch) {})
		crashed := open(t, Config{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
		if _, found, err := crashed.Identity(); !found || err != nil {
			t.Fatalf("the earlier commit is lost: %t, %v", found, err)
		}
	}
}

func TestCloseCallsWhatIsOutstanding(t *testing.T) {
	fs := vfs.NewMem()
	e := open(t, Config{FS: fs})
	var done collector[int]
	const commits = 500
	for i := range commits {
		b := e.NewBatch()
		b.PutAddress(1, fmt.Sprint(i))
		if err := e.CommitSync(b, i, func() { done.add(i) }); err != nil {
			t.Fatal(err)
		}
	}
	closeEngine(t, e)
	if n := len(done.all()); n != commits {
		t.Errorf("%d of %d completions were called", n, commits)
	}
}

func TestBatchIsConsumed(t *testing.T) {
	e := open(t, Config{})
	b := e.NewBatch()
	if !b.Empty() {
		t.Error("a new batch is not empty")
	}
	b.PutUnversioned([]byte{shard.SystemKeyspace, 1}, []byte("v"))
	if b.Empty() || b.Bytes() == 0 {
		t.Error("a batch with a record is empty")
	}
	if err := e.Commit(b); err != nil {
		t.Fatal(err)
	}
	b.Close()
	defer func() {
		if recover() == nil {
			t.Error("a second commit of a batch did not panic")
		}
	}()
	e.Commit(b)
}

// What is rolled back leaves no trace: not its records, nor its range deletions.
func TestBatchRollsBack(t *testing.T) {
	key := func(i byte) []byte { return []byte{shard.SystemKeyspace, i} }
	e := open(t, Config{})
	commit(t, e, func(b *Batch) { b.PutUnversioned(key(1), []byte("old")) })
	for name, before := range map[string]func(b *Batch){
		"to the beginning": func(*Batch) {},
		"to a record":      func(b *Batch) { b.PutUnversioned(key(2), []byte("kept")) },
	} {
		b := e.NewBatch()
		before(b)
		bytes, m := b.Bytes(), b.Mark()
		b.RollBack(m) // of nothing
		b.PutUnversioned(key(1), []byte("new"))
		b.deleteRange(dataLower, dataUpper)
		b.RollBack(m)
		if b.Bytes() != bytes {
			t.Errorf("%s: %d bytes, before %d", name, b.Bytes(), bytes)
		}
		b.PutUnversioned(key(3), []byte(name))
		if err := e.Commit(b); err != nil {
			t.Fatal(err)
		}
		v := e.NewView()
		for i, want := range map[byte]string{1: "old", 3: name} {
			if value, _, found, err := v.Get(key(i), shard.MaxRevision); err != nil || !found || string(value) != want {
				t.Errorf("%s: key %d is %q, %v, %v", name, i, value, found, err)
			}
		}
		v.Close()
	}
	v := e.NewView()
	defer v.Close()
	if value, _, _, err := v.Get(key(2), shard.MaxRevision); err != nil || string(value) != "kept" {
		t.Errorf("the record before the mark: %q, %v", value, err)
	}
}
