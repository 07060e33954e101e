package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

// disks are the disks of a cluster. They carry out one at a time the operations
// after which something is on a disk for good, and show each of them to a watcher,
// before and after. So what the watcher sees is a moment at which all machines
// could lose their power at once, whatever their goroutines are doing.
type disks struct {
	watch func(op diskOp)

	mu      sync.Mutex // guards what follows; held while an operation is carried out
	current map[shard.NodeID]*vfs.MemFS
	down    map[shard.NodeID]*vfs.MemFS      // left by a power cut, until the node starts
	synced  map[*vfs.MemFS]map[string][]byte // the synced content of each file, by its path
	number  int
}

// diskOp is an operation that makes something durable, or one that a directory's
// sync makes durable.
type diskOp struct {
	number int
	node   shard.NodeID
	kind   string // what is done to which kind of file
	path   string
	after  bool // it is carried out already
}

func (op diskOp) String() string {
	when := "before"
	if op.after {
		when = "after"
	}
	return fmt.Sprintf("%s operation %d, %s of %s on node %d", when, op.number, op.kind, op.path, op.node)
}

func newDisks() *disks {
	return &disks{current: map[shard.NodeID]*vfs.MemFS{}, down: map[shard.NodeID]*vfs.MemFS{}, synced: map[*vfs.MemFS]map[string][]byte{}}
}

// attach makes mem the disk of a node, which sees it through what is returned.
func (d *disks) attach(node shard.NodeID, mem *vfs.MemFS) vfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current[node] = mem
	delete(d.down, node)
	if d.synced[mem] == nil { // what a crash has left is on the disk
		d.synced[mem] = map[string][]byte{}
		eachFile(mem, "/", func(path string) { d.synced[mem][path] = bytes.Clone(content(mem, path)) })
	}
	return &watchedFS{FS: mem, disks: d, node: node, mem: mem}
}

// cut is the power cut of one node: its disk as it is then. What goes on on the old
// one is nobody's business any more. with is called at the same moment.
func (d *disks) cut(node shard.NodeID, with func()) *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.current[node].CrashClone(vfs.CrashCloneCfg{})
	delete(d.synced, d.current[node])
	delete(d.current, node)
	d.down[node] = left
	with()
	return left
}

// clone is a node's disk after a crash; it is called by the watcher. Of what was not
// synced it has nothing if keep is 0, everything if it is 100, and else a share of the
// written blocks of each file. Changes of directories are then there: file systems
// journal them in order, so that a share of them is what an earlier moment shows.
// (Pebble relies on that: it moves the marker of its manifest in a directory whose
// entry of the new manifest was not synced.)
func (d *disks) clone(node shard.NodeID, keep int, seed uint64) *vfs.MemFS {
	mem := d.current[node]
	if mem == nil {
		if mem = d.down[node]; mem == nil {
			mem = vfs.NewCrashableMem() // it was never started
		}
		keep = 0
	}
	if keep == 0 {
		return mem.CrashClone(vfs.CrashCloneCfg{})
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	all := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rnd})
	if keep == 100 {
		return all
	}
	synced := d.synced[mem]
	eachFile(all, "/", func(path string) {
		now := content(all, path)
		torn := now
		if grown := len(now) - len(synced[path]); grown > 0 && fileKind(path) == "WAL" && bytes.HasPrefix(now, synced[path]) && rnd.IntN(2) == 0 {
			torn = now[:len(now)-rnd.IntN(grown)] // it was written in several parts, of which the last ones are lost
		} else {
			torn = tearBlocks(synced[path], now, func() bool { return rnd.IntN(100) < keep })
		}
		if !bytes.Equal(torn, now) {
			writeFile(all, path, torn)
		}
	})
	return all
}

// eachFile calls visit for all files in and below a folder, in order of their names.
func eachFile(fs *vfs.MemFS, dir string, visit func(path string)) {
	names, err := fs.List(dir)
	if err != nil {
		panic(err)
	}
	slices.Sort(names)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		if info, err := fs.Stat(path); err == nil && info.IsDir() {
			eachFile(fs, path, visit)
		} else {
			visit(path)
		}
	}
}

// content is a file's, to be read only.
func content(fs *vfs.MemFS, path string) []byte {
	b, err := fs.UnsafeGetFileDataBuffer(path)
	if err != nil {
		panic(err)
	}
	return b
}

// tearBlocks is now without some of the blocks that it does not share with before.
func tearBlocks(before, now []byte, kept func() bool) []byte {
	const block = 4096
	torn := bytes.Clone(before)
	for i := 0; i < len(now); i += block {
		end := min(i+block, len(now))
		if end <= len(before) && bytes.Equal(before[i:end], now[i:end]) || !kept() {
			continue
		}
		if grow := end - len(torn); grow > 0 {
			torn = append(torn, make([]byte, grow)...)
		}
		copy(torn[i:], now[i:end])
	}
	return torn
}

