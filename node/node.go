package node

import (
	"log/slog"
	"math"
	"slices"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/driver"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/revision"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// readWorkers is how many reads may wait for the disk at once.
const readWorkers = 2

// Config of a node. HTTPAddress, Join, Locality, CPUSeconds, Gauges, Raft, RaiseBy and Watch may be left out.
type Config struct {
	Identity    storage.Identity // as Bootstrap, Adopt or Resume gave it
	Env         env.Env
	Engine      *storage.Engine // the caller closes it after the node
	Addresses   *AddressBook    // of the engine's store; the transport may use it too
	Transport   Transport       // the node starts it; the caller closes it before the node
	Dialer      client.Dialer   // for the node's own client of the cluster
	Peers       Peers
	Advertise   string   // where others reach this node
	HTTPAddress string   // "" without one
	Join        []string // more addresses at which the node's own client may find the cluster
	Version     string
	Locality    shard.Locality // where it is; "" says nothing of it
	Logger      *slog.Logger
	CPUSeconds  func() float64 // CPU time of the process so far
	Gauges      func() []Gauge // of the process around the node
	UnixNow     func() uint64  // the wall clock in seconds, for records that people read; nil: 0
	// Stop asks for the end of the process: the cluster refuses this store.
	// It is called at most once, from a step.
	Stop func(reason error)
	// Raft tunes the host; zero fields take its defaults.
	Raft RaftConfig
	// RaiseBy is that of revision.GrantsConfig.
	RaiseBy uint64
	// Watch wraps each replica's machine, so that a simulation sees what its
	// group tells it; nil: none.
	Watch func(*raftgroup.Group, raftgroup.Machine) raftgroup.Machine
}

// RaftConfig are the host's settings that a node passes on.
type RaftConfig struct {
	Workers        int
	Tick           time.Duration
	ElectionTicks  int
	HeartbeatTicks int
	LogBytesMax    int64
}

// Transport carries messages once it was told whom to deliver to.
type Transport interface {
	raftgroup.Transport
	Start(r raftgroup.Receiver)
	SetSnapshotRate(bytesPerSecond int64)
	Stats() transport.Stats
}

// Peers asks other nodes. done is called once, from anywhere. Calls return at once.
type Peers interface {
	Report(address string, q ReportQuery, timeout time.Duration, done func(*pb.NodeReportResponse, error))
	ChangeMembership(address string, m shard.MembershipChange, timeout time.Duration, done func(shard.Descriptor, error))
	SplitShard(address string, s shard.Split, timeout time.Duration, done func(left, right shard.Descriptor, err error))
	TransferShard(address string, id shard.ID, to shard.ReplicaID, timeout time.Duration, done func(error))
}

// Node is one running node. Methods are safe for concurrent use and do not wait.
type Node struct {
	cfg       Config
	log       *slog.Logger
	started   time.Duration
	queue     env.Queue // the node's own chores
	addresses *AddressBook
	store     *replica.Store
	host      *raftgroup.Host
	core      *client.Core
	feeder    *driver.Feeder
	grants    *revision.Grants
	draws     *revision.Draws
	driver    *driver.Driver
	chores    chores
}

// New wires a node and starts all replicas that its store holds. The node
// registers itself with the cluster as soon as the meta shard answers.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Logger, started: cfg.Env.Now(), queue: cfg.Env.NewQueue("node"), addresses: cfg.Addresses}
	if _, err := n.addresses.Learn(map[shard.NodeID]string{cfg.Identity.Node: cfg.Advertise}); err != nil {
		return nil, err
	}
	n.core = client.NewCore(client.CoreConfig{
		Env: cfg.Env, Dialer: cfg.Dialer, Endpoints: n.endpoints(), Cluster: cfg.Identity.Cluster, Logger: cfg.Logger,
	})
	n.core.AddNodes(n.addresses.All())
	n.chores.catalog = catalog.New(n.core, cfg.Env, n.queue)
	n.feeder = driver.NewFeeder(driver.FeederConfig{Node: cfg.Identity.Node, Env: cfg.Env, Directory: n.chores.catalog, Logger: cfg.Logger})
	n.driver = driver.New(driver.Config{Env: cfg.Env, Cluster: (*drivenCluster)(n), Records: n.chores.catalog, Logger: cfg.Logger, UnixNow: cfg.UnixNow})
	// The granter looks into the store, which is there before anybody draws.
	n.grants = revision.NewGrants(revision.GrantsConfig{Meta: func() (revision.Meta, bool) { return revision.MetaIn(n.store) }, RaiseBy: cfg.RaiseBy})
	n.draws = revision.NewDraws(revision.DrawsConfig{Env: cfg.Env, Queue: cfg.Env.NewQueue("draws"), KV: n.core, Grants: n.grants, Notes: (*noteCarrier)(n)})
	n.store = replica.NewStore(replica.Config{
		Node: cfg.Identity.Node, Env: cfg.Env, Engine: cfg.Engine, Revisions: n.draws, Grants: n.grants,
		Reads: cfg.Env.NewPool("reads", readWorkers), Address: n.addresses.Lookup,
		DescriptorChanged: n.descriptorChanged, Logger: cfg.Logger,
	})
	n.chores.settings = newSettings(n.store, cfg.Transport, n.driver, n.chores.catalog.ListSettings, n.later, cfg.Logger)
	host, err := raftgroup.NewHost(raftgroup.Config{
		Node: cfg.Identity.Node, Incarnation: cfg.Identity.Incarnation, Env: cfg.Env, Engine: cfg.Engine, Transport: cfg.Transport,
		Logger: cfg.Logger, NewMachine: n.newMachine, ReserveSpan: n.store.ReserveSpan, Covers: n.store.Covers, Note: n.draws.Note, Nodes: n.addresses.Nodes,
		Workers: cfg.Raft.Workers, Tick: cfg.Raft.Tick, ElectionTicks: cfg.Raft.ElectionTicks,
		HeartbeatTicks: cfg.Raft.HeartbeatTicks, LogBytesMax: cfg.Raft.LogBytesMax,
	})
	if err != nil {
		return nil, err
	}
	n.host = host
	// All replicas of the store before the first message: one for a replica that is
	// not loaded yet would create it as if the store had no state of it.
	if err := n.host.Load(); err != nil {
		return nil, err
	}
	cfg.Transport.Start(host)
	n.startChores()
	return n, nil
}

