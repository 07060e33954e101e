package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// big is content that logs do not keep: who misses it gets a snapshot, which is too
// large to be kept in memory. Values do not compress.
type big struct{ keys, valueBytes int }

func (b big) key(i int) []byte { return fmt.Appendf(nil, "key-%05d", i) }

func (b big) value(i int) []byte {
	rnd := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
	value := make([]byte, b.valueBytes)
	_, _ = rnd.Read(value)
	return value
}

// write puts the keys, and demands that each is acknowledged.
func (b big) write(t *testing.T, cl *client.Client) {
	t.Helper()
	perCall := max(1, (1<<20)/b.valueBytes)
	for from := 0; from < b.keys; from += perCall {
		var pairs []client.KeyValue
		for k := from; k < min(from+perCall, b.keys); k++ {
			pairs = append(pairs, client.KeyValue{Key: b.key(k), Value: b.value(k)})
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
}

// mustBeThere demands every key with its value, and no others like them.
func (b big) mustBeThere(t *testing.T, cl *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n := 0
	for kv, err := range cl.Scan(ctx, client.ScanOptions{Start: []byte("key-"), End: []byte("key.")}) {
		if err != nil {
			t.Fatal(err)
		}
		if n == b.keys || !bytes.Equal(kv.Key, b.key(n)) || !bytes.Equal(kv.Value, b.value(n)) {
			t.Fatalf("row %d is %q with a value of %d bytes", n, kv.Key, len(kv.Value))
		}
		n++
	}
	if n != b.keys {
		t.Fatalf("%d rows, want %d", n, b.keys)
	}
}

// incoming lists the files of snapshots that a node's store is receiving.
func (c *cluster) incoming(i int) []string {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.store(i), "incoming"))
	if err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// userShard is the only shard of users that a test's cluster has.
func (c *cluster) userShard() shardJSON {
	c.t.Helper()
	all := c.shards()
	if len(all) != 2 {
		c.t.Fatalf("there are %d shards, want the meta shard and one", len(all))
	}
	return all[1]
}

// leaderOf is the process of a shard's leader; nil: none is known.
func (c *cluster) leaderOf(s shardJSON) *process {
	c.t.Helper()
	leader := c.member(s.Leader)
	for _, p := range c.nodes {
		if leader.Live && leader.Address == p.address {
			return p
		}
	}
	return nil
}

// mustAgree waits until the replicas of every shard have compared their content at one
// index and are the same.
func (c *cluster) mustAgree() {
	c.t.Helper()
	var shards []checked
	c.within("all replicas are the same", func() bool { // a follower may be at another index
		o := c.run("debug", "check", "--all", "-o", "json", "--timeout", "30s")
		if o.code != 0 {
			return false
		}
		decodeInto(c.t, o.stdout, &shards)
		return true
	})
	for _, s := range shards {
		if s.Verdict != "same" || len(s.Replicas) != 3 {
			c.t.Errorf("%+v", s)
		}
	}
}
