package raftgroup

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// crashRun is a cluster whose disks are copied, as a crash would leave them, around
// each operation that makes something durable. The engines commit as in production:
// asynchronously, with Pebble's own goroutines. The hosts run on one loop.
//
// The copies of one run stand for as many runs that were stopped there: a disk
// cannot tell whether its process went on after its power was gone.
type crashRun struct {
	c      *cluster
	disks  *disks
	facts  *facts
	seed   uint64
	looks  crashLooks
	shards []shard.ID // those of the story
	first  int        // replicas that the test makes

	mu       sync.Mutex // guards what follows
	pending  []*crashPoint
	wal      int
	near     bool // all syncs of the WAL are looked at
	kinds    map[string]int
	clusters int
	// reached is how far each node's disk had come at its last point, with nothing
	// unsynced: a later one must not be behind it.
	reached map[shard.NodeID]map[shard.ID]recovered
}

// crashLooks is how much is looked at: of the syncs of the WAL one in wal, of everything
// else one in rest. From one in cluster the whole cluster is started, too.
type crashLooks struct{ wal, rest, cluster int }

// The shards: one with large snapshots, one with a lone voter, one with small ones.
const (
	crashLarge shard.ID = 5
	crashLone  shard.ID = 6
	crashSmall shard.ID = 8
)

var crashShards = []shard.ID{crashLarge, crashLone, crashSmall}

func newCrashRun(t testing.TB, seed uint64, looks crashLooks, shards []shard.ID, first int) *crashRun {
	r := &crashRun{c: newCluster(t, seed, 4), shards: shards, first: first, disks: newDisks(), facts: newFacts(), seed: seed,
		looks: looks, kinds: map[string]int{}, reached: map[shard.NodeID]map[shard.ID]recovered{}}
	r.disks.watch = r.point
	r.c.asynchronous = true
	r.c.env.idle = r.settle
	for _, n := range r.c.nodes {
		n.wrap = func(vfs.FS) vfs.FS { return r.disks.attach(n.id, n.fs) }
	}
	r.c.config = func(cfg *Config) {
		cfg.LogBytesMax = 8 << 10
		n := r.c.node(cfg.Node)
		cfg.Transport = &tellingTransport{Transport: cfg.Transport, n: n, f: r.facts}
		inner := cfg.NewMachine
		cfg.NewMachine = func(g *Group, s *storage.ReplicaState) (Machine, error) {
			m, err := inner(g, s)
			if err != nil {
				return nil, err
			}
			return &tellingMachine{register: m.(*register), n: n, f: r.facts}, nil
		}
	}
	return r
}

// settle waits for the syncs that groups wait for, so that time does not overtake
// the disks.
func (r *crashRun) settle() {
	for _, n := range r.c.nodes {
		if n.host == nil {
			continue
		}
		for _, g := range n.host.Groups() {
			for s := g.cover; s != nil && !s.over(); {
				time.Sleep(10 * time.Microsecond)
			}
		}
	}
}

func (s *syncRecord) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// point copies the disks, before and after an operation.
func (r *crashRun) point(op diskOp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if op.kind == "sync WAL" {
		if !op.after {
			r.wal++
		}
		if r.wal%r.looks.wal != 0 && !r.near {
			return
		}
	} else if op.number%r.looks.rest != 0 {
		return
	}
	draw := uint64(op.number)*2 + r.seed
	if r.near && op.kind == "sync WAL" && !op.after { // a part of what is being synced is there
		for i := range uint64(4) {
			r.kinds["cut WAL"]++
			r.pending = append(r.pending, &crashPoint{op: op, facts: r.facts.at(), unsynced: 50, disk: r.disks.clone(op.node, 50, draw<<8+i)})
		}
	}
	p := &crashPoint{op: op, facts: r.facts.at()}
	if op.after { // before it, nothing unsynced is there; after it, a share
		p.unsynced = []int{0, 30, 70, 100}[draw/2%4]
	}
	p.disk = r.disks.clone(op.node, p.unsynced, draw)
	r.kinds[op.kind]++
	if len(p.facts.started) == r.first && (op.number+r.kinds[op.kind])%r.looks.cluster == 0 {
		r.clusters++
		p.all = map[shard.NodeID]*vfs.MemFS{}
		for _, n := range r.c.nodes {
			p.all[n.id] = r.disks.clone(n.id, p.unsynced, draw+uint64(n.id))
		}
		p.all[op.node] = p.disk.CrashClone(vfs.CrashCloneCfg{})
	}
	r.pending = append(r.pending, p)
}

