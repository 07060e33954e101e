package raftgroup

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Config of a host. Zero fields that have a default take it.
type Config struct {
	Node        shard.NodeID
	Incarnation uint64
	Env         env.Env
	Engine      *storage.Engine
	Transport   Transport
	Logger      *slog.Logger

	// NewMachine makes the machine of a replica that is loaded or that a
	// message has created; state is nil for one that is not initialized. The
	// machine may keep g.
	NewMachine func(g *Group, state *storage.ReplicaState) (Machine, error)

	// ReserveSpan reserves what a received snapshot covers, from before raft hears
	// of the snapshot until it is installed or given up, when release is called.
	// An error refuses the snapshot: the span is another replica's, or reserved.
	// It is called outside the group's turn and must not block. nil: every span is free.
	ReserveSpan func(state *storage.ReplicaState) (release func(), err error)

	// Covers tells whether a replica of another shard than id covers key on this node. It
	// must not block. nil: none does.
	Covers func(id shard.ID, key []byte) bool

	// Nodes lists the nodes of the cluster as far as this one knows: whom to ask
	// whether a replica was removed. It must not block. nil: only peers are asked.
	Nodes func() []shard.NodeID

	// Note takes what another node's Note has sent. It is called by the transport
	// and must not block; note is valid during the call only. nil: notes are dropped.
	Note func(from shard.NodeID, note []byte)

	Workers        int           // default 1 for up to 4 cores, else cores/4
	Tick           time.Duration // default 100 ms
	ElectionTicks  int           // default 15
	HeartbeatTicks int           // default 3
	LogBytesMax    int64         // per group: truncation starts above it; default 4 MiB
	// Byte budgets of the node; past them ErrBusy. Defaults 64 MiB, 64 MiB and 16 MiB.
	// The last one bounds one apply batch.
	ProposalBytesMax, IncomingBytesMax, ApplyBytesMax int64
}

// Host drives all groups of a node. It is the Receiver of the node's transport.
// Safe for concurrent use.
//
// Lock order: a worker's running, createMu, mu, then a mailbox's mu, a worker's mu. No lock is held while a Machine, a callback or the Transport is
// called, except running, which a worker holds for its whole round.
type Host struct {
	cfg       Config
	env       env.Env
	engine    *storage.Engine
	transport Transport
	log       *slog.Logger

	workers []*worker
	ingest  env.Queue // installs large snapshots
	clock   env.Queue // runs the tick step

	// createMu serializes the creation of groups and their removal. claims are the shards
	// that splits are about to create here: see split.go.
	createMu sync.Mutex
	claims   map[shard.ID]bool
	// installing is held for reading while a large snapshot is ingested, so
	// that Close can wait for it.
	installing sync.RWMutex

	mu            sync.RWMutex // guards what follows
	groups        map[shard.ID]*Group
	uninitialized int
	timer         env.Timer

	sorted atomic.Pointer[[]*Group] // all groups in order of shard; never modified
	loaded atomic.Bool              // messages are taken from here on
	closed atomic.Bool

	proposalBytes, incomingBytes, readsWaiting atomic.Int64
	snapshotsOut, snapshotsIn, largeIn         atomic.Int64
	diskFull                                   atomic.Uint64 // the tick up to which no large snapshot is taken
	ticks                                      atomic.Uint64
	notices                                    atomic.Int64 // of removals, in this tick
	stats                                      hostCounters
}

// NewHost makes a host without groups. Load starts those that the store has.
func NewHost(cfg Config) (*Host, error) {
	if cfg.Env == nil || cfg.Engine == nil || cfg.Transport == nil || cfg.NewMachine == nil || cfg.Node == 0 {
		return nil, &shard.InvalidError{Field: "host config", Reason: "lacks Node, Env, Engine, Transport or NewMachine"}
	}
	cfg.setDefaults()
	if cfg.ElectionTicks <= cfg.HeartbeatTicks {
		return nil, &shard.InvalidError{Field: "host config", Reason: "needs more election ticks than heartbeat ticks"}
	}
	h := &Host{cfg: cfg, env: cfg.Env, engine: cfg.Engine, transport: cfg.Transport, log: cfg.Logger,
		groups: make(map[shard.ID]*Group), claims: make(map[shard.ID]bool)}
	h.sorted.Store(&[]*Group{})
	for i := range cfg.Workers {
		h.workers = append(h.workers, newWorker(h, i, h.env.NewQueue(fmt.Sprintf("raft/%d", i))))
	}
	h.ingest = h.env.NewPool("raft/ingest", 2)
	h.clock = h.env.NewQueue("raft/clock")
	return h, nil
}

