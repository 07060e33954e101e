package client_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// TestAStaleDirectoryIsWorkedAround: the core knows the right side of a split and
// the directory only the shard before it. The shard that the directory names is
// asked, and tells.
func TestAStaleDirectoryIsWorkedAround(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.cluster.Split(shard.UserKey([]byte("m")))
	told := false
	w.cluster.Change(func() {
		w.cluster.Answer = func(_ shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
			if told || c.Kind == shard.KindScan {
				return shard.Response{}, false
			}
			told = true // of the right side only
			return shard.Response{Err: &shard.WrongShardError{Shard: q.Target.Shard, Descriptors: []shard.Descriptor{w.cluster.Shards()[2].Descriptor}}}, true
		}
	})
	w.do(put("z", "v"), 0).ok()
	lookups := w.core.Stats().DirectoryLookups
	p := w.do(put("a", "v"), 0)
	p.ok()
	if p.took > 10*time.Millisecond {
		t.Errorf("took %v while the directory lags", p.took)
	}
	if n := w.core.Stats().DirectoryLookups; n != lookups+1 {
		t.Errorf("%d lookups", n-lookups)
	}
}

func TestACacheSmallerThanTheCluster(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 200), func(c *client.CoreConfig) { c.CacheShards = 8 })
	var all []*pending
	for i := range 1000 {
		all = append(all, w.do(put(string(binary.BigEndian.AppendUint16(nil, uint16(i*977))), "v"), 10*time.Second))
	}
	for _, p := range all {
		p.ok()
	}
}

func TestALargeClusterIsLearntInPages(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 3000))
	for i := range 3000 {
		w.do(get(string(binary.BigEndian.AppendUint16(nil, uint16(i*65536/3000+1)))), 0).ok()
	}
	s := w.core.Stats()
	if s.DirectoryScans > 3000/256+2 || s.DirectoryLookups > 3000/256+2 {
		t.Errorf("%d lookups and %d scans for a walk over 3,000 shards", s.DirectoryLookups, s.DirectoryScans)
	}
}

// TestADirectoryRecordThatDoesNotDecode costs its shard, and no other.
func TestADirectoryRecordThatDoesNotDecode(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 4))
	bad := true
	w.cluster.Change(func() {
		w.cluster.Answer = func(_ shard.NodeID, _ *shard.Request, c *shard.Command) (shard.Response, bool) {
			if bad && c.Kind == shard.KindScan && c.Reverse {
				return shard.Response{Result: shard.Result{Rows: []shard.Row{{Key: []byte("\x01dir/\x02"), Value: []byte{99}}}}}, true
			}
			return shard.Response{}, false
		}
	})
	p := w.do(get("a"), 0)
	w.env.Pass(time.Second)
	if p.done {
		t.Fatal("done without a directory")
	}
	if n := w.core.Stats().DirectoryLookups; n > 20 {
		t.Errorf("%d lookups in a second", n)
	}
	bad = false
	p.ok()
}

func TestTheDirectorysShardMayBeAway(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 4))
	w.cluster.Change(func() { w.cluster.Shards()[0].Leader = 0 })
	var all []*pending
	for i := range 300 {
		all = append(all, w.do(put(fmt.Sprint("key", i), "v"), 0))
	}
	w.env.Pass(20 * time.Second)
	if s := w.core.Stats(); s.Attempts > 2000 {
		t.Errorf("%d attempts in 20 s without a meta leader", s.Attempts)
	}
	w.cluster.Change(func() { w.cluster.Shards()[0].Lead(3) })
	begun := w.env.Now()
	for _, p := range all {
		p.ok()
	}
	if d := w.env.Now() - begun; d > 3*time.Second {
		t.Errorf("it took %v after the election", d)
	}
}

// A shard whose replicas have all moved to nodes that the client did not know them on,
// away from nodes that are gone since, is found by the directory.
func TestAShardThatHasLeftAllItsNodesIsFound(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 9, 1))
	w.warm()
	s := w.shardOf("a")
	for _, r := range s.Descriptor.Replicas {
		address := w.cluster.AddressOf(r.Node)
		w.net.Down[address] = true
		w.net.Break(address)
	}
	w.cluster.Change(func() {
		d := s.Descriptor.Clone()
		d.Epoch.ConfVersion += 12
		for i := range d.Replicas {
			d.Replicas[i] = shard.Replica{ID: d.NextReplica, Node: shard.NodeID(7 + i), Role: shard.Voter}
			d.NextReplica++
		}
		s.Descriptor = d
		s.Lead(d.Replicas[0].ID)
	})
	w.cluster.Publish()
	p := w.do(put("a", "v"), 0)
	p.ok()
	if p.took > time.Second {
		t.Errorf("it took %v", p.took)
	}
}
