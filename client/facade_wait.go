package client

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/shard"
)

// waiter is one blocked call: its operation, the memory that it needs, and what
// wakes the caller. Waiters are reused, so that a call costs few allocations.
type waiter struct {
	op      op
	key     []byte // full key
	command []byte // memory of op.command
	wake    chan struct{}
	group   *group // of a call with many operations; nil: wake is its own
}

// group is a call with many operations.
type group struct {
	left atomic.Int64
	wake chan struct{}
}

var waiters = sync.Pool{New: func() any { return &waiter{wake: make(chan struct{}, 1)} }}

// keptBytes is the memory that a reused waiter keeps.
const keptBytes = 64 << 10

// complete implements completer. It runs in a step of the core.
func (w *waiter) complete(*op) {
	if g := w.group; g != nil {
		if g.left.Add(-1) == 0 {
			g.wake <- struct{}{}
		}
		return
	}
	w.wake <- struct{}{}
}

// newWaiter makes a waiter for a user key.
func (c *Client) newWaiter(key []byte) *waiter {
	w := waiters.Get().(*waiter)
	w.key = append(append(w.key[:0], shard.UserKeyspace), key...)
	return w
}

// free takes a waiter back whose op is done, and which nobody else knows.
func (w *waiter) free() {
	w.command = w.op.command
	w.op, w.group = op{}, nil
	if cap(w.command)+cap(w.key) > keptBytes {
		w.command, w.key = nil, nil
	}
	waiters.Put(w)
}

// prepare checks and encodes a command into w.
func (c *Client) prepare(w *waiter, cmd *shard.Command, o *DoOptions) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	w.op.command, w.op.done = w.command, w
	c.core.prepare(&w.op, cmd, o)
	return nil
}

// write carries out a write that may be named, and takes w back.
func (c *Client) write(ctx context.Context, w *waiter, cmd *shard.Command, opts []CallOption) (shard.Result, error) {
	o, err := options(mayRetry|mayName, opts)
	if err != nil {
		w.free()
		return shard.Result{}, err
	}
	do := o.doOptions()
	return c.call(ctx, w, cmd, &do)
}

// call carries out one command and takes w back.
func (c *Client) call(ctx context.Context, w *waiter, cmd *shard.Command, o *DoOptions) (shard.Result, error) {
	err := ctx.Err()
	if err == nil {
		err = c.prepare(w, cmd, o)
	}
	if err == nil {
		err = c.core.submit(0, &w.op)
	}
	if err != nil {
		w.free()
		return shard.Result{}, err
	}
	cancelled := c.wait(ctx, w.wake, &w.op)
	res, err := w.op.result, w.op.err
	if !cancelled { // else the core's inbox may still hold the op
		w.free()
	}
	return res, err
}

// wait returns once wake was called. When the context ends it gives the ops up,
// and waits for the core to say what became of them, which takes one turn.
func (c *Client) wait(ctx context.Context, wake <-chan struct{}, ops ...*op) (cancelled bool) {
	if ctx.Done() == nil {
		<-wake
		return false
	}
	select {
	case <-wake:
		return false
	case <-ctx.Done():
		for _, o := range ops {
			c.core.cancel(o, ctx.Err())
		}
		<-wake
		return true
	}
}
