package raftgroup

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

// BenchmarkProposals is three hosts in one process on the real disk, 48 groups,
// 256 callers, 256 B values. It prints what one operation costs in entries,
// rounds and syncs.
func BenchmarkProposals(b *testing.B) {
	for _, callers := range []int{256, 1024} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmark(b, callers, false) })
	}
}

// BenchmarkReads is the same with confirmed reads that touch no data.
func BenchmarkReads(b *testing.B) { benchmark(b, 256, true) }

func benchmark(b *testing.B, callers int, reads bool) {
	const groups = 48
	dir := b.TempDir()
	c := newTrio(b, groups, func() vfs.FS { return vfs.Default }, dir+"/", 100*time.Millisecond)
	defer c.close(b)
	for id := shard.ID(1); id <= groups; id++ {
		c.put(id, "k=v")
	}
	before, syncs := c.totals()
	value := string(make([]byte, 256))
	var next atomic.Int64
	var all sync.WaitGroup
	cpu := cpuTime(b)
	b.ResetTimer()
	for i := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			id := shard.ID(i%groups + 1)
			for k := next.Add(1); k <= int64(b.N); k = next.Add(1) {
				if !reads {
					c.put(id, fmt.Sprintf("%024d=%s", k, value))
					continue
				}
				g, _ := c.leader(id)
				done := make(chan struct{})
				if err := g.Read(&readRequest{done: func(*register, error) { close(done) }}); err == nil {
					<-done
				}
			}
		}()
	}
	all.Wait()
	b.StopTimer()
	after, syncsAfter := c.totals()
	ops := float64(b.N)
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(time.Microsecond)/ops, "cpu-us/op")
	b.ReportMetric(ops/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(after.GroupsInRounds-before.GroupsInRounds)/float64(after.Rounds-before.Rounds), "groups/round")
	b.ReportMetric(float64(after.Rounds-before.Rounds)/ops, "rounds/op")
	b.ReportMetric(float64(after.Messages-before.Messages)/ops, "messages/op")
	if reads {
		b.ReportMetric(ops/float64(after.ReadIndexes-before.ReadIndexes), "ops/readindex")
		return
	}
	b.ReportMetric(ops/float64(after.Entries-before.Entries), "ops/entry")
	b.ReportMetric(float64(after.SyncedRounds-before.SyncedRounds)/ops, "syncs/op")
	b.ReportMetric(float64(syncsAfter-syncs)/ops, "fsyncs/op")
}

// cpuTime that the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (c *trio) totals() (sum HostStats, syncs uint64) {
	for n := 1; n <= 3; n++ {
		s := c.hosts[n].Stats()
		sum.Rounds += s.Rounds
		sum.GroupsInRounds += s.GroupsInRounds
		sum.SyncedRounds += s.SyncedRounds
		sum.Entries += s.Entries
		sum.Messages += s.Messages
		sum.ReadIndexes += s.ReadIndexes
		syncs += c.engines[n].Stats().WALSyncs
	}
	return sum, syncs
}

// BenchmarkIdle is what a thousand groups per host cost that have nothing to
// do but heartbeats: processor time per second, of all three hosts together.
func BenchmarkIdle(b *testing.B) {
	c := newTrio(b, 1000, func() vfs.FS { return vfs.NewMem() }, "", 100*time.Millisecond)
	defer c.close(b)
	for id := shard.ID(1); id <= 1000; id++ {
		c.leader(id)
	}
	cpu := cpuTime(b)
	b.ResetTimer()
	for range b.N {
		time.Sleep(100 * time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.Elapsed())*1000, "cpu-ms/s")
}
