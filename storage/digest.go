package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/kiloraft/kiloraft/shard"
)

// DigestOptions say what a Digest is of.
type DigestOptions struct {
	Span shard.Span
	// UpTo: later versions do not count; a view may hold some.
	UpTo shard.Revision
	// Floor: per key, of the versions at or below it only the newest one that is no trace
	// counts, and only if it is no tombstone. The others each replica drops when it likes. It must
	// not be below the floor that anything was dropped by before the view was opened.
	Floor shard.Revision
}

// Digest is computed over the content of a span in a Snapshot, part by part: the same on
// every replica that has applied the same. Keys without versions all count. It holds
// nothing open between parts but the snapshot, which its user closes. Not safe for
// concurrent use.
type Digest struct {
	s    *Snapshot
	o    DigestOptions
	hash hash.Hash
	next []byte // where the next part begins, as the engine has keys
	done bool

	key     []byte // the last one seen
	decided bool   // its newest version at or below the floor was seen
	buf     []byte

	// Versions that counted, and their bytes.
	Versions, Bytes uint64
}

// NewDigest begins a digest.
func (s *Snapshot) NewDigest(o DigestOptions) *Digest {
	lower, _ := spanBounds(o.Span)
	return &Digest{s: s, o: o, hash: sha256.New(), next: lower}
}

// Part goes on over about so many bytes, and returns how many it has read and whether the
// end was reached. Errors that wrap shard.ErrMalformed are corruption, and ErrReplaced
// tells that there is nothing to compare any more.
func (d *Digest) Part(bytesMax int) (read int, done bool, err error) {
	if d.done {
		return 0, true, nil
	}
	_, upper := spanBounds(d.o.Span)
	it, err := d.s.iterator(keyBounds{d.next, upper})
	if err != nil {
		return 0, false, err
	}
	ok := it.First()
	for ; ok && read < bytesMax; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			read += len(it.Key()) + len(value)
			err = d.add(it.Key(), value)
		}
		if err != nil {
			_ = it.Close()
			return read, false, err
		}
	}
	if ok {
		d.next = bytes.Clone(it.Key())
	}
	d.done = !ok
	if err := it.Error(); err != nil {
		_ = it.Close()
		return read, false, err
	}
	return read, d.done, it.Close()
}

// add takes the next record of the engine, newest versions first.
func (d *Digest) add(stored, value []byte) error {
	key, rev, err := parseDataKey(stored)
	if err != nil {
		return err
	}
	if rev > 0 {
		counts, err := d.counts(key, rev, value)
		if err != nil || !counts {
			return err
		}
	}
	d.Versions++
	d.Bytes += uint64(len(key) + len(value))
	d.buf = appendBytes(d.buf[:0], key)
	d.buf = binary.AppendUvarint(d.buf, uint64(rev))
	d.buf = binary.AppendUvarint(d.buf, uint64(len(value)))
	d.hash.Write(d.buf)
	d.hash.Write(value)
	return nil
}

func (d *Digest) counts(key []byte, rev shard.Revision, value []byte) (bool, error) {
	if !bytes.Equal(key, d.key) || d.key == nil {
		d.key = append(d.key[:0], key...)
		d.decided = false
	}
	switch {
	case rev > d.o.UpTo:
		return false, nil
	case rev > d.o.Floor:
		return true, nil
	case d.decided:
		return false, nil
	}
	h, _, err := decodeVersion(value)
	if err != nil || h.Trace {
		return false, err
	}
	d.decided = true
	return !h.Tombstone, nil
}

// Sum is the digest of all parts and of a prefix that the caller adds.
func (d *Digest) Sum(also []byte) []byte {
	d.hash.Write(also)
	return d.hash.Sum(nil)
}
