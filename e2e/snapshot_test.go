package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// TestLaggingNodeCatchesUpBySnapshot keeps a node away while the others write
// more than their logs keep. Back again, it gets a snapshot, large enough to be
// ingested; then it leads, and must have every write.
func TestLaggingNodeCatchesUpBySnapshot(t *testing.T) {
	c := startCluster(t, 3, 1)
	away := c.nodes[2]
	away.kill()
	cl := c.client()
	const keys, perCall = 6000, 100
	value := make([]byte, 4<<10)
	for from := 0; from < keys; from += perCall {
		var pairs []client.KeyValue
		for k := from; k < from+perCall; k++ {
			pairs = append(pairs, client.KeyValue{Key: fmt.Appendf(nil, "key-%05d", k), Value: fmt.Appendf(value[:0:0], "%05d%s", k, value)})
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, errs := cl.MultiPut(ctx, pairs)
		cancel()
		for i, err := range errs {
			if err != nil {
				t.Fatalf("put %s: %v", pairs[i].Key, err)
			}
		}
	}
	var shards []struct {
		ID       uint64 `json:"id"`
		Keyspace string `json:"keyspace"`
		Leader   uint64 `json:"leader"`
		Replicas []struct {
			Node uint64 `json:"node"`
			Role string `json:"role"`
		} `json:"replicas"`
	}
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
	c.must(&shards, "shard", "list")
	for _, s := range shards {
		if s.Keyspace == "system" {
			continue
		}
		if o := c.run("shard", "transfer-leader", fmt.Sprint(s.ID), "--to", "3"); o.code != 0 {
			t.Fatalf("transfer of shard %d to the node that was away: %s", s.ID, o.stderr)
		}
	}
	n := 0
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for kv, err := range cl.Scan(ctx, client.ScanOptions{Start: []byte("key-"), End: []byte("key.")}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("key-%05d", n); string(kv.Key) != want || string(kv.Value[:5]) != want[4:] {
			t.Fatalf("row %d is %q with value %q…", n, kv.Key, kv.Value[:5])
		}
		n++
	}
	if n != keys {
		t.Fatalf("%d rows, want %d", n, keys)
	}
}
