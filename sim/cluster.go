package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
)

// Cluster is all nodes of a run and what they share.
type Cluster struct {
	ID          shard.ClusterID
	loop        *Loop
	trace       *Trace
	witness     *Witness
	net         *Net
	peers       *transport.Network
	nodes       []*Node
	descriptors []shard.Descriptor // that the cluster starts with, in order of ID and of span
}

// clockExact is the rate of a clock that does not drift, in millionths.
const clockExact = 1_000_000

// NewCluster makes nodes with empty disks; Start starts them.
func NewCluster(loop *Loop, trace *Trace, witness *Witness, nodes, userShards int, drift bool) (*Cluster, error) {
	c := &Cluster{loop: loop, trace: trace, witness: witness}
	for i := range c.ID {
		c.ID[i] = byte(loop.rand.Uint32())
	}
	c.net = &Net{loop: loop, trace: trace, witness: witness, cluster: c}
	c.peers = transport.NewNetwork(loop.NewEnv("peers", clockExact), transport.NetworkConfig{Hook: c.net.fate})
	ds, err := catalog.InitialDescriptors(1, userShards)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		d.Replicas = nil
		for i := range nodes {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1), Role: shard.Voter})
		}
		d.NextReplica = shard.ReplicaID(nodes + 1)
		c.descriptors = append(c.descriptors, d)
	}
	for i := range nodes {
		id := shard.NodeID(i + 1)
		rate := int64(clockExact)
		if drift {
			rate += int64(loop.rand.IntN(40_001)) - 20_000 // two per cent either way
		}
		c.nodes = append(c.nodes, &Node{ID: id, Name: nodeName(id), Address: address(id), cluster: c, disk: NewDisk(), rate: rate})
	}
	return c, nil
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

// book is where every node is.
func (c *Cluster) book() map[shard.NodeID]string {
	m := make(map[shard.NodeID]string)
	for _, n := range c.nodes {
		m[n.ID] = n.Address
	}
	return m
}

// shardOf finds the shard that covers a key.
func (c *Cluster) shardOf(key []byte) shard.ID {
	for i := range c.descriptors {
		if c.descriptors[i].Span.Contains(key) {
			return c.descriptors[i].ID
		}
	}
	panic(fmt.Sprintf("no shard covers key %x", key))
}

// Settled tells whether every shard has exactly one leader, which all its replicas
// follow, and whether all have applied the same.
func (c *Cluster) Settled() bool {
	return c.Unsettled() == ""
}

// Unsettled says what keeps the cluster from being settled, or nothing.
func (c *Cluster) Unsettled() string {
	for _, n := range c.nodes {
		if !n.serving {
			return n.Name + " is not up"
		}
	}
	for i := range c.descriptors {
		d := &c.descriptors[i]
		leaders := 0
		var first uint64
		for k, n := range c.nodes {
			r, ok := n.store.Replica(d.ID)
			if !ok {
				return fmt.Sprintf("%s has no replica of shard %d", n.Name, d.ID)
			}
			s, ok := r.State()
			if !ok {
				return fmt.Sprintf("shard %d is not initialized on %s", d.ID, n.Name)
			}
			l := r.Leadership()
			if l.Leading {
				leaders++
			}
			if l.Leader == 0 {
				return fmt.Sprintf("%s knows no leader of shard %d", n.Name, d.ID)
			}
			if k == 0 {
				first = s.Applied
			}
			if s.Applied != first {
				return fmt.Sprintf("shard %d is applied to %d on %s and to %d on %s", d.ID, s.Applied, n.Name, first, c.nodes[0].Name)
			}
		}
		if leaders != 1 {
			return fmt.Sprintf("shard %d has %d leaders", d.ID, leaders)
		}
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
	h.cluster.trace.Event(h.cluster.loop.now, h.actor, "%v: %s%s%s", r.Level, r.Message, h.attrs, b.String())
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
