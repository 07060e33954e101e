package sim

import (
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is one node's disk, in memory. It outlives the node's incarnations.
//
// A crash keeps exactly what was synced. Shares in between are not drawn by the
// disk, because Pebble's own writes are not ordered with the simulation's steps;
// the nemesis syncs a store at moments that nobody asked for instead, which keeps
// any prefix of what was committed and can be repeated.
type Disk struct{ fs *vfs.MemFS }

// NewDisk makes an empty disk.
func NewDisk() *Disk { return &Disk{fs: vfs.NewCrashableMem()} }

// FS is the file system of the current incarnation.
func (d *Disk) FS() vfs.FS { return d.fs }

// Lose loses everything that was not synced. A file system that FS returned
// before stays usable, so that what is left of the old incarnation can be closed, but no
// longer has any effect; so do its locks.
func (d *Disk) Lose() { d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{}) }

// Keep loses nothing but the locks.
func (d *Disk) Keep() {
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
}
