package sim

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is one node's disk, in memory. It outlives the node's incarnations.
//
// A crash keeps exactly what was synced. Shares in between are not drawn by the
// disk, because Pebble's own writes are not ordered with the simulation's steps;
// the nemesis syncs a store at moments that nobody asked for instead, which keeps
// any prefix of what was committed and can be repeated.
type Disk struct {
	mem *vfs.MemFS
	fs  *diskFS // of the current incarnation
}

// NewDisk makes an empty disk.
func NewDisk() *Disk {
	d := &Disk{}
	d.use(vfs.NewCrashableMem())
	return d
}

func (d *Disk) use(mem *vfs.MemFS) {
	if d.fs != nil {
		d.fs.fault.Store(nil)
	}
	d.mem, d.fs = mem, &diskFS{FS: mem}
}

// FS is the file system of the current incarnation.
func (d *Disk) FS() vfs.FS { return d.fs }

// Lose loses everything that was not synced. A file system that FS returned
// before stays usable, so that what is left of the old incarnation can be closed, but no
// longer has any effect; so do its locks. It works again if it failed.
func (d *Disk) Lose() { d.use(d.mem.CrashClone(vfs.CrashCloneCfg{})) }

// Keep loses nothing but the locks.
func (d *Disk) Keep() {
	d.use(d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))}))
}

// diskFault is how a disk fails.
//
// A failure must come at a moment that the seed decides, though Pebble writes its log
// from a goroutine of its own whenever a block is full. So the log's files fail only
// while a step waits for a sync, and files of tables, which are written only while a
// step waits for a flush, an ingest or a compaction, at any time. Once something has
// failed, nothing more is written until the node is started again, as on a disk that
// is gone or full: what Pebble tries again by itself changes nothing.
type diskFault struct {
	tables  bool // files of tables and the MANIFEST; else of the log
	sync    bool // syncs; else writes
	err     error
	syncing atomic.Bool // a step waits for a sync
	failed  atomic.Bool
}

func (f *diskFault) String() string {
	files, calls := "the log", "writes"
	if f.tables {
		files = "tables"
	}
	if f.sync {
		calls = "syncs"
	}
	return calls + " of " + files + ": " + f.err.Error()
}

// diskFS is a file system that fails when it is told to.
type diskFS struct {
	vfs.FS
	fault atomic.Pointer[diskFault]
}

// diskBytes is how large every disk is, as far as its node can tell.
const diskBytes = 1 << 40

// GetDiskUsage implements vfs.FS. What files take up is left out: Pebble removes obsolete
// ones whenever it likes, and what placement decides must follow from the seed.
func (d *diskFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: diskBytes, TotalBytes: diskBytes}, nil
}

// Unwrap implements vfs.FS.
func (d *diskFS) Unwrap() vfs.FS { return d.FS }

// check says how a write or a sync of a file ends.
func (d *diskFS) check(name string, sync bool) error {
	f := d.fault.Load()
	if f == nil {
		return nil
	}
	if !f.failed.Load() {
		base := d.FS.PathBase(name)
		log := strings.HasSuffix(base, ".log")
		tables := strings.HasSuffix(base, ".sst") || strings.HasPrefix(base, "MANIFEST")
		if sync != f.sync || f.tables && !tables || !f.tables && (!log || !f.syncing.Load()) {
			return nil
		}
		f.failed.Store(true)
	}
	what := "write"
	if sync {
		what = "sync"
	}
	return &fs.PathError{Op: what, Path: name, Err: f.err}
}

func (d *diskFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return f, err
	}
	return &diskFile{f, d, name}, nil
}

// Create implements vfs.FS.
func (d *diskFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return d.wrap(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (d *diskFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.wrap(name, f, err)
}

type diskFile struct {
	vfs.File
	fs   *diskFS
	name string
}

// Write implements vfs.File.
func (f *diskFile) Write(b []byte) (int, error) {
	if err := f.fs.check(f.name, false); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

// Sync implements vfs.File.
func (f *diskFile) Sync() error {
	if err := f.fs.check(f.name, true); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *diskFile) SyncData() error {
	if err := f.fs.check(f.name, true); err != nil {
		return err
	}
	return f.File.SyncData()
}

// drawDiskFault draws how a disk fails.
func drawDiskFault(l *Loop) *diskFault {
	f := &diskFault{tables: l.rand.IntN(4) == 0, sync: l.rand.IntN(2) == 0, err: syscall.EIO}
	if l.rand.IntN(2) == 0 {
		f.err = syscall.ENOSPC
	}
	return f
}

// flip has a drawn bit of the newest table be the other one. Nobody may have the disk
// in use. It tells which file, and how to have it flip back; "": there is none.
//
// Older tables may be obsolete, and Pebble removes those whenever it likes. Files of the
// log are left alone: the last record of one cannot be told from one that a crash has
// cut off, whoever writes it.
func (d *Disk) flip(l *Loop) (file string, back func() error, err error) {
	const dir = "store"
	names, err := d.mem.List(dir)
	if err != nil {
		return "", nil, err
	}
	name := ""
	for _, table := range names { // their names are numbers of one length
		if strings.HasSuffix(table, ".sst") {
			name = max(name, table)
		}
	}
	if name == "" {
		return "", nil, nil
	}
	content, err := d.read(d.mem.PathJoin(dir, name))
	if err != nil {
		return "", nil, err
	}
	bit := l.rand.IntN(8 * len(content))
	content[bit/8] ^= 1 << (bit % 8)
	return name, func() error {
		content, err := d.read(d.mem.PathJoin(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nobody needs it any more
		}
		if err != nil {
			return err
		}
		content[bit/8] ^= 1 << (bit % 8)
		return d.rewrite(dir, name, content)
	}, d.rewrite(dir, name, content)
}

func (d *Disk) read(path string) ([]byte, error) {
	f, err := d.mem.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, f)
	return b.Bytes(), err
}

// rewrite replaces a file, durably.
func (d *Disk) rewrite(dir, name string, content []byte) error {
	f, err := d.mem.Create(d.mem.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	folder, openErr := d.mem.OpenDir(dir)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, folder.Sync(), folder.Close())
}
