package clienttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// Cluster pretends to be a cluster: it answers as nodes do, checks targets as
// they do, and keeps the versions of all keys in one map, in one order of revisions.
// Nothing is replicated. Its methods are safe for concurrent use; its fields are set before use.
type Cluster struct {
	ID    shard.ClusterID
	Nodes int // their IDs are 1 to Nodes

	// Address of a node; nil: "node-1" and so on.
	Address func(shard.NodeID) string
	// Answer may answer in place of the node. It is called with the lock held.
	Answer func(node shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool)
	// Mute keeps hints out of errors.
	Mute bool
	// Floor of all shards: older versions count as dropped. Changed within Change.
	Floor shard.Revision
	// Lags are nodes whose followers are too far behind to serve reads.
	Lags map[shard.NodeID]bool

	mu       sync.Mutex
	shards   []*Shard
	keys     []string // sorted; also of those without a value any more
	values   map[string][]version
	revision shard.Revision // the newest that was handed out
	executed map[shard.OpID]int
	commands int
	newest   map[seat]uint64 // number of the newest stream
}

// Shard is a shard of a Cluster, with its leader.
type Shard struct {
	Descriptor shard.Descriptor
	Leader     shard.ReplicaID // 0: none
	Term       uint64
}

// NewCluster makes a cluster of so many nodes, with the meta shard and count
// user shards, which divide the first key byte evenly; each has a replica on
// three nodes. The directory is up to date.
func NewCluster(id byte, nodes, count int) *Cluster {
	c := &Cluster{ID: shard.ClusterID{id, 15: 1}, Nodes: nodes, values: map[string][]version{}, executed: map[shard.OpID]int{}, newest: map[seat]uint64{}}
	c.shards = append(c.shards, c.newShard(shard.MetaID, shard.SystemSpan()))
	for i := range count {
		span := shard.UserSpan()
		if i > 0 {
			span.Start = cut(i, count)
		}
		if i < count-1 {
			span.End = cut(i+1, count)
		}
		c.shards = append(c.shards, c.newShard(shard.ID(i+2), span))
	}
	c.Publish()
	return c
}

func cut(i, count int) []byte {
	return shard.UserKey(binary.BigEndian.AppendUint16(nil, uint16(i*65536/count)))
}

func (c *Cluster) newShard(id shard.ID, span shard.Span) *Shard {
	d := shard.Descriptor{ID: id, Span: span, Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 1}
	for r := range min(3, c.Nodes) {
		d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplica, Node: shard.NodeID((int(id)+r)%c.Nodes + 1), Role: shard.Voter})
		d.NextReplica++
	}
	return &Shard{Descriptor: d, Leader: 1, Term: 6}
}

// AddressOf is where a node is reached.
func (c *Cluster) AddressOf(n shard.NodeID) string {
	if c.Address != nil {
		return c.Address(n)
	}
	return fmt.Sprintf("node-%d", n)
}

// Info is what a node tells at first contact.
func (c *Cluster) Info(n shard.NodeID) client.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := client.Info{Cluster: c.ID, Node: n, Meta: c.shards[0].Descriptor, Nodes: map[shard.NodeID]string{}}
	if m, ok := info.Meta.Replica(c.shards[0].Leader); ok {
		info.MetaLeader = m.Node
	}
	for i := range c.Nodes {
		info.Nodes[shard.NodeID(i+1)] = c.AddressOf(shard.NodeID(i + 1))
	}
	return info
}

// Greeting is a node's greeting.
func (c *Cluster) Greeting(n shard.NodeID) shard.Greeting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return shard.Greeting{Cluster: c.ID, Node: n, Incarnation: 1, Newest: c.revision}
}

// Change changes the cluster under its lock.
func (c *Cluster) Change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Shards are all shards in order of their spans, the meta shard first. They are
// changed within Change.
func (c *Cluster) Shards() []*Shard { return c.shards }

// ShardOf is the shard that covers a full key.
func (c *Cluster) ShardOf(key []byte) *Shard {
	for _, s := range c.shards {
		if s.Descriptor.Span.Contains(key) {
			return s
		}
	}
	return nil
}

// Lead gives the shard another leader, in the next term.
func (s *Shard) Lead(r shard.ReplicaID) {
	s.Leader = r
	s.Term++
}

// Split splits the shard that covers a full key at that key. The directory does
// not learn it.
func (c *Cluster) Split(key []byte) {
	c.Change(func() {
		left := c.ShardOf(key)
		right := &Shard{Descriptor: left.Descriptor.Clone(), Leader: left.Leader, Term: 6}
		right.Descriptor.ID = shard.ID(len(c.shards) + 1)
		right.Descriptor.Span.Start = key
		d := left.Descriptor.Clone()
		d.Span.End = key
		d.Epoch.Version++
		right.Descriptor.Epoch = d.Epoch
		left.Descriptor = d
		c.shards = slices.Insert(c.shards, slices.Index(c.shards, left)+1, right)
	})
}

