package sim

import (
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup"
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
	if keep {
		n.Sync()
	}
	n.event("crashes")
	n.disk.Crash()
	n.env.Close()
	n.cluster.net.crashed(n, silence)
	n.disconnect()
	if n.engine != nil {
		// The old incarnation's views stay open for ever, and Close says so: it
		// is called for the sake of Pebble's goroutines only.
		_ = n.engine.Close()
	}
	n.env, n.engine, n.host, n.store, n.serving = nil, nil, nil, nil, false
}
