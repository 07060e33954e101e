package storage

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/shard"
)

// View is a consistent view of all data, as of when it was opened. Not safe for
// concurrent use; Close it soon: while it is open, memtables and files that the
// engine has moved on from stay. It is made for many reads: opening one costs as
// much as several gets. Keys in the system keyspace are unversioned and their
// revision is 0; both Get and Scan go by a key's first byte.
//
// Errors that wrap shard.ErrMalformed are corruption, and ErrReplaced is of a view that
// was opened while a snapshot was being installed over what is read; others are the disk's.
type View struct {
	it      *pebble.Iterator
	openErr error
	lacks   []keyBounds // that it may lack the content of
	bounded bool        // the iterator's bounds are a scan's
	key     []byte
}

var dataLower, dataUpper = dataBounds()

// NewView opens a view of the whole data keyspace as of now. A failure to open
// it is reported by every read.
func (e *Engine) NewView() *View {
	for {
		ended := e.excises.ended.Load()
		it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: dataLower, UpperBound: dataUpper})
		if err != nil {
			return &View{openErr: err}
		}
		if lacks, known := e.excises.during(ended); known {
			return &View{it: it, lacks: lacks}
		}
		if err := it.Close(); err != nil {
			return &View{openErr: err}
		}
	}
}

// bound prepares for reading a span's data.
func (v *View) bound(span shard.Span) error {
	if v.openErr != nil {
		return v.openErr
	}
	lower, upper := spanBounds(span)
	if overlapAny(v.lacks, keyBounds{lower, upper}) {
		return ErrReplaced
	}
	v.it.SetBounds(lower, upper)
	v.bounded = true
	return nil
}

// Close ends the view. It is harmless to close it twice.
func (v *View) Close() error {
	it := v.it
	v.it = nil
	if it == nil {
		return nil
	}
	return it.Close()
}

// Get finds the newest version of key at or below at (MaxRevision: newest).
// found is false for a missing key and for a tombstone, for which rev is still
// the tombstone's. Traces are seen through. value is valid until the next call.
func (v *View) Get(key []byte, at shard.Revision) (value []byte, rev shard.Revision, found bool, err error) {
	if err := v.unbound(key); err != nil {
		return nil, 0, false, err
	}
	// A bare prefix comes before all versions of its key, so it finds the newest.
	if versioned(key) && at < shard.MaxRevision {
		v.key = appendVersionKey(v.key[:0], key, at)
	} else {
		v.key = appendDataKey(v.key[:0], key)
	}
	if !v.it.SeekPrefixGE(v.key) {
		return nil, 0, false, v.it.Error()
	}
	_, rev, err = parseDataKey(v.it.Key())
	if err != nil {
		return nil, 0, false, err
	}
	h, value, err := v.read(versioned(key))
	if err == nil && h.Origin != 0 {
		rev = h.Origin
		value, err = v.origin(key, rev)
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("key %x at revision %d: %w", key, rev, err)
	}
	return value, rev, !h.Tombstone, nil
}

// read decodes the record at the iterator's position. value aliases it; an
// unversioned record has no header.
func (v *View) read(versioned bool) (h VersionHeader, value []byte, err error) {
	raw, err := v.it.ValueAndErr()
	if err != nil {
		return h, nil, err
	}
	if !versioned {
		value, err = decodeUnversioned(raw)
		return h, value, err
	}
	return decodeVersion(raw)
}

// origin reads the version at rev that a trace of key names, and leaves the iterator
// there. value aliases it.
func (v *View) origin(key []byte, rev shard.Revision) (value []byte, err error) {
	v.key = appendVersionKey(v.key[:0], key, rev)
	if !v.it.SeekGE(v.key) || !bytes.Equal(v.it.Key(), v.key) {
		if err := v.it.Error(); err != nil {
			return nil, err
		}
		return nil, malformed("a trace of a version that is not there")
	}
	h, value, err := v.read(true)
	if err == nil && (h.Tombstone || h.Trace) {
		err = malformed("a trace of what is no value")
	}
	return value, err
}

// unbound prepares for reading one key.
func (v *View) unbound(key []byte) error {
	if v.openErr != nil {
		return v.openErr
	}
	if len(v.lacks) > 0 {
		lower := appendDataKey(nil, key)
		upper := appendDataKey(nil, append(bytes.Clone(key), 0)) // the key that follows
		if overlapAny(v.lacks, keyBounds{lower, upper}) {
			return ErrReplaced
		}
	}
	if v.bounded {
		v.it.SetBounds(dataLower, dataUpper)
		v.bounded = false
	}
	return nil
}
