package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Store is what a run needs of a cluster; *client.Client has it.
type Store interface {
	Get(ctx context.Context, key []byte, opts ...client.CallOption) (client.KeyValue, error)
	Put(ctx context.Context, key, value []byte, opts ...client.CallOption) (shard.Revision, error)
	MultiPut(ctx context.Context, pairs []client.KeyValue, opts ...client.CallOption) ([]shard.Revision, []error)
	Scan(ctx context.Context, o client.ScanOptions) iter.Seq2[client.KeyValue, error]
}

var _ Store = (*client.Client)(nil)

// Run loads if asked to, warms up, measures, and reports. When ctx ends during
// the measured phase, the report covers what was measured by then and says so;
// when it ends earlier there is no report. Errors of single operations are
// counted in the report and are not errors of Run.
func Run(ctx context.Context, store Store, c Config) (*Report, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Load {
		if err := load(ctx, store, &c); err != nil {
			return nil, err
		}
	}
	r := newRun(&c, store)
	finished := r.start(ctx)
	before := r.watch(ctx, finished)
	after := time.Now()
	if !after.After(r.schedule.measured) {
		return nil, fmt.Errorf("interrupted before anything was measured: %w", context.Cause(ctx))
	}
	r.records.collect()
	return r.report(ctx, before, after), nil
}

// run is one run in progress.
type run struct {
	c        *Config
	store    Store
	values   values
	chooser  chooser
	records  *records
	schedule *schedule
}

func newRun(c *Config, store Store) *run {
	r := &run{c: c, store: store, values: newValues(c.ValueBytes, c.Seed),
		chooser: newChooser(c.Distribution, c.Keys), records: newRecords(c.Clients)}
	r.schedule = newSchedule(time.Now(), c) // last: time counts from here
	return r
}

// start starts the clients; the channel is closed when all are done.
func (r *run) start(ctx context.Context) (finished chan struct{}) {
	finished = make(chan struct{})
	var clients sync.WaitGroup
	for i := range r.c.Clients {
		clients.Go(func() { r.client(ctx, i) })
	}
	go func() {
		clients.Wait()
		close(finished)
	}()
	return finished
}

// watch reports progress until all clients are done. It returns the cluster's
// counters as they were when the measured phase began, or nil.
func (r *run) watch(ctx context.Context, finished chan struct{}) (before *clusterState) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	measured := time.NewTimer(time.Until(r.schedule.measured))
	defer measured.Stop()
	last := r.schedule.measured
	for {
		select {
		case <-finished:
			return before
		case <-measured.C:
			before = askCluster(ctx, r.c)
		case now := <-tick.C:
			if r.c.Progress == nil {
				continue
			}
			if now.Before(r.schedule.measured) {
				r.c.Progress(Progress{Phase: "warmup", Elapsed: now.Sub(r.schedule.start), Of: r.c.Warmup})
				continue
			}
			recent := r.records.collect()
			r.c.Progress(progressOf(now.Sub(r.schedule.measured), r.c.Duration, now.Sub(last), recent, r.records.total.errors))
			last = now
		}
	}
}

// client is one client's loop.
func (r *run) client(ctx context.Context, number int) {
	var wait waiter
	ops := &operator{run: r, keys: newKeyMaker(r.c.Distribution), rand: rand.New(rand.NewPCG(r.c.Seed, uint64(number)+2))}
	recorder := r.records.recorders[number%len(r.records.recorders)]
	deadlines := deadlines{parent: ctx, timeout: r.c.Timeout}
	defer deadlines.stop()
	for {
		due, ok := r.schedule.next(ctx, &wait)
		if !ok {
			return
		}
		began := due
		if r.schedule.interval != 0 {
			began = time.Now()
		}
		o := ops.one(deadlines.at(began))
		if o.err != nil && ctx.Err() != nil {
			return // interrupted: not the cluster's fault
		}
		o.took = time.Since(due)
		if !due.Before(r.schedule.measured) {
			recorder.record(o)
			if o.err != nil {
				r.records.errors.add(o.err)
			}
		}
		if o.err != nil && !wait.until(ctx, time.Now().Add(errorPause)) {
			return
		}
	}
}

// errorPause keeps clients of a cluster that refuses everything from taking the
// processor that it needs to recover.
const errorPause = time.Millisecond

// operator carries out operations of one client.
type operator struct {
	*run
	keys *keyMaker
	rand *rand.Rand
}

func (o *operator) one(ctx context.Context) outcome {
	kind := o.c.Workload
	if kind == Mixed {
		kind = Get
		if o.rand.Uint64()&1 == 0 {
			kind = Put
		}
	}
	key := o.keys.key(o.chooser.next(o.rand))
	switch kind {
	case Put:
		_, err := o.store.Put(ctx, key, o.values.pick(o.rand))
		return outcome{kind: Put, err: err}
	case Get:
		_, err := o.store.Get(ctx, key)
		missing := errors.Is(err, client.ErrNotFound)
		if missing && !o.c.Load {
			err = nil
		}
		return outcome{kind: Get, missing: missing, err: err}
	case Scan:
		var rows uint64
		for _, err := range o.store.Scan(ctx, client.ScanOptions{Start: key, Limit: ScanRows, PageRows: ScanRows}) {
			if err != nil {
				return outcome{kind: Scan, err: err}
			}
			rows++
		}
		return outcome{kind: Scan, rows: rows}
	}
	panic(fmt.Sprintf("workload %q was not checked", kind))
}
