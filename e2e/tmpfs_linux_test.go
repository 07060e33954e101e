package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// tmpfs is a small disk of its own for one node.
type tmpfs struct {
	t   *testing.T
	dir string
}

// moveToTmpfs moves the store of a stopped node to a disk of a given size. Without the
// right to mount one the test is skipped.
func (c *cluster) moveToTmpfs(i int, options string) *tmpfs {
	c.t.Helper()
	fs := &tmpfs{t: c.t, dir: filepath.Join(c.dir, "disk")}
	if err := os.Mkdir(fs.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", fs.dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENODEV) {
		c.t.Skipf("a small disk cannot be mounted here (it takes root): %v", err) //lacking: the right to mount
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { // before the folders are removed, and after the process
		c.nodes[i-1].kill()
		if err := syscall.Unmount(fs.dir, 0); err != nil {
			c.t.Error(err)
		}
	})
	moved := filepath.Join(fs.dir, "store")
	if err := os.CopyFS(moved, os.DirFS(c.store(i))); err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(moved, 0o700), os.RemoveAll(c.store(i)), os.Symlink(moved, c.store(i))); err != nil {
		c.t.Fatal(err)
	}
	return fs
}

func (fs *tmpfs) stat() (s syscall.Statfs_t) {
	fs.t.Helper()
	if err := syscall.Statfs(fs.dir, &s); err != nil {
		fs.t.Fatal(err)
	}
	return s
}

func (fs *tmpfs) ballast() string { return filepath.Join(fs.dir, "ballast") }

// fill leaves no more than a number of bytes free.
func (fs *tmpfs) fill(free int64) {
	fs.t.Helper()
	f, err := os.OpenFile(fs.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fs.t.Fatal(err)
	}
	defer f.Close()
	for {
		s := fs.stat()
		missing := int64(s.Bavail)*s.Bsize - free
		if missing <= 0 {
			return
		}
		if _, err := f.Write(make([]byte, min(missing, 1<<20))); err != nil && !errors.Is(err, syscall.ENOSPC) {
			fs.t.Fatal(err)
		}
	}
}

// empty makes space again.
func (fs *tmpfs) empty() {
	fs.t.Helper()
	if err := os.Remove(fs.ballast()); err != nil {
		fs.t.Fatal(err)
	}
}

// allowFiles bounds how many more files there may be: a file that exists can grow, a new
// one finds no space.
func (fs *tmpfs) allowFiles(more uint64) {
	fs.t.Helper()
	s := fs.stat()
	if err := syscall.Mount("tmpfs", fs.dir, "tmpfs", syscall.MS_REMOUNT, "nr_inodes="+strconv.FormatUint(s.Files-s.Ffree+more, 10)); err != nil {
		fs.t.Fatal(err)
	}
}