func (n *Node) newMachine(g *raftgroup.Group, state *storage.ReplicaState) (raftgroup.Machine, error) {
	m, err := n.store.NewMachine(g, state)
	if err != nil || n.cfg.Watch == nil {
		return m, err
	}
	return n.cfg.Watch(g, m), nil
}

// endpoints are where the node's own client starts: itself first.
func (n *Node) endpoints() []string {
	out := []string{n.cfg.Advertise}
	known := n.addresses.All()
	for _, id := range sortedNodes(known) {
		if known[id] != n.cfg.Advertise {
			out = append(out, known[id])
		}
	}
	for _, address := range n.cfg.Join {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}

// Close stops the node's replicas and its client. Waiting requests are answered
// with errors. The caller closes the transport before, and the environment and the
// engine after it.
func (n *Node) Close() {
	n.stopChores()
	n.driver.Stop(math.MaxUint64)
	n.feeder.Close()
	n.core.Close()
	n.store.Close()
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
func (n *Node) Addresses() map[shard.NodeID]string { return n.addresses.All() }

// Address is where this node believes the given node is, or "".
func (n *Node) Address(id shard.NodeID) string { return n.addresses.Lookup(id) }

// Learn takes addresses that a peer has told.
func (n *Node) Learn(news map[shard.NodeID]string) {
	changed, err := n.addresses.Learn(news)
	if err != nil {
		n.log.Error("address book not written", "err", err)
		return
	}
	if changed {
		n.core.AddNodes(n.addresses.All())
	}
}

// Meta is what this node knows of the meta shard, by its own replica of it or
// else by its client: its descriptor, and the node that leads it (0: unknown).
func (n *Node) Meta() (d shard.Descriptor, leader shard.NodeID, ok bool) {
	if r, here := n.store.Replica(shard.MetaID); here {
		if state, initialized := r.State(); initialized {
			return state.Descriptor, r.Leadership().Node, true
		}
	}
	return n.core.Meta()
}

// noteCarrier sends notes through the host, which is there before anybody draws.
type noteCarrier Node

func (n *noteCarrier) Note(to shard.NodeID, note []byte) bool { return n.host.Note(to, note) }
