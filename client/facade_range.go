package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// DeleteRangeResult is how far a delete-range has got.
type DeleteRangeResult struct {
	Deleted  uint64         // keys; if the outcome of the last piece is not known, without those of that piece
	Revision shard.Revision // of the last piece that removed something; 0: nothing was removed
	Next     []byte         // the user key from which on the range was not looked at; nil: all of it was
}

// DeleteRange removes all keys of [start, end) that have a value; empty bounds:
// unbounded. It works from start to end in pieces of at most shard.DeleteRangeMax
// keys, each atomic, with a revision of its own and applied once; a key that is
// written while it is under way may be removed or not. On an error the
// result tells how far it got. Repeating it is harmless.
func (c *Client) DeleteRange(ctx context.Context, start, end []byte, opts ...CallOption) (DeleteRangeResult, error) {
	res, err := c.deleteRange(ctx, start, end, opts)
	if err != nil {
		return res, &OpError{Op: "delete range", Key: start, Err: err}
	}
	return res, nil
}

// Revision draws a revision: all that was acknowledged before the call is below
// it, and all that begins after it returns is above. AtRevision and
// ScanOptions.Revision read at it, until it is older than the retention.
func (c *Client) Revision(ctx context.Context) (shard.Revision, error) {
	res, err := c.call(ctx, c.newWaiter(nil), &shard.Command{Kind: shard.KindDraw, Limit: 1}, &DoOptions{})
	if err != nil {
		return 0, &OpError{Op: "draw a revision", Err: err}
	}
	return res.Revision, nil
}

// deleteRange works off the range.
func (c *Client) deleteRange(ctx context.Context, start, end []byte, opts []CallOption) (done DeleteRangeResult, err error) {
	done.Next = start
	o, err := options(mayRetry|mayProgress, opts)
	if err != nil {
		return done, err
	}
	rest, err := userSpan(start, end)
	if err != nil {
		return done, err
	}
	do := o.doOptions()
	for more := bytes.Compare(rest.Start, rest.End) < 0; more; {
		// A look at the keys fixes the piece's bounds: every attempt of it is about
		// the same few keys, within one shard, and looks for itself among those only.
		page, err := c.call(ctx, c.newWaiter(nil), &shard.Command{Kind: shard.KindScan, Start: rest.Start, End: rest.End, Limit: shard.DeleteRangeMax, KeysOnly: true}, &DoOptions{})
		if err != nil {
			return done, err
		}
		if err := checkPage(&page, rest); err != nil {
			return done, err
		}
		if n := len(page.Rows); n > 0 {
			piece := shard.Span{Start: page.Rows[0].Key, End: append(bytes.Clone(page.Rows[n-1].Key), 0)}
			err := c.deletePieces(ctx, piece, &do, &done)
			if errors.Is(err, shard.ErrRangeTooWide) && !errors.Is(err, shard.ErrUndetermined) {
				// More was written and removed there since the look. Another one, from
				// where it has got to, ends earlier.
				rest.Start = shard.UserKey(done.Next)
				continue
			}
			if err != nil {
				return done, err
			}
		}
		more = page.Resume != nil && bytes.Compare(page.Resume, rest.End) < 0
		if more {
			rest.Start = page.Resume
			done.Next = rest.Start[1:]
		} else {
			done.Next = nil
		}
		if o.progress != nil {
			o.progress(done)
		}
	}
	done.Next = nil
	return done, nil
}

// deletePieces removes the keys of a span: in one piece, unless its shard was split
// since, or more keys were written there.
func (c *Client) deletePieces(ctx context.Context, span shard.Span, do *DoOptions, done *DeleteRangeResult) error {
	for bytes.Compare(span.Start, span.End) < 0 {
		done.Next = span.Start[1:]
		res, err := c.call(ctx, c.newWaiter(nil), &shard.Command{Kind: shard.KindDeleteRange, Start: span.Start, End: span.End, Limit: shard.DeleteRangeMax}, do)
		if err != nil {
			return err
		}
		done.Deleted += res.Count
		done.Revision = max(done.Revision, res.Revision)
		if res.Resume == nil {
			return nil
		}
		if bytes.Compare(res.Resume, span.Start) <= 0 || bytes.Compare(res.Resume, span.End) > 0 {
			return fmt.Errorf("%w: a piece that goes on outside its range", shard.ErrMalformed)
		}
		span.Start = res.Resume
	}
	return nil
}