// closely has all syncs of the WAL be looked at until the next check.
func (r *crashRun) closely() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.near = !raceDetector
}

// check looks at all points since the last call.
func (r *crashRun) check(phase string) {
	r.c.t.Helper()
	r.mu.Lock()
	points := r.pending
	r.pending, r.near = nil, false
	r.mu.Unlock()
	for _, p := range points {
		t := &at{TB: r.c.t, where: phase}
		got := checkDisk(t, p, r.facts, r.shards)
		if p.unsynced == 0 {
			r.advances(t, p, got)
		}
		if p.all != nil {
			checkCluster(t, p, r.facts, r.shards)
		}
		if r.c.t.Failed() {
			r.c.t.FailNow()
		}
	}
}

// advances demands that a node's disk is not behind what it was before.
func (r *crashRun) advances(t testing.TB, p *crashPoint, got map[shard.ID]recovered) {
	before := r.reached[p.op.node]
	for id, b := range before {
		g, here := got[id]
		switch {
		case !here || g.replica != b.replica: // removed: its tombstone is checked elsewhere
			if here && g.replica < b.replica {
				t.Errorf("%v: shard %d: replica %d after %d", p, id, g.replica, b.replica)
			}
		case g.term < b.term || g.term == b.term && b.vote != 0 && g.vote != b.vote, g.commit < b.commit, g.applied < b.applied:
			t.Errorf("%v: shard %d was %+v before, and is %+v", p, id, b, g)
		}
	}
	r.reached[p.op.node] = got
}

// crash cuts a node's power and starts it again.
func (r *crashRun) crash(n *testNode) {
	t := n.host.cfg.Transport.(*tellingTransport)
	left := r.disks.cut(n.id, func() {
		r.facts.state(func(m *moment) {
			r.facts.dead[t] = true
			maps.DeleteFunc(m.parted, func(k partedKey, _ shard.ReplicaID) bool { return k.node == n.id })
		})
	})
	n.stop()
	n.fs = left
	n.start()
}

// durable syncs a node, and notes how far its replicas are from then on.
func (r *crashRun) durable(n *testNode) {
	before := map[replicaKey]uint64{}
	for _, id := range r.shards {
		if m := n.machine(id); m != nil && m.state != nil && !m.removed {
			before[replicaKey{n.id, id, m.g.Replica()}] = m.Applied().Index
		}
	}
	tombstones := map[tombstoneKey]shard.ReplicaID{}
	for _, id := range r.shards {
		ts, found, err := n.engine.Tombstone(id)
		if err != nil {
			r.c.t.Fatal(err)
		}
		if found {
			tombstones[tombstoneKey{n.id, id}] = ts.NextReplica
		}
	}
	n.sync()
	r.facts.state(func(m *moment) {
		for k, index := range before {
			p := m.told[k]
			p.applied = max(p.applied, index)
			m.told[k] = p
		}
		maps.Copy(m.tombstones, tombstones)
	})
}

func (r *crashRun) bootstrap(id shard.ID, nodes ...shard.NodeID) {
	r.c.bootstrap(id, nodes...)
	r.facts.state(func(m *moment) {
		for i, n := range nodes {
			m.started[replicaKey{n, id, shard.ReplicaID(i + 1)}] = true
		}
	})
}

