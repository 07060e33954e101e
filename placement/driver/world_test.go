package driver

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/internal/fake"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// world is a cluster as its nodes see it: shards that change when they are asked
// to, after a while, and learners that catch up a few at a time.
type world struct {
	t      testing.TB
	env    *fake.Env
	nodes  map[shard.NodeID]bool // live
	mute   map[shard.NodeID]bool // live, and does not answer polls
	shards []*truth

	snapshots map[shard.NodeID]int // being received
	copying   time.Duration        // how long one takes
	inFlight  int
	mostSteps int // the most ever in flight
	polls     int
	reported  int // replicas in reports
	changes   int
	transfers int
	splits    int
	place     map[shard.NodeID]shard.Locality
	disk      map[shard.NodeID][2]uint64 // capacity and what is free
	held      map[shard.NodeID]int       // replicas that a node holds and that no shard lists
	records   *catalog.Catalog
	kv        *fake.KV
	drop      func() bool // whether the next call's answer is lost for ever
	fail      func() error
}

// truth is one shard.
type truth struct {
	d      shard.Descriptor
	leader shard.NodeID
	term   uint64
	match  map[shard.ReplicaID]uint64
	fed    func(*truth) // told of each change

	bytes   uint64
	load    placement.Load
	splitAt []byte // where its leader wishes it split
}

const (
	commitIndex    = 20
	unixNow        = 1_700_000_000
	callTime       = 4 * time.Millisecond
	snapshotTime   = 10 * time.Millisecond
	snapshotsAtOne = 2 // a node receives at once
)

func newWorld(t testing.TB, nodes, users int) *world {
	w := &world{t: t, env: fake.NewEnv(7), nodes: map[shard.NodeID]bool{}, mute: map[shard.NodeID]bool{}, snapshots: map[shard.NodeID]int{}, copying: snapshotTime}
	w.kv = fake.NewKV(w.env, callTime)
	w.records = catalog.New(w.kv, w.env, w.env.NewQueue("catalog"))
	for n := 1; n <= nodes; n++ {
		w.join(shard.NodeID(n))
	}
	ds, err := catalog.InitialDescriptors(1, users)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		w.shards = append(w.shards, &truth{d: d, leader: 1, term: 2, match: map[shard.ReplicaID]uint64{1: commitIndex}})
		w.record(d)
	}
	return w
}

// record writes a shard's record in the directory.
func (w *world) record(d shard.Descriptor) {
	w.kv.Put(router.DirectoryKey(d.Span.Start), router.AppendEntry(nil, &router.Entry{Descriptor: d}))
}

// join adds a live node with its record.
func (w *world) join(n shard.NodeID) {
	w.nodes[n] = true
	w.kv.Put(router.NodeKey(n), router.AppendNode(nil, &router.Node{ID: n, Incarnation: 1, Locality: w.place[n]}))
}

func (w *world) driver() *Driver {
	return New(Config{Env: w.env, Cluster: w, Records: w.records, UnixNow: func() uint64 { return unixNow }})
}

func (w *world) after(d time.Duration, step func()) {
	w.env.AfterFunc(d, w.env.NewQueue("world"), step)
}

// Reports implements Cluster.
func (w *world) Reports(only []shard.ID, done func([]Report)) {
	w.polls++
	asked := map[shard.ID]bool{}
	for _, id := range only {
		asked[id] = true
	}
	w.after(callTime, func() {
		var reports []Report
		for n, live := range w.nodes { //order-free: the driver sorts reports
			if !live || w.mute[n] {
				continue
			}
			r := Report{Node: n, Held: w.held[n], Capacity: w.disk[n][0], Available: w.disk[n][1]}
			for _, s := range w.shards {
				_, member := s.d.ReplicaOn(n)
				if member {
					r.Held++
				}
				if member && (only == nil || asked[s.d.ID]) {
					w.reported++
					r.Replicas = append(r.Replicas, s.report(w, n))
				}
			}
			reports = append(reports, r)
		}
		w.after(callTime, func() { done(reports) })
	})
}

func (s *truth) report(w *world, n shard.NodeID) ReplicaReport {
	r := ReplicaReport{Descriptor: s.d, Term: s.term, Leading: s.leader == n, Commit: commitIndex, Bytes: s.bytes}
	if r.Leading {
		r.Load, r.SplitAt, r.SplitReason = s.load, s.splitAt, "size"
		for _, m := range s.d.Replicas {
			r.Progress = append(r.Progress, placement.Progress{Replica: m.ID, Match: s.match[m.ID], Active: w.nodes[m.Node]})
		}
	}
	return r
}

// call carries out work on the shard's leader, which is asked on node.
func (w *world) call(node shard.NodeID, id shard.ID, work func(*truth) error, done func(error)) {
	w.inFlight++
	w.mostSteps = max(w.mostSteps, w.inFlight)
	lost := w.drop != nil && w.drop()
	w.after(callTime, func() {
		var err error
		if w.fail != nil {
			err = w.fail()
		}
		switch {
		case err != nil:
		case !w.nodes[node] || int(id) > len(w.shards):
			err = shard.ErrUnavailable
		case w.shards[id-1].leader != node:
			err = &shard.NotLeaderError{Shard: id}
		default:
			err = work(w.shards[id-1])
		}
		w.inFlight--
		if !lost {
			w.after(callTime, func() { done(err) })
		}
	})
}

