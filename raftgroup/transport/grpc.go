package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// Config of the gRPC transport. Cluster, Node, Incarnation and DialOptions must
// be set; zero bounds and durations take their defaults.
type Config struct {
	Cluster     shard.ClusterID
	Node        shard.NodeID
	Incarnation uint64
	// Address is where other nodes reach this one; they are told.
	Address string
	// Addresses is where a node is reached, "" if unknown. Called when a
	// connection is to be made; safe for concurrent use. May be nil.
	Addresses func(shard.NodeID) string
	// PeerSeen is told of each node that introduced itself and was accepted.
	// Called from any goroutine; must not block. May be nil.
	PeerSeen func(Peer)
	// Refused is told when another node refuses this one, so that a process on
	// a copied or foreign store can stop. Called from any goroutine, perhaps
	// often; must not block. May be nil.
	Refused func(by shard.NodeID, why *RefusedError)
	// DialOptions hold at least the transport credentials.
	DialOptions []grpc.DialOption
	Logger      *slog.Logger

	QueueBytesMax    int // messages waiting for one node; default 64 MiB
	FrameBytes       int // a frame is sent on at about this size; default 1 MiB
	SnapshotsSending int // small ones at once to one node; default 8
	SnapshotsWaiting int // for one node, in line; default 8,192
	SnapshotsLarge   int // large ones at once, to all nodes; default 2

	// SnapshotRate is how many bytes of large snapshots are sent in a second, to all
	// nodes, and how many are received, from all of them, until SetSnapshotRate; default
	// 40 MiB. The slowest that makes sense lets a chunk through within SnapshotStall.
	SnapshotRate int64

	HandshakeTimeout time.Duration // connect, hello and greeting; default 3 s
	BackoffMin       time.Duration // before connecting again; default 100 ms
	BackoffMax       time.Duration // default 2 s
	ReportEvery      time.Duration // PeerUnreachable while it lasts; default 5 s
	SnapshotStall    time.Duration // without progress a snapshot is given up; default 60 s
	SnapshotPause    time.Duration // before one that was not taken for want of room is tried again; default 500 ms
}

// Peer is what is known of another node that introduced itself.
type Peer struct {
	Node        shard.NodeID
	Address     string // "" if it advertises none
	Incarnation uint64
}

