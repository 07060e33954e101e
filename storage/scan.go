package storage

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// ScanOptions say what a page of a scan holds; see shard.Command.
type ScanOptions struct {
	Span     shard.Span
	At       shard.Revision // MaxRevision: the newest versions
	Reverse  bool           // from Span.End down to Span.Start
	KeysOnly bool           // rows without values
	RowsMax  int            // 0: shard.PageRowsMax
	BytesMax int            // of keys and values; 0: shard.PageBytesMax
}

// visitsMax bounds the versions and tombstones that one page looks at: a page
// over a million deleted keys must not hold its worker until it has found a row.
const visitsMax = 20_000

// versionsSkipped by stepping; from there on a scan seeks to the version that it
// wants. Most keys have few versions, and a step is cheaper than a seek.
const versionsSkipped = 4

// Scan returns a page of rows in key order, descending in reverse. A page has at
// least one row if the span has one, unless it met a very long run of deleted keys
// (then it may have none and still a resume). resume is nil when the page reached
// the end of the span, else the next page's Start (End in reverse). The rows and
// resume are the caller's to keep.
func (v *View) Scan(o ScanOptions) (rows []shard.Row, resume []byte, err error) {
	if err := v.bound(o.Span); err != nil {
		return nil, nil, err
	}
	s := scan{v: v, o: o, versioned: versioned(o.Span.Start), visits: visitsMax}
	if s.o.RowsMax <= 0 {
		s.o.RowsMax = shard.PageRowsMax
	}
	if s.o.BytesMax <= 0 {
		s.o.BytesMax = shard.PageBytesMax
	}
	if o.Reverse {
		err = s.backward()
	} else {
		err = s.forward()
	}
	if err == nil {
		err = v.it.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	return s.rows, s.resume, nil
}

// scan is one page in the making.
type scan struct {
	v         *View
	o         ScanOptions
	versioned bool

	rows   []shard.Row
	bytes  int
	visits int // left
	resume []byte
	arena  []byte // rows' keys and values, many to one allocation
	key    []byte // of a seek
	user   []byte // in reverse: the key that is looked at
	last   []byte // in reverse: the key before, which was dealt with
}

// full tells whether no further row may be looked for.
func (s *scan) full() bool { return len(s.rows) >= s.o.RowsMax || s.visits <= 0 }

// forward visits each key's versions newest first and takes the first one that
// is visible. When the page ends early, resume is the first key that it did not
// deal with.
func (s *scan) forward() error {
	it := s.v.it
	hidden := 0 // versions in a row that are above At
	for ok := it.First(); ok; {
		key, rev, err := parseDataKey(it.Key())
		if err != nil {
			return err
		}
		if s.full() {
			s.resume = bytes.Clone(key)
			return nil
		}
		s.visits--
		if rev > s.o.At {
			if hidden++; hidden <= versionsSkipped {
				ok = it.Next()
				continue
			}
			hidden = 0
			s.key = appendVersionKey(s.key[:0], key, s.o.At)
			ok = it.SeekGE(s.key)
			continue
		}
		hidden = 0
		if key, err = s.take(key, rev); err != nil {
			return err
		}
		if key != nil {
			s.resume = bytes.Clone(key)
			return nil
		}
		ok = it.NextPrefix()
	}
	return nil
}

// backward meets each key at its oldest version, and most have no other. When
// the page ends early, resume is the last key that it dealt with, which bounds
// the rest from above.
func (s *scan) backward() error {
	it := s.v.it
	for ok := it.Last(); ok; {
		key, rev, err := parseDataKey(it.Key())
		if err != nil {
			return err
		}
		if s.full() { // never at the first key
			s.resume = bytes.Clone(s.last)
			return nil
		}
		s.visits--
		s.user = append(s.user[:0], key...)
		fits := true
		if rev > s.o.At {
			ok = it.SeekLT(s.seekKey())
		} else {
			fits, ok, err = s.takeNewest(rev)
		}
		if err != nil {
			return err
		}
		if !fits {
			s.resume = bytes.Clone(s.last)
			return nil
		}
		s.last, s.user = s.user, s.last
	}
	return nil
}

// takeNewest takes the newest visible version of s.user, whose oldest one, at
// the iterator, is visible. It leaves the iterator at the next key down, which
// ok tells of. The oldest one is not a trace that shows: what that names is older.
func (s *scan) takeNewest(rev shard.Revision) (fits, ok bool, err error) {
	it := s.v.it
	h, value, err := s.read(s.user, rev)
	if err != nil {
		return false, false, err
	}
	// The value must be kept before the iterator tells whether it is the one.
	mark := s.arena
	row := s.keep(s.user, value, rev)
	ok = it.Prev()
	if ok {
		above, _, err := parseDataKey(it.Key())
		if err != nil {
			return false, false, err
		}
		if bytes.Equal(above, s.user) {
			s.arena = mark
			s.key = appendVersionKey(s.key[:0], s.user, s.o.At)
			if !it.SeekGE(s.key) {
				return false, false, it.Error()
			}
			if _, rev, err = parseDataKey(it.Key()); err != nil {
				return false, false, err
			}
			if h, value, err = s.read(s.user, rev); err != nil {
				return false, false, err
			}
			if value, rev, err = s.through(&h, s.user, value, rev); err != nil {
				return false, false, err
			}
			row = s.keep(s.user, value, rev)
			ok = it.SeekLT(s.seekKey())
			h.Origin = 0
		}
	}
	if h.Origin != 0 {
		return false, false, fmt.Errorf("key %x at revision %d: %w", s.user, rev, malformed("a trace of a version that is not there"))
	}
	if h.Tombstone {
		s.arena = mark
		return true, ok, nil
	}
	return s.add(row), ok, nil
}

// seekKey is the bare prefix of s.user, below all of its versions.
func (s *scan) seekKey() []byte {
	s.key = appendDataKey(s.key[:0], s.user)
	return s.key
}

// take adds the version at the iterator as a row, unless it is a tombstone. It
// gives the key back if the row does not fit the page any more.
func (s *scan) take(key []byte, rev shard.Revision) (left []byte, err error) {
	h, value, err := s.read(key, rev)
	if err != nil || h.Tombstone {
		return nil, err
	}
	if h.Origin != 0 {
		s.user = append(s.user[:0], key...) // the iterator's own is gone when it moves
		key = s.user
	}
	if value, rev, err = s.through(&h, key, value, rev); err != nil {
		return nil, err
	}
	if !s.add(s.keep(key, value, rev)) {
		return key, nil
	}
	return nil, nil
}

func (s *scan) read(key []byte, rev shard.Revision) (h VersionHeader, value []byte, err error) {
	h, value, err = s.v.read(s.versioned)
	if err != nil {
		return h, nil, fmt.Errorf("key %x at revision %d: %w", key, rev, err)
	}
	if s.o.KeysOnly {
		value = nil
	}
	return h, value, nil
}

// through gives what a version shows; of a trace, what the version does that it
// names, to which the iterator is moved.
func (s *scan) through(h *VersionHeader, key, value []byte, rev shard.Revision) ([]byte, shard.Revision, error) {
	if h.Origin == 0 {
		return value, rev, nil
	}
	value, err := s.v.origin(key, h.Origin)
	if err != nil {
		return nil, 0, fmt.Errorf("key %x at revision %d: %w", key, rev, err)
	}
	if s.o.KeysOnly {
		value = nil
	}
	return value, h.Origin, nil
}

// add appends row to the page, unless that would exceed its bytes; the first row
// always fits.
func (s *scan) add(row shard.Row) bool {
	n := len(row.Key) + len(row.Value)
	if len(s.rows) > 0 && s.bytes+n > s.o.BytesMax {
		return false
	}
	s.bytes += n
	s.rows = append(s.rows, row)
	return true
}

// arenaBytes is the size of the pieces of memory that rows share.
const arenaBytes = 16 << 10

// keep copies a row out of the iterator's buffers.
func (s *scan) keep(key, value []byte, rev shard.Revision) shard.Row {
	n := len(key) + len(value)
	if cap(s.arena)-len(s.arena) < n {
		s.arena = make([]byte, 0, max(n, min(arenaBytes, s.o.BytesMax)))
	}
	at := len(s.arena)
	s.arena = append(append(s.arena, key...), value...)
	kept := s.arena[at : at+n : at+n]
	return shard.Row{Key: kept[:len(key):len(key)], Value: kept[len(key):], Revision: rev}
}