func writeFile(fs vfs.FS, path string, content []byte) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err == nil {
		f, err = fs.OpenDir(fs.PathDir(path))
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		panic(err)
	}
}

// watchedFS is a node's disk as its store sees it.
type watchedFS struct {
	vfs.FS
	disks *disks
	node  shard.NodeID
	mem   *vfs.MemFS
}

func (fs *watchedFS) Unwrap() vfs.FS { return fs.FS }

// do carries out an operation. then is what it does to the synced content of files.
func (fs *watchedFS) do(what, path string, run func() error, then func(synced map[string][]byte)) error {
	d := fs.disks
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current[fs.node] != fs.mem {
		return run()
	}
	op := diskOp{number: d.number, node: fs.node, kind: what + " " + fileKind(fs.PathBase(path)), path: path}
	d.number++
	d.watch(op)
	err := run()
	if err == nil && then != nil {
		then(d.synced[fs.mem])
	}
	op.after = true
	d.watch(op)
	return err
}

func fileKind(name string) string {
	switch {
	case strings.HasSuffix(name, ".log"):
		return "WAL"
	case strings.HasSuffix(name, ".sst"):
		return "SST"
	case strings.HasPrefix(name, "MANIFEST"):
		return "manifest"
	case strings.Contains(name, "."), strings.HasPrefix(name, "OPTIONS"), strings.HasPrefix(name, "KILORAFT"):
		return "small file"
	}
	return "directory"
}

func (fs *watchedFS) file(path string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, fs: fs, path: path}, nil
}

func (fs *watchedFS) Create(path string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = fs.do("create", path, func() error { f, err = fs.FS.Create(path, c); return err },
		func(synced map[string][]byte) { delete(synced, absolute(path)) })
	return fs.file(path, f, err)
}

func (fs *watchedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = fs.do("reuse", to, func() error { f, err = fs.FS.ReuseForWrite(from, to, c); return err }, moved(from, to))
	return fs.file(to, f, err)
}

func (fs *watchedFS) OpenReadWrite(path string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(path, c, o...)
	return fs.file(path, f, err)
}

func (fs *watchedFS) OpenDir(path string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(path)
	return fs.file(path, f, err)
}

func (fs *watchedFS) Link(from, to string) error {
	return fs.do("link", to, func() error { return fs.FS.Link(from, to) },
		func(synced map[string][]byte) { synced[absolute(to)] = synced[absolute(from)] })
}

func (fs *watchedFS) Rename(from, to string) error {
	return fs.do("rename", to, func() error { return fs.FS.Rename(from, to) }, moved(from, to))
}

func (fs *watchedFS) Remove(path string) error {
	return fs.do("remove", path, func() error { return fs.FS.Remove(path) },
		func(synced map[string][]byte) { delete(synced, absolute(path)) })
}

func (fs *watchedFS) RemoveAll(path string) error {
	return fs.do("remove", path, func() error { return fs.FS.RemoveAll(path) }, nil)
}

func (fs *watchedFS) MkdirAll(path string, mode os.FileMode) error {
	return fs.do("make", path, func() error { return fs.FS.MkdirAll(path, mode) }, nil)
}

type watchedFile struct {
	vfs.File
	fs   *watchedFS
	path string
}

func (f *watchedFile) Sync() error {
	return f.fs.do("sync", f.path, f.File.Sync, f.fs.contentSynced(f.path))
}
func (f *watchedFile) SyncData() error {
	return f.fs.do("sync", f.path, f.File.SyncData, f.fs.contentSynced(f.path))
}

// SyncTo promises nothing.
func (f *watchedFile) SyncTo(length int64) (full bool, err error) {
	err = f.fs.do("sync part of", f.path, func() error { full, err = f.File.SyncTo(length); return err }, nil)
	return full, err
}

// contentSynced notes what a file has now.
func (fs *watchedFS) contentSynced(path string) func(map[string][]byte) {
	path = absolute(path)
	return func(synced map[string][]byte) {
		info, err := fs.mem.Stat(path)
		if err != nil || info.IsDir() {
			return
		}
		now, old := content(fs.mem, path), synced[path]
		if bytes.HasPrefix(now, old) { // the usual case
			synced[path] = append(old, now[len(old):]...)
		} else {
			synced[path] = bytes.Clone(now)
		}
	}
}

func moved(from, to string) func(map[string][]byte) {
	return func(synced map[string][]byte) {
		synced[absolute(to)] = synced[absolute(from)]
		delete(synced, absolute(from))
	}
}

func absolute(path string) string { return "/" + strings.TrimPrefix(path, "/") }
