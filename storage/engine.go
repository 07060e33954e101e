package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Engine is one open store. Its methods are safe for concurrent use, but for Close.
type Engine struct {
	cfg    Config
	fs     *countingFS // cfg.FS, counting
	db     *pebble.DB
	lock   *pebble.Lock
	recent entryCache
	// sstOptions are those of db with defaults filled in, for SSTs of imports.
	sstOptions *pebble.Options

	failed  atomic.Pointer[error] // the first failure; set once
	commits atomic.Uint64
	imports atomic.Uint64 // numbers the files of imports
	excises excises

	waiters []*syncWaiter // not simulated: lane % len
	waiting sync.WaitGroup

	sim simulatedSync // simulated
}

func newEngine(cfg Config) *Engine {
	e := &Engine{cfg: cfg, fs: newCountingFS(cfg.FS)}
	e.recent.budget = cfg.MemoryBytes / entryCacheShare
	e.sim.event.L = &e.sim.background
	if cfg.Simulated {
		e.sim.queue = cfg.Env.NewQueue("storage sync")
	}
	return e
}

func (e *Engine) options() *pebble.Options {
	var o *pebble.Options
	if e.cfg.Simulated {
		o = simulatedOptions()
	} else {
		o = serverOptions(e.cfg.MemoryBytes)
	}
	o.FS = e.fs
	o.Logger = pebbleLogger{e}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			// An excise cancels a flush that is under way across its span, which is begun
			// anew. Pebble keeps quiet about cancelled compactions, and not about flushes.
			if !errors.Is(err, pebble.ErrCancelledCompaction) {
				e.fail(fmt.Errorf("background work: %w", err))
			}
		},
		// The read that found it gets an error too, which stops its replica; the
		// other replicas of the node are sound.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			e.cfg.Logger.Error("storage: corrupt data", slog.String("what", info.String()))
		},
	}
	if e.cfg.Simulated {
		e.listen(o.EventListener)
	}
	return o
}

// Close waits for commits whose done is still to come, calls those, and closes
// the store. The caller makes sure that nothing uses the engine any more; views,
// snapshots and exports that are still open are reported as an error. After a
// failure Close leaves everything as it is: the process is about to end, and the
// lock with it.
func (e *Engine) Close() error {
	e.stopWaiters()
	if err := e.failure(); err != nil {
		return err
	}
	err := e.db.Close()
	if lockErr := e.lock.Close(); err == nil {
		err = lockErr
	}
	return err
}

// fail is where all failures of the disk end. It may run on any goroutine.
func (e *Engine) fail(err error) {
	err = fmt.Errorf("storage of %s failed: %w", e.cfg.Dir, err)
	if e.failed.CompareAndSwap(nil, &err) {
		e.cfg.Logger.Error("storage: failed", slog.Any("error", err))
		e.cfg.Fatal(err)
		e.sim.note()
	}
}

// failure is the first failure, or nil.
func (e *Engine) failure() error {
	if err := e.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// pebbleLogger takes Pebble's talk at debug level, and its fatal errors to fail.
// Pebble takes for granted that Fatalf does not return; when Config.Fatal does,
// every later commit is refused.
type pebbleLogger struct{ e *Engine }

func (l pebbleLogger) Infof(format string, args ...any) {
	if log := l.e.cfg.Logger; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.e.cfg.Logger.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.e.fail(fmt.Errorf(format, args...))
}

var _ pebble.Logger = pebbleLogger{}

// countingFS counts syncs of WAL files on their way to the disk.
type countingFS struct {
	vfs.FS
	walSyncs *atomic.Uint64
}

func newCountingFS(fs vfs.FS) *countingFS {
	return &countingFS{FS: fs, walSyncs: new(atomic.Uint64)}
}

func (fs *countingFS) Unwrap() vfs.FS { return fs.FS }

func (fs *countingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.wrap(name, f, err)
}

func (fs *countingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldname, newname, category)
	return fs.wrap(newname, f, err)
}

func (fs *countingFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !isWAL(name) {
		return f, err
	}
	return &countingFile{File: f, syncs: fs.walSyncs}, nil
}

func isWAL(name string) bool { return len(name) > 4 && name[len(name)-4:] == ".log" }

type countingFile struct {
	vfs.File
	syncs *atomic.Uint64
}

func (f *countingFile) Sync() error {
	f.syncs.Add(1)
	return f.File.Sync()
}

func (f *countingFile) SyncData() error {
	f.syncs.Add(1)
	return f.File.SyncData()
}
