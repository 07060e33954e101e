package storage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

func benchEngine(b *testing.B) *Engine {
	return open(b, Config{Dir: b.TempDir(), FS: vfs.Default})
}

func benchKey(buf []byte, i uint64) []byte {
	return fmt.Appendf(append(buf[:0], shard.UserKeyspace), "%032x", i*0x9e3779b97f4a7c15)
}

// BenchmarkSyncedBatches: batches of 64 puts of 256 bytes, pipelined as a worker
// does it; an operation is one put.
func BenchmarkSyncedBatches(b *testing.B) {
	e := benchEngine(b)
	value := make([]byte, 256)
	var key []byte
	b.ReportAllocs()
	b.ResetTimer()
	before := e.Stats().WALSyncs
	var wg sync.WaitGroup
	inFlight := make(chan struct{}, 4)
	n := uint64(0)
	for n < uint64(b.N) {
		batch := e.NewBatch()
		for range 64 {
			n++
			key = benchKey(key, n)
			batch.PutVersion(key, shard.Revision(n), VersionHeader{Op: shard.OpID{Session: 1, Sequence: n}}, value)
		}
		inFlight <- struct{}{}
		wg.Add(1)
		if err := e.CommitSync(batch, 0, func() { <-inFlight; wg.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(e.Stats().WALSyncs-before)/float64(n), "syncs/op")
}

// BenchmarkCachedGet: gets of present keys, 16 to a view.
func BenchmarkCachedGet(b *testing.B) {
	for _, where := range []string{"memtable", "files"} {
		b.Run(where, func(b *testing.B) {
			e := benchEngine(b)
			const keys = 50_000
			var key []byte
			for i := uint64(0); i < keys; i += 100 {
				batch := e.NewBatch()
				for n := i; n < i+100; n++ {
					key = benchKey(key, n)
					batch.PutVersion(key, 1, VersionHeader{}, make([]byte, 256))
				}
				if err := e.Commit(batch); err != nil {
					b.Fatal(err)
				}
			}
			if where == "files" {
				if err := e.db.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 16 {
				v := e.NewView()
				for range 16 {
					key = benchKey(key, rand.Uint64N(keys))
					if _, _, found, err := v.Get(key, shard.MaxRevision); !found || err != nil {
						b.Fatal(found, err)
					}
				}
				v.Close()
			}
		})
	}
}

// BenchmarkScan: pages of 100 rows of 256 bytes; an operation is one row.
func BenchmarkScan(b *testing.B) {
	for _, reverse := range []bool{false, true} {
		b.Run(fmt.Sprintf("reverse=%t", reverse), func(b *testing.B) {
			e := benchEngine(b)
			const keys = 20_000
			for i := range keys {
				batch := e.NewBatch()
				batch.PutVersion(userKey(fmt.Sprintf("%06d", i)), 1, VersionHeader{}, make([]byte, 256))
				if err := e.Commit(batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 100 {
				o := ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision, Reverse: reverse, RowsMax: 100}
				from := userKey(fmt.Sprintf("%06d", 100+rand.IntN(keys-200)))
				if reverse {
					o.Span.End = from
				} else {
					o.Span.Start = from
				}
				v := e.NewView()
				rows, _, err := v.Scan(o)
				if err != nil || len(rows) != 100 {
					b.Fatal(len(rows), err)
				}
				v.Close()
			}
		})
	}
}

// BenchmarkLogAppend: one entry of 300 bytes to each of 48 logs in a batch, read
// back as a leader does to send it, truncated as logs grow; an operation is one entry.
func BenchmarkLogAppend(b *testing.B) {
	e := benchEngine(b)
	const logs = 48
	var all [logs]*Log
	for i := range all {
		all[i] = newLog(b, e, shard.ID(i+1))
	}
	data := make([]byte, 300)
	b.ReportAllocs()
	b.ResetTimer()
	index := uint64(10)
	for n := 0; n < b.N; n += logs {
		index++
		batch := e.NewBatch()
		for _, l := range all {
			l.Append(batch, []raftpb.Entry{{Index: index, Term: 1, Data: data}})
			if entries, err := l.Entries(index, index+1, math.MaxUint64); err != nil || len(entries) != 1 {
				b.Fatal(len(entries), err)
			}
			if l.Bytes() > 1<<20 {
				if err := l.Truncate(batch, index-100); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := e.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
}