// ChangeMembership implements Cluster.
func (w *world) ChangeMembership(node shard.NodeID, m shard.MembershipChange, done func(shard.Descriptor, error)) {
	var after shard.Descriptor
	w.call(node, m.Shard, func(s *truth) error {
		next, err := m.Apply(&s.d)
		if err != nil {
			return err
		}
		w.changes++
		for _, c := range m.Changes {
			switch c.Kind {
			case shard.AddLearner:
				w.snapshot(s, c.Replica, c.Node)
			case shard.Promote:
				if s.match[c.Replica] == 0 {
					w.t.Errorf("shard %d: replica %d is promoted and has no log", m.Shard, c.Replica)
				}
			}
		}
		s.d, after = next, next
		w.record(next)
		s.changed()
		return nil
	}, func(err error) { done(after, err) })
}

// snapshot catches a learner up once its node has room for another snapshot.
func (w *world) snapshot(s *truth, id shard.ReplicaID, node shard.NodeID) {
	if w.snapshots[node] >= snapshotsAtOne || !w.nodes[node] {
		w.after(w.copying, func() { w.snapshot(s, id, node) })
		return
	}
	w.snapshots[node]++
	w.after(w.copying, func() {
		w.snapshots[node]--
		s.match[id] = commitIndex
	})
}

// SplitShard implements Cluster.
func (w *world) SplitShard(node shard.NodeID, split shard.Split, done func(left, right shard.Descriptor, err error)) {
	var left, right shard.Descriptor
	w.call(node, split.Shard, func(s *truth) (err error) {
		if left, right, err = split.Apply(&s.d); err != nil {
			return err
		}
		w.splits++
		s.d, s.splitAt = left, nil
		other := &truth{d: right, leader: s.leader, term: 1, match: map[shard.ReplicaID]uint64{}}
		for _, r := range right.Replicas {
			other.match[r.ID] = commitIndex
		}
		w.shards = append(w.shards, other)
		return nil
	}, func(err error) { done(left, right, err) })
}

// TransferShard implements Cluster.
func (w *world) TransferShard(node shard.NodeID, id shard.ID, to shard.ReplicaID, done func(error)) {
	w.call(node, id, func(s *truth) error {
		r, ok := s.d.Replica(to)
		if !ok || r.Role != shard.Voter || s.d.Joint() || !w.nodes[r.Node] {
			return &shard.InvalidError{Field: "transfer", Reason: fmt.Sprintf("to replica %d of %+v", to, s.d)}
		}
		w.transfers++
		s.lead(r.Node)
		return nil
	}, done)
}

func (s *truth) lead(node shard.NodeID) {
	s.leader = node
	s.term++
	s.changed()
}

func (s *truth) changed() {
	if s.fed != nil {
		s.fed(s)
	}
}

// kill stops a node; shards it led are led by another voter if a majority lives.
func (w *world) kill(n shard.NodeID) {
	w.nodes[n] = false
	for _, s := range w.shards {
		var electable []shard.NodeID
		voters := 0
		for _, r := range s.d.Replicas {
			if r.Role == shard.Voter {
				voters++
				if w.nodes[r.Node] {
					electable = append(electable, r.Node)
				}
			}
		}
		switch {
		case 2*len(electable) <= voters:
			s.leader = 0
		case s.leader == n:
			s.lead(electable[int(s.d.ID)%len(electable)])
		}
	}
}

// complete says what is missing until every shard has want voters.
func (w *world) complete(want int) error {
	for _, s := range w.shards {
		n := 0
		for _, r := range s.d.Replicas {
			if r.Role == shard.Voter {
				n++
			}
		}
		if n != want || s.d.Joint() {
			return fmt.Errorf("shard %d has %d of %d voters: %+v", s.d.ID, n, want, s.d.Replicas)
		}
	}
	return nil
}

// leaders counts them per node, in order of node.
func (w *world) leaders() []int {
	counts := make([]int, len(w.nodes))
	for _, s := range w.shards {
		if s.leader != 0 {
			counts[s.leader-1]++
		}
	}
	return counts
}

func (w *world) spread() int {
	counts := w.leaders()
	return slices.Max(counts) - slices.Min(counts)
}

// until runs the world until cond holds and tells how long that took.
func (w *world) until(within time.Duration, what string, cond func() bool) time.Duration {
	w.t.Helper()
	from := w.env.Now()
	for !cond() {
		if w.env.Now() >= from+within {
			w.t.Fatalf("after %v not yet: %s; leaders %v; %v", within, what, w.leaders(), w.complete(3))
		}
		w.env.RunFor(5 * time.Millisecond)
	}
	return w.env.Now() - from
}

func (w *world) raised() bool { return w.complete(min(3, len(w.nodes))) == nil && w.spread() <= 2 }
