package client

import (
	"bytes"
	"context"
	"errors"
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

	// Revision to read at, see AtRevision; 0: the scan begins with the latest state,
	// and reads all of the range as of then.
	Revision shard.Revision
	// AnyReplica lets any replica serve what is read at a revision, see AnyReplica.
	AnyReplica bool
	// At, if not nil, is told the revision that all rows are of, before the first row.
	At *shard.Revision
}

const (
	defaultPageRows = 1000
	// pagesAhead is how many pages of one scan are under way or wait at once. Each has
	// at most shard.PageBytesMax.
	pagesAhead = 4
)

// Scan goes through the range in order of keys, or against it. All rows are of one
// revision, whatever is written meanwhile: what was acknowledged before the scan
// began is seen. A scan that takes longer than the retention ends with
// shard.ErrCompacted. Pages are fetched ahead, of several shards at the same time.
// An error ends the scan. Rows belong to the caller.
func (c *Client) Scan(ctx context.Context, o ScanOptions) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		s, err := c.newScan(&o)
		if err == nil {
			err = s.run(ctx, func(kv KeyValue) bool { return yield(kv, nil) })
		}
		if err != nil {
			yield(KeyValue{}, &OpError{Op: "scan", Key: o.Start, Err: err})
		}
	}
}

// ScanPage is one page: at most PageRows rows, no more than Limit, all of one
// revision (ScanOptions.At tells it: name it in Revision to go on in the same
// state). It crosses shards until it has a page's rows, or about a page's bytes.
// resume is where the next page starts (its Start; its End in reverse), nil at the
// end of the range. A page may have no rows only if it is the last.
func (c *Client) ScanPage(ctx context.Context, o ScanOptions) (rows []KeyValue, resume []byte, err error) {
	s, err := c.newScan(&o)
	if err == nil {
		rows, err = s.page(ctx)
	}
	if err != nil {
		return nil, nil, &OpError{Op: "scan", Key: o.Start, Err: err}
	}
	switch {
	case s.ended():
		return rows, nil, nil
	case o.Reverse:
		return rows, s.rest.End[1:], nil
	}
	return rows, s.rest.Start[1:], nil
}

// scan is a scan on its way.
type scan struct {
	c    *Client
	o    *ScanOptions
	rest shard.Span     // what was not read yet
	at   shard.Revision // that all is read at; 0: not known before the first page
	rows int            // of a page
	left int            // rows that may still come; negative: any number
}

func (c *Client) newScan(o *ScanOptions) (*scan, error) {
	span, err := userSpan(o.Start, o.End)
	if err != nil {
		return nil, err
	}
	if o.Revision != 0 {
		if err := checkRevision(o.Revision); err != nil {
			return nil, err
		}
	}
	s := &scan{c: c, o: o, rest: span, at: o.Revision, rows: o.PageRows, left: -1}
	if s.rows <= 0 {
		s.rows = defaultPageRows
	}
	s.rows = min(s.rows, shard.PageRowsMax)
	if o.Limit > 0 {
		s.left = o.Limit
		s.rows = min(s.rows, o.Limit)
	}
	return s, nil
}

// ended tells whether all of the range was read. An empty range is no error of
// the caller's, who follows a resume key.
func (s *scan) ended() bool { return bytes.Compare(s.rest.Start, s.rest.End) >= 0 }

// command asks for rows of a span.
func (s *scan) command(span shard.Span, rows, size int) shard.Command {
	return shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End, Limit: uint64(rows), Bytes: uint64(size),
		Reverse: s.o.Reverse, KeysOnly: s.o.KeysOnly, Revision: s.at, AnyReplica: s.o.AnyReplica && s.at != 0}
}

// first reads the first rows of a scan whose revision is not known. If the range
// is within one shard, the revision is that of the state which the shard has;
// shards have no state in common, so that for several a revision is drawn.
func (s *scan) first(ctx context.Context, rows int) (shard.Result, error) {
	cmd := s.command(s.rest, rows, shard.PageBytesMax)
	res, err := s.c.call(ctx, s.c.newWaiter(nil), &cmd, &DoOptions{whole: true})
	switch {
	case err == nil && (res.Revision != 0 || res.Resume == nil):
		s.at = res.Revision
		return res, nil
	case err != nil && !errors.Is(err, errSeveralShards):
		return res, err
	}
	drawn, err := s.c.call(ctx, s.c.newWaiter(nil), &shard.Command{Kind: shard.KindDraw, Limit: 1}, &DoOptions{})
	if err != nil {
		return res, err
	}
	s.at = drawn.Revision
	cmd = s.command(s.rest, rows, shard.PageBytesMax)
	return s.c.call(ctx, s.c.newWaiter(nil), &cmd, &DoOptions{})
}

// page reads one page, shard after shard.
func (s *scan) page(ctx context.Context) (rows []KeyValue, err error) {
	for size := 0; len(rows) < s.rows && size < shard.PageBytesMax && !s.ended(); {
		var res shard.Result
		if s.at == 0 {
			res, err = s.first(ctx, s.rows)
		} else {
			cmd := s.command(s.rest, s.rows-len(rows), shard.PageBytesMax-size)
			res, err = s.c.call(ctx, s.c.newWaiter(nil), &cmd, &DoOptions{})
		}
		if err == nil {
			err = checkPage(&res, s.rest)
		}
		if err != nil {
			return nil, err
		}
		s.advance(&s.rest, res.Resume)
		if rows == nil {
			rows = make([]KeyValue, 0, len(res.Rows))
		}
		for i := range res.Rows {
			rows = append(rows, keyValue(&res.Rows[i]))
			size += len(res.Rows[i].Key) + len(res.Rows[i].Value)
		}
	}
	s.tell()
	return rows, nil
}

func (s *scan) tell() {
	if s.o.At != nil {
		*s.o.At = s.at
	}
}

// advance takes what a page has read off a span.
func (s *scan) advance(span *shard.Span, resume []byte) {
	switch {
	case resume == nil && s.o.Reverse:
		span.End = span.Start
	case resume == nil:
		span.Start = span.End
	case s.o.Reverse:
		span.End = resume
	default:
		span.Start = resume
	}
}

func keyValue(r *shard.Row) KeyValue {
	return KeyValue{Key: r.Key[1:], Value: r.Value, Revision: r.Revision}
}

// checkPage refuses an answer that would lead a caller astray.
func checkPage(res *shard.Result, span shard.Span) error {
	for i := range res.Rows {
		if !span.Contains(res.Rows[i].Key) {
			return fmt.Errorf("%w: a row outside the scanned range", shard.ErrMalformed)
		}
	}
	if res.Resume != nil && (bytes.Compare(res.Resume, span.Start) < 0 || bytes.Compare(res.Resume, span.End) > 0) {
		return fmt.Errorf("%w: a page that goes on outside the scanned range", shard.ErrMalformed)
	}
	return nil
}

// userSpan is a range of user keys in full keys.
func userSpan(start, end []byte) (shard.Span, error) {
	span := shard.UserSpan()
	if len(start) > 0 {
		span.Start = shard.UserKey(start)
	}
	if len(end) > 0 {
		span.End = shard.UserKey(end)
	}
	switch {
	case bytes.Compare(span.Start, span.End) > 0:
		return span, &shard.InvalidError{Field: "range", Reason: "is inverted: it ends at \"" + shard.FormatUserKey(end) + "\", before it starts"}
	case len(start) > shard.KeyBytesMax+1 || len(end) > shard.KeyBytesMax+1:
		return span, &shard.InvalidError{Field: "range", Reason: "has a bound that is longer than any key"}
	}
	return span, nil
}
