package client

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/kiloraft/kiloraft/shard"
)

// ScanOptions say what to scan.
type ScanOptions struct {
	Start, End []byte // user keys, [Start, End); empty: unbounded
	Limit      int    // rows; 0: all
	Reverse    bool   // from End down to Start
	KeysOnly   bool   // rows without values
	PageRows   int    // rows asked for at once; 0: 1,000; at most shard.PageRowsMax
}

const defaultPageRows = 1000

// Scan pages through the range in order of keys, or against it; each shard's
// part is linearizable, the whole is not (yet). An error ends it. Rows belong to
// the caller.
func (c *Client) Scan(ctx context.Context, o ScanOptions) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		left := o.Limit
		for {
			o.Limit = left
			rows, resume, err := c.ScanPage(ctx, o)
			if err != nil {
				yield(KeyValue{}, err)
				return
			}
			for i := range rows {
				if !yield(rows[i], nil) {
					return
				}
			}
			if left > 0 {
				if left -= len(rows); left <= 0 {
					return
				}
			}
			if resume == nil {
				return
			}
			o.from(resume)
		}
	}
}

// from goes on where a page ended.
func (o *ScanOptions) from(resume []byte) {
	if o.Reverse {
		o.End = resume
	} else {
		o.Start = resume
	}
}

// ScanPage is one page: at most PageRows rows, no more than Limit. It crosses
// shards until it has a page's rows, or about a page's bytes. resume is where
// the next page starts (its Start; its End in reverse), nil at the end of the
// range. A page may have no rows only if it is the last.
func (c *Client) ScanPage(ctx context.Context, o ScanOptions) (rows []KeyValue, resume []byte, err error) {
	span, err := o.span()
	if err != nil {
		return nil, nil, &OpError{Op: "scan", Key: o.Start, Err: err}
	}
	want := o.PageRows
	if want <= 0 {
		want = defaultPageRows
	}
	want = min(want, shard.PageRowsMax)
	if o.Limit > 0 {
		want = min(want, o.Limit)
	}
	size := 0
	for len(rows) < want && size < shard.PageBytesMax {
		// An empty range is no error of the caller's who follows a resume key.
		if bytes.Compare(span.Start, span.End) >= 0 {
			return rows, nil, nil
		}
		res, err := c.call(ctx, c.newWaiter(nil), &shard.Command{
			Kind: shard.KindScan, Start: span.Start, End: span.End,
			Limit: uint64(want - len(rows)), Bytes: uint64(shard.PageBytesMax - size), Reverse: o.Reverse, KeysOnly: o.KeysOnly,
		})
		if err != nil {
			return nil, nil, &OpError{Op: "scan", Key: o.Start, Err: err}
		}
		if rows == nil {
			rows = make([]KeyValue, 0, len(res.Rows))
		}
		for i := range res.Rows {
			r := &res.Rows[i]
			if !span.Contains(r.Key) {
				return nil, nil, &OpError{Op: "scan", Key: o.Start, Err: fmt.Errorf("%w: a row outside the scanned range", shard.ErrMalformed)}
			}
			rows = append(rows, KeyValue{Key: r.Key[1:], Value: r.Value, Revision: r.Revision})
			size += len(r.Key) + len(r.Value)
		}
		if res.Resume == nil {
			return rows, nil, nil
		}
		if bytes.Compare(res.Resume, span.Start) < 0 || bytes.Compare(res.Resume, span.End) > 0 {
			return nil, nil, &OpError{Op: "scan", Key: o.Start, Err: fmt.Errorf("%w: a page that goes on outside the scanned range", shard.ErrMalformed)}
		}
		if o.Reverse {
			span.End = res.Resume
		} else {
			span.Start = res.Resume
		}
	}
	switch {
	case bytes.Compare(span.Start, span.End) >= 0:
		return rows, nil, nil
	case o.Reverse:
		return rows, span.End[1:], nil
	}
	return rows, span.Start[1:], nil
}

// span is the range in full keys.
func (o *ScanOptions) span() (shard.Span, error) {
	span := shard.UserSpan()
	if len(o.Start) > 0 {
		span.Start = shard.UserKey(o.Start)
	}
	if len(o.End) > 0 {
		span.End = shard.UserKey(o.End)
	}
	switch {
	case bytes.Compare(span.Start, span.End) > 0:
		return span, &shard.InvalidError{Field: "range", Reason: "is inverted: it ends at \"" + shard.FormatUserKey(o.End) + "\", before it starts"}
	case len(o.Start) > shard.KeyBytesMax+1 || len(o.End) > shard.KeyBytesMax+1:
		return span, &shard.InvalidError{Field: "range", Reason: "has a bound that is longer than any key"}
	}
	return span, nil
}
