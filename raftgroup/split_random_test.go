package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// wide writes the first replicas of a shard that covers the spans of those up to last, too.
func (c *cluster) wide(id, last shard.ID, nodes ...shard.NodeID) {
	c.spans = func(n *testNode, cfg *Config) {
		reserved := map[shard.ID]shard.Span{}
		cover := func(not shard.ID, covers func(shard.Span) bool) bool {
			rs, err := n.engine.Replicas()
			if err != nil {
				c.t.Fatal(err)
			}
			for _, r := range rs {
				if r.Shard == not || !r.Initialized {
					continue
				}
				s, _, _ := n.engine.ReplicaState(r.Shard)
				if covers(s.Descriptor.Span) {
					return true
				}
			}
			return false
		}
		cfg.Covers = func(id shard.ID, key []byte) bool {
			return cover(id, func(s shard.Span) bool { return s.Contains(key) })
		}
		cfg.ReserveSpan = func(s *storage.ReplicaState) (func(), error) {
			d := &s.Descriptor
			if cover(d.ID, d.Span.Overlaps) {
				c.refused++
				return nil, shard.ErrBusy
			}
			for id, other := range reserved {
				if id == d.ID || other.Overlaps(d.Span) {
					return nil, shard.ErrBusy
				}
			}
			reserved[d.ID] = d.Span
			return func() { delete(reserved, d.ID) }, nil
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

// A replica of a new shard that cannot be started stays away until the node starts again:
// the other replicas' messages make none without a state in its place.
func TestBornAndNotStarted(t *testing.T) {
	c := newCluster(t, 202, 3)
	c.wide(5, 6, 1, 2, 3)
	spans, fails := c.spans, true
	c.spans = func(n *testNode, cfg *Config) {
		spans(n, cfg)
		if make := cfg.NewMachine; n.id == 1 {
			cfg.NewMachine = func(g *Group, s *storage.ReplicaState) (Machine, error) {
				if g.Shard() == 6 && s != nil && fails {
					return nil, errCorrupt
				}
				return make(g, s)
			}
		}
	}
	c.filter = func(from, to shard.NodeID, e *envelope) bool { return e.shard != 6 || to != 1 }
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	c.put(5, "split 6")
	far := c.node(1)
	c.until("the split is applied", func() bool { _, ok, _ := far.engine.ReplicaState(6); return ok })
	c.filter = nil
	c.put(6, "6:k=w")
	c.runFor(5 * time.Second)
	if _, ok := far.host.Group(6); ok {
		t.Error("a replica was made")
	}
	fails = false
	far.sync()
	far.crash()
	far.start()
	c.mustAgree(5)
	c.mustAgree(6)
}

// A node lags behind a split for so long that the new shard has removed its replica there,
// and has added another one. The state of the first one is written for nobody, its data
// goes, and the second one gets a snapshot, not before.
func TestSlowSplitVsRemoveReadd(t *testing.T) {
	for _, readd := range []bool{false, true} {
		c := newCluster(t, 203, 4)
		c.wide(5, 6, 1, 2, 3)
		c.start()
		c.put(5, "6:k=v")
		c.mustAgree(5)
		far := c.node(c.waitLeader(5).id%3 + 1)
		c.filter = func(_, to shard.NodeID, e *envelope) bool {
			return to != far.id || e.shard != 5 || e.msg.Type != raftpb.MsgApp && e.msg.Type != raftpb.MsgSnap
		}
		c.put(5, "split 6")
		c.put(6, "6:k=w")
		c.until("the new shard has a replica there", func() bool { _, ok := far.host.Group(6); return ok })
		old := c.replace(6, far.id, 4)
		c.steadily(6, shard.Change{Kind: shard.RemoveLearner, Replica: old})
		c.until("it is removed", func() bool { _, ok := far.host.Group(6); return !ok })
		if readd {
			c.steadily(6, shard.Change{Kind: shard.AddLearner, Replica: c.descriptor(6).NextReplica, Node: far.id})
			c.until("a snapshot of it is refused", func() bool { return c.refused > 0 })
		}
		if held := far.holds(6); !slices.Contains(held, "data") {
			t.Errorf("before the split it holds %v", held)
		}
		c.filter = nil
		c.mustAgree(5)
		c.put(6, "6:l=x")
		c.mustAgree(6)
		if !readd && !far.free(6) {
			t.Errorf("holds %v", far.holds(6))
		}
		if readd && far.group(6).replica <= old {
			t.Errorf("replica %d", far.group(6).replica)
		}
		if n := far.host.stats.births.Load(); n != 0 {
			t.Errorf("%d births", n)
		}
		far.sync()
		far.crash()
		far.start()
		c.mustAgree(5)
		c.mustAgree(6)
	}
}

// Splits, moves, crashes and partitions at random.
func TestSplitsAtRandom(t *testing.T) {
	seeds := uint64(4)
	first := uint64(0)
	if v := os.Getenv("SEEDS"); v != "" {
		fmt.Sscanf(v, "%d-%d", &first, &seeds)
	}
	for seed := first; seed < seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { splitsAtRandom(t, seed) })
	}
}

func splitsAtRandom(t *testing.T, seed uint64) {
	const low, high = 5, 20
	c := newCluster(t, 1000+seed, 5)
	rnd := rand.New(rand.NewPCG(seed, 7))
	c.config = func(cfg *Config) {
		cfg.Workers = 2
		if seed%2 == 0 {
			cfg.LogBytesMax = 2 << 10
		}
		if seed%3 == 0 {
			cfg.ElectionTicks = 15
		}
	}
	c.wide(low, high, 1, 2, 3)
	c.snapshotDelay = time.Duration(rnd.IntN(300)) * time.Millisecond
	c.start()
	c.waitLeader(low)
	if seed%4 != 3 {
		c.lossPercent, c.doublePercent = 3, 5
	}
	type w struct {
		sub shard.ID
		key string
		o   *outcome
	}
	var writes []w
	led := func(covers func(d *shard.Descriptor) bool) (*testNode, shard.ID) {
		for id := shard.ID(low); id <= high; id++ {
			if l := c.leader(id); l != nil && covers(&l.machine(id).state.Descriptor) && l.machine(id).stopped == nil {
				return l, id
			}
		}
		return nil, 0
	}
	check := func() {
		for _, n := range c.nodes {
			if n.host == nil {
				continue
			}
			for id, m := range n.machines {
				if m.stopped != nil && !errors.Is(m.stopped, ErrRemoved) {
					t.Fatalf("node %d: shard %d stopped: %v", n.id, id, m.stopped)
				}
			}
			rs, err := n.engine.Replicas()
			if err != nil {
				t.Fatal(err)
			}
			var last *shard.Descriptor
			var all []shard.Descriptor
			for _, r := range rs {
				if s, ok, _ := n.engine.ReplicaState(r.Shard); ok {
					all = append(all, s.Descriptor)
				}
			}
			slices.SortFunc(all, func(a, b shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) })
			for i := range all {
				if last != nil && bytes.Compare(last.Span.End, all[i].Span.Start) > 0 {
					t.Fatalf("node %d: shards %d and %d overlap", n.id, last.ID, all[i].ID)
				}
				last = &all[i]
			}
		}
	}
	down := map[shard.NodeID]bool{}
	for step := range 250 {
		switch p := rnd.IntN(100); {
		case p < 40:
			sub := shard.ID(low + rnd.IntN(high-low+1))
			key := fmt.Sprintf("k%d", step)
			at := registerKey(sub, key)
			if l, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) }); l != nil {
				writes = append(writes, w{sub, key, l.propose(id, fmt.Sprintf("%d:%s=%s", sub, key, strings.Repeat("v", 1+rnd.IntN(800))))})
			}
		case p < 52:
			for range 1 + rnd.IntN(3) {
				sub := shard.ID(low + rnd.IntN(high-low+1))
				at := registerSpan(sub).Start
				if l, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) && !bytes.Equal(d.Span.Start, at) }); l != nil {
					l.propose(id, fmt.Sprintf("split %d", sub))
				}
			}
		case p < 75:
			id := shard.ID(low + rnd.IntN(high-low+1))
			l := c.leader(id)
			if l == nil {
				continue
			}
			m := l.machine(id)
			d := &m.state.Descriptor
			var changes []shard.Change
			var learner, voter *shard.Replica
			voters := 0
			for i := range d.Replicas {
				r := &d.Replicas[i]
				switch r.Role {
				case shard.Learner:
					learner = r
				case shard.Voter:
					voters++
					if voter == nil || rnd.IntN(2) == 0 {
						voter = r
					}
				}
			}
			switch {
			case d.Joint():
				changes = []shard.Change{{Kind: shard.LeaveJoint}}
			case learner != nil && rnd.IntN(2) == 0:
				changes = []shard.Change{{Kind: shard.Promote, Replica: learner.ID}, {Kind: shard.Demote, Replica: voter.ID}}
			case learner != nil:
				changes = []shard.Change{{Kind: shard.RemoveLearner, Replica: learner.ID}}
			default:
				node := shard.NodeID(1 + rnd.IntN(5))
				if _, on := d.ReplicaOn(node); on {
					continue
				}
				changes = []shard.Change{{Kind: shard.AddLearner, Replica: d.NextReplica, Node: node}}
			}
			l.group(id).ProposeMembership(m.leadership.Term, shard.MembershipChange{Shard: id, Epoch: d.Epoch, Changes: changes}, func(error) {})
		case p < 80:
			n := c.nodes[rnd.IntN(5)]
			if rnd.IntN(2) == 0 && len(down) == 0 {
				n.crash()
				down[n.id] = true
			} else {
				for id := range down {
					c.node(id).start()
				}
				clear(down)
			}
		case p < 84:
			c.isolate(shard.NodeID(1 + rnd.IntN(5)))
		case p < 90:
			c.heal()
		case p < 94:
			// one shard's appends lag on one node
			id, far := shard.ID(low+rnd.IntN(high-low+1)), shard.NodeID(1+rnd.IntN(5))
			c.filter = func(_, to shard.NodeID, e *envelope) bool {
				return to != far || e.shard != id || e.msg.Type != raftpb.MsgApp && e.msg.Type != raftpb.MsgSnap
			}
		case p < 97:
			c.filter = nil
		}
		for end := c.env.now + time.Duration(rnd.IntN(400))*time.Millisecond; c.env.now < end && c.env.step(); {
			if rnd.IntN(10) == 0 {
				check()
			}
		}
		check()
	}
	c.filter, c.lossPercent = nil, 0
	c.heal()
	for id := range down {
		c.node(id).start()
	}
	// every place is covered by one leader, and all agree
	born := 0
	c.until("all is covered and agrees", func() bool {
		check()
		at := registerSpan(low).Start
		born = 0
		for !bytes.Equal(at, registerSpan(high).End) {
			l, id := led(func(d *shard.Descriptor) bool { return bytes.Equal(d.Span.Start, at) })
			if l == nil || !c.converged(id) {
				return false
			}
			born++
			at = l.machine(id).state.Descriptor.Span.End
		}
		return true
	})
	at := registerSpan(low).Start
	for !bytes.Equal(at, registerSpan(high).End) {
		l, id := led(func(d *shard.Descriptor) bool { return bytes.Equal(d.Span.Start, at) })
		c.mustAgree(id)
		m := l.machine(id)
		at = m.state.Descriptor.Span.End
	}
	acked := 0
	for _, x := range writes {
		if !x.o.done() || x.o.err != nil || x.o.res.Err != nil {
			continue
		}
		acked++
		k := registerKey(x.sub, x.key)
		l, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(k) })
		v := l.engine.NewView()
		_, _, found, err := v.Get(k, shard.MaxRevision)
		if !found || err != nil {
			t.Errorf("acknowledged write %s of %d is lost in shard %d: %v", x.key, x.sub, id, err)
		}
		v.Close()
	}
	c.runFor(30 * time.Second)
	check()
	for _, n := range c.nodes {
		v := n.engine.NewView()
		for sub := shard.ID(low); sub <= high; sub++ {
			at := registerSpan(sub).Start
			_, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) })
			l := c.leader(id)
			_, member := l.machine(id).state.Descriptor.ReplicaOn(n.id)
			rows, _, _ := v.Scan(storage.ScanOptions{Span: registerSpan(sub), At: shard.MaxRevision, RowsMax: 1})
			if !member && len(rows) > 0 {
				t.Errorf("node %d has data of %d, shard %d, and is no member", n.id, sub, id)
			}
		}
		v.Close()
	}
	births := uint64(0)
	for _, n := range c.nodes {
		births += uint64(n.host.stats.births.Load())
	}
	t.Logf("%d shards, %d acked, %d snapshots, %d refused, births since start %d", born, acked, c.snapshotsSent, c.refused, births)
}
