package catalog

import (
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// UpdateDirectory brings the directory's entry for e's shard forward: its
// descriptor if e's epoch is newer, its leader if e's term is newer. An entry
// that is as new already is not written. known is the record's value as the
// caller last saw it, which saves a read; nil if it is not known. done gets the
// record's value as it then is, for the next call.
func (c *Catalog) UpdateDirectory(e router.Entry, known []byte, done func(now []byte, err error)) {
	key := router.DirectoryKey(e.Descriptor.Span.Start)
	o := &operation{c: c, what: fmt.Sprintf("updating the directory entry of shard %d", e.Descriptor.ID), end: func(err error) { done(nil, err) }}

	var try func(old []byte)
	try = func(old []byte) {
		next := e
		if old != nil {
			was, err := router.DecodeEntry(old)
			if err != nil {
				o.failed(err)
				return
			}
			var changed bool
			if next, changed = forward(was, e); !changed {
				done(old, nil)
				return
			}
		}
		value := router.AppendEntry(nil, &next)
		c.compareAndPut(key, old, value, func(res shard.Result, err error) {
			switch {
			case err != nil:
				o.failed(err)
			case res.Found:
				done(value, nil)
			case o.outrun():
				try(present(res))
			}
		})
	}
	o.again = func() {
		c.get(key, func(old []byte, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			try(old)
		})
	}
	if known != nil {
		try(known)
		return
	}
	o.again()
}

// forward is the newest of what two entries with the same start key say, and
// whether that differs from was. It is commutative and idempotent for entries
// of one shard, so that reports may arrive late, twice and in any order.
func forward(was, e router.Entry) (next router.Entry, changed bool) {
	if was.Descriptor.ID != e.Descriptor.ID {
		// Shards that follow each other at one start key have growing versions;
		// their terms have nothing to do with each other.
		if e.Descriptor.Epoch.Version > was.Descriptor.Epoch.Version {
			return e, true
		}
		return was, false
	}
	next = was
	if e.Descriptor.Epoch.Newer(was.Descriptor.Epoch) {
		next.Descriptor, changed = e.Descriptor, true
	}
	if e.Leader.Term > was.Leader.Term {
		next.Leader, changed = e.Leader, true
	}
	return next, changed
}

// UpToDate tells whether the directory's record value makes writing e needless.
// A value that does not decode is not up to date.
func UpToDate(value []byte, e router.Entry) bool {
	was, err := router.DecodeEntry(value)
	if err != nil {
		return false
	}
	_, changed := forward(was, e)
	return !changed
}
