package driver

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// busyPoll is the pause between polls for shards whose learners catch up,
	// fullPoll that between polls for all shards.
	busyPoll = 200 * time.Millisecond
	fullPoll = time.Second
	// fullShards is how many shards lengthen the pause between polls for all by another
	// fullPoll, partlyShards from how many on a poll for some decides for these alone.
	fullShards   = 10_000
	partlyShards = 1_000
	// pollTimeout and stepTimeout give up on an answer that never comes.
	pollTimeout = 15 * time.Second
	stepTimeout = 30 * time.Second
	// liveFor is how long a node counts as live after its last report, so that
	// one late report does not change what is decided.
	liveFor = 3 * time.Second
	// settleFor is how long after a node joined others may be about to.
	settleFor = 2 * time.Second
	// forgetAfter drops a shard that no node has reported for so long.
	forgetAfter = time.Minute
	// A shard whose step failed is left alone for a while that doubles.
	stepBackoffMin = 100 * time.Millisecond
	stepBackoffMax = 5 * time.Second
)

// Config of a driver.
type Config struct {
	Env     env.Env
	Cluster Cluster
	Records Records
	Limits  placement.Limits
	Logger  *slog.Logger // nil: none
	// UnixNow is the wall clock in seconds, for the records that people read; nil: 0.
	UnixNow func() uint64
}

// Tuning is what people set. The zero value: not known yet; nobody is dead and
// nothing moves to even out.
type Tuning struct {
	// DeadAfter is how long a node is silent before its replicas are rebuilt elsewhere.
	DeadAfter time.Duration
	// Paused: only what people ask for is done.
	Paused bool
	// Rebalance: replicas move to more places, and to even out what nodes hold and bear.
	Rebalance bool
	// LowSpace, FullSpace and MovesMax are those of placement.Limits; 0: their defaults.
	LowSpace, FullSpace, MovesMax int
}

// Driver carries out placement's steps while it is started. Its methods are safe
// for concurrent use and return at once.
type Driver struct {
	env     env.Env
	queue   env.Queue
	cluster Cluster
	records Records
	limits  placement.Limits
	log     *limitedLog
	unixNow func() uint64
	summary atomic.Pointer[Summary]

	// All below belongs to steps on queue.

	term uint64 // of the meta shard's leadership; 0: stopped
	last uint64 // the last term that was started
	run  uint64 // grows with each start and stop: answers to an earlier run are dropped

	tuning  Tuning // whichever run
	members map[shard.NodeID]*member
	passed  time.Duration // when silence was last counted
	joined  time.Duration // when a node was last new
	entries map[shard.ID]*entry
	sorted  []*entry // in order of shard
	plan    *placement.Plan
	later   []*entry // their steps wait for room
	clock   uint64   // orders polls and ends of steps

	operations map[shard.ID]*operation // that run
	reading    reading

	poll poll
}

// entry is what the driver knows of a shard.
type entry struct {
	placement.Shard
	term     uint64        // of Leader
	seen     time.Duration // last report
	polled   uint64        // the last poll in which a leader was found
	changed  uint64        // when the last step ended: polls from before know less
	began    time.Duration // of the step in flight
	step     uint64        // tells the step in flight from earlier ones
	failures int
	refused  string // why the last step failed; "" if it did not
	retryAt  time.Duration
	waiting  bool          // in Driver.later
	measured time.Duration // when Load was; 0: never
	teller   shard.NodeID  // whose figures Load takes in
	led      time.Duration // since when teller leads; 0: since before this driver
	idle     time.Duration // since when its learners are needed by nobody; 0: they are
	task     pursuit       // of Task
}

// New makes a driver, stopped.
func New(cfg Config) *Driver {
	if cfg.UnixNow == nil {
		cfg.UnixNow = func() uint64 { return 0 }
	}
	return &Driver{
		env:     cfg.Env,
		queue:   cfg.Env.NewQueue("placement"),
		cluster: cfg.Cluster,
		records: cfg.Records,
		limits:  cfg.Limits,
		log:     newLimitedLog(cfg.Logger, cfg.Env),
		unixNow: cfg.UnixNow,
	}
}

