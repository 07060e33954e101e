package machine

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// keysOf walks the keys of a span that have a value at a revision, in order: those
// of the view, with what the turn wrote on top.
type keysOf struct {
	m     *Machine
	span  shard.Span
	at    shard.Revision
	limit uint64 // how many will be asked for

	staged  visible
	written *version // the next of staged; nil: not looked at, or none is left
	ended   bool     // none is left
	rows    []shard.Row
	resume  []byte // of the view's next page
	paged   bool   // a page was read
}

// next is the next key, nil at the end of the span.
func (k *keysOf) next() ([]byte, error) {
	for {
		if err := k.fill(); err != nil {
			return nil, err
		}
		w := k.written
		switch {
		case len(k.rows) == 0 && w == nil:
			return nil, nil
		case w == nil || len(k.rows) > 0 && bytes.Compare(k.rows[0].Key, w.key) < 0:
			key := k.rows[0].Key
			k.rows = k.rows[1:]
			return key, nil
		case len(k.rows) > 0 && bytes.Equal(k.rows[0].Key, w.key):
			k.rows = k.rows[1:]
		}
		k.written = nil
		if !w.header.Tombstone {
			return w.key, nil
		}
	}
}

// fill sees to it that the next key of either source is known.
func (k *keysOf) fill() error {
	if k.written == nil && !k.ended {
		k.written = k.staged.next()
		k.ended = k.written == nil
	}
	// A page may be empty and not the last: it passed a run of tombstones.
	for len(k.rows) == 0 && (!k.paged || k.resume != nil) {
		span := k.span
		if k.paged {
			span.Start = k.resume
		}
		var err error
		k.rows, k.resume, err = k.m.committed().Scan(storage.ScanOptions{Span: span, At: k.at, KeysOnly: true, RowsMax: int(min(k.limit, shard.PageRowsMax))})
		if err != nil {
			return err
		}
		k.paged = true
	}
	return nil
}