// Publish brings the directory up to date.
func (c *Cluster) Publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shards {
		e := router.Entry{Descriptor: s.Descriptor}
		if m, ok := s.Descriptor.Replica(s.Leader); ok {
			e.Leader = shard.LeaderHint{Replica: m.ID, Node: m.Node, Term: s.Term}
		}
		c.put(string(router.DirectoryKey(s.Descriptor.Span.Start)), version{bytes: router.AppendEntry(nil, &e)})
	}
}

// Executed is how often each write took effect, by its ID.
func (c *Cluster) Executed() map[shard.OpID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := map[shard.OpID]int{}
	for id, n := range c.executed {
		m[id] = n
	}
	return m
}

// Commands is how many commands were executed, reads included.
func (c *Cluster) Commands() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands
}

// Execute answers one request that reached a node.
func (c *Cluster) Execute(n shard.NodeID, q *shard.Request) shard.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer(n, q)
}

func (c *Cluster) answer(n shard.NodeID, q *shard.Request) shard.Response {
	var cmd shard.Command
	if err := shard.DecodeCommand(q.Command, &cmd); err != nil {
		return shard.Response{ID: q.ID, Err: err}
	}
	if c.Answer != nil {
		if p, ok := c.Answer(n, q, &cmd); ok {
			p.ID = q.ID
			return p
		}
	}
	err := c.check(n, q.Target, &cmd)
	var res shard.Result
	if err == nil {
		res, err = c.execute(&cmd)
	}
	return shard.Response{ID: q.ID, Result: res, Err: err}
}

// check refuses what a node would refuse.
func (c *Cluster) check(n shard.NodeID, t shard.Target, cmd *shard.Command) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	wanted := shard.Span{Start: cmd.Anchor(), End: append(bytes.Clone(cmd.Anchor()), 0)}
	if cmd.Kind.Spans() {
		wanted = shard.Span{Start: cmd.Start, End: cmd.End}
	}
	var s *Shard
	for _, other := range c.shards {
		if other.Descriptor.ID == t.Shard {
			s = other
		}
	}
	if s == nil || s.Descriptor.Epoch.Version != t.Version || !s.Descriptor.Span.Covers(wanted) {
		return c.wrongShard(s, t.Shard, wanted)
	}
	own, here := s.Descriptor.ReplicaOn(n)
	if !here {
		return c.wrongShard(s, t.Shard, wanted)
	}
	anywhere := cmd.AnyReplica && !c.Lags[n]
	if !(own.ID == s.Leader || anywhere) || own.ID != t.Replica || cmd.Kind.Write() && t.Term != s.Term {
		e := &shard.NotLeaderError{Shard: t.Shard}
		if !c.Mute {
			e.Leader = c.hint(s)
		}
		return e
	}
	switch {
	case cmd.Kind == shard.KindBatch && !cmd.Within(s.Descriptor.Span) && cmd.Retry:
		return s.Descriptor.Parted()
	case cmd.Kind == shard.KindBatch && !cmd.Within(s.Descriptor.Span):
		return shard.ErrSpansShards
	case cmd.Revision > c.revision:
		return shard.ErrFutureRevision
	case cmd.Revision != 0 && cmd.Revision < c.Floor:
		return shard.ErrCompacted
	}
	return nil
}

// wrongShard tells of the named shard, nil if there is none, and of those that a span is in.
func (c *Cluster) wrongShard(s *Shard, id shard.ID, wanted shard.Span) error {
	wrong := &shard.WrongShardError{Shard: id}
	for _, other := range c.shards {
		if !c.Mute && (other == s || other.Descriptor.Span.Overlaps(wanted)) {
			wrong.Descriptors = append(wrong.Descriptors, other.Descriptor)
			wrong.Leaders = append(wrong.Leaders, c.hint(other))
		}
	}
	return wrong
}

// hint is what a node knows of a shard's leader.
func (c *Cluster) hint(s *Shard) shard.LeaderHint {
	m, ok := s.Descriptor.Replica(s.Leader)
	if !ok {
		return shard.LeaderHint{}
	}
	return shard.LeaderHint{Replica: m.ID, Node: m.Node, Term: s.Term, Address: c.AddressOf(m.Node)}
}

// Value is the value of a full key.
func (c *Cluster) Value(key []byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.read(string(key), shard.MaxRevision)
	return v.bytes, ok
}
