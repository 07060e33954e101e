package sim

import (
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Faults says which faults a run may see. Each seed enables some of them: a bug
// that one fault hides from another shows in the seeds that have only one.
type Faults struct {
	Crash      bool // one node; what it did not sync is lost
	CrashAll   bool // all nodes at once
	Partition  bool // a node from the others, symmetric or in one direction
	PartClient bool // a client from a node
	Drop       bool // peers' frames
	Double     bool // peers' frames
	Slow       bool // frames that overtake one another
	Pause      bool // a process stops and goes on
	Break      bool // streams of clients end
	Ambush     bool // a node crashes right after something has left it
	SlowDisk   bool // syncs and reads take their time
	SlowRounds bool // a node's rounds take their time, and find much mail
	Client     bool // a client ends, and another one takes its place
	Sync       bool // syncs that nobody asked for: a crash then keeps a prefix
	EarlySync  bool // syncs that are over before the next commit: a crash then keeps an append without what was applied in its round
	Transfer   bool // leadership is handed over
	Drift      bool // clocks that run at different rates
	Ask        bool // placement is asked for moves, and to drain nodes
	Move       bool // replicas are moved to other nodes; where there are more nodes than replicas of a shard
}

// drawFaults enables each fault with a probability of one half. One seed in eight has
// none, and shows what the others cost.
func drawFaults(l *Loop) Faults {
	if l.rand.IntN(8) == 0 {
		return Faults{}
	}
	coin := func() bool { return l.rand.IntN(2) == 0 }
	return Faults{Crash: l.rand.IntN(4) > 0, CrashAll: l.rand.IntN(4) == 0, Partition: coin(), PartClient: coin(), Drop: coin(), Double: coin(),
		Slow: coin(), Pause: coin(), Break: coin(), Ambush: coin(), SlowDisk: coin(), SlowRounds: coin(), Client: coin(), Sync: coin(), EarlySync: coin(), Transfer: coin(), Drift: coin()}
}

func (f Faults) String() string {
	var s []string
	for _, e := range []struct {
		on   bool
		name string
	}{{f.Crash, "crash"}, {f.CrashAll, "crash-all"}, {f.Partition, "partition"}, {f.PartClient, "part-client"}, {f.Drop, "drop"}, {f.Double, "double"},
		{f.Slow, "slow"}, {f.Pause, "pause"}, {f.Break, "break"},
		{f.Ambush, "ambush"}, {f.SlowDisk, "slow-disk"}, {f.SlowRounds, "slow-rounds"}, {f.Client, "client"}, {f.Sync, "sync"}, {f.EarlySync, "early-sync"}, {f.Transfer, "transfer"}, {f.Drift, "drift"}, {f.Move, "move"}, {f.Ask, "ask"}} {
		if e.on {
			s = append(s, e.name)
		}
	}
	return strings.Join(s, ",")
}

// Nemesis strikes at drawn moments until it is stopped.
type Nemesis struct {
	cluster *Cluster
	faults  Faults
	load    *Workload
	stopped bool
	ambush  time.Duration // no ambush before
	moving  map[shard.ID]bool

	Crashes, Partitions, Pauses int
}

// NewNemesis makes a nemesis; it strikes from the first Start on.
func NewNemesis(c *Cluster, f Faults, load *Workload) *Nemesis {
	return &Nemesis{cluster: c, faults: f, load: load, moving: make(map[shard.ID]bool)}
}

// Start lets the nemesis strike until Stop.
func (n *Nemesis) Start() {
	f := &n.cluster.net.faults
	if n.faults.Drop {
		f.DropPerMille = 1 + n.cluster.loop.rand.IntN(50)
	}
	if n.faults.Double {
		f.DoublePerMille = 1 + n.cluster.loop.rand.IntN(50)
	}
	if n.faults.Slow {
		f.SlowPerMille = 1 + n.cluster.loop.rand.IntN(100)
		f.SlowMax = n.cluster.loop.between(time.Millisecond, 300*time.Millisecond)
	}
	if n.faults.Ambush {
		n.cluster.net.effect = n.lieInWait
	}
	for _, s := range n.strikes() {
		if s.on {
			n.schedule(s)
		}
	}
}

// strike is one kind of fault that comes at drawn moments, every so often.
type strike struct {
	on    bool
	name  string
	every time.Duration
	run   func()
}

func (n *Nemesis) strikes() []strike {
	return []strike{
		{n.faults.Crash, "crash", 4 * time.Second, n.crashOne},
		{n.faults.CrashAll, "crash all", 10 * time.Second, n.crashAll},
		{n.faults.Partition, "partition", 5 * time.Second, n.partition},
		{n.faults.PartClient, "part client", 5 * time.Second, n.partClient},
		{n.faults.Pause, "pause", 6 * time.Second, n.pause},
		{n.faults.Break, "break", 3 * time.Second, n.breakStreams},
		{n.faults.SlowDisk, "slow disk", 3 * time.Second, n.slowDisk},
		{n.faults.SlowRounds, "slow rounds", 3 * time.Second, n.slowRounds},
		{n.faults.Client, "client", 2 * time.Second, n.replaceClient},
		{n.faults.Sync, "sync", 50 * time.Millisecond, n.sync},
		{true, "look", 2 * time.Second, n.look},
		{n.faults.Transfer, "transfer", 400 * time.Millisecond, n.transfer},
		{n.faults.Move, "move", 300 * time.Millisecond, n.moveOne},
		{n.faults.Ask, "ask", 700 * time.Millisecond, n.ask},
	}
}

func (n *Nemesis) schedule(s strike) {
	n.cluster.loop.After(n.cluster.loop.between(s.every/10, 2*s.every), s.name, func() {
		if n.stopped {
			return
		}
		s.run()
		n.schedule(s)
	})
}

// Stop ends all faults: every node is up, every way is open. What a fault did
// already stays.
func (n *Nemesis) Stop() {
	n.stopped = true
	n.cluster.net.faults = NetFaults{}
	n.cluster.net.Heal()
	for _, node := range n.cluster.nodes {
		if !node.Up() {
			node.Start()
		}
		node.env.pausedUntil = 0
		node.env.slow = nil
	}
	n.cluster.net.effect = func(*Node) {}
	n.cluster.undrain()
	n.event("all is healed")
}

func (n *Nemesis) event(format string, args ...any) {
	n.cluster.trace.Event(n.cluster.loop.now, "nemesis", format, args...)
}

func (n *Nemesis) anyNode() *Node {
	return n.cluster.nodes[n.cluster.loop.rand.IntN(len(n.cluster.nodes))]
}

func (n *Nemesis) crashOne() {
	if node := n.anyNode(); node.Up() {
		n.crash(node)
	}
}

func (n *Nemesis) crashAll() {
	for _, node := range n.cluster.nodes {
		if node.Up() {
			n.crash(node)
		}
	}
}

// Of the things that leave a node, one in ambushPer is an ambush if a shard has no
// leader that the node knows of: the first votes of a term are worth more attacks
// than all that follows. Otherwise it is one in ambushPer*ambushCalmPer. Ambushes
// are at least ambushPause apart.
const (
	ambushPer     = 20
	ambushCalmPer = 20
	ambushPause   = 1500 * time.Millisecond
)

// lieInWait crashes a node right after something has left it, before anything
// that it has committed can be synced: what it has told others must not rest on that.
func (n *Nemesis) lieInWait(node *Node) {
	l := n.cluster.loop
	if n.stopped || l.now < n.ambush || l.rand.IntN(ambushPer) > 0 {
		return
	}
	env := node.env
	l.After(0, "ambush", func() {
		if n.stopped || l.now < n.ambush || node.env != env || env == nil {
			return
		}
		if !node.leaderless() && l.rand.IntN(ambushCalmPer) > 0 {
			return
		}
		n.ambush = l.now + ambushPause
		n.Crashes++
		n.event("ambush %s", node.Name)
		node.Crash(false, 50*time.Millisecond)
		n.restartAfter(node, l.between(0, 50*time.Millisecond))
	})
}

// The queues of a node's steps that wait for its disk, and those of its rounds.
var (
	diskQueues  = []string{"storage sync", "reads", "raft/ingest"}
	roundQueues = []string{"raft/0"}
)

func (n *Nemesis) slowDisk()   { n.slow("disk", diskQueues, 100*time.Millisecond) }
func (n *Nemesis) slowRounds() { n.slow("rounds", roundQueues, 30*time.Millisecond) }

// slow makes queues of a node slow for a while.
func (n *Nemesis) slow(what string, queues []string, most time.Duration) {
	l := n.cluster.loop
	node := n.anyNode()
	if !node.Up() {
		return
	}
	env, by := node.env, l.between(time.Millisecond, most)
	n.event("slow %s of %s, by up to %v", what, node.Name, by)
	for _, q := range queues {
		env.Slow(q, by)
	}
	l.After(l.between(100*time.Millisecond, 5*time.Second), "fast again", func() {
		for _, q := range queues {
			env.Slow(q, 0)
		}
	})
}

func (n *Nemesis) replaceClient() {
	i := n.cluster.loop.rand.IntN(len(n.load.clients))
	n.event("replace %s", n.load.clients[i].env.name)
	n.load.Replace(i)
}

// crash ends a node's incarnation and arranges for the next one. Some crashes
// are of the process alone: what it had handed to the operating system survives.
func (n *Nemesis) crash(node *Node) {
	l := n.cluster.loop
	n.Crashes++
	keep := l.rand.IntN(4) == 0
	silence := 50 * time.Millisecond
	if l.rand.IntN(4) == 0 {
		silence = 3 * time.Second
	}
	down := l.between(time.Millisecond, 200*time.Millisecond)
	if l.rand.IntN(2) == 0 {
		down = l.between(time.Millisecond, 6*time.Second)
	}
	n.event("crash %s, unsynced data kept: %v, down for %v", node.Name, keep, down)
	node.Crash(keep, silence)
	n.restartAfter(node, down)
}

func (n *Nemesis) restartAfter(node *Node, d time.Duration) {
	n.cluster.loop.After(d, "restart", func() {
		if !node.Up() {
			node.Start()
		}
	})
}

// partition cuts a node off from the others, in one direction or both, or one
// of the ways to another node only.
func (n *Nemesis) partition() {
	l := n.cluster.loop
	n.Partitions++
	a := n.anyNode()
	var cuts []cut
	others := n.cluster.nodes
	if l.rand.IntN(3) == 0 {
		others = []*Node{n.anyNode()}
	}
	kind := l.rand.IntN(4) // 0: outgoing only, 1: incoming only, else both
	for _, b := range others {
		if b == a {
			continue
		}
		if kind != 1 {
			cuts = append(cuts, cut{a.Name, b.Name})
		}
		if kind != 0 {
			cuts = append(cuts, cut{b.Name, a.Name})
		}
	}
	n.cutFor(cuts, l.between(100*time.Millisecond, 6*time.Second))
}

func (n *Nemesis) partClient() {
	l := n.cluster.loop
	k := n.load.clients[l.rand.IntN(len(n.load.clients))]
	n.cutFor([]cut{{k.env.name, n.anyNode().Name}}, l.between(100*time.Millisecond, 5*time.Second))
}

func (n *Nemesis) cutFor(cuts []cut, d time.Duration) {
	n.event("cut %v for %v", cuts, d)
	for _, c := range cuts {
		n.cluster.net.Block(c.from, c.to)
	}
	n.cluster.loop.After(d, "heal", func() {
		if !n.stopped {
			n.event("open %v", cuts)
		}
		for _, c := range cuts {
			n.cluster.net.Open(c.from, c.to)
		}
	})
}

func (n *Nemesis) pause() {
	if node := n.anyNode(); node.Up() {
		n.Pauses++
		d := n.cluster.loop.between(10*time.Millisecond, 4*time.Second)
		n.event("pause %s for %v", node.Name, d)
		node.env.Pause(n.cluster.loop.now + d)
	}
}

func (n *Nemesis) breakStreams() {
	name := n.anyNode().Name
	n.event("break the streams of %s", name)
	n.cluster.net.Break(name)
}

func (n *Nemesis) sync() {
	if node := n.anyNode(); node.Up() {
		node.Sync()
	}
}

// look compares what a node holds with what it should, which is no fault.
func (n *Nemesis) look() {
	if node := n.anyNode(); node.Serving() {
		n.cluster.witness.content(node.Name, node.engine)
	}
}

// transfer asks the leader of a drawn shard to hand over to a drawn replica.
func (n *Nemesis) transfer() {
	n.handOver(n.cluster.descriptors[n.cluster.loop.rand.IntN(len(n.cluster.descriptors))].ID)
}

// handOver asks the leader of a shard to hand over to a drawn replica.
func (n *Nemesis) handOver(id shard.ID) {
	l := n.cluster.loop
	for _, node := range n.cluster.nodes {
		if !node.Serving() {
			continue
		}
		r, here := node.store().Replica(id)
		if !here || !r.Leadership().Leading {
			continue
		}
		state, _ := r.State()
		to := state.Descriptor.Replicas[l.rand.IntN(len(state.Descriptor.Replicas))].ID
		n.event("transfer shard %d from %s to replica %d", id, node.Name, to)
		r.Group().TransferLeader(to, func(err error) { n.event("transfer of shard %d: %v", id, err) })
		return
	}
}
