package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Cluster is all nodes of a run and what they share.
type Cluster struct {
	ID          shard.ClusterID // zero until the first node has founded it
	loop        *Loop
	trace       *Trace
	witness     *Witness
	net         *Net
	peers       *transport.Network
	nodes       []*Node
	raft        node.RaftConfig
	raiseBy     uint64 // revisions at a time; 0: node's default
	syncsEarly  int    // of a thousand; see storage.Config
	keep        Keep
	grown       bool                  // one node founds the cluster and the others join
	drained     map[shard.NodeID]bool // nodes that somebody asked to be drained
	byHand      bool                  // somebody changes shards while placement is asked to
	descriptors []shard.Descriptor    // that the cluster starts with, in order of ID and of span
	diskFailed  func(*Node)           // told of a node that has ended for its disk
}

// ClusterConfig sizes a cluster.
type ClusterConfig struct {
	Nodes      int
	UserShards int
	// Grown: the first node founds the cluster, the others join it, and placement
	// gives every shard its replicas. Else all shards have their voters from the start.
	Grown    bool
	DriftPPM int // clocks run at different rates, which differ by up to so many millionths from the true one
	Raft     node.RaftConfig
	// RaiseBy is node.Config's, SyncsEarlyPerMille storage.Config's.
	RaiseBy            uint64
	SyncsEarlyPerMille int
}

// replicationFactor is what placement aims at.
const replicationFactor = 3

// clockExact is the rate of a clock that does not drift, in millionths.
const clockExact = 1_000_000

// NewCluster makes nodes with empty disks; Start starts them.
func NewCluster(loop *Loop, trace *Trace, witness *Witness, cfg ClusterConfig) (*Cluster, error) {
	c := &Cluster{loop: loop, trace: trace, witness: witness, raft: cfg.Raft, grown: cfg.Grown, drained: make(map[shard.NodeID]bool),
		raiseBy: cfg.RaiseBy, syncsEarly: cfg.SyncsEarlyPerMille}
	c.net = &Net{loop: loop, trace: trace, witness: witness, cluster: c, effect: func(*Node) {}, struck: new(Struck)}
	c.peers = transport.NewNetwork(loop.NewEnv("peers", clockExact), transport.NetworkConfig{Hook: c.net.fate})
	for i := range cfg.Nodes {
		rate := int64(clockExact)
		if d := cfg.DriftPPM; d > 0 {
			rate += int64(loop.rand.IntN(2*d+1) - d)
		}
		name := fmt.Sprint("n", i+1)
		c.nodes = append(c.nodes, &Node{Name: name, Address: name + ":7400", cluster: c, disk: NewDisk(), rate: rate})
	}
	ds, err := catalog.InitialDescriptors(1, cfg.UserShards)
	if err != nil || cfg.Grown {
		c.descriptors = ds
		witness.begins(ds)
		return c, err
	}
	for i := range c.ID {
		c.ID[i] = byte(loop.rand.Uint32())
	}
	for k, d := range ds {
		d.Replicas = nil
		for i := range min(replicationFactor, cfg.Nodes) {
			node := c.nodes[(k+i)%cfg.Nodes]
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: c.index(node), Role: shard.Voter})
		}
		d.NextReplica = shard.ReplicaID(len(d.Replicas) + 1)
		c.descriptors = append(c.descriptors, d)
	}
	witness.begins(c.descriptors)
	return c, nil
}

// index is the ID of a node of a cluster that is not grown.
func (c *Cluster) index(n *Node) shard.NodeID { return shard.NodeID(slices.Index(c.nodes, n) + 1) }

// identified notes a node's first durable identity.
func (c *Cluster) identified(n *Node, id storage.Identity) {
	if c.nameOf(id.Node) != "" {
		c.witness.Fail("%s was given the ID %d of %s", n.Name, id.Node, c.nameOf(id.Node))
	}
	if c.ID.IsZero() {
		c.ID = id.Cluster
	}
	n.ID = id.Node
}

// byName finds a node.
func (c *Cluster) byName(name string) *Node {
	for _, n := range c.nodes {
		if n.Name == name {
			return n
		}
	}
	panic("no node is called " + name)
}

// nameOf is how the network and the trace call a node, "" if no node has the ID.
func (c *Cluster) nameOf(id shard.NodeID) string {
	for _, n := range c.nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return ""
}

// Start starts all nodes.
func (c *Cluster) Start() {
	for _, n := range c.nodes {
		n.Start()
	}
}

