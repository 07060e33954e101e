package catalog

import (
	"errors"
	"fmt"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// KV carries out one command on the shard that covers its key. done is called
// exactly once, perhaps before Do returns; the result's slices may be kept.
// cancel gives up waiting; done is called then too.
type KV interface {
	Do(cmd shard.Command, timeout time.Duration, done func(shard.Result, error)) (cancel func())
}

const (
	// attemptTimeout is how long one command may take.
	attemptTimeout = 5 * time.Second
	// attemptsMax bounds the commands that fail, and the compares that do not
	// hold, within one operation.
	attemptsMax = 8
	backoffMin  = 50 * time.Millisecond
	backoffMax  = 2 * time.Second
)

// Catalog carries out operations on the meta shard's records. It is safe for
// concurrent use.
type Catalog struct {
	kv    KV
	env   env.Env
	queue env.Queue
}

// New makes a catalog over kv. Pauses between attempts end in steps on queue,
// which need not be the catalog's own.
func New(kv KV, e env.Env, queue env.Queue) *Catalog {
	return &Catalog{kv: kv, env: e, queue: queue}
}

// operation counts the attempts of one operation and decides whether there is
// another. It is used by one step at a time: the chain's current one.
type operation struct {
	c     *Catalog
	what  string // in errors
	tries int
	again func()      // starts the next attempt
	end   func(error) // reports the failure of the whole operation
}

// failed ends the operation with err, or arranges for the next attempt.
func (o *operation) failed(err error) {
	o.tries++
	if final(err) || o.tries >= attemptsMax {
		o.end(fmt.Errorf("%s: %w", o.what, err))
		return
	}
	o.c.env.AfterFunc(o.c.backoff(o.tries), o.c.queue, o.again)
}

// outrun counts a compare that did not hold because another writer was first.
// The next attempt needs no pause: the present value came with the answer.
func (o *operation) outrun() bool {
	o.tries++
	if o.tries < attemptsMax {
		return true
	}
	o.end(fmt.Errorf("%s: %d other writers were faster: %w", o.what, o.tries, shard.ErrBusy))
	return false
}

// final tells whether repeating cannot help. ErrUndetermined is not final: the
// operations here are safe to repeat.
func final(err error) bool {
	var invalid *shard.InvalidError
	return errors.As(err, &invalid) || errors.Is(err, shard.ErrMalformed)
}

// backoff is the jittered pause after the given number of failures.
func (c *Catalog) backoff(failures int) time.Duration {
	d := min(backoffMax, backoffMin<<min(failures-1, 10))
	return d/2 + time.Duration(c.env.Uint64()%uint64(d))
}

func (c *Catalog) do(cmd shard.Command, done func(shard.Result, error)) {
	c.kv.Do(cmd, attemptTimeout, done)
}

// get reads the value of key; nil if there is none. Records are never empty.
func (c *Catalog) get(key []byte, done func(value []byte, err error)) {
	c.do(shard.Command{Kind: shard.KindGet, Key: key}, func(res shard.Result, err error) {
		if err != nil || !res.Found {
			done(nil, err)
			return
		}
		done(res.Value, nil)
	})
}

// compareAndPut writes value if key still has the value expect (nil: none).
func (c *Catalog) compareAndPut(key, expect, value []byte, done func(shard.Result, error)) {
	c.do(shard.Command{Kind: shard.KindCompareAndPut, Key: key, Expect: expect, ExpectAbsent: expect == nil, Value: value}, done)
}

// present is the value that an answer to a compare that did not hold carries; nil if none.
func present(res shard.Result) []byte {
	if len(res.Value) == 0 {
		return nil
	}
	return res.Value
}
