package sim

import (
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// Node is one node: a disk, and the incarnation that runs on it, if any.
type Node struct {
	ID      shard.NodeID
	Name    string
	Address string
	cluster *Cluster
	disk    *Disk
	rate    int64 // of its clock

	// Of the incarnation; a crash drops all of it.
	env         *Env
	incarnation uint64
	engine      *storage.Engine
	peers       *transport.Memory
	host        *raftgroup.Host
	store       *replica.Store
	serving     bool // the start is over: clients and peers are heard
	doors       []*door
}

// Up tells whether an incarnation runs, though it may still be starting.
func (n *Node) Up() bool { return n.env != nil }

func (n *Node) event(format string, args ...any) {
	n.cluster.trace.Event(n.cluster.loop.now, n.Name, format, args...)
}

// Start begins an incarnation: it opens the store, makes its incarnation durable,
// loads the replicas, and then serves.
func (n *Node) Start() {
	n.env = n.cluster.loop.NewEnv(n.Name, n.rate)
	fail := func(what string, err error) { n.cluster.witness.Fail("node %d: %s: %v", n.ID, what, err) }
	e, err := storage.Open(storage.Config{Dir: "store", FS: n.disk.FS(), MemoryBytes: 64 << 20, Env: n.env, Simulated: true,
		Logger: n.cluster.logger(n.Name), Fatal: func(err error) { fail("the store failed", err) }})
	if err != nil {
		fail("opening the store", err)
		return
	}
	n.engine = e
	n.cluster.witness.recovered(n.ID, e)
	id, known, err := e.Identity()
	if err != nil {
		fail("reading the identity", err)
		return
	}
	if known && (id.Cluster != n.cluster.ID || id.Node != n.ID || id.Incarnation > n.incarnation) {
		n.cluster.witness.Fail("node %d found identity %+v; its last incarnation was %d", n.ID, id, n.incarnation)
	}
	n.incarnation++
	b := e.NewBatch()
	if !known {
		n.bootstrap(b)
	}
	b.PutIdentity(storage.Identity{Cluster: n.cluster.ID, Node: n.ID, Incarnation: n.incarnation})
	n.event("starts incarnation %d, known=%v", n.incarnation, known)
	if err := e.CommitSync(b, 0, n.serve); err != nil {
		fail("writing the identity", err)
	}
}

// bootstrap stages what a cluster starts from: every shard with a voter on every
// node, and the meta shard's records.
func (n *Node) bootstrap(b *storage.Batch) {
	for i := range n.cluster.descriptors {
		d := n.cluster.descriptors[i]
		r, _ := d.ReplicaOn(n.ID)
		b.PutInitialReplica(r.ID, &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: d})
	}
	first := catalog.Node{ID: 1, Address: address(1), Incarnation: 1}
	for _, w := range catalog.BootstrapRecords(first, n.cluster.descriptors) {
		b.PutUnversioned(w.Key, w.Value)
	}
}

// serve is the end of the start: the store knows its incarnation durably.
func (n *Node) serve() {
	fail := func(what string, err error) { n.cluster.witness.Fail("node %d: %s: %v", n.ID, what, err) }
	peers, err := n.cluster.peers.Join(n.ID, n.incarnation)
	if err != nil {
		fail("joining the network", err)
		return
	}
	book := n.cluster.book()
	n.peers = peers
	n.store = replica.NewStore(replica.Config{Node: n.ID, Env: n.env, Engine: n.engine, Revisions: n.revisions(),
		Reads: n.env.NewPool("reads", 2), Logger: n.cluster.logger(n.Name),
		Address:           func(id shard.NodeID) string { return book[id] },
		DescriptorChanged: func(shard.Descriptor, bool, uint64) {}})
	n.host, err = raftgroup.NewHost(raftgroup.Config{Node: n.ID, Incarnation: n.incarnation, Env: n.env, Engine: n.engine, Transport: peers,
		Logger: n.cluster.logger(n.Name), Workers: 1, LogBytesMax: logBytesMax,
		NewMachine: func(g *raftgroup.Group, state *storage.ReplicaState) (raftgroup.Machine, error) {
			m, err := n.store.NewMachine(g, state)
			if err != nil {
				return nil, err
			}
			return n.cluster.witness.Observe(n, g, m), nil
		}})
	if err != nil {
		fail("making the host", err)
		return
	}
	peers.Start(n.host)
	if err := n.host.Load(); err != nil {
		fail("loading the replicas", err)
		return
	}
	n.serving = true
	n.event("serves")
}

// logBytesMax makes logs be truncated, so that who was away for long is sent a
// snapshot.
const logBytesMax = 16 << 10

// greeting is what a stream's client hears first.
func (n *Node) greeting() shard.Greeting {
	return shard.Greeting{Cluster: n.cluster.ID, Node: n.ID, Incarnation: n.incarnation}
}

// info is what a client needs to start.
func (n *Node) info() (client.Info, error) {
	i := client.Info{Cluster: n.cluster.ID, Node: n.ID, Nodes: n.cluster.book()}
	if r, ok := n.store.Replica(shard.MetaID); ok {
		s, _ := r.State()
		i.Meta, i.MetaLeader = s.Descriptor, r.Leadership().Node
	}
	return i, nil
}

// Crash ends the incarnation at once. keep tells whether what was committed and
// not synced survives, as when only the process ends. Clients hear of it after
// up to silence.
func (n *Node) Crash(keep bool, silence time.Duration) {
	n.event("crashes")
	if !keep {
		n.disk.Crash()
	}
	n.env.Close()
	n.cluster.net.crashed(n, silence)
	if n.peers != nil {
		n.peers.Crash()
	}
	if n.engine != nil {
		// Closing writes out what was committed; after Disk.Crash that has no effect
		// any more, and it ends Pebble's goroutines. Views that steps had open are
		// open for ever, and the error says so.
		_ = n.engine.Close()
	}
	n.env, n.engine, n.peers, n.host, n.store, n.serving = nil, nil, nil, nil, nil, false
}

// Sync makes the store sync although nothing asked for it.
func (n *Node) Sync() {
	if n.engine == nil {
		return
	}
	durable := n.cluster.witness.applied(n.ID, n.engine)
	err := n.engine.CommitSync(n.engine.NewBatch(), 0, func() { n.cluster.witness.synced(durable) })
	if err != nil {
		n.cluster.witness.Fail("node %d: sync: %v", n.ID, err)
	}
}
