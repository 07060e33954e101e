package sim

import (
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Nemesis strikes at drawn moments until it is stopped.
type Nemesis struct {
	cluster *Cluster
	faults  Faults
	load    *Workload
	stopped bool
	ambush  time.Duration // no ambush before
	moving  map[shard.ID]bool
	lost    []shard.NodeID // by nodes that were wiped
	damaged *Node          // with a bit that has flipped; nil: none
	back    func() error   // flips it back
	struck  Struck

	disksFailed int // nodes that have ended for theirs
	splitEvery  time.Duration
	splitting   int // splitters under way
	moves       int // that came to their end
}

// NewNemesis makes a nemesis; it strikes from the first Start on.
func NewNemesis(c *Cluster, f Faults, load *Workload) *Nemesis {
	n := &Nemesis{cluster: c, faults: f, load: load, moving: make(map[shard.ID]bool)}
	c.net.struck, c.diskFailed = &n.struck, n.diskFailed
	return n
}

// Start lets the nemesis strike until Stop.
func (n *Nemesis) Start() {
	l, f := n.cluster.loop, &n.cluster.net.faults
	if n.faults.Has(Drop) {
		f.DropPerMille = 1 + l.rand.IntN(50)
	}
	if n.faults.Has(Double) {
		f.DoublePerMille = 1 + l.rand.IntN(50)
	}
	if n.faults.Has(Slow) {
		f.SlowPerMille = 1 + l.rand.IntN(100)
		f.SlowMax = l.between(time.Millisecond, 300*time.Millisecond)
	}
	if n.faults.Has(FlipFrame) {
		f.FlipPerMille = 1 + l.rand.IntN(300)
	}
	if n.faults.Has(Ambush) {
		n.cluster.net.effect = n.lieInWait
	}
	for k := range faultKinds {
		if n.faults.Has(k) && faultTable[k].strike != nil {
			every := faultTable[k].every
			if k == Split {
				every = n.splitEvery
			}
			n.every(every, k.String(), func() {
				if faultTable[k].strike(n) {
					n.struck[k]++
				}
			})
		}
	}
	n.every(2*time.Second, "look", n.look)
}

// every carries out a step at drawn moments, every so often on average, until Stop.
func (n *Nemesis) every(d time.Duration, name string, step func()) {
	n.cluster.loop.After(n.cluster.loop.between(d/10, 2*d), name, func() {
		if !n.stopped {
			step()
			n.every(d, name, step)
		}
	})
}

// Stop ends all faults: every node is up, every way is open, but for what is left as it
// is. What a fault did already stays.
func (n *Nemesis) Stop() {
	n.stopped = true
	n.repair()
	if n.faults.Has(LeftDown) {
		n.leaveDown()
	}
	n.cluster.net.faults = NetFaults{}
	n.cluster.net.Heal()
	for _, node := range n.cluster.nodes {
		if node.gone {
			continue
		}
		if !node.Up() {
			node.Start()
		}
		node.disk.fs.fault.Store(nil)
		if !node.Up() {
			continue
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

func (n *Nemesis) crashOne() bool {
	node := n.anyNode()
	if node.Up() {
		n.crash(node)
		return true
	}
	return false
}

func (n *Nemesis) crashAll() bool {
	for _, node := range n.cluster.nodes {
		if node.Up() {
			n.crash(node)
		}
	}
	return true
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
		n.struck[Ambush]++
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

func (n *Nemesis) slowDisk() bool   { return n.slow("disk", diskQueues, 100*time.Millisecond) }
func (n *Nemesis) slowRounds() bool { return n.slow("rounds", roundQueues, 30*time.Millisecond) }

// slow makes queues of a node slow for a while.
func (n *Nemesis) slow(what string, queues []string, most time.Duration) bool {
	l := n.cluster.loop
	node := n.anyNode()
	if !node.Up() {
		return false
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
	return true
}

func (n *Nemesis) replaceClient() bool {
	i := n.cluster.loop.rand.IntN(len(n.load.clients))
	n.event("replace %s", n.load.clients[i].env.name)
	n.load.Replace(i)
	return true
}

// crash ends a node's incarnation and arranges for the next one. Some crashes
// are of the process alone: what it had handed to the operating system survives.
func (n *Nemesis) crash(node *Node) {
	l := n.cluster.loop
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
		if !node.Up() && !node.gone {
			node.Start()
		}
	})
}

// partition cuts a node off from the others, in one direction or both, or one
// of the ways to another node only.
func (n *Nemesis) partition() bool {
	l := n.cluster.loop
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
	return len(cuts) > 0
}

func (n *Nemesis) partClient() bool {
	l := n.cluster.loop
	k := n.load.clients[l.rand.IntN(len(n.load.clients))]
	n.cutFor([]cut{{k.env.name, n.anyNode().Name}}, l.between(100*time.Millisecond, 5*time.Second))
	return true
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

func (n *Nemesis) pause() bool {
	node := n.anyNode()
	if !node.Up() {
		return false
	}
	d := n.cluster.loop.between(10*time.Millisecond, 4*time.Second)
	n.event("pause %s for %v", node.Name, d)
	node.env.Pause(n.cluster.loop.now + d)
	return true
}

// jump has a node's clock jump ahead: monotonic clocks know no way back.
func (n *Nemesis) jump() bool {
	node := n.anyNode()
	if !node.Up() {
		return false
	}
	d := n.cluster.loop.between(time.Millisecond, 30*time.Second)
	n.event("the clock of %s jumps by %v", node.Name, d)
	node.env.Jump(d)
	return true
}

func (n *Nemesis) breakStreams() bool {
	name := n.anyNode().Name
	n.event("break the streams of %s", name)
	n.cluster.net.Break(name)
	return true
}

func (n *Nemesis) sync() bool {
	node := n.anyNode()
	if node.Up() {
		node.Sync()
	}
	return node.Up()
}

// look compares what a node holds with what it should, which is no fault.
func (n *Nemesis) look() {
	if node := n.anyNode(); node.Serving() {
		n.cluster.witness.disjoint(node.Name, node.engine)
		n.cluster.witness.content(node.Name, node.engine)
	}
}

// transfer asks the leader of a drawn shard to hand over to a drawn replica.
func (n *Nemesis) transfer() bool {
	return n.handOver(n.cluster.anyShard().ID)
}

// handOver asks the leader of a shard to hand over to a drawn replica.
func (n *Nemesis) handOver(id shard.ID) bool {
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
		return true
	}
	return false
}
