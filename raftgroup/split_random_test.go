package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// mustRest checks whether the loop comes to rest between ticks: no group is turned for ever.
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

// bornBehind has a node lag behind the split of shard 5, at "m", with a replica of the new
// shard 6 there that has no state.
func bornBehind(c *cluster) (far *testNode, r *Group) {
	c.t.Helper()
	c.mustAgree(5)
	l := c.waitLeader(5)
	far = c.node(l.id%3 + 1)
	c.filter = func(from, to shard.NodeID, e *envelope) bool {
		return to != far.id || e.shard != 5 || e.msg.Type != raftpb.MsgApp
	}
	c.split(5, "m", 6)
	c.until("the new shard has a replica there", func() bool { _, ok := far.host.Group(6); return ok })
	return far, far.group(6)
}

// A node lags behind a split. The new shard has a replica there without a state, and
// removes it at the very moment at which the split is applied.
func TestBornAndRemovedAtOnce(t *testing.T) {
	c := withSplits(t, 380, 3)
	far, r := bornBehind(c)
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
	if n := far.rows(shard.Span{Start: registerKey(5, "m"), End: registerSpan(5).End}); n > 0 {
		t.Errorf("%d keys of the new shard are left", n)
	}
}

// The same, with the replica stopped for another reason.
func TestBornAndFailed(t *testing.T) {
	c := withSplits(t, 381, 3)
	far, r := bornBehind(c)
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
	c := newCluster(t, 382, 3)
	fails := true
	c.config = func(cfg *Config) {
		if make := cfg.NewMachine; cfg.Node == 1 {
			cfg.NewMachine = func(g *Group, s *storage.ReplicaState) (Machine, error) {
				if g.Shard() == 6 && s != nil && fails {
					return nil, errCorrupt
				}
				return make(g, s)
			}
		}
	}
	c.filter = func(from, to shard.NodeID, e *envelope) bool { return e.shard != 6 || to != 1 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	c.split(5, "m", 6)
	far := c.node(1)
	c.until("the split is applied", func() bool { _, ok, _ := far.engine.ReplicaState(6); return ok })
	c.filter = nil
	c.put(6, "z=w")
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

// Splits, moves, crashes and partitions at random.
func TestSplitsAtRandom(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { splitsAtRandom(t, seed) })
	}
}

// placeOf is a key of the part of shard 5 that becomes shard sub, if it splits off.
func placeOf(sub shard.ID, key string) []byte { return registerKey(5, fmt.Sprintf("%02d%s", sub, key)) }

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
	c.bootstrap(low, 1, 2, 3)
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
			initializedSpans(&at{TB: t, where: fmt.Sprintf("node %d", n.id)}, n.engine)
		}
	}
	down := map[shard.NodeID]bool{}
	for step := range 250 {
		switch p := rnd.IntN(100); {
		case p < 40:
			sub := shard.ID(low + rnd.IntN(high-low+1))
			key := fmt.Sprintf("k%d", step)
			at := placeOf(sub, key)
			if l, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) }); l != nil {
				writes = append(writes, w{sub, key, l.propose(id, fmt.Sprintf("%02d%s=%s", sub, key, strings.Repeat("v", 1+rnd.IntN(800))))})
			}
		case p < 52:
			for range 1 + rnd.IntN(3) {
				sub := shard.ID(low + rnd.IntN(high-low+1))
				at := placeOf(sub, "")
				if l, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) && !bytes.Equal(d.Span.Start, at) }); l != nil {
					l.propose(id, splitOp(&l.machine(id).state.Descriptor, fmt.Sprintf("%02d", sub), sub))
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
		for !bytes.Equal(at, registerSpan(low).End) {
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
	for !bytes.Equal(at, registerSpan(low).End) {
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
		k := placeOf(x.sub, x.key)
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
			at := placeOf(sub, "")
			_, id := led(func(d *shard.Descriptor) bool { return d.Span.Contains(at) })
			l := c.leader(id)
			_, member := l.machine(id).state.Descriptor.ReplicaOn(n.id)
			rows, _, _ := v.Scan(storage.ScanOptions{Span: shard.Span{Start: at, End: placeOf(sub+1, "")}, At: shard.MaxRevision, RowsMax: 1})
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
	t.Logf("%d shards, %d acked, %d snapshots, births since start %d", born, acked, c.snapshotsSent, births)
}
