package replica

import (
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// upkeep is what a store does of itself: it lets the floors of its shards rise as
// time passes, drops the versions below them, finds where they are to be split, and tells
// its clients how far revisions have got. All of it runs on one queue, with one timer for
// all replicas and streams, so that thousands of idle ones cost a look now and then.
type upkeep struct {
	store *Store
	queue env.Queue

	retention atomic.Int64 // nanoseconds
	rate      atomic.Int64 // versions per second; 0: paused
	closed    atomic.Bool

	// Of the queue.
	timer env.Timer
	armed uint64 // numbers the timers; a step of any but the last one does nothing
	sweep sweeper
	sizes sizes
	loads loads
}

// The interval at which revisions are sampled is a tenth of the retention, within
// these bounds: a floor then lags behind by little more than that.
const (
	intervalMin = 100 * time.Millisecond
	intervalMax = 30 * time.Second
)

func (u *upkeep) init(s *Store) {
	u.store = s
	u.queue = s.cfg.Env.NewQueue("replica/upkeep")
	u.retention.Store(int64(s.cfg.Retention))
	u.rate.Store(max(s.cfg.DropRate, 0))
	u.sweep.init(u)
	u.sizes.u, u.loads.u = u, u
	u.queue.Submit(u.arm)
}

// close may let a step of the queue or of the Reads pool still run.
func (u *upkeep) close() {
	u.closed.Store(true)
	u.queue.Submit(func() {
		u.timer.Stop()
		u.sweep.stop()
		u.sizes.stop()
		u.loads.stop()
	})
}

// SetRetention sets how long a revision can be read after it was handed out; it
// may be read longer. It holds from now on, for revisions of before too: a floor
// that was raised already does not fall. Below 0 counts as 0.
func (s *Store) SetRetention(d time.Duration) {
	d = max(d, 0)
	if s.upkeep.retention.Swap(int64(d)) != int64(d) {
		s.upkeep.queue.Submit(s.upkeep.tick)
	}
}

// SetDropRate bounds how many versions per second the node drops, all its replicas
// together; 0 or less pauses it.
func (s *Store) SetDropRate(versions int64) {
	versions = max(versions, 0)
	if s.upkeep.rate.Swap(versions) != versions {
		s.upkeep.queue.Submit(s.upkeep.sweep.look)
	}
}

// proposeUpkeep proposes a command of the shard's own in a term and an epoch version.
// done is called exactly once, on the group's turn or before the call returns.
func (r *Replica) proposeUpkeep(term, version uint64, c *shard.Command, done func(raftgroup.Result, error)) {
	if l := r.leadership.Load(); !l.Leading || l.Term != term {
		done(raftgroup.Result{}, r.notLeader())
		return
	}
	p := &raftgroup.Proposal{Header: machine.AppendHeader(make([]byte, 0, machine.HeaderBytesMax), machine.Header{Version: version}),
		Body: shard.AppendCommand(nil, c), Term: term, Done: done}
	if err := r.group.Propose(p); err != nil {
		done(raftgroup.Result{}, err)
	}
}

// interval between two looks at all replicas.
func (u *upkeep) interval() time.Duration {
	return min(max(time.Duration(u.retention.Load())/10, intervalMin), intervalMax)
}

func (u *upkeep) arm() {
	u.armed++
	n := u.armed
	u.timer = u.store.cfg.Env.AfterFunc(u.interval(), u.queue, func() {
		if n == u.armed {
			u.tick()
		}
	})
}

// tick looks at all replicas and arms the timer anew.
func (u *upkeep) tick() {
	if u.closed.Load() {
		return
	}
	u.timer.Stop()
	now, retention := u.store.cfg.Env.Now(), time.Duration(u.retention.Load())
	for _, r := range u.store.replicas.all() {
		r.history.sample(now, retention)
		r.history.raise(now - retention)
	}
	u.sweep.look()
	u.sizes.lookAtAll()
	u.store.tellNews()
	u.store.checks.look()
	u.arm()
}
