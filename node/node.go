package node

import (
	"log/slog"
	"math"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/driver"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/revision"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// readWorkers is how many reads may wait for the disk at once.
const readWorkers = 2

// Config of a node. All fields but CPUSeconds and HTTPAddress are required.
type Config struct {
	Identity storage.Identity // as Bootstrap, Adopt or Resume gave it
	Env      env.Env
	Engine   *storage.Engine // the caller closes it after the node
	// NewTransport makes the transport that delivers to r.
	NewTransport func(r raftgroup.Receiver) raftgroup.Transport
	Dialer       client.Dialer // for the node's own client of the cluster
	Peers        Peers
	Advertise    string // where others reach this node
	HTTPAddress  string // "" without one
	Version      string
	Logger       *slog.Logger
	CPUSeconds   func() float64 // CPU time of the process so far
	// Stop asks for the end of the process: the cluster refuses this store.
	// It is called at most once, from a step.
	Stop func(reason error)
	// Raft tunes the host; zero fields take its defaults.
	Raft RaftConfig
}

// RaftConfig are the host's settings that a node passes on.
type RaftConfig struct {
	Workers        int
	Tick           time.Duration
	ElectionTicks  int
	HeartbeatTicks int
	LogBytesMax    int64
}

// Peers asks other nodes. done is called once, from anywhere. Calls return at once.
type Peers interface {
	Report(address string, q ReportQuery, timeout time.Duration, done func(*pb.NodeReportResponse, error))
	ChangeMembership(address string, m shard.MembershipChange, timeout time.Duration, done func(shard.Descriptor, error))
	TransferShard(address string, id shard.ID, to shard.ReplicaID, timeout time.Duration, done func(error))
}

// Node is one running node. Methods are safe for concurrent use and do not wait.
type Node struct {
	cfg       Config
	log       *slog.Logger
	started   time.Duration
	queue     env.Queue // the node's own chores
	addresses *addressBook
	store     *replica.Store
	host      *raftgroup.Host
	core      *client.Core
	feeder    *driver.Feeder
	driver    *driver.Driver
	chores    chores
}

// New wires a node and starts all replicas that its store holds. The node
// registers itself with the cluster as soon as the meta shard answers.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Logger, started: cfg.Env.Now(), queue: cfg.Env.NewQueue("node")}
	var err error
	if n.addresses, err = openAddressBook(cfg.Engine); err != nil {
		return nil, err
	}
	if _, err := n.addresses.learn(map[shard.NodeID]string{cfg.Identity.Node: cfg.Advertise}); err != nil {
		return nil, err
	}
	n.core = client.NewCore(client.CoreConfig{
		Env: cfg.Env, Dialer: cfg.Dialer, Endpoints: n.endpoints(), Cluster: cfg.Identity.Cluster, Logger: cfg.Logger,
	})
	n.core.AddNodes(n.addresses.all())
	n.chores.catalog = catalog.New(n.core, cfg.Env, n.queue)
	n.feeder = driver.NewFeeder(driver.FeederConfig{Node: cfg.Identity.Node, Env: cfg.Env, Directory: n.chores.catalog, Logger: cfg.Logger})
	n.driver = driver.New(driver.Config{Env: cfg.Env, Cluster: (*drivenCluster)(n), Logger: cfg.Logger})
	n.store = replica.NewStore(replica.Config{
		Node: cfg.Identity.Node, Env: cfg.Env, Engine: cfg.Engine, Revisions: revision.NewPerShard(),
		Reads: cfg.Env.NewPool("reads", readWorkers), Address: n.addresses.lookup,
		DescriptorChanged: n.descriptorChanged, Logger: cfg.Logger,
	})
	late := &lateTransport{}
	n.host, err = raftgroup.NewHost(raftgroup.Config{
		Node: cfg.Identity.Node, Incarnation: cfg.Identity.Incarnation, Env: cfg.Env, Engine: cfg.Engine, Transport: late,
		Logger: cfg.Logger, NewMachine: n.store.NewMachine,
		Workers: cfg.Raft.Workers, Tick: cfg.Raft.Tick, ElectionTicks: cfg.Raft.ElectionTicks,
		HeartbeatTicks: cfg.Raft.HeartbeatTicks, LogBytesMax: cfg.Raft.LogBytesMax,
	})
	if err != nil {
		return nil, err
	}
	late.Transport = cfg.NewTransport(n.host)
	if err := n.host.Load(); err != nil {
		return nil, err
	}
	n.startChores()
	return n, nil
}

// lateTransport breaks the circle that the host sends through the transport and
// the transport delivers to the host. It is set before the host loads a group.
type lateTransport struct{ raftgroup.Transport }

// endpoints are where the node's own client starts: itself first.
func (n *Node) endpoints() []string {
	out := []string{n.cfg.Advertise}
	known := n.addresses.all()
	for _, id := range sortedNodes(known) {
		if known[id] != n.cfg.Advertise {
			out = append(out, known[id])
		}
	}
	return out
}

// Close stops the node's replicas and its client. Waiting requests are answered
// with errors. The caller then closes the transport, the environment and the engine.
func (n *Node) Close() {
	n.stopChores()
	n.driver.Stop(math.MaxUint64)
	n.feeder.Close()
	n.core.Close()
	n.host.Close()
}

// Identity is who this node is.
func (n *Node) Identity() storage.Identity { return n.cfg.Identity }

// Store carries out the requests of client streams.
func (n *Node) Store() *replica.Store { return n.store }

// Host drives the node's groups.
func (n *Node) Host() *raftgroup.Host { return n.host }

// Core is the node's own client of the cluster.
func (n *Node) Core() *client.Core { return n.core }

// Addresses is where this node believes nodes are.
func (n *Node) Addresses() map[shard.NodeID]string { return n.addresses.all() }

// Address is where this node believes the given node is, or "".
func (n *Node) Address(id shard.NodeID) string { return n.addresses.lookup(id) }

// Learn takes addresses that a peer has told.
func (n *Node) Learn(news map[shard.NodeID]string) {
	changed, err := n.addresses.learn(news)
	if err != nil {
		n.log.Error("address book not written", "err", err)
		return
	}
	if changed {
		n.core.AddNodes(n.addresses.all())
	}
}

// Meta is what this node knows of the meta shard: its descriptor, if any
// replica of it was ever here or told, and the node that leads it (0: unknown).
func (n *Node) Meta() (d shard.Descriptor, leader shard.NodeID, ok bool) {
	if r, here := n.store.Replica(shard.MetaID); here {
		if state, initialized := r.State(); initialized {
			return state.Descriptor, r.Leadership().Node, true
		}
	}
	return shard.Descriptor{}, 0, false
}
