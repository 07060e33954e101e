package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

type splitJSON struct {
	At       string
	Shard    uint64
	NewShard uint64 `json:"new_shard"`
	DryRun   bool   `json:"dry_run"`
}

// TestSplitsUnderLoad splits one shard into twenty-one while clients go on, moves leaders
// in between, and kills a node. Not one operation fails, nothing acknowledged is lost, and
// all is as it was after all nodes have been killed.
func TestSplitsUnderLoad(t *testing.T) {
	c := startCluster(t, 3, 1)
	l := startLoad(t, c.endpoints(), 6)
	before := c.shards()
	var planned []splitJSON
	c.must(&planned, "shard", "split", "--at", "m", "--at", "c", "--dry-run")
	if len(planned) != 2 || planned[0].At != "c" || planned[1].At != "m" || !planned[0].DryRun || planned[0].NewShard != 0 || len(c.shards()) != len(before) {
		t.Errorf("a dry run: %+v, %d shards", planned, len(c.shards()))
	}
	for i := range 10 {
		var made []splitJSON
		// Keys of the load begin with a code point in UTF-8: most are two bytes long.
		c.must(&made, "shard", "split", "--at", fmt.Sprintf(`%c`, 'A'+2*i), "--at", fmt.Sprintf(`\xc2\x%02x`, 0x82+5*i))
		if len(made) != 2 || made[0].NewShard == 0 || made[1].NewShard == 0 {
			t.Fatalf("%+v", made)
		}
		if i%3 == 1 {
			s := c.shards()[1+i]
			for _, n := range s.on() {
				if n != s.Leader && s.Leader != 0 {
					c.must(nil, "shard", "transfer-leader", fmt.Sprint(s.ID), "--to", fmt.Sprint(n))
					break
				}
			}
		}
	}
	if got := len(c.shards()); got != len(before)+20 {
		t.Errorf("%d shards, there were %d", got, len(before))
	}
	c.nodes[2].signal(syscall.SIGKILL)
	c.must(nil, "shard", "split", "--at", `\xc3\xa1`, "--timeout", "30s")
	c.nodes[2].start()
	c.waitWhole()
	time.Sleep(500 * time.Millisecond) // of load on the whole cluster
	l.end(t)

	var refused = [][]string{
		{"shard", "split", "--at", `\xc3\xa1`},                // where one starts
		{"shard", "split", "2", "--at", `\xc3\xa2`},           // in another shard
		{"shard", "split", "1", "--at", "x"},                  // the meta shard
		{"shard", "split", "999", "--at", "x"},                // no such shard
		{"shard", "split", "--at", "x", "--at", "x"},          // twice
		{"shard", "split", "--at", fmt.Sprintf("%08190d", 1)}, // too long
		{"shard", "split", "--at", "b", "--at", `\xc3\xa1`},   // one is good, one is not
	}
	shards := len(c.shards())
	for _, args := range refused {
		want := 1
		if args[len(args)-1] == args[len(args)-3] {
			want = 2 // wrong as it stands, whatever the cluster is like
		}
		if o := c.run(args...); o.code != want || len(c.shards()) != shards {
			t.Errorf("%.60v: exit %d, %s; %d shards, there were %d", args, o.code, o.stderr, len(c.shards()), shards)
		}
	}
	for _, p := range c.nodes {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range c.nodes {
		p.start()
	}
	c.waitWhole()
	again := startLoad(t, c.endpoints(), 1)
	again.newest = l.newest
	time.Sleep(time.Second)
	again.end(t)
}