// Load starts every replica that the store has records of. Call it once.
// Messages that arrive before it has returned are dropped: they would create
// uninitialized replicas in place of those that are still to be loaded.
func (h *Host) Load() error {
	records, err := h.engine.Replicas()
	if err != nil {
		return fmt.Errorf("list replicas: %w", err)
	}
	for _, r := range records {
		if _, err := h.create(r.Shard, r.Replica, r.Initialized); err != nil {
			return fmt.Errorf("load replica %d of shard %d: %w", r.Replica, r.Shard, err)
		}
	}
	h.loaded.Store(true)
	h.tick()
	return nil
}

// Close stops all groups. Waiting proposals fail with ErrUndetermined, reads
// with ErrUnavailable. It waits for the rounds and installations that are
// running; afterwards the host does not touch the engine.
func (h *Host) Close() {
	if h.closed.Swap(true) {
		return
	}
	h.mu.Lock()
	if h.timer != nil {
		h.timer.Stop()
	}
	h.mu.Unlock()
	for _, w := range h.workers {
		w.running.Lock()
		w.stopped = true
	}
	// No group is created and no snapshot installed from here on: both check
	// closed under these.
	h.createMu.Lock()
	defer h.createMu.Unlock()
	h.installing.Lock()
	defer h.installing.Unlock()
	for _, g := range h.Groups() {
		g.shutDown()
	}
	for _, w := range h.workers {
		w.running.Unlock()
	}
}

// Group finds the group of a shard on this node.
func (h *Host) Group(id shard.ID) (*Group, bool) {
	h.mu.RLock()
	g, ok := h.groups[id]
	h.mu.RUnlock()
	return g, ok
}

// Groups lists all groups in order of shard. The slice is the caller's.
func (h *Host) Groups() []*Group { return slices.Clone(*h.sorted.Load()) }

// create makes the group of a replica and schedules its first turn. ErrRemoved: a
// tombstone forbids the replica. ErrUnavailable: a split is about to make it.
func (h *Host) create(id shard.ID, replica shard.ReplicaID, initialized bool) (*Group, error) {
	h.createMu.Lock()
	defer h.createMu.Unlock()
	return h.createLocked(id, replica, initialized)
}

func (h *Host) createLocked(id shard.ID, replica shard.ReplicaID, initialized bool) (*Group, error) {
	if h.closed.Load() || h.claims[id] {
		return nil, shard.ErrUnavailable
	}
	if g, ok := h.Group(id); ok {
		return g, nil
	}
	// After the look for a group: one that is removed is forgotten after its tombstone
	// is visible.
	if out, err := h.forbidden(id, replica); err != nil || out {
		return nil, cmp.Or(err, ErrRemoved)
	}
	g, err := newGroup(h, id, replica, initialized)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.groups[id] = g
	if !initialized {
		h.uninitialized++
	}
	all := *h.sorted.Load()
	at, _ := slices.BinarySearchFunc(all, id, func(g *Group, id shard.ID) int { return cmp.Compare(g.shard, id) })
	next := slices.Insert(slices.Clone(all), at, g)
	h.sorted.Store(&next)
	h.mu.Unlock()
	g.w.enqueue(g)
	return g, nil
}

// tick marks every group and arms the timer again. A host that was stalled
// does not make up for lost ticks: time that nobody could act in must not
// start elections.
func (h *Host) tick() {
	if h.closed.Load() {
		return
	}
	h.ticks.Add(1)
	h.notices.Store(0)
	for _, g := range *h.sorted.Load() {
		g.pushTick()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed.Load() {
		h.timer = h.env.AfterFunc(h.cfg.Tick, h.clock, h.tick)
	}
}

// initialized notes that a group that a message created has its state.
func (h *Host) initialized(g *Group) {
	if g.initialized {
		return
	}
	g.initialized = true
	h.mu.Lock()
	h.uninitialized--
	h.mu.Unlock()
}
