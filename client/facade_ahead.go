package client

import (
	"bytes"
	"context"

	"github.com/kiloraft/kiloraft/shard"
)

// stretch is a part of a scan's range: of one shard, as far as is known. One page of
// it is under way, or waits to be taken.
type stretch struct {
	span shard.Span // what was not taken yet
	page *waiter
}

// run reads to the end of the range, or until the caller has enough. The first
// page says at which revision; the others are then fetched ahead.
func (s *scan) run(ctx context.Context, yield func(KeyValue) bool) error {
	rows, err := s.page(ctx)
	if err != nil {
		return err
	}
	for i := range rows {
		if !s.row(yield, rows[i]) {
			return nil
		}
	}
	for s.left > 0 && s.left <= s.rows && !s.ended() {
		// One page will do, so that nothing is fetched in vain.
		s.rows = s.left
		if rows, err = s.page(ctx); err != nil {
			return err
		}
		for i := range rows {
			if !s.row(yield, rows[i]) {
				return nil
			}
		}
	}
	return s.ahead(ctx, yield)
}

// row hands a row to the caller, and tells whether more are wanted.
func (s *scan) row(yield func(KeyValue) bool, kv KeyValue) bool {
	s.left--
	return yield(kv) && s.left != 0
}

// ahead reads the rest in stretches, a page of each at the same time, and hands
// over rows in order. What is fetched ahead is bounded by pagesAhead.
func (s *scan) ahead(ctx context.Context, yield func(KeyValue) bool) error {
	var queue []*stretch
	defer func() {
		for _, p := range queue {
			if p.page != nil {
				// Nobody waits for it, and its memory is not used again.
				s.c.core.cancel(&p.page.op, context.Canceled)
			}
		}
	}()
	more := func() error {
		for len(queue) < pagesAhead && !s.ended() {
			p := &stretch{span: s.cut()}
			if err := s.fetch(p); err != nil {
				return err
			}
			queue = append(queue, p)
		}
		return nil
	}
	if err := more(); err != nil {
		return err
	}
	for len(queue) > 0 {
		p := queue[0]
		res, err := s.take(ctx, p)
		if err != nil {
			return err
		}
		s.advance(&p.span, res.Resume)
		switch {
		case bytes.Compare(p.span.Start, p.span.End) >= 0:
			queue = queue[1:]
		case len(queue) == 1 && s.ended():
			// It may have turned out to be several shards': it is cut anew.
			s.rest, queue = p.span, nil
		default:
			if err := s.fetch(p); err != nil {
				return err
			}
		}
		if err := more(); err != nil {
			return err
		}
		for i := range res.Rows {
			if !s.row(yield, keyValue(&res.Rows[i])) {
				return nil
			}
		}
	}
	return nil
}

// cut takes the next stretch off the rest: what lies in the shard in which the
// rest begins, all of it if that is not known. That the shard may be another by
// now does no harm: a page ends where its shard does.
func (s *scan) cut() shard.Span {
	span := s.rest
	edge := s.c.core.edge(span, s.o.Reverse)
	if edge != nil && bytes.Compare(span.Start, edge) < 0 && bytes.Compare(edge, span.End) < 0 {
		if s.o.Reverse {
			span.Start = edge
		} else {
			span.End = edge
		}
	}
	if s.o.Reverse {
		s.rest.End = span.Start
	} else {
		s.rest.Start = span.End
	}
	return span
}

// fetch sends for a stretch's next page.
func (s *scan) fetch(p *stretch) error {
	w := s.c.newWaiter(nil)
	cmd := s.command(p.span, s.rows, shard.PageBytesMax)
	err := s.c.prepare(w, &cmd, &DoOptions{})
	if err == nil {
		err = s.c.core.submit(0, &w.op)
	}
	if err != nil {
		w.free()
		return err
	}
	p.page = w
	return nil
}

// take waits for a stretch's page.
func (s *scan) take(ctx context.Context, p *stretch) (shard.Result, error) {
	w := p.page
	p.page = nil
	cancelled := s.c.wait(ctx, w.wake, &w.op)
	res, err := w.op.result, w.op.err
	if !cancelled {
		w.free()
	}
	if err == nil {
		err = checkPage(&res, p.span)
	}
	return res, err
}

// edge is where the shard ends in which a range begins, in the scan's direction;
// nil: not known.
func (c *Core) edge(span shard.Span, reverse bool) []byte {
	told := make(chan []byte, 1)
	asked := c.tell(event{run: func() {
		var edge []byte
		if reverse {
			if r, ok := c.routes.LookupBefore(span.End); ok {
				edge = r.Descriptor.Span.Start
			}
		} else if r, ok := c.routes.Lookup(span.Start); ok {
			edge = r.Descriptor.Span.End
		}
		told <- edge
	}})
	if !asked {
		return nil
	}
	return <-told
}
