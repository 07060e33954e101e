package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// loadPairs is how many pairs one call writes, and loadWorkersMax how many
	// calls are under way: together enough to fill every shard's batches.
	loadPairs      = 32
	loadWorkersMax = 64
)

// load writes every key once. A write that fails in a way that passes is
// repeated until the time-out; writing a key twice does no harm here.
func load(ctx context.Context, store Store, c *Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &loader{c: c, store: store, values: newValues(c.ValueBytes, c.Seed)}
	finished := make(chan struct{})
	var workers sync.WaitGroup
	for i := range min(loadWorkersMax, c.Clients) {
		workers.Go(func() {
			if err := l.worker(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	go func() {
		workers.Wait()
		close(finished)
	}()
	l.watch(finished)
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("load: %d of %d keys written: %w", l.written.Load(), c.Keys, err)
	}
	return nil
}

type loader struct {
	c       *Config
	store   Store
	values  values
	taken   atomic.Uint64 // keys
	written atomic.Uint64 // keys
}

// watch reports progress until all workers are done.
func (l *loader) watch(finished chan struct{}) {
	start, last, lastWritten := time.Now(), time.Now(), uint64(0)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-finished:
			return
		case now := <-tick.C:
			if l.c.Progress == nil {
				continue
			}
			written := l.written.Load()
			l.c.Progress(Progress{Phase: "load", Elapsed: now.Sub(start), Done: written, Keys: l.c.Keys,
				OpsPerSec: float64(written-lastWritten) / now.Sub(last).Seconds()})
			last, lastWritten = now, written
		}
	}
}

// worker writes keys, a run of them at a time, until none is left.
func (l *loader) worker(ctx context.Context, number int) error {
	random := rand.New(rand.NewPCG(l.c.Seed, uint64(number)+2))
	keys := newKeyMaker(l.c.Distribution)
	pairs := make([]client.KeyValue, 0, loadPairs)
	var buffer [loadPairs * keyBytes]byte
	for {
		first := l.taken.Add(loadPairs) - loadPairs
		if first >= l.c.Keys || ctx.Err() != nil {
			return nil
		}
		pairs = pairs[:0]
		for i := first; i < min(first+loadPairs, l.c.Keys); i++ {
			key := buffer[len(pairs)*keyBytes:][:keyBytes:keyBytes]
			copy(key, keys.key(i))
			pairs = append(pairs, client.KeyValue{Key: key, Value: l.values.pick(random)})
		}
		if err := l.write(ctx, pairs); err != nil {
			return err
		}
	}
}

// write writes pairs, repeating those that failed in a way that passes. It
// reorders pairs.
func (l *loader) write(ctx context.Context, pairs []client.KeyValue) error {
	ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
	defer cancel()
	var wait waiter
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		_, errs := l.store.MultiPut(ctx, pairs)
		left := 0
		var failure error
		for i, err := range errs {
			if err == nil {
				continue
			}
			if failure = err; !passes(err) {
				return err
			}
			pairs[left], pairs[i] = pairs[i], pairs[left]
			left++
		}
		l.written.Add(uint64(len(pairs) - left))
		if left == 0 {
			return nil
		}
		pairs = pairs[:left]
		if !wait.until(ctx, time.Now().Add(pause)) {
			return failure
		}
	}
}

// passes tells whether a write that failed so may work when it is repeated.
func passes(err error) bool {
	return errors.Is(err, shard.ErrBusy) || errors.Is(err, shard.ErrUnavailable) ||
		errors.Is(err, shard.ErrUndetermined) || errors.Is(err, shard.ErrDropped)
}
