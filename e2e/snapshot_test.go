package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestLaggingNodeCatchesUpBySnapshot keeps a node away while the others write
// more than their logs keep. Back again, it gets a snapshot, large enough to be
// ingested; then it leads, and must have every write.
func TestLaggingNodeCatchesUpBySnapshot(t *testing.T) {
	c := startCluster(t, 3, 1)
	away := c.nodes[2]
	away.kill()
	cl := c.client()
	content := big{keys: 6000, valueBytes: 4 << 10}
	content.write(t, cl)
	away.start()
	c.waitWhole()
	// A replica that lacks a few hundred entries, however large, counts as caught up, so
	// that the cluster may be whole before the snapshot has come.
	for deadline := time.Now().Add(60 * time.Second); away.metric("kiloraft_ingests_total") == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node that was away ingests no snapshot: too little was written")
		}
	}
	c.waitWhole()
	id := fmt.Sprint(c.userShard().ID)
	if o := c.run("shard", "transfer-leader", id, "--to", fmt.Sprint(c.nodeAt(away))); o.code != 0 {
		t.Fatalf("transfer of shard %s to the node that was away: %s", id, o.stderr)
	}
	content.mustBeThere(t, cl)
}
