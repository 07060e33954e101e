package storage

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

var errDisk = errors.New("the disk is broken")

// brokenFS fails writes, syncs and creations of files whose name contains a
// text, once it is told to.
type brokenFS struct {
	vfs.FS
	broken atomic.Pointer[string]
}

func (fs *brokenFS) breakFiles(text string) { fs.broken.Store(&text) }

func (fs *brokenFS) check(name string) error {
	if text := fs.broken.Load(); text != nil && strings.Contains(fs.PathBase(name), *text) {
		return errDisk
	}
	return nil
}

func (fs *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.check(name); err != nil {
		return nil, err
	}
	f, err := fs.FS.Create(name, c)
	return &brokenFile{f, fs, name}, err
}

type brokenFile struct {
	vfs.File
	fs   *brokenFS
	name string
}

func (f *brokenFile) Write(b []byte) (int, error) {
	if err := f.fs.check(f.name); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *brokenFile) Sync() error {
	if err := f.fs.check(f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *brokenFile) SyncData() error {
	if err := f.fs.check(f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// fatalProbe opens an engine that reports its failure instead of ending the process.
func fatalProbe(t *testing.T, cfg Config) (e *Engine, fs *brokenFS, failed chan error) {
	t.Helper()
	fs = &brokenFS{FS: vfs.NewMem()}
	failed = make(chan error, 100)
	cfg.FS, cfg.Fatal = fs, func(err error) { failed <- err }
	return open(t, cfg), fs, failed
}

// checkStopped: Fatal was called once, nothing is accepted any more, and no done
// that was refused is called.
func checkStopped(t *testing.T, e *Engine, failed chan error) {
	t.Helper()
	err := <-failed
	if !errors.Is(err, errDisk) && !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("Fatal was called with %v", err)
	}
	b := e.NewBatch()
	b.PutIdentity(Identity{Node: 1})
	if err := e.Commit(b); err == nil {
		t.Error("a commit after the failure was accepted")
	}
	if err := e.CommitSync(e.NewBatch(), 0, func() { t.Error("done was called after the failure") }); err == nil {
		t.Error("a synced commit after the failure was accepted")
	}
	if err := e.Close(); err == nil {
		t.Error("Close hides the failure")
	}
	e.db = nil // abandoned
	if n := len(failed); n > 0 {
		t.Errorf("Fatal was called %d times more", n)
	}
}

func TestFailedWALSyncStopsTheEngine(t *testing.T) {
	e, fs, failed := fatalProbe(t, Config{})
	fs.breakFiles(".log")
	b := e.NewBatch()
	b.PutIdentity(Identity{Node: 1})
	if err := e.CommitSync(b, 0, func() { t.Error("done was called for a failed sync") }); err != nil {
		t.Logf("refused at once: %v", err)
	}
	checkStopped(t, e, failed)
}

func TestFailedFlushStopsTheEngine(t *testing.T) {
	e, fs, failed := fatalProbe(t, Config{})
	commit(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 1}) })
	fs.breakFiles(".sst")
	if _, err := e.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	checkStopped(t, e, failed)
}

func TestFailedManifestStopsTheEngine(t *testing.T) {
	e, fs, failed := fatalProbe(t, Config{})
	commit(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 1}) })
	fs.breakFiles("MANIFEST")
	e.db.AsyncFlush()
	checkStopped(t, e, failed)
}

func TestFailedSimulatedSyncStopsTheEngine(t *testing.T) {
	world := newFakeEnv(1)
	e, fs, failed := fatalProbe(t, Config{Simulated: true, Env: world})
	b := e.NewBatch()
	b.PutIdentity(Identity{Node: 1})
	if err := e.CommitSync(b, 0, func() { t.Error("done was called for a failed sync") }); err != nil {
		t.Fatal(err)
	}
	fs.breakFiles(".log")
	for world.step() {
	}
	checkStopped(t, e, failed)
}

