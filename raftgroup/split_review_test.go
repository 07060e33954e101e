package raftgroup

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// wide writes the first replicas of a shard that covers the spans of those up to last, too.
func (c *cluster) wide(id, last shard.ID, nodes ...shard.NodeID) {
	c.spans = func(n *testNode, cfg *Config) {
		cover := func(not shard.ID, covers func(shard.Span) bool) bool {
			for id, m := range n.machines {
				if id != not && !m.removed && m.state != nil && covers(m.state.Descriptor.Span) {
					return true
				}
			}
			return false
		}
		cfg.Covers = func(id shard.ID, key []byte) bool {
			return cover(id, func(s shard.Span) bool { return s.Contains(key) })
		}
		cfg.ReserveSpan = func(s *storage.ReplicaState) (func(), error) {
			if cover(s.Descriptor.ID, s.Descriptor.Span.Overlaps) {
				return nil, shard.ErrBusy
			}
			return func() {}, nil
		}
	}
	d := shard.Descriptor{ID: id, Span: shard.Span{Start: registerSpan(id).Start, End: registerSpan(last).End}, Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 1}
	for _, n := range nodes {
		d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplica, Node: n, Role: shard.Voter})
		d.NextReplica++
	}
	for _, r := range d.Replicas {
		n := c.node(r.Node)
		if n.engine == nil {
			n.open()
		}
		b := n.engine.NewBatch()
		b.PutInitialReplica(r.ID, &storage.ReplicaState{Descriptor: d})
		n.commitSync(b)
	}
}

// rest tells whether the loop comes to rest between ticks: no group is turned for ever.
func (c *cluster) mustRest(when string) {
	c.t.Helper()
	now := c.env.now
	for range 100_000 {
		if !c.env.step() || c.env.now > now+time.Second {
			return
		}
	}
	c.t.Fatalf("%s: 100,000 steps, and %v have passed", when, c.env.now-now)
}

// A node lags behind a split. The new shard has a replica there without a state, and
// removes it at the very moment at which the split is applied.
func TestBornAndRemovedAtOnce(t *testing.T) {
	c := newCluster(t, 200, 4)
	c.wide(5, 6, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	far := c.node(l.id%3 + 1)
	c.filter = func(from, to shard.NodeID, e *envelope) bool {
		return to != far.id || e.shard != 5 || e.msg.Type != raftpb.MsgApp
	}
	c.put(5, "split 6")
	c.until("the new shard has a replica there", func() bool { _, ok := far.host.Group(6); return ok })
	r := far.group(6)
	c.filter = nil
	// The round that applies the split ends with the replica's being told of its removal.
	c.until("the split is applied", func() bool {
		if s, ok, _ := far.engine.ReplicaState(6); ok && s.Applied == 10 && !r.gone.Load() {
			r.pushRemoved(r.replica + 100)
			return true
		}
		return false
	})
	c.mustRest("born and removed")
	if !r.gone.Load() {
		t.Error("it was not removed")
	}
	if held := far.holds(6); len(held) > 0 {
		t.Errorf("holds %v", held)
	}
}

// The same, with the replica stopped for another reason.
func TestBornAndFailed(t *testing.T) {
	c := newCluster(t, 201, 4)
	c.wide(5, 6, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	far := c.node(l.id%3 + 1)
	c.filter = func(from, to shard.NodeID, e *envelope) bool {
		return to != far.id || e.shard != 5 || e.msg.Type != raftpb.MsgApp
	}
	c.put(5, "split 6")
	c.until("the new shard has a replica there", func() bool { _, ok := far.host.Group(6); return ok })
	r := far.group(6)
	failed := false
	r.Turn(func() { r.fail(errCorrupt); failed = true }, func(error) {})
	c.until("it fails", func() bool { return failed })
	c.filter = nil
	c.until("the split is applied", func() bool { _, ok, _ := far.engine.ReplicaState(6); return ok })
	c.mustRest("born and failed")
	far.sync()
	far.crash()
	far.start()
	c.mustAgree(5)
	c.mustAgree(6)
}
