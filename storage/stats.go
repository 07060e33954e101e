package storage

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	dto "github.com/prometheus/client_model/go"

	"github.com/kiloraft/kiloraft/shard"
)

// Stats for metrics and status. Counters count from the start of the engine.
type Stats struct {
	WALSyncs, WALBytes, Commits          uint64
	WALSyncTime                          time.Duration // of all WALSyncs together
	DiskBytes, MemtableBytes, CacheBytes int64
	Compactions, Flushes, Ingests        uint64
	L0Sublevels                          int
}

// Stats collects figures. It takes Pebble's lock and walks its levels: for a
// scrape, not for a hot path.
func (e *Engine) Stats() Stats {
	m := e.db.Metrics()
	return Stats{
		WALSyncs:      e.fs.walSyncs.Load(),
		WALSyncTime:   syncTime(m),
		WALBytes:      m.WAL.BytesWritten,
		Commits:       e.commits.Load(),
		DiskBytes:     int64(m.DiskSpaceUsage()),
		MemtableBytes: int64(m.MemTable.Size),
		CacheBytes:    m.BlockCache.Size,
		Compactions:   uint64(m.Compact.Count),
		Flushes:       uint64(m.Flush.Count),
		Ingests:       m.Ingest.Count,
		L0Sublevels:   int(m.Levels[0].Sublevels),
	}
}

// syncTime is what Pebble has measured, in nanoseconds.
func syncTime(m *pebble.Metrics) time.Duration {
	var read dto.Metric
	if m.LogWriter.FsyncLatency == nil || m.LogWriter.FsyncLatency.Write(&read) != nil {
		return 0
	}
	return time.Duration(read.GetHistogram().GetSampleSum())
}

// Space is how many bytes the disk of the store has, and how many of them are free; both 0
// where that cannot be known. It asks the file system.
func (e *Engine) Space() (capacity, available uint64) {
	usage, err := e.fs.GetDiskUsage(e.cfg.Dir)
	if err != nil {
		return 0, 0
	}
	return usage.TotalBytes, min(usage.AvailBytes, usage.TotalBytes)
}

// SpanBytes estimates the bytes on disk under span. What is in memtables only
// does not count.
func (e *Engine) SpanBytes(span shard.Span) (uint64, error) {
	lower, upper := spanBounds(span)
	return e.db.EstimateDiskUsage(lower, upper)
}
