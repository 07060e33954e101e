package driver

import (
	"log/slog"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// gatherFor is how long after an event the feeder waits for more: a shard that
	// is being raised changes several times in a row.
	gatherFor = 50 * time.Millisecond
	// updatesMax bounds the updates in flight.
	updatesMax = 16
	// listMin is how many entries have to be looked up before all are read at
	// once instead of one by one.
	listMin = 16
	// knownMax bounds the remembered values of entries.
	knownMax = 1 << 16
	// The meta shard is left alone after failures for a time that doubles.
	feedBackoffMin = 100 * time.Millisecond
	feedBackoffMax = 5 * time.Second
)

// Directory is where a feeder writes: a catalog.Catalog.
type Directory interface {
	UpdateDirectory(e router.Entry, known []byte, done func(now []byte, err error))
	ListDirectory(done func([]catalog.DirectoryRow, error))
}

// FeederConfig of a feeder.
type FeederConfig struct {
	Node      shard.NodeID
	Env       env.Env
	Directory Directory
	Logger    *slog.Logger // nil: none
}

// Feeder keeps the directory up to date with what this node's leaders know. It
// holds the newest descriptor of each shard that has news and nothing else, so
// that it is bounded by the shards on the node, however long the meta shard is
// away. It is safe for concurrent use, and never blocks.
type Feeder struct {
	node  shard.NodeID
	env   env.Env
	queue env.Queue
	dir   Directory
	log   *limitedLog

	mu     sync.Mutex
	inbox  []event // news since the last gathering, one per shard
	at     map[shard.ID]int
	armed  bool // a gathering is on its way
	closed bool

	// All below belongs to steps on queue.

	tasks    map[shard.ID]*task
	ready    []*task // first come, first served
	known    map[shard.ID][]byte
	updates  int // in flight
	listing  bool
	failures int
	pausing  bool
}

// event is what a replica reported last of its shard.
type event struct {
	descriptor shard.Descriptor
	leading    bool
	term       uint64
}

// task is news of one shard on its way to the directory.
type task struct {
	entry    router.Entry
	gone     bool // superseded by another node's leadership
	queued   bool // in ready
	inFlight bool
	again    bool // news came while it was in flight
}

// NewFeeder makes a feeder for the node's replicas.
func NewFeeder(cfg FeederConfig) *Feeder {
	return &Feeder{
		node:  cfg.Node,
		env:   cfg.Env,
		queue: cfg.Env.NewQueue("directory feeder"),
		dir:   cfg.Directory,
		log:   newLimitedLog(cfg.Logger, cfg.Env),
		at:    map[shard.ID]int{},
		tasks: map[shard.ID]*task{},
		known: map[shard.ID][]byte{},
	}
}

// DescriptorChanged takes news of a replica on this node: each descriptor that it
// applied, and each gain of leadership. The descriptor is kept. Events of one
// shard are to be told in the order in which they happened.
func (f *Feeder) DescriptorChanged(d shard.Descriptor, leading bool, term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	ev := event{descriptor: d, leading: leading, term: term}
	if i, ok := f.at[d.ID]; ok {
		f.inbox[i] = ev
	} else {
		f.at[d.ID] = len(f.inbox)
		f.inbox = append(f.inbox, ev)
	}
	if !f.armed {
		f.armed = true
		f.env.AfterFunc(gatherFor, f.queue, f.gather)
	}
}

// Close ends feeding; what is not written yet is left to the next leader or start.
func (f *Feeder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.inbox, f.at = true, nil, map[shard.ID]int{}
}

// gather turns the news into tasks.
func (f *Feeder) gather() {
	f.mu.Lock()
	inbox := f.inbox
	f.inbox, f.armed = nil, false
	clear(f.at)
	f.mu.Unlock()

	for i := range inbox {
		f.take(&inbox[i])
	}
	f.work()
}

// take makes a task of an event. Only leaders feed: a follower's news are its
// leader's too, and that one's are newer.
func (f *Feeder) take(ev *event) {
	id := ev.descriptor.ID
	t := f.tasks[id]
	replica, member := ev.descriptor.ReplicaOn(f.node)
	if !ev.leading || !member {
		delete(f.known, id)
		if t != nil {
			t.gone, t.again = true, false
		}
		return
	}
	if t == nil {
		t = &task{}
		f.tasks[id] = t
	}
	t.gone = false
	t.again = t.inFlight
	t.entry = router.Entry{Descriptor: ev.descriptor, Leader: shard.LeaderHint{Replica: replica.ID, Node: f.node, Term: ev.term}}
	f.enqueue(t)
}

func (f *Feeder) enqueue(t *task) {
	if !t.queued && !t.inFlight {
		t.queued = true
		f.ready = append(f.ready, t)
	}
}
