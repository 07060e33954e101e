package client

import (
	"context"

	"github.com/kiloraft/kiloraft/shard"
)

// How much of one call is under way at once.
const (
	multiOpsMax   = 4096
	multiBytesMax = 32 << 20
)

// MultiGet reads many keys; each one's value is the latest, but the values are not
// of one moment, unless they are read AtRevision. found[i].Revision 0 means not
// found. The error is that of the first key that could not be read.
func (c *Client) MultiGet(ctx context.Context, keys [][]byte, opts ...CallOption) (found []KeyValue, err error) {
	o, err := options(mayReadAt|mayReadAnywhere, opts)
	if err != nil {
		return nil, &OpError{Op: "get", Err: err}
	}
	found = make([]KeyValue, len(keys))
	c.many(ctx, len(keys), &DoOptions{}, func(i int) int { return len(keys[i]) }, func(i int, w *waiter) shard.Command {
		w.key = append(append(w.key[:0], shard.UserKeyspace), keys[i]...)
		return shard.Command{Kind: shard.KindGet, Key: w.key, Revision: o.at(), AnyReplica: o.anyReplica}
	}, func(i int, res *shard.Result, e error) {
		found[i].Key = keys[i]
		switch {
		case e != nil && err == nil:
			err = &OpError{Op: "get", Key: keys[i], Err: e}
		case e == nil && res.Found:
			found[i].Value, found[i].Revision = res.Value, res.Revision
		}
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// MultiPut writes many pairs. It is not atomic: each pair has a revision, or an
// error at its place. errs is nil if every pair was written. Of the options it takes
// WithRetries, for each pair; with one that does not fit none is written.
func (c *Client) MultiPut(ctx context.Context, pairs []KeyValue, opts ...CallOption) (revisions []shard.Revision, errs []error) {
	revisions = make([]shard.Revision, len(pairs))
	o, err := options(mayRetry, opts)
	if err != nil {
		for i := range pairs {
			errs = append(errs, &OpError{Op: "put", Key: pairs[i].Key, Err: err})
		}
		return revisions, errs
	}
	do := o.doOptions()
	c.many(ctx, len(pairs), &do, func(i int) int { return len(pairs[i].Key) + len(pairs[i].Value) }, func(i int, w *waiter) shard.Command {
		w.key = append(append(w.key[:0], shard.UserKeyspace), pairs[i].Key...)
		return shard.Command{Kind: shard.KindPut, Key: w.key, Value: pairs[i].Value}
	}, func(i int, res *shard.Result, e error) {
		revisions[i] = res.Revision
		if e != nil {
			if errs == nil {
				errs = make([]error, len(pairs))
			}
			errs[i] = &OpError{Op: "put", Key: pairs[i].Key, Err: e}
		}
	})
	return revisions, errs
}

// many carries out n commands, part by part, and reports each in order.
func (c *Client) many(ctx context.Context, n int, do *DoOptions, size func(int) int, command func(int, *waiter) shard.Command, report func(int, *shard.Result, error)) {
	for from := 0; from < n; {
		to, bytes := from, 0
		for to < n && to-from < multiOpsMax && bytes < multiBytesMax {
			bytes += size(to)
			to++
		}
		c.some(ctx, from, to, do, command, report)
		from = to
	}
}

func (c *Client) some(ctx context.Context, from, to int, do *DoOptions, command func(int, *waiter) shard.Command, report func(int, *shard.Result, error)) {
	g := &group{wake: make(chan struct{}, 1)}
	ws := make([]*waiter, to-from)
	ops := make([]*op, 0, to-from)
	errs := make([]error, to-from)
	for i := range ws {
		w := waiters.Get().(*waiter)
		ws[i] = w
		cmd := command(from+i, w)
		if errs[i] = ctx.Err(); errs[i] == nil {
			errs[i] = c.prepare(w, &cmd, do)
		}
		if errs[i] == nil {
			w.group = g
			ops = append(ops, &w.op)
		}
	}
	g.left.Store(int64(len(ops)))
	cancelled := false
	if len(ops) > 0 {
		if err := c.core.submit(0, ops...); err != nil {
			for i := range errs {
				if errs[i] == nil {
					errs[i] = err
				}
			}
		} else {
			cancelled = c.wait(ctx, g.wake, ops...)
		}
	}
	for i, w := range ws {
		if errs[i] == nil {
			errs[i] = w.op.err
		}
		report(from+i, &w.op.result, errs[i])
		if !cancelled {
			w.free()
		}
	}
}