func (c *Config) setDefaults() {
	def(&c.QueueBytesMax, 64<<20)
	def(&c.FrameBytes, 1<<20)
	def(&c.SnapshotsSending, 8)
	def(&c.SnapshotsWaiting, 8192)
	def(&c.SnapshotsLarge, 2)
	def(&c.SnapshotRate, 40<<20)
	def(&c.HandshakeTimeout, 3*time.Second)
	def(&c.BackoffMin, 100*time.Millisecond)
	def(&c.BackoffMax, 2*time.Second)
	def(&c.ReportEvery, 5*time.Second)
	def(&c.SnapshotStall, time.Minute)
	def(&c.SnapshotPause, 500*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// GRPC is the transport between processes. All methods are safe for concurrent use.
//
// Lock order: GRPC.mu, then peer.mu, then largeMu. Callbacks are called under none.
type GRPC struct {
	cfg        Config
	dial       []grpc.DialOption
	process    uint64
	identities identities
	counters   counters
	frames     api.FramePool
	log        *limitedLog
	began      time.Time
	pacer      pacer // of snapshots that are sent
	intake     pacer // of large ones that are received

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	receiver atomic.Pointer[raftgroup.Receiver]
	peers    atomic.Pointer[map[shard.NodeID]*peer] // replaced under mu, read without

	mu        sync.Mutex
	closed    bool
	addresses map[shard.NodeID]string // set by SetAddress
	learned   map[shard.NodeID]string // from hellos, if nothing else is known
	inbound   map[shard.NodeID]map[*inbound]struct{}

	largeMu sync.Mutex
	large   largeLine[*snapshotTask]
}

var _ raftgroup.Transport = (*GRPC)(nil)

// NewGRPC makes a transport; it sends and receives nothing before Start.
func NewGRPC(cfg Config) (*GRPC, error) {
	cfg.setDefaults()
	if cfg.Cluster.IsZero() || cfg.Node == 0 {
		return nil, errors.New("a transport needs a cluster ID and a node ID")
	}
	if len(cfg.Address) > addressBytesMax {
		return nil, fmt.Errorf("the advertised address has %d bytes, the limit is %d", len(cfg.Address), addressBytesMax)
	}
	dial := slices.Concat(api.DialOptions(), cfg.DialOptions)
	// Making a client connects to nothing, but checks the options.
	probe, err := grpc.NewClient("passthrough:///127.0.0.1:1", dial...)
	if err != nil {
		return nil, fmt.Errorf("options for connections to other nodes: %w", err)
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	process := rand.Uint64()
	ctx, cancel := context.WithCancelCause(context.Background())
	t := &GRPC{
		cfg:        cfg,
		dial:       dial,
		process:    process,
		identities: identities{self: greeting{Cluster: cfg.Cluster, Node: cfg.Node, Incarnation: cfg.Incarnation, Process: process}},
		log:        newLimitedLog(cfg.Logger),
		ctx:        ctx,
		cancel:     cancel,
		began:      time.Now(),
		large:      largeLine[*snapshotTask]{sendingMax: cfg.SnapshotsLarge},
		addresses:  make(map[shard.NodeID]string),
		learned:    make(map[shard.NodeID]string),
		inbound:    make(map[shard.NodeID]map[*inbound]struct{}),
	}
	t.SetSnapshotRate(cfg.SnapshotRate)
	t.peers.Store(&map[shard.NodeID]*peer{})
	return t, nil
}

var (
	errClosed    = errors.New("this node closes its transport")
	errForgotten = errors.New("the node was removed from the address book")
)

// RegisterWith adds the service for other nodes' streams to a server that has
// api.ServerOptions and does not serve yet.
func (t *GRPC) RegisterWith(r grpc.ServiceRegistrar) { api.RegisterPeerStream(r, acceptor{t}) }

// Start lets messages flow; r receives them. Streams of other nodes that come
// before are refused, and Send returns false.
func (t *GRPC) Start(r raftgroup.Receiver) { t.receiver.Store(&r) }

// Close ends all streams and waits until no callback is running any more. What was
// queued is dropped; snapshots fail. Do not call it from a callback. It must come before
// the server's GracefulStop, which waits for streams.
func (t *GRPC) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel(errClosed)
	t.wg.Wait()
}

// SetAddress tells where a node is reached; it takes precedence over
// Config.Addresses. "" forgets the node: its connection is closed and what waits
// for it dropped.
func (t *GRPC) SetAddress(node shard.NodeID, address string) {
	t.mu.Lock()
	changed := t.addresses[node] != address
	if address == "" {
		delete(t.addresses, node)
		delete(t.learned, node)
	} else {
		t.addresses[node] = address
	}
	p := (*t.peers.Load())[node]
	if p != nil && address == "" {
		peers := maps.Clone(*t.peers.Load())
		delete(peers, node)
		t.peers.Store(&peers)
	}
	t.mu.Unlock()
	switch {
	case p == nil:
	case address == "":
		p.cancel(errForgotten)
	case changed:
		p.hurry()
	}
}

// address finds where node is reached: what the caller set, what its address
// book says, what the node itself said.
func (t *GRPC) address(node shard.NodeID) string {
	t.mu.Lock()
	set, learned := t.addresses[node], t.learned[node]
	t.mu.Unlock()
	if set != "" {
		return set
	}
	if t.cfg.Addresses != nil {
		if a := t.cfg.Addresses(node); a != "" {
			return a
		}
	}
	return learned
}

// Send implements raftgroup.Transport. encode runs under a lock of the node's
// queue and must not call the transport.
func (t *GRPC) Send(to shard.NodeID, size int, encode func(frame []byte) []byte) bool {
	if p := t.peer(to); p != nil && p.send(size, encode) {
		return true
	}
	t.counters.messagesDropped.Add(1)
	return false
}

// SendSnapshot implements raftgroup.Transport. done is never called before
// SendSnapshot has returned, nor by a goroutine that holds a lock of the transport.
func (t *GRPC) SendSnapshot(to shard.NodeID, open func() (raftgroup.OutgoingSnapshot, error), done func(error)) {
	task := &snapshotTask{open: open, done: done}
	var err error
	if p := t.peer(to); p == nil {
		err = fmt.Errorf("%w: the address of node %d is not known, or the transport is closed", shard.ErrUnavailable, to)
	} else {
		task.p = p
		err = p.enqueueSnapshot(task)
	}
	if err != nil {
		t.spawn(func() { t.endSnapshot(task, err) })
	}
}

// SetSnapshotRate changes how many bytes of large snapshots are sent in a second, and
// how many are received.
func (t *GRPC) SetSnapshotRate(bytesPerSecond int64) {
	t.pacer.setRate(bytesPerSecond)
	t.intake.setRate(bytesPerSecond)
}

// Stats is a copy of the counters.
func (t *GRPC) Stats() Stats {
	s := t.counters.stats()
	for _, p := range *t.peers.Load() { //order-free: a sum
		p.mu.Lock()
		s.QueuedBytes += int64(p.queue.bytes)
		s.QueuedSnapshots += int64(len(p.snapshots))
		s.SendingSnapshots += int64(p.sending)
		p.mu.Unlock()
	}
	t.largeMu.Lock()
	s.QueuedSnapshots += int64(len(t.large.waiting))
	s.SendingSnapshots += int64(t.large.sending)
	t.largeMu.Unlock()
	return s
}

// peer finds or makes the connection to a node; nil if that cannot be.
func (t *GRPC) peer(node shard.NodeID) *peer {
	if p := (*t.peers.Load())[node]; p != nil {
		return p
	}
	if node == t.cfg.Node || t.receiver.Load() == nil || t.address(node) == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := *t.peers.Load()
	if p := known[node]; p != nil || t.closed {
		return p
	}
	p := newPeer(t, node)
	peers := maps.Clone(known)
	peers[node] = p
	t.peers.Store(&peers)
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		p.run()
	}()
	return p
}

// spawn runs f on a goroutine that Close waits for, if it still can.
func (t *GRPC) spawn(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		go f()
		return
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
}

// receive is the receiver; only called once Start was.
func (t *GRPC) receive() raftgroup.Receiver { return *t.receiver.Load() }

// limitedLog logs each kind of trouble at most every few seconds per node.
type limitedLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	last map[logKey]time.Time
}

type logKey struct {
	node shard.NodeID
	what string // a constant
}

const (
	logEvery     = 10 * time.Second
	logKeysLimit = 1024
)

func newLimitedLog(l *slog.Logger) *limitedLog {
	return &limitedLog{logger: l, last: make(map[logKey]time.Time)}
}

func (l *limitedLog) log(level slog.Level, node shard.NodeID, what string, err error) {
	now := time.Now()
	l.mu.Lock()
	key := logKey{node, what}
	last, ok := l.last[key]
	quiet := ok && now.Sub(last) < logEvery
	if !quiet {
		if len(l.last) >= logKeysLimit {
			clear(l.last) // forgetting only means to log once more
		}
		l.last[key] = now
	}
	l.mu.Unlock()
	if !quiet {
		l.logger.Log(context.Background(), level, what, "peer", uint64(node), "err", err)
	}
}