// Close ends all nodes, so that nothing of the run is left.
func (c *Cluster) Close() {
	for _, n := range c.nodes {
		if n.Up() {
			n.Crash(false, 0)
		}
	}
}

func (c *Cluster) addresses() []string {
	var as []string
	for _, n := range c.nodes {
		as = append(as, n.Address)
	}
	return as
}

// shards are the newest descriptors that anybody has applied, in order of span.
func (c *Cluster) shards() []shard.Descriptor { return c.witness.newestDescriptors() }

// anyShard draws one of the shards that there are now.
func (c *Cluster) anyShard() *shard.Descriptor {
	all := c.shards()
	return &all[c.loop.rand.IntN(len(all))]
}

// covering is the newest descriptor of the shard that covers a key.
func (c *Cluster) covering(key []byte) *shard.Descriptor {
	all := c.shards()
	for i := range all {
		if all[i].Span.Contains(key) {
			return &all[i]
		}
	}
	panic(fmt.Sprintf("no shard covers key %x", key))
}

// shardOf is the ID of the shard that covers a key.
func (c *Cluster) shardOf(key []byte) shard.ID { return c.covering(key).ID }

// Unsettled says what keeps the cluster from being settled, or nothing: every
// shard has all the voters that it shall have, exactly one leader, which all
// replicas follow, and all have applied the same.
func (c *Cluster) Unsettled() string {
	for _, n := range c.nodes {
		if !n.Serving() && !n.gone {
			return n.Name + " is not up"
		}
	}
	for _, d := range c.shards() {
		if why := c.unsettled(d.ID); why != "" {
			return fmt.Sprintf("shard %d %s", d.ID, why)
		}
	}
	if why := c.unasked(); why != "" {
		return why
	}
	return c.undirected()
}

func (c *Cluster) unsettled(id shard.ID) string {
	leaders, replicas, up := 0, 0, 0
	var first storage.ReplicaState
	for _, n := range c.nodes {
		if n.gone {
			continue
		}
		up++
		r, here := n.store().Replica(id)
		if !here {
			continue
		}
		s, ok := r.State()
		if !ok {
			return "is not initialized on " + n.Name
		}
		if replicas++; replicas == 1 {
			first = s
		}
		l := r.Leadership()
		if l.Leading {
			leaders++
		}
		switch {
		case l.Leader == 0:
			return "has no leader known to " + n.Name
		case s.Applied != first.Applied:
			return fmt.Sprintf("is applied to %d on %s and to %d elsewhere", s.Applied, n.Name, first.Applied)
		}
	}
	voters := 0
	for _, r := range first.Descriptor.Replicas {
		if r.Role == shard.Voter {
			voters++
		}
	}
	// A learner that took a node's place while it was away is removed when that one
	// is back. Voters that somebody adds by hand beside placement stay. So does one that was
	// promoted in the place of a leader whose node was to be drained, and is not any more.
	want := placement.VotersWanted(id, max(up, min(replicationFactor, len(c.nodes))))
	if c.byHand || len(c.drained) > 0 {
		want = max(want, voters)
	}
	present := want
	if up < want {
		// There is no node to take the place of the one that is gone, and a shard may
		// have been without that one before.
		want, present = max(up, voters), up
	}
	if leaders != 1 || voters != want || len(first.Descriptor.Replicas) != want || replicas != present {
		return fmt.Sprintf("has %d leaders, %d replicas, %d voters of %v", leaders, replicas, voters, first.Descriptor.Replicas)
	}
	return ""
}

// logger writes what a room logs into the trace.
func (c *Cluster) logger(actor string) *slog.Logger {
	return slog.New(&traceLog{cluster: c, actor: actor})
}

// traceLog is a slog.Handler without time.
type traceLog struct {
	cluster *Cluster
	actor   string
	attrs   string
}

func (h *traceLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *traceLog) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s", a)
		return true
	})
	tell := h.cluster.trace.Event
	if r.Level < slog.LevelWarn {
		tell = h.cluster.trace.Detail
	}
	tell(h.cluster.loop.now, h.actor, "%v: %s%s%s", r.Level, r.Message, h.attrs, b.String())
	return nil
}

func (h *traceLog) WithAttrs(as []slog.Attr) slog.Handler {
	next := *h
	for _, a := range as {
		next.attrs += fmt.Sprintf(" %s", a)
	}
	return &next
}

func (h *traceLog) WithGroup(string) slog.Handler { return h }
