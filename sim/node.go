package sim

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// Node is one node: a disk, and the incarnation that runs on it, if any. It does
// what package server does in production: open the store, give it an identity,
// start the node, and answer at its address.
type Node struct {
	Name    string
	Address string
	ID      shard.NodeID // 0 until the store has an identity
	cluster *Cluster
	disk    *Disk
	rate    int64 // of its clock
	wiped   bool  // it has lost a disk with an identity, and joins as another node
	gone    bool  // for good

	incarnation uint64 // the last one that was durable
	failure     atomic.Pointer[error]

	// Of the incarnation; a crash drops all of it.
	env    *Env
	engine *storage.Engine
	peers  *transport.Memory
	node   *node.Node // nil while it is starting
	doors  []*door
}

// Up tells whether an incarnation runs, though it may still be starting.
func (n *Node) Up() bool { return n.env != nil }

// Serving tells whether the start is over: clients and peers are heard.
func (n *Node) Serving() bool { return n.node != nil }

// leaderless tells whether some shard has no leader that the node knows of.
func (n *Node) leaderless() bool {
	if !n.Serving() {
		return false
	}
	for _, r := range n.store().Replicas() {
		if r.Leadership().Leader == 0 {
			return true
		}
	}
	return false
}

func (n *Node) store() *replica.Store { return n.node.Store() }

// covering is the replica that covers a key, as this node knows; nil: none does.
func (n *Node) covering(key []byte) *replica.Replica {
	for _, r := range n.store().Replicas() {
		if s, ok := r.State(); ok && s.Descriptor.Span.Contains(key) {
			return r
		}
	}
	return nil
}

func (n *Node) event(format string, args ...any) {
	n.cluster.trace.Event(n.cluster.loop.now, n.Name, format, args...)
}

func (n *Node) fail(what string, err error) {
	n.cluster.witness.Fail("%s: %s: %v", n.Name, what, err)
}

// Start begins an incarnation.
func (n *Node) Start() {
	n.env = n.cluster.loop.NewEnv(n.Name, n.rate)
	n.env.around = n.around
	n.failure.Store(nil)
	e, err := storage.Open(storage.Config{Dir: "store", FS: n.disk.FS(), MemoryBytes: 64 << 20, Env: n.env, Simulated: true, SyncsEarlyPerMille: n.cluster.syncsEarly,
		Logger: n.storeLogger(), Fatal: func(err error) { n.failure.CompareAndSwap(nil, &err) }})
	if err != nil {
		n.fail("opening the store", err)
		n.env.Close()
		n.env = nil
		return
	}
	n.engine = e
	n.cluster.witness.recovered(n.ID, e)
	n.cluster.witness.kept(n.Name, e)
	n.cluster.witness.disjoint(n.Name, e)
	n.event("starts after incarnation %d", n.incarnation)
	switch err := node.Resume(e, n.serve); {
	case err == nil:
	case !errors.Is(err, node.ErrNoIdentity):
		n.fail("resuming", err)
	case n.incarnation > 0:
		n.fail("resuming", errors.New("the identity was durable and is gone"))
	default:
		n.identify()
	}
}

// identify gives an empty store its identity.
func (n *Node) identify() {
	c := n.cluster
	switch {
	case n.wiped:
		n.join()
	case !c.grown:
		if err := n.found(); err != nil {
			n.fail("founding", err)
		}
	case n == c.nodes[0]:
		if err := node.Bootstrap(n.engine, n.env, n.Address, len(c.descriptors)-1, n.serve); err != nil {
			n.fail("bootstrap", err)
		}
	default:
		n.join()
	}
}

// found makes a cluster exist from the start, with a voter of every shard on
// every node: each node writes the same.
func (n *Node) found() error {
	c := n.cluster
	id := storage.Identity{Cluster: c.ID, Node: c.index(n), Incarnation: 1}
	b := n.engine.NewBatch()
	b.PutIdentity(id)
	for i := range c.descriptors {
		d := c.descriptors[i]
		if r, here := d.ReplicaOn(id.Node); here {
			b.PutInitialReplica(r.ID, &storage.ReplicaState{Descriptor: d})
		}
	}
	if _, here := c.descriptors[0].ReplicaOn(id.Node); here {
		// With the last node as the first one IDs go on after it.
		last := len(c.nodes) - 1
		for _, w := range catalog.BootstrapRecords(router.Node{ID: c.index(c.nodes[last]), Address: c.nodes[last].Address}, c.descriptors) {
			b.PutUnversioned(w.Key, w.Value)
		}
	}
	for _, other := range c.nodes {
		b.PutAddress(c.index(other), other.Address)
	}
	return n.engine.CommitSync(b, 0, func() { n.serve(id) })
}

// joinPause is how long a node that was given no identity waits to ask again.
const joinPause = 300 * time.Millisecond

// join asks one node after the other for an identity.
func (n *Node) join() {
	asked := n.cluster.nodes[n.cluster.loop.rand.IntN(len(n.cluster.nodes))]
	n.ask(asked.Address, 5*time.Second, func(s *Node, answer func(func())) {
		s.node.AllocateNode(func(id shard.NodeID, err error) {
			cluster, addresses := s.node.Identity().Cluster, s.node.Addresses() // s may crash before the answer is there
			answer(func() {
				if err != nil {
					n.cluster.net.in(n.env, joinPause, "join", n.join)
					return
				}
				n.event("joins as node %d", id)
				if err := node.Adopt(n.engine, cluster, id, addresses, n.serve); err != nil {
					n.fail("adopting an identity", err)
				}
			})
		})
	}, func(error) { n.cluster.net.in(n.env, joinPause, "join", n.join) })
}

