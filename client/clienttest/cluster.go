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
// they do, and keeps one map of keys for all of them. Nothing is replicated. Its
// methods are safe for concurrent use; its fields are set before use.
type Cluster struct {
	ID    shard.ClusterID
	Nodes int // their IDs are 1 to Nodes

	// Address of a node; nil: "node-1" and so on.
	Address func(shard.NodeID) string
	// Answer may answer in place of the node. It is called with the lock held.
	Answer func(node shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool)
	// Mute keeps hints out of errors.
	Mute bool

	mu       sync.Mutex
	shards   []*Shard
	keys     []string // sorted
	values   map[string]value
	revision shard.Revision
	executed map[shard.OpID]int
	commands int
}

// Shard is a shard of a Cluster, with its leader.
type Shard struct {
	Descriptor shard.Descriptor
	Leader     shard.ReplicaID // 0: none
	Term       uint64
}

type value struct {
	bytes    []byte
	revision shard.Revision
}

// NewCluster makes a cluster of so many nodes, with the meta shard and count
// user shards, which divide the first key byte evenly; each has a replica on
// three nodes. The directory is up to date.
func NewCluster(id byte, nodes, count int) *Cluster {
	c := &Cluster{ID: shard.ClusterID{id, 15: 1}, Nodes: nodes, values: map[string]value{}, executed: map[shard.OpID]int{}}
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
	return shard.Greeting{Cluster: c.ID, Node: n, Incarnation: 1}
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
		c.set(string(router.DirectoryKey(s.Descriptor.Span.Start)), router.AppendEntry(nil, &e))
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

// helloStart is how every hello begins.
var helloStart = shard.AppendHello(nil, shard.Hello{})[:1]

// Handle answers a frame of requests that reached a node with a frame of
// responses. The hello is answered with nothing.
func (c *Cluster) Handle(n shard.NodeID, frame []byte) ([]byte, error) {
	if bytes.HasPrefix(frame, helloStart) {
		h, err := shard.DecodeHello(frame)
		if err != nil {
			return nil, err
		}
		if h.Cluster != c.ID || h.Session == 0 {
			return nil, fmt.Errorf("hello %+v to cluster %v", h, c.ID)
		}
		return nil, nil
	}
	var out []byte
	err := shard.DecodeRequests(frame, func(q shard.Request) {
		if out == nil {
			out = shard.BeginResponses(nil, 0)
		}
		p := c.Execute(n, &q)
		out = shard.AppendResponse(out, &p)
	})
	return out, err
}

// Execute answers one request that reached a node.
func (c *Cluster) Execute(n shard.NodeID, q *shard.Request) shard.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
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
	if err := c.check(n, q.Target, &cmd); err != nil {
		return shard.Response{ID: q.ID, Err: err}
	}
	return shard.Response{ID: q.ID, Result: c.execute(&cmd)}
}

// check refuses what a node would refuse.
func (c *Cluster) check(n shard.NodeID, t shard.Target, cmd *shard.Command) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	if cmd.Retry {
		return &shard.InternalError{Reason: "an attempt that may have taken effect was repeated"}
	}
	wanted := shard.Span{Start: cmd.Key, End: append(bytes.Clone(cmd.Key), 0)}
	if cmd.Kind == shard.KindScan {
		wanted = shard.Span{Start: cmd.Start, End: cmd.End}
	}
	var s *Shard
	wrong := &shard.WrongShardError{Shard: t.Shard}
	for _, other := range c.shards {
		if other.Descriptor.ID == t.Shard {
			s = other
		}
		if !c.Mute && (other == s || other.Descriptor.Span.Overlaps(wanted)) {
			wrong.Descriptors = append(wrong.Descriptors, other.Descriptor)
		}
	}
	if s == nil || s.Descriptor.Epoch.Version != t.Version || !s.Descriptor.Span.Covers(wanted) {
		return wrong
	}
	own, here := s.Descriptor.ReplicaOn(n)
	if !here {
		return wrong
	}
	if own.ID != s.Leader || own.ID != t.Replica || cmd.Kind.Write() && t.Term != s.Term {
		e := &shard.NotLeaderError{Shard: t.Shard}
		if m, ok := s.Descriptor.Replica(s.Leader); ok && !c.Mute {
			e.Leader = shard.LeaderHint{Replica: m.ID, Node: m.Node, Term: s.Term, Address: c.AddressOf(m.Node)}
		}
		return e
	}
	return nil
}

func (c *Cluster) execute(cmd *shard.Command) shard.Result {
	c.commands++
	if cmd.Kind.Write() {
		c.executed[cmd.Op]++
	}
	switch cmd.Kind {
	case shard.KindPut:
		return shard.Result{Revision: c.set(string(cmd.Key), bytes.Clone(cmd.Value))}
	case shard.KindDelete:
		c.revision++
		if _, ok := c.values[string(cmd.Key)]; ok {
			delete(c.values, string(cmd.Key))
			i, _ := slices.BinarySearch(c.keys, string(cmd.Key))
			c.keys = slices.Delete(c.keys, i, i+1)
		}
		return shard.Result{Revision: c.revision}
	case shard.KindGet:
		v, ok := c.values[string(cmd.Key)]
		return shard.Result{Found: ok, Value: v.bytes, Revision: v.revision}
	case shard.KindScan:
		return c.scan(cmd)
	}
	return shard.Result{}
}

func (c *Cluster) set(key string, v []byte) shard.Revision {
	c.revision++
	if _, ok := c.values[key]; !ok {
		i, _ := slices.BinarySearch(c.keys, key)
		c.keys = slices.Insert(c.keys, i, key)
	}
	c.values[key] = value{v, c.revision}
	return c.revision
}

func (c *Cluster) scan(cmd *shard.Command) shard.Result {
	var res shard.Result
	from, _ := slices.BinarySearch(c.keys, string(cmd.Start))
	to, _ := slices.BinarySearch(c.keys, string(cmd.End))
	keys := slices.Clone(c.keys[from:to])
	if cmd.Reverse {
		slices.Reverse(keys)
	}
	rows, size := min(max(cmd.Limit, 0), shard.PageRowsMax), uint64(0)
	if rows == 0 {
		rows = shard.PageRowsMax
	}
	bytesMax := cmd.Bytes
	if bytesMax == 0 {
		bytesMax = shard.PageBytesMax
	}
	for i, k := range keys {
		if uint64(i) == rows || size >= bytesMax {
			res.Resume = []byte(k)
			if cmd.Reverse {
				res.Resume = append(res.Resume, 0)
			}
			break
		}
		v := c.values[k]
		row := shard.Row{Key: []byte(k), Revision: v.revision}
		if !cmd.KeysOnly {
			row.Value = v.bytes
		}
		res.Rows = append(res.Rows, row)
		size += uint64(len(row.Key) + len(row.Value))
	}
	return res
}

// Value is the value of a full key.
func (c *Cluster) Value(key []byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[string(key)]
	return v.bytes, ok
}
