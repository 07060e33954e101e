package client

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// CoreConfig of a core.
type CoreConfig struct {
	Env       env.Env
	Dialer    Dialer
	Endpoints []string
	Cluster   shard.ClusterID // zero: pin the first that answers
	Logger    *slog.Logger    // nil: slog.Default

	CacheShards   int // bound of the router cache; 0: 65,536
	QueueBytesMax int // of operations that are not done; 0: 256 MiB
	QueueOpsMax   int // operations that are not done; 0: 1,000,000

	// MaxRetries is how often a write is sent again after an answer was lost; 0: 16;
	// negative: never. Attempts that provably did not take effect do not count.
	MaxRetries int

	// DeniedIsFinal ends the core if at first contact every endpoint that is asked
	// answers with a shard.DeniedError. Else it asks again: certificates may change.
	DeniedIsFinal bool
}

const (
	defaultCacheShards   = 65_536
	defaultQueueBytesMax = 256 << 20
	defaultQueueOpsMax   = 1_000_000
	defaultMaxRetries    = 16
)

// Core routes and carries out operations. Its methods are safe for concurrent
// use; none of them blocks.
//
// All state but the inbox and the nodes' queues belongs to the turn (turn.go),
// which runs on one queue of the environment.
//
// Lock order: the inbox's lock and a node's are never held together, and no
// callback is called under either.
type Core struct {
	cfg       CoreConfig
	queue     env.Queue
	turnStep  func() // turn
	timerStep func() // timerPassed
	log       *slog.Logger
	session   shard.Session

	sequence atomic.Uint64
	newest   atomic.Uint64 // revision that the session knows: births of later writes
	held     struct{ ops, bytes atomic.Int64 }
	stats    counters

	inbox inbox
	book  struct { // what others ask for at any time
		sync.Mutex
		addresses map[shard.NodeID]string
		cluster   shard.ClusterID
		heard     map[string]string // what went wrong at first contact, by address
		meta      *router.Route     // of the meta shard; nil: not known
	}

	// Of the turn.
	batch     batch // what the turn took from the inbox
	now       time.Duration
	cluster   shard.ClusterID
	ready     bool  // first contact was made: cluster and meta shard are known
	fatal     error // ends every operation
	routes    *router.Cache
	nodes     map[shard.NodeID]*node
	streams   uint64  // opened so far: the number of the last one
	rotation  int     // of reads that any replica may serve
	touched   []*node // to be flushed at the end of the turn
	unrouted  opList  // wait for the first contact
	missing   opList  // wait for the directory
	resting   opList  // wait for their rest alarm
	finished  []*op   // to be delivered at the end of the turn
	directory directory
	contact   contact
	alarms    wheel
	timer     env.Timer     // nil: none is pending
	timerAt   time.Duration // of timer, while it is not nil
	rings     []*alarm      // scratch
	answers   []answer      // scratch
}