// serve is the end of the start: the store has this identity durably.
func (n *Node) serve(id storage.Identity) {
	c := n.cluster
	if n.ID == 0 {
		c.identified(n, id)
	}
	if id.Cluster != c.ID || id.Node != n.ID || id.Incarnation <= n.incarnation {
		c.witness.Fail("%s has identity %+v after incarnation %d of node %d", n.Name, id, n.incarnation, n.ID)
	}
	n.incarnation = id.Incarnation
	addresses, err := node.OpenAddressBook(n.engine)
	if err != nil {
		n.fail("reading the address book", err)
		return
	}
	if n.peers, err = c.peers.Join(id.Node, id.Incarnation); err != nil {
		n.fail("joining the peers' network", err)
		return
	}
	started, err := node.New(node.Config{
		Identity: id, Env: n.env, Engine: n.engine, Addresses: addresses, Transport: &tap{n.peers, n},
		Dialer: &Dialer{net: c.net, name: n.Name, env: n.env, trusted: true}, Peers: (*peerCalls)(n), Advertise: n.Address, Version: "sim",
		Logger: c.logger(n.Name), Stop: func(err error) { n.fail("the cluster refuses the store", err) },
		Raft: c.raft, RaiseBy: c.raiseBy,
		Watch: func(g *raftgroup.Group, m raftgroup.Machine) raftgroup.Machine { return c.witness.Observe(n, g, m) },
	})
	if err != nil {
		n.fail("starting the node", err)
		return
	}
	n.node = started
	n.event("serves as node %d, incarnation %d", id.Node, id.Incarnation)
}

// greeting is what a stream's client hears first.
func (n *Node) greeting() shard.Greeting {
	id := n.node.Identity()
	return shard.Greeting{Cluster: id.Cluster, Node: id.Node, Incarnation: id.Incarnation}
}

// info is what a client needs to start.
func (n *Node) info() client.Info {
	meta, leader, _ := n.node.Meta()
	return client.Info{Cluster: n.cluster.ID, Node: n.ID, Meta: meta, MetaLeader: leader, Nodes: n.node.Addresses()}
}

// around runs a step of the incarnation, and ends it if its store has failed, as the
// process does in production. What the step did after the failure is what a
// process may do before it ends.
func (n *Node) around(queue string, step func()) {
	if f := n.disk.fs.fault.Load(); f != nil && queue == syncQueue {
		f.syncing.Store(true)
		defer f.syncing.Store(false)
	}
	step()
	n.endIfFailed()
}

// syncQueue is where steps wait for the disk.
const syncQueue = "storage sync"

func (n *Node) endIfFailed() {
	err := n.failure.Load()
	if err == nil || !n.Up() {
		return
	}
	f := n.disk.fs.fault.Load()
	switch {
	case f != nil && f.failed.Load():
		n.event("its disk has failed: %v", f)
	case n.Name == n.cluster.witness.damaged:
		n.cluster.witness.foundOut++
		n.event("its store has failed")
	default:
		n.fail("the store failed", *err)
	}
	n.Crash(false, 50*time.Millisecond)
	n.cluster.diskFailed(n)
}

// wipe takes the node's disk from it, and with it all that it was.
func (n *Node) wipe() {
	if n.Up() {
		n.Crash(false, 50*time.Millisecond)
	}
	n.disk, n.ID, n.incarnation, n.wiped = NewDisk(), 0, 0, true
}

// storeLogger is for a store; of one that fails, or whose disk has changed, the node
// tells itself: Pebble tries again from goroutines of its own, as often as it likes.
func (n *Node) storeLogger() *slog.Logger {
	if n.Name == n.cluster.witness.damaged {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&storeLog{n.cluster.logger(n.Name).Handler(), n})
}

type storeLog struct {
	slog.Handler
	node *Node
}

func (h *storeLog) Handle(ctx context.Context, r slog.Record) error {
	if h.node.disk.fs.fault.Load() != nil {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// Crash ends the incarnation at once. keep tells whether what was committed and
// not synced survives, as when only the process ends. Clients hear of it after
// up to silence.
func (n *Node) Crash(keep bool, silence time.Duration) {
	n.event("crashes")
	n.cluster.witness.crashed(n.Name)
	if !keep {
		n.disk.Lose()
	}
	n.env.Close()
	n.cluster.net.crashed(n, silence)
	if n.peers != nil {
		n.peers.Crash()
	}
	if n.engine != nil {
		n.end(n.engine)
	}
	if keep {
		n.disk.Keep()
	}
	n.env, n.engine, n.peers, n.node = nil, nil, nil, nil
}

// end closes an engine whose incarnation has crashed. That writes out what was
// committed, which after Disk.Lose has no effect any more, and ends Pebble's
// goroutines. Iterators that steps had open are open for ever, and Pebble answers
// with an error or a panic when all else is closed; that is no news here.
func (n *Node) end(e *storage.Engine) {
	defer func() {
		if r := recover(); r != nil {
			n.event("the store of the crashed incarnation had iterators open")
		}
	}()
	closing := e.Close
	if n.failure.Load() != nil {
		closing = e.Abandon
	}
	if err := closing(); err != nil {
		n.event("closing the store of the crashed incarnation failed")
	}
}

// Sync makes the store sync although nothing asked for it.
func (n *Node) Sync() {
	if n.engine == nil || n.ID == 0 {
		return
	}
	durable := n.cluster.witness.applied(n.ID, n.engine)
	err := n.engine.CommitSync(n.engine.NewBatch(), 0, func() { n.cluster.witness.synced(durable) })
	if err != nil && n.failure.Load() == nil {
		n.fail("sync", err)
	}
	n.endIfFailed()
}