// Start begins to drive: this node leads the meta shard in term. It knows nothing
// at first, whatever it knew in an earlier term. A term that is not newer than the
// last one started is ignored.
func (d *Driver) Start(term uint64) {
	d.queue.Submit(func() {
		if term <= d.last {
			return
		}
		d.reset()
		d.last, d.term = term, term
		d.pollWithin(0)
	})
}

// Stop ends driving if it was started in term or in an earlier one: this node no
// longer leads in that. Steps in flight are left to themselves.
func (d *Driver) Stop(term uint64) {
	d.queue.Submit(func() {
		if d.term != 0 && d.term <= term {
			d.reset()
		}
	})
}

// Wake makes the driver look at once: a node joined, or somebody waits.
func (d *Driver) Wake() {
	d.queue.Submit(func() {
		if d.term != 0 {
			d.poll.full = true
			d.pollWithin(0)
		}
	})
}

// Tune changes what people set, at once.
func (d *Driver) Tune(change func(*Tuning)) {
	d.queue.Submit(func() { change(&d.tuning) })
}

func (d *Driver) reset() {
	d.run++
	d.term = 0
	if d.poll.timer != nil {
		d.poll.timer.Stop()
	}
	d.poll = poll{serial: d.poll.serial}
	d.members = map[shard.NodeID]*member{}
	d.passed = d.env.Now()
	d.operations = map[shard.ID]*operation{}
	d.reading = reading{}
	d.summary.Store(nil)
	d.entries = map[shard.ID]*entry{}
	d.sorted, d.plan, d.later = nil, nil, nil
	d.joined = 0
}

// submit runs step on the driver's queue, unless the run is over by then.
func (d *Driver) submit(run uint64, step func()) {
	d.queue.Submit(func() {
		if d.run == run {
			step()
		}
	})
}

// decide makes a new plan from what is known, and begins its steps.
func (d *Driver) decide() {
	if !d.reading.known || !d.poll.merged {
		return
	}
	now := d.env.Now()
	d.assign(now)
	v := d.view(now)
	limits := d.tuned()
	p := placement.NewPlan(v, limits)
	if d.judge(p, now) {
		p = placement.NewPlan(v, limits)
	}
	d.spare(p, now)
	d.plan = p
	steps, later := p.Decide(v.Shards)
	d.later = d.later[:0]
	for _, s := range later {
		e := d.entries[s.Descriptor.ID]
		e.waiting = true
		d.later = append(d.later, e)
	}
	for i := range steps {
		d.begin(d.entries[steps[i].Shard], &steps[i])
	}
	for _, e := range d.sorted {
		// Its leader's place was decided with full knowledge of the members.
		if e.Raised && e.InFlight == nil && !e.waiting && !e.Hold && len(e.Progress) > 0 {
			e.Raised = false
		}
	}
	d.retire(now)
	d.publish(now)
}

// decideFor begins the steps that some shards need now, with the counts of the last whole
// decision.
func (d *Driver) decideFor(ids []shard.ID) {
	now := d.env.Now()
	for _, e := range d.concerned(ids) {
		e.Hold = now < e.retryAt
		if e.InFlight == nil && !e.waiting {
			d.next(e)
		}
	}
	d.fill()
}

// tuned are the limits with what people set.
func (d *Driver) tuned() placement.Limits {
	l := d.limits
	l.LowSpace, l.FullSpace = d.tuning.LowSpace, d.tuning.FullSpace
	if d.tuning.MovesMax > 0 {
		l.MovesMax = d.tuning.MovesMax
	}
	return l
}

// view is what placement decides from.
func (d *Driver) view(now time.Duration) placement.View {
	v := placement.View{Settling: now < d.joined+settleFor, Paused: d.tuning.Paused, Even: d.tuning.Rebalance, Nodes: d.viewNodes(now)}
	v.Shards = make([]*placement.Shard, len(d.sorted))
	for i, e := range d.sorted {
		if e.InFlight != nil && now >= e.began+stepTimeout {
			d.abandon(e)
		}
		e.Hold = now < e.retryAt
		e.waiting = false
		v.Shards[i] = &e.Shard
	}
	return v
}
