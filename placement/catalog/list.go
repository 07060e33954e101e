package catalog

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// ListNodes lists all nodes that ever registered, in order of ID.
func (c *Catalog) ListNodes(done func([]router.Node, error)) {
	var nodes []router.Node
	c.scan("listing nodes", router.NodeSpan(), func(key, value []byte) error {
		n, err := router.DecodeNode(value)
		nodes = append(nodes, n)
		return err
	}, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(nodes, nil)
	})
}

// DirectoryRow is one record of the directory.
type DirectoryRow struct {
	router.Entry
	Value []byte // as it is stored
}

// ListDirectory lists the directory in order of start key. It reads page by
// page: an entry may be older than one that was read before it.
func (c *Catalog) ListDirectory(done func([]DirectoryRow, error)) {
	var rows []DirectoryRow
	c.scan("listing the directory", router.DirectorySpan(), func(key, value []byte) error {
		e, err := router.DecodeEntry(value)
		rows = append(rows, DirectoryRow{Entry: e, Value: value})
		return err
	}, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(rows, nil)
	})
}

// scan calls row for every record in span, in order. Rows are taken from
// pages that arrived whole, so that none is seen twice when a page is read again;
// an error of row ends the scan.
func (c *Catalog) scan(what string, span shard.Span, row func(key, value []byte) error, done func(error)) {
	start, end := span.Start, span.End
	o := &operation{c: c, what: what, end: done}
	o.again = func() {
		c.do(shard.Command{Kind: shard.KindScan, Start: start, End: end}, func(res shard.Result, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			for _, r := range res.Rows {
				if err := row(r.Key, r.Value); err != nil {
					done(fmt.Errorf("%s: record %s: %w", what, shard.FormatKey(r.Key), err))
					return
				}
			}
			if len(res.Resume) == 0 || bytes.Compare(res.Resume, end) >= 0 {
				done(nil)
				return
			}
			if bytes.Compare(res.Resume, start) <= 0 {
				done(fmt.Errorf("%s: %w: a page that does not advance", what, shard.ErrMalformed))
				return
			}
			start = res.Resume
			o.again()
		})
	}
	o.again()
}
