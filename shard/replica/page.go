package replica

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// page is one page of a scan, within the shard. Where the shard ends before the
// scanned range does, the page's Resume is the shard's bound, and the next page
// is the neighbour's. The result's revision is the one that was read at, so that
// later pages can be read at it too; 0 in the system keyspace, which has none.
func page(v view, c *shard.Command, span shard.Span, at shard.Revision) (shard.Result, error) {
	o := storage.ScanOptions{
		Span:     shard.Span{Start: later(c.Start, span.Start), End: earlier(c.End, span.End)},
		At:       at,
		Reverse:  c.Reverse,
		KeysOnly: c.KeysOnly,
		RowsMax:  bounded(c.Limit, shard.PageRowsMax),
		BytesMax: bounded(c.Bytes, shard.PageBytesMax),
	}
	rows, resume, err := v.Scan(o)
	if err != nil {
		return shard.Result{}, &shard.InternalError{Reason: "reading the store: " + err.Error()}
	}
	if resume == nil {
		switch {
		case !c.Reverse && bytes.Compare(o.Span.End, c.End) < 0:
			resume = o.Span.End
		case c.Reverse && bytes.Compare(c.Start, o.Span.Start) < 0:
			resume = o.Span.Start
		}
	}
	if at == shard.MaxRevision {
		at = 0
	}
	return shard.Result{Revision: at, Rows: rows, Resume: resume}, nil
}

func later(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return b
	}
	return a
}

func earlier(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}

// bounded is what was asked for, 0 being all, but no more than a page can have.
func bounded(asked uint64, most int) int {
	if asked == 0 || asked > uint64(most) {
		return most
	}
	return int(asked)
}