// run is the story during which the power goes.
func (r *crashRun) run() {
	c := r.c
	r.bootstrap(crashLarge, 1, 2, 3)
	r.bootstrap(crashLone, 1)
	r.bootstrap(crashSmall, 1, 2, 3)
	r.check("bootstrap")

	c.start()
	for i := range 6 {
		for _, id := range crashShards {
			c.put(id, fmt.Sprintf("k%d=%d", i%4, i))
		}
	}
	r.check("append and apply")

	l := c.waitLeader(crashLarge)
	moved := false
	l.group(crashLarge).TransferLeader(shard.ReplicaID(l.id%3+1), func(error) { moved = true })
	c.until("the transfer is over", func() bool { return moved })
	c.put(crashLarge, "transferred=leader")
	r.crash(c.waitLeader(crashSmall))
	for _, id := range crashShards {
		c.put(id, "leader=crashed")
	}
	r.check("elections")

	for _, step := range []struct {
		id   shard.ID
		size int
	}{{crashSmall, 200}, {crashLarge, 10 << 10}} {
		c.put(step.id, "before=the snapshot")
		far := c.node(c.waitLeader(step.id).id%3 + 1)
		installs := far.machine(step.id).installs
		c.leaveBehind(step.id, far, step.size)
		r.check("truncation")
		c.heal()
		c.mustAgree(step.id)
		if far.machine(step.id).installs == installs {
			c.t.Fatalf("shard %d: no snapshot was installed", step.id)
		}
		c.put(step.id, "after=the snapshot")
		r.durable(far)
		r.check(fmt.Sprintf("snapshot with values of %d bytes", step.size))
	}

	from := c.node(c.waitLeader(crashLarge).id%3 + 1)
	old := c.replace(crashLarge, from.id, 4)
	r.check("membership changes")
	c.steadily(crashLarge, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.until("the removed replica is gone", func() bool { return from.free(crashLarge) })
	r.durable(from)
	r.check("removal")
	r.crash(from)
	c.addLearner(crashLarge, from.id)
	c.put(crashLarge, "came=back")
	r.durable(from)
	r.check("the same node again")

	for _, n := range c.nodes {
		n.stop()
		n.start()
		for _, id := range crashShards {
			c.put(id, fmt.Sprintf("restarted=%d", n.id))
		}
	}
	for _, id := range crashShards {
		c.mustAgree(id)
	}
	r.check("restarts")
}

// Wherever a crash strikes, each store opens again, twice, with all that it has told
// others and with data that are those of its applied index; and from any such
// moment the cluster goes on with all that was committed.
// KILORAFT_CRASH_SEEDS=n runs n stories, and looks at every operation.
func TestCrashPoints(t *testing.T) {
	// What has nothing to do with splits is looked at in the first story.
	seeds, looks, partedLooks := 1, crashLooks{wal: 6, rest: 1, cluster: 5}, crashLooks{wal: 40, rest: 10, cluster: 25}
	if raceDetector { // it makes each look ten times as long
		looks, partedLooks = crashLooks{wal: 60, rest: 1, cluster: 50}, crashLooks{wal: 100, rest: 20, cluster: 50}
	}
	if text := os.Getenv("KILORAFT_CRASH_SEEDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		seeds, looks = n, crashLooks{wal: 1, rest: 1, cluster: 3}
		partedLooks = looks
	}
	points, clusters, kinds := 0, 0, map[string]int{}
	told := func(r *crashRun) {
		for kind, n := range r.kinds {
			kinds[kind] += n
			points += n
		}
		clusters += r.clusters
	}
	for seed := range seeds {
		r := newCrashRun(t, uint64(seed+1), looks, crashShards, 7)
		r.run()
		told(r)
		r = newCrashRun(t, uint64(seed+1), partedLooks, partedShards, 3)
		r.runSplits()
		told(r)
	}
	var by []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		by = append(by, fmt.Sprintf("%s=%d", strings.ReplaceAll(kind, " ", "-"), kinds[kind]))
	}
	if points < 300*seeds {
		t.Errorf("only %d crash points", points)
	}
	fmt.Printf("crash: points=%d %s clusters=%d ok\n", points, strings.Join(by, " "), clusters)
}
