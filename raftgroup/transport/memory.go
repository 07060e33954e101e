package transport

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// Network connects nodes in memory. Everything that happens on it is a step of
// env on the queue of the node that it happens to, so that with an environment that is
// deterministic the network is, too. It is safe for concurrent use.
//
// What Send accepts is delivered once, after the delay that Hook asks for, unless
// Hook drops or doubles it, the nodes are partitioned, or the receiver ends before. Messages
// with different delays overtake each other.
type Network struct {
	env env.Env
	cfg NetworkConfig

	mu       sync.Mutex
	nodes    map[shard.NodeID]*Memory
	latest   map[shard.NodeID]uint64 // incarnation
	queues   map[shard.NodeID]env.Queue
	isolated map[shard.NodeID]bool
	cut      map[direction]bool
}

type direction struct{ from, to shard.NodeID }

// NetworkConfig of a Network; zero bounds take the defaults of Config.
type NetworkConfig struct {
	// Hook decides the fate of each delivery; nil delivers all at once. Called
	// under no lock, in the step that sends.
	Hook             func(Delivery) Fate
	QueueBytesMax    int
	SnapshotsSending int
	SnapshotsWaiting int
	SnapshotsLarge   int
	SnapshotRate     int64
	SnapshotPause    time.Duration
	ReportEvery      time.Duration
}

// Delivery is something on its way.
type Delivery struct {
	From, To shard.NodeID
	Bytes    int
	Snapshot bool // a part of a snapshot's stream or an answer to it, else a message
}

// Fate is what becomes of a delivery. The zero value delivers it at once.
type Fate struct {
	Drop  bool // a lost part breaks a snapshot's stream; a message is lost silently
	Delay time.Duration
	// Flip, if not 0, has the bit of this number, from 1 on, arrive as the other one, if
	// it is of a chunk of a snapshot: those have checksums of their own.
	Flip int
	// Again delivers a message a second time, AgainDelay after its sending.
	Again      bool
	AgainDelay time.Duration
}

// NewNetwork makes a network without nodes.
func NewNetwork(e env.Env, cfg NetworkConfig) *Network {
	def(&cfg.QueueBytesMax, 64<<20)
	def(&cfg.SnapshotsSending, 8)
	def(&cfg.SnapshotsWaiting, 8192)
	def(&cfg.SnapshotsLarge, 2)
	def(&cfg.SnapshotRate, 40<<20)
	def(&cfg.SnapshotPause, 500*time.Millisecond)
	def(&cfg.ReportEvery, 5*time.Second)
	return &Network{
		env: e, cfg: cfg,
		nodes:    make(map[shard.NodeID]*Memory),
		latest:   make(map[shard.NodeID]uint64),
		queues:   make(map[shard.NodeID]env.Queue),
		isolated: make(map[shard.NodeID]bool),
		cut:      make(map[direction]bool),
	}
}

// Memory is one process of one node on a Network.
type Memory struct {
	network     *Network
	node        shard.NodeID
	incarnation uint64
	queue       env.Queue
	counters    counters

	// Under network.mu.
	receiver raftgroup.Receiver
	ended    bool // closed, crashed or superseded: it neither sends nor receives
	crashed  bool // and none of its callbacks is called any more
	ways     map[shard.NodeID]*way

	large     largeLine[*transfer]
	largeOnes []*transfer // waiting in that line or being sent
	pacer     pacer       // of snapshots that are sent
	intake    pacer       // of large ones that are received
}

var _ raftgroup.Transport = (*Memory)(nil)

// way is what a process keeps of its connection to another node.
type way struct {
	to        *Memory // the process it reached last, nil if none or lost
	bytes     int     // on their way
	reported  time.Duration
	lost      bool // PeerUnreachable was called since the last message got away
	transfers []*transfer
	waiting   []*transfer
}

// Join adds a process of a node. It takes part once Start is called. A live
// process of the same node with a lower incarnation is cut off; an incarnation that is not
// higher than the highest that ever joined is refused.
func (n *Network) Join(node shard.NodeID, incarnation uint64) (*Memory, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if latest, ok := n.latest[node]; ok && incarnation <= latest {
		reason := StaleIncarnation
		if incarnation == latest {
			reason = CopiedStore
		}
		return nil, refuse(reason, "node %d joins with incarnation %d after %d", node, incarnation, latest)
	}
	if old := n.nodes[node]; old != nil {
		n.end(old, false)
	}
	q := n.queues[node]
	if q == nil {
		q = n.env.NewQueue(fmt.Sprintf("transport-%d", node))
		n.queues[node] = q
	}
	m := &Memory{network: n, node: node, incarnation: incarnation, queue: q, ways: make(map[shard.NodeID]*way),
		large: largeLine[*transfer]{sendingMax: n.cfg.SnapshotsLarge}}
	m.SetSnapshotRate(n.cfg.SnapshotRate)
	n.latest[node] = incarnation
	n.nodes[node] = m
	return m, nil
}

// Isolate takes a node off the network, or puts it back. Others find that it
// does not answer, and it finds the same of them.
func (n *Network) Isolate(node shard.NodeID, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isolated[node] = off
	if m := n.nodes[node]; off && m != nil {
		n.breakTransfers(m)
	}
}

// Partition silently loses what from sends to to, or stops doing so.
func (n *Network) Partition(from, to shard.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[direction{from, to}] = cut
}

// Start lets messages flow; r receives them.
func (m *Memory) Start(r raftgroup.Receiver) {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	m.receiver = r
}

// Close ends the process in an orderly way: its snapshots, both ways, end with
// an error, in steps.
func (m *Memory) Close() {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	m.network.end(m, false)
}

