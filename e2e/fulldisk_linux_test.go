package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFullDisk gives one node of three a small disk and fills it: while a snapshot is
// received, which is refused; during an ingest, and in ordinary writing, at both of which
// the process ends. The others serve all the while, and with space the node goes on and
// has all that it missed.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, 1)
	small := c.nodes[2]
	small.kill()
	disk := c.moveToTmpfs(3, "size=256m,mode=0700")
	c.must(nil, "settings", "set", "snapshot.rate", "1MiB")
	content := big{keys: 400, valueBytes: 60 << 10} // one file of a snapshot holds it
	cl := c.client()
	content.write(t, cl)

	// While a snapshot is received.
	small.start()
	c.midSnapshot(3)
	disk.fill(32 << 20)
	small.logged("a snapshot cannot be written, and is refused")
	small.logged("the disk has no room for a snapshot: ")
	c.await(20*time.Second, "what was received of it gone", func() bool { return len(c.incoming(3)) == 0 })
	c.must(nil, "kv", "put", "snapshot", "refused")
	disk.empty()

	// With space it is received, by the same process. During the ingest: the file of the
	// data is there, and the one with which it would take effect finds no space.
	c.midSnapshot(3)
	disk.allowFiles(0)
	c.must(nil, "settings", "set", "snapshot.rate", "1GiB")
	small.mustEnd()
	small.logged("installation of a snapshot of shard 2")
	small.logged("no space left on device; the process ends")
	c.must(nil, "kv", "put", "ingest", "failed")
	disk.allowFiles(1000)
	small.start()
	c.await(60*time.Second, "the snapshot ingested", func() bool {
		_, err := small.metrics()
		return err == nil && small.metric("kiloraft_ingests_total") > 0
	})

	// In ordinary writing.
	disk.fill(0)
	writes := 0
	c.await(30*time.Second, "the process with the full disk ending", func() bool {
		c.must(nil, "kv", "put", fmt.Sprintf("write-%d", writes), strings.Repeat("v", 60<<10))
		writes++
		select {
		case <-small.ended():
			return true
		default:
			return false
		}
	})
	if strings.Count(readFile(t, small.log), "no space left on device; the process ends") != 2 {
		t.Errorf("the process ended otherwise:\n%s", tail(small.log, 5))
	}
	c.must(nil, "kv", "put", "log", "full")
	disk.empty()
	small.start()
	c.waitWhole()
	c.mustAgree()

	content.mustBeThere(t, cl)
	c.mustGet("snapshot", "refused")
	c.mustGet("ingest", "failed")
	c.mustGet("log", "full")
	for i := range writes {
		c.mustGet(fmt.Sprintf("write-%d", i), strings.Repeat("v", 60<<10))
	}
	if left := c.incoming(3); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