// NewCore makes a core and starts to look for the cluster. The caller closes it.
func NewCore(cfg CoreConfig) *Core {
	defaults := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	defaults(&cfg.CacheShards, defaultCacheShards)
	defaults(&cfg.QueueBytesMax, defaultQueueBytesMax)
	defaults(&cfg.QueueOpsMax, defaultQueueOpsMax)
	if cfg.MaxRetries == 0 {
		cfg.MaxRetries = defaultMaxRetries
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	c := &Core{
		cfg:     cfg,
		queue:   cfg.Env.NewQueue("client"),
		log:     cfg.Logger,
		session: shard.Session(cfg.Env.Uint64() | 1), // never 0
		cluster: cfg.Cluster,
		// The meta shard's route shares the cache and is used at every lookup of
		// the directory: a bound of a few keeps it from being evicted in between.
		routes: router.NewCache(max(cfg.CacheShards, 8)),
		nodes:  map[shard.NodeID]*node{},
	}
	c.turnStep, c.timerStep = c.turn, c.timerPassed
	c.book.addresses = map[shard.NodeID]string{}
	c.contact.init(c)
	c.post(c.meet)
	return c
}

// Cluster is the cluster that the core pinned; zero before the first contact.
func (c *Core) Cluster() shard.ClusterID {
	c.book.Lock()
	defer c.book.Unlock()
	return c.book.cluster
}

// Meta is the meta shard as the core knows it, and the node that leads it (0:
// unknown); ok is false before the first contact.
func (c *Core) Meta() (d shard.Descriptor, leader shard.NodeID, ok bool) {
	c.book.Lock()
	defer c.book.Unlock()
	if c.book.meta == nil {
		return shard.Descriptor{}, 0, false
	}
	return c.book.meta.Descriptor, c.book.meta.Leader.Node, true
}

// publishMeta lets others see what is known of the meta shard.
func (c *Core) publishMeta() {
	r, ok := c.routes.Shard(shard.MetaID)
	if !ok {
		return
	}
	c.book.Lock()
	c.book.meta = r
	c.book.Unlock()
}

// DoOptions say how a command is carried out.
type DoOptions struct {
	Timeout    time.Duration // 0: none
	MaxRetries int           // see CoreConfig; 0: that of the core
	// Operation, if its ID is not zero, is what the caller chose for a write in the
	// user keyspace: see WithOperation. A delete-range must then lie within one
	// shard, and ends with ErrSpansShards otherwise.
	Operation Operation

	// whole: a scan whose range is not within one shard ends with errSeveralShards
	// before anything is read.
	whole bool
}

// Do is DoWith with a timeout alone; 0: none.
func (c *Core) Do(cmd shard.Command, timeout time.Duration, done func(shard.Result, error)) (cancel func()) {
	return c.DoWith(cmd, DoOptions{Timeout: timeout}, done)
}

// DoWith routes and carries out a command with full keys, in either keyspace.
// done is called exactly once, from a step; result slices may be kept.
// cancel gives up waiting: done is then called with ErrUndetermined for a write
// that may have been sent, with context.Canceled otherwise.
// A scan is one page within one shard, and a delete-range one piece; its Resume
// then is the shard's end if the range goes on.
//
// The core sets the command's ID and birth. Errors are those of package shard,
// a GaveUpError when the timeout passed, or a MixedClustersError.
func (c *Core) DoWith(cmd shard.Command, options DoOptions, done func(shard.Result, error)) (cancel func()) {
	o := &op{done: callback(done)}
	if err := cmd.Check(); err != nil {
		c.refuse(o, err)
		return func() {}
	}
	c.prepare(o, &cmd, &options)
	if o.scan == nil {
		// The caller's key is not the op's to keep; the encoded one is.
		var own shard.Command
		if err := shard.DecodeCommand(o.command, &own); err != nil {
			c.refuse(o, err)
			return func() {}
		}
		o.key = own.Anchor()
	}
	if err := c.submit(options.Timeout, o); err != nil {
		c.refuse(o, err)
		return func() {}
	}
	return func() { c.cancel(o, context.Canceled) }
}

// refuse ends an op that was not submitted, from a step of its own.
func (c *Core) refuse(o *op, err error) {
	o.err = err
	c.queue.Submit(func() { o.done.complete(o) })
}

// newID makes an ID that no other operation has.
func (c *Core) newID() shard.OpID {
	return shard.OpID{Session: c.session, Sequence: c.sequence.Add(1)}
}

// prepare encodes a checked command into o, whose key aliases cmd's; so does a
// command about a span, whose bounds are cloned.
func (c *Core) prepare(o *op, cmd *shard.Command, options *DoOptions) {
	cmd.Op, cmd.Birth, cmd.Retry = options.Operation.ID, options.Operation.Birth, true
	if cmd.Op == (shard.OpID{}) {
		cmd.Op, cmd.Birth, cmd.Retry = c.newID(), shard.Revision(c.newest.Load()), false
	}
	o.core, o.kind = c, cmd.Kind
	o.deadline.owner, o.rest.owner = o, o
	o.system, o.marked, o.anywhere, o.whole = cmd.System(), cmd.Retry, cmd.AnyReplica, options.whole
	o.birth = shard.MaxRevision // of those who look for no earlier attempt
	if cmd.Kind.Write() && !o.system && !o.marked {
		o.birth = cmd.Birth
	}
	if o.retries = options.MaxRetries; o.retries == 0 {
		o.retries = c.cfg.MaxRetries
	}
	if cmd.Kind.Spans() {
		scan := *cmd
		scan.Start = append(append(make([]byte, 0, len(cmd.Start)+len(cmd.End)), cmd.Start...), cmd.End...)
		scan.Start, scan.End = scan.Start[:len(cmd.Start):len(cmd.Start)], scan.Start[len(cmd.Start):]
		o.scan, o.key = &scan, scan.Anchor()
		o.clip = shard.Span{Start: scan.Start, End: scan.End}
		o.size = opOverhead + len(scan.Start) + len(scan.End)
		if o.marked {
			o.command = shard.AppendCommand(o.command[:0], &scan)
		}
		return
	}
	if need := commandOverhead + len(cmd.Key) + len(cmd.Value) + len(cmd.Expect); cap(o.command) < need {
		o.command = make([]byte, 0, need)
	}
	o.command = shard.AppendCommand(o.command[:0], cmd)
	o.key = cmd.Anchor()
	o.size = opOverhead + len(o.command)
}

// opOverhead is what an op costs in memory beyond its bytes, roughly.
const opOverhead = 512

// commandOverhead bounds what the encoding of a command adds to its keys and values.
const commandOverhead = 64

// submit hands prepared ops to the core; their completers are called from now
// on, unless it returns an error, which then goes for all of them.
func (c *Core) submit(timeout time.Duration, ops ...*op) error {
	bytes := 0
	var deadline time.Duration
	if timeout > 0 {
		deadline = c.cfg.Env.Now() + timeout
	}
	for _, o := range ops {
		bytes += o.size
		o.deadline.at = deadline
	}
	opsNow, bytesNow := c.held.ops.Add(int64(len(ops))), c.held.bytes.Add(int64(bytes))
	err := error(shard.ErrBusy)
	if opsNow <= int64(c.cfg.QueueOpsMax) && bytesNow <= int64(c.cfg.QueueBytesMax) {
		if err = c.bring(ops); err == nil {
			return nil
		}
	}
	c.unhold(len(ops), bytes)
	return err
}

func (c *Core) unhold(ops, bytes int) {
	c.held.ops.Add(int64(-ops))
	c.held.bytes.Add(int64(-bytes))
}

// AddNodes tells the core addresses of nodes.
func (c *Core) AddNodes(m map[shard.NodeID]string) {
	m = maps.Clone(m)
	c.post(func() { c.learnAll(m) })
}

// Nodes is which addresses of nodes the core knows.
func (c *Core) Nodes() map[shard.NodeID]string {
	c.book.Lock()
	defer c.book.Unlock()
	return maps.Clone(c.book.addresses)
}
