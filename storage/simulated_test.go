package storage

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

func openSimulated(t testing.TB, fs vfs.FS, world *fakeEnv) *Engine {
	t.Helper()
	return open(t, Config{FS: fs, Env: world, Simulated: true})
}

func TestSimulatedCrashLosesExactlyWhatWasNotSynced(t *testing.T) {
	world := newFakeEnv(1)
	fs := vfs.NewCrashableMem()
	e := openSimulated(t, fs, world)
	put := func(n int, synced bool, done *bool) {
		b := e.NewBatch()
		b.PutAddress(shard.NodeID(n), "address")
		var err error
		if synced {
			err = e.CommitSync(b, n, func() { *done = true })
		} else {
			err = e.Commit(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	inCrash := func() int {
		crashed := openSimulated(t, fs.CrashClone(vfs.CrashCloneCfg{}), newFakeEnv(2))
		book, err := crashed.AddressBook()
		if err != nil {
			t.Fatal(err)
		}
		return len(book)
	}
	var first, second, third bool
	put(1, false, nil)
	put(2, true, &first)
	put(3, true, &second)
	if book, _ := e.AddressBook(); len(book) != 3 {
		t.Fatalf("%d of 3 commits are visible", len(book))
	}
	if n := inCrash(); n != 0 || first || second {
		t.Fatalf("before the sync event: %d commits are durable, completions %t %t", n, first, second)
	}
	if !world.step() || !first || !second {
		t.Fatal("one event does not serve all commits before it")
	}
	if world.step() {
		t.Fatal("a second event without a commit")
	}
	put(4, false, nil)
	if n := inCrash(); n != 3 {
		t.Fatalf("%d commits are durable, 3 were synced", n)
	}
	if err := e.CommitSync(e.NewBatch(), 0, func() { third = true }); err != nil { // empty
		t.Fatal(err)
	}
	if n := inCrash(); n != 3 {
		t.Fatalf("%d commits are durable before the second event", n)
	}
	world.step()
	if n := inCrash(); n != 4 || !third {
		t.Fatalf("an empty batch's sync left %d durable, completed %t", n, third)
	}
}

// A sync that is over early covers its commit and those before it, and not what is
// committed before its completion is told.
func TestSimulatedSyncMayBeOverBeforeTheNextCommit(t *testing.T) {
	const never, always = 0, 1000
	for _, c := range []struct {
		first, second int
		want          string // completions told, commits durable
	}{
		{never, never, "00 00 13 13 24"},
		{always, always, "02 02 12 14 24"},
		{always, never, "02 02 12 12 24"},
	} {
		world := newFakeEnv(1)
		fs := vfs.NewCrashableMem()
		e := open(t, Config{FS: fs, Env: world, Simulated: true, SyncsEarlyPerMille: c.first})
		told := 0
		put := func(n int, synced bool) {
			b := e.NewBatch()
			b.PutAddress(shard.NodeID(n), "address")
			err := error(nil)
			if synced {
				err = e.CommitSync(b, 0, func() { told++ })
			} else {
				err = e.Commit(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var seen []string
		look := func() {
			crashed := openSimulated(t, fs.CrashClone(vfs.CrashCloneCfg{}), newFakeEnv(2))
			book, err := crashed.AddressBook()
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, fmt.Sprint(told)+fmt.Sprint(len(book)))
		}
		put(1, false)
		put(2, true)
		look()
		put(3, false)
		look()
		world.step()
		look()
		if world.step() {
			t.Error("a second event without a commit")
		}
		e.cfg.SyncsEarlyPerMille = c.second
		put(4, true)
		look()
		world.step()
		look()
		if got := strings.Join(seen, " "); got != c.want {
			t.Errorf("%d, then %d of 1000 early: %s, want %s", c.first, c.second, got, c.want)
		}
	}
	// One that is over early does not speak for a later one of the same event.
	world := newFakeEnv(1)
	fs := vfs.NewCrashableMem()
	e := open(t, Config{FS: fs, Env: world, Simulated: true})
	for i, early := range []int{always, never} {
		e.cfg.SyncsEarlyPerMille = early
		b := e.NewBatch()
		b.PutAddress(shard.NodeID(i+1), "address")
		if err := e.CommitSync(b, 0, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	world.step()
	crashed := openSimulated(t, fs.CrashClone(vfs.CrashCloneCfg{}), newFakeEnv(2))
	if book, err := crashed.AddressBook(); err != nil || len(book) != 2 {
		t.Errorf("%d of 2 commits are durable when both are told of, %v", len(book), err)
	}
}

// tracingFS writes down what is made and synced, and what bytes are synced.
type tracingFS struct {
	vfs.FS
	mu    sync.Mutex
	trace []string
}

func (fs *tracingFS) note(format string, args ...any) {
	fs.mu.Lock()
	fs.trace = append(fs.trace, fmt.Sprintf(format, args...))
	fs.mu.Unlock()
}

func (fs *tracingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.note("create %s", name)
	f, err := fs.FS.Create(name, c)
	return &tracingFile{f, fs, name, 0}, err
}

func (fs *tracingFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.note("reuse for %s", to)
	f, err := fs.FS.ReuseForWrite(from, to, c)
	return &tracingFile{f, fs, to, 0}, err
}

type tracingFile struct {
	vfs.File
	fs    *tracingFS
	name  string
	bytes int
}

func (f *tracingFile) Write(b []byte) (int, error) {
	f.bytes += len(b)
	return f.File.Write(b)
}

func (f *tracingFile) Sync() error {
	f.fs.note("sync %s at %d", f.name, f.bytes)
	return f.File.Sync()
}

func (f *tracingFile) SyncData() error {
	f.fs.note("sync data %s at %d", f.name, f.bytes)
	return f.File.SyncData()
}

// simulatedRun does some thousand operations of one seed and returns how the
// disk was touched and what a crash at some moments leaves.
func simulatedRun(t *testing.T, seed uint64) (trace, crashes string) {
	world := newFakeEnv(seed)
	mem := vfs.NewCrashableMem()
	fs := &tracingFS{FS: mem}
	e := open(t, Config{FS: fs, Env: world, Simulated: true, SyncsEarlyPerMille: 300})
	var left strings.Builder
	for i := range 1500 {
		b := e.NewBatch()
		for range world.Uint64() % 4 {
			key := userKey(fmt.Sprintf("%03d", world.Uint64()%500))
			size := world.Uint64() % 700
			if world.Uint64()%300 == 0 {
				size = 200 << 10
			}
			b.PutVersion(key, shard.Revision(i+1), VersionHeader{}, bytes.Repeat([]byte{byte(i)}, int(size)))
		}
		var err error
		if world.Uint64()%2 == 0 {
			err = e.Commit(b)
		} else {
			err = e.CommitSync(b, 0, func() {})
		}
		if err != nil {
			t.Fatal(err)
		}
		if world.Uint64()%3 == 0 {
			world.step()
		}
		if i%250 == 0 {
			crashed := openSimulated(t, mem.CrashClone(vfs.CrashCloneCfg{}), newFakeEnv(seed))
			for _, line := range dump(t, crashed, shard.UserSpan()) {
				key, value, _ := strings.Cut(line, "=")
				fmt.Fprintf(&left, "%d: %s %d\n", i, key, len(value))
			}
			closeEngine(t, crashed)
		}
	}
	s := e.Stats()
	if s.Flushes < 5 || s.Compactions == 0 {
		t.Fatalf("the run has %d flushes and %d compactions: too few to show anything", s.Flushes, s.Compactions)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return strings.Join(fs.trace, "\n"), left.String()
}

func TestSimulatedRunsOfOneSeedAreEqual(t *testing.T) {
	trace, crashes := simulatedRun(t, 42)
	again, crashesAgain := simulatedRun(t, 42)
	if crashes != crashesAgain {
		t.Fatal("crashes of two runs leave different data")
	}
	if trace != again {
		a, b := strings.Split(trace, "\n"), strings.Split(again, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("the disk is touched differently: operation %d of %d and %d is %q and %q", i, len(a), len(b), a[i], b[i])
			}
		}
		t.Fatalf("the disk is touched %d and %d times", len(a), len(b))
	}
	if other, _ := simulatedRun(t, 43); other == trace {
		t.Error("another seed gives the same run")
	}
}