func TestFailedInstallStopsTheEngine(t *testing.T) {
	source := open(t, Config{})
	commit(t, source, func(b *Batch) { b.PutInitialReplica(1, testState(5, shard.UserSpan())) })
	chunks := export(t, source, 5)
	e, fs, failed := fatalProbe(t, Config{})
	i := receive(t, e, 5, 2, chunks)
	fs.breakFiles(".sst")
	if err := i.Install(shard.Span{}); err == nil {
		t.Error("the installation succeeded")
	}
	checkStopped(t, e, failed)
}

// TestFatalIsCalledOnce lets all ways of failing meet.
func TestFatalIsCalledOnce(t *testing.T) {
	var calls atomic.Int64
	e := newEngine(Config{Dir: "store", Logger: quietConfig().Logger, Fatal: func(error) { calls.Add(1) }})
	o := serverOptions(64 << 20)
	o.EventListener = e.options().EventListener
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			switch i % 3 {
			case 0:
				pebbleLogger{e}.Fatalf("disk %d", i)
			case 1:
				o.EventListener.BackgroundError(fmt.Errorf("disk %d", i))
			case 2:
				e.fail(fmt.Errorf("disk %d", i))
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("Fatal was called %d times", n)
	}
	if e.failure() == nil {
		t.Error("the failure is forgotten")
	}
}

// Corruption of data stops who reads it, not the process: the other replicas of
// the node are sound.
func TestCorruptionIsNotFatal(t *testing.T) {
	cfg := quietConfig()
	cfg.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	e := newEngine(cfg)
	e.options().EventListener.DataCorruption(pebble.DataCorruptionInfo{Path: "000001.sst", Details: errDisk})
}

// A disk that is full while a snapshot is received refuses the snapshot, and nothing
// else: its files are removed, and the engine goes on.
func TestFailedImportIsNotFatal(t *testing.T) {
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 3000, "new", 300)
	chunks := export(t, source, transferred)
	e, fs, failed := fatalProbe(t, Config{})
	fs.breakFiles(".sst")
	i, err := e.NewImport(transferred, 2)
	for n := 0; err == nil && n < len(chunks); n++ {
		err = i.Add(chunks[n])
	}
	if !errors.Is(err, errDisk) || errors.Is(err, shard.ErrMalformed) {
		t.Fatalf("the broken disk gives %v", err)
	}
	if err := i.Add(chunks[0]); err == nil {
		t.Error("a failed import takes more")
	}
	if err := i.Close(); err != nil {
		t.Logf("closing: %v", err)
	}
	if names, _ := fs.List(fs.PathJoin(e.cfg.Dir, incomingDir)); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	if len(failed) > 0 {
		t.Fatalf("the engine stopped: %v", <-failed)
	}
	fs.broken.Store(nil)
	commit(t, e, func(b *Batch) { b.PutIdentity(Identity{Node: 1}) })
}

// An import stops before the disk is full, so that the log can go on, and leaves
// nothing behind.
func TestImportLeavesRoom(t *testing.T) {
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 9000, "new", 300)
	chunks := export(t, source, transferred)
	fs := vfs.NewMem()
	free := func(n uint64) {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: 1 << 30, UsedBytes: 1<<30 - n})
	}
	e := open(t, Config{FS: fs})
	add := func(i *Import) (taken int, err error) {
		for ; err == nil && taken < len(chunks); taken++ {
			if taken == len(chunks)/2 {
				free(importSpareBytes - 1)
			}
			err = i.Add(chunks[taken])
		}
		return taken, err
	}
	for _, spare := range []uint64{importSpareBytes, importSpareBytes - 1} {
		free(spare)
		i, err := e.NewImport(transferred, 2)
		if err != nil {
			t.Fatal(err)
		}
		taken, err := add(i)
		if !errors.Is(err, errNoRoom) || errors.Is(err, shard.ErrMalformed) {
			t.Fatalf("the full disk gives %v", err)
		}
		if half := taken > len(chunks)/2; half != (spare == importSpareBytes) {
			t.Errorf("with %d bytes to spare it is refused after %d of %d chunks", spare, taken, len(chunks))
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		if names, _ := fs.List(fs.PathJoin(e.cfg.Dir, incomingDir)); len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
	}
	free(importSpareBytes)
	if err := receive(t, e, transferred, 2, chunks).Install(shard.Span{}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
