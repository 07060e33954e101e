package storage

import (
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

// format is Pebble's newest on-disk format. Pebble's own default is its oldest,
// without columnar blocks and without the WAL sync chunks that tell corruption
// from a torn tail.
const format = pebble.FormatNewest

// entryCacheShare is the part of the memory budget that goes to recent entries
// of the logs. It lies on the Go heap, where the collector's slack multiplies it.
const entryCacheShare = 16

// memtableShare: one memtable has this part of the budget, and at most
// memtablesMax exist before writes wait. Pebble takes memtables out of the block
// cache's share, so the cache's size is the budget of both.
const (
	memtableShare    = 4
	memtablesMax     = 3
	memtableBytesMax = 256 << 20
)

// simulatedMemtableBytes is the size that Pebble's first memtable has whatever
// it is told; as the size of all of them it keeps the moment at which a batch
// becomes too large for a memtable from depending on the ones before.
const simulatedMemtableBytes = 256 << 10

func baseOptions() *pebble.Options {
	o := &pebble.Options{
		FormatMajorVersion: format,
		// The three belong together: blocks written by one key schema cannot be
		// read with another, and the collectors parse the keys.
		Comparer:                &cockroachkvs.Comparer,
		KeySchema:               cockroachkvs.KeySchema.Name,
		KeySchemas:              sstable.MakeKeySchemas(&cockroachkvs.KeySchema),
		BlockPropertyCollectors: cockroachkvs.BlockPropertyCollectors,
		MaxOpenFiles:            2000,
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 32 << 10
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *block.CompressionProfile { return sstable.SnappyCompression }
	}
	return o
}

// serverOptions are for a store on a real disk.
func serverOptions(memoryBytes int64) *pebble.Options {
	o := baseOptions()
	o.CacheSize = memoryBytes - memoryBytes/entryCacheShare
	o.MemTableSize = uint64(min(memoryBytes/memtableShare, memtableBytesMax))
	o.MemTableStopWritesThreshold = memtablesMax
	o.LBaseMaxBytes = max(64<<20, int64(o.MemTableSize))
	// A flush gives one sublevel. Writes stop late: a stall stops all groups at
	// once, while a read that looks into some more sublevels is only slower.
	o.L0CompactionThreshold = 4
	o.L0StopWritesThreshold = 48
	o.TargetFileSizes[0] = 4 << 20
	o.FlushSplitBytes = 8 << 20
	o.CompactionConcurrencyRange = func() (int, int) { return 1, max(2, runtime.GOMAXPROCS(0)/2) }
	// Small steady writes: an fsync on ext4 may flush others' dirty pages too.
	o.BytesPerSync = 512 << 10
	o.WALBytesPerSync = 512 << 10
	o.TargetByteDeletionRate = 128 << 20
	// A dropped span's disk space comes back only once its range tombstone is
	// flushed. Truncations of long logs write range tombstones too, so a short
	// delay would flush busy stores' memtables long before they are full.
	o.FlushDelayDeleteRange = 30 * time.Second
	return o
}

// simulatedOptions leave no work to Pebble's own initiative. It flushes when
// Commit asks it to, before a memtable is full: how full one is depends on the
// random heights of its skiplist's nodes, and rotating it syncs the WAL.
func simulatedOptions() *pebble.Options {
	o := baseOptions()
	o.CacheSize = 4 << 20
	o.MemTableSize = simulatedMemtableBytes
	o.MemTableStopWritesThreshold = 1000
	o.L0StopWritesThreshold = 1 << 20
	o.DisableAutomaticCompactions = true
	o.DisableTableStats = true
	o.FlushSplitBytes = 1 << 40
	o.TargetFileSizes[0] = 1 << 40
	o.CompactionConcurrencyRange = func() (int, int) { return 1, 1 }
	o.Experimental.ReadSamplingMultiplier = -1
	o.Experimental.FileCacheShards = 1
	o.MaxOpenFiles = 200
	return o
}