// Crash ends the process at once: none of its callbacks is called any more.
func (m *Memory) Crash() {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	m.network.end(m, true)
}

// Stats is a copy of the counters.
func (m *Memory) Stats() Stats {
	s := m.counters.stats()
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	for _, w := range m.ways { //order-free: sums
		s.QueuedBytes += int64(w.bytes)
		s.QueuedSnapshots += int64(len(w.waiting))
		s.SendingSnapshots += int64(len(w.transfers))
	}
	s.QueuedSnapshots += int64(len(m.large.waiting))
	s.SendingSnapshots += int64(m.large.sending)
	return s
}

// end takes m off the network; under mu. Those that were connected to it notice.
func (n *Network) end(m *Memory, crashed bool) {
	if m.ended {
		return
	}
	m.ended, m.crashed = true, crashed
	n.breakTransfers(m)
	if n.nodes[m.node] == m {
		delete(n.nodes, m.node)
	}
	for _, other := range n.processes() {
		if w := other.ways[m.node]; w != nil && w.to == m {
			n.unreachable(other, w, m.node)
		}
	}
}

// processes lists the live processes in order of node.
func (n *Network) processes() []*Memory {
	list := make([]*Memory, 0, len(n.nodes))
	for _, m := range n.nodes { //order-free: sorted below
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *Memory) int { return cmp.Compare(a.node, b.node) })
	return list
}

// way is m's connection to a node; under mu.
func (m *Memory) way(to shard.NodeID) *way {
	w := m.ways[to]
	if w == nil {
		w = &way{}
		m.ways[to] = w
	}
	return w
}

// reach finds the process that answers at a node, or reports that none does;
// under mu.
func (n *Network) reach(m *Memory, to shard.NodeID) (*way, *Memory) {
	if m.ended || m.receiver == nil || to == m.node {
		return nil, nil
	}
	w := m.way(to)
	target := n.nodes[to]
	if target == nil || target.receiver == nil || n.isolated[to] || n.isolated[m.node] {
		n.unreachable(m, w, to)
		return nil, nil
	}
	if w.to != target {
		w.to = target
		m.counters.connects.Add(1)
	}
	w.lost = false
	return w, target
}

// unreachable tells m that a node does not answer: on the transition, and now
// and then while it lasts; under mu.
func (n *Network) unreachable(m *Memory, w *way, node shard.NodeID) {
	connected := w.to != nil
	w.to = nil
	now := n.env.Now()
	if w.lost && now-w.reported < n.cfg.ReportEvery {
		return
	}
	w.lost, w.reported = true, now
	if connected {
		m.counters.disconnects.Add(1)
	} else {
		m.counters.connectsFailed.Add(1)
	}
	m.queue.Submit(func() {
		if r, ok := m.alive(); ok {
			r.PeerUnreachable(node)
		}
	})
}

// alive is the receiver of a process that takes part.
func (m *Memory) alive() (raftgroup.Receiver, bool) {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	return m.receiver, !m.ended
}

// fate asks the hook; under no lock.
func (n *Network) fate(d Delivery) Fate {
	n.mu.Lock()
	cut := n.cut[direction{d.From, d.To}]
	n.mu.Unlock()
	switch {
	case cut:
		return Fate{Drop: true}
	case n.cfg.Hook == nil:
		return Fate{}
	}
	return n.cfg.Hook(d)
}

// after runs step on the queue of m.
func (n *Network) after(d time.Duration, m *Memory, step func()) {
	if d <= 0 {
		m.queue.Submit(step)
	} else {
		n.env.AfterFunc(d, m.queue, step)
	}
}

// Send implements raftgroup.Transport.
func (m *Memory) Send(to shard.NodeID, size int, encode func(frame []byte) []byte) bool {
	n := m.network
	n.mu.Lock()
	w, target := n.reach(m, to)
	if w == nil || w.bytes+size > n.cfg.QueueBytesMax {
		n.mu.Unlock()
		m.counters.messagesDropped.Add(1)
		return false
	}
	n.mu.Unlock()

	frame := encode(make([]byte, 0, size))
	if len(frame) > size {
		panic(fmt.Sprintf("a message was announced with at most %d bytes and encoded with %d", size, len(frame)))
	}
	m.counters.framesSent.Add(1)
	m.counters.messagesSent.Add(1)
	m.counters.bytesSent.Add(uint64(len(frame)))
	f := n.fate(Delivery{From: m.node, To: to, Bytes: len(frame)})
	if f.Again && !f.Drop {
		m.deliver(w, target, slices.Clone(frame), f.AgainDelay)
	}
	if !f.Drop {
		m.deliver(w, target, frame, f.Delay)
	}
	return true
}

// deliver brings a frame, which becomes the receiver's, to target.
func (m *Memory) deliver(w *way, target *Memory, frame []byte, delay time.Duration) {
	n := m.network
	n.mu.Lock()
	w.bytes += len(frame)
	n.mu.Unlock()
	n.after(delay, target, func() {
		n.mu.Lock()
		w.bytes -= len(frame)
		// As over gRPC, a later process of the sender's node cuts the earlier one off.
		stale := n.latest[m.node] > m.incarnation
		away := target.ended || n.isolated[m.node] || n.isolated[target.node]
		receiver := target.receiver
		n.mu.Unlock()
		if away || stale {
			return
		}
		target.counters.framesReceived.Add(1)
		target.counters.bytesReceived.Add(uint64(len(frame)))
		if err := receiver.Receive(m.node, frame); err != nil {
			n.mu.Lock()
			if !m.ended {
				n.unreachable(m, w, target.node) // the stream would be dropped
			}
			n.mu.Unlock()
		}
	})
}
