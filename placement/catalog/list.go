package catalog

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// ListNodes lists all nodes that ever registered, in order of ID.
func (c *Catalog) ListNodes(done func([]Node, error)) {
	var nodes []Node
	c.scan("listing nodes", nodePrefix(), func(key, value []byte) error {
		n, err := decodeNode(value)
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
	Entry
	Value []byte // as it is stored
}

// ListDirectory lists the directory in order of start key. It reads page by
// page: an entry may be older than one that was read before it.
func (c *Catalog) ListDirectory(done func([]DirectoryRow, error)) {
	var rows []DirectoryRow
	c.scan("listing the directory", directoryPrefix(), func(key, value []byte) error {
		e, err := decodeEntry(value)
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

// scan calls row for every record under prefix, in order. Rows are taken from
// pages that arrived whole, so that none is seen twice when a page is read again;
// an error of row ends the scan.
func (c *Catalog) scan(what string, prefix []byte, row func(key, value []byte) error, done func(error)) {
	start, end := prefix, prefixEnd(prefix)
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

// prefixEnd is the first key after all that begin with prefix, whose last byte
// is not 0xff.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}
