package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// A version's record: format(1) flags(1) session(8) sequence(uvarint), then the
// value; of a trace that is no tombstone, origin(uvarint).
// An unversioned record: format(1) value.

// VersionHeader precedes the value of every version.
type VersionHeader struct {
	Op        shard.OpID // the operation that wrote it
	Tombstone bool       // the key is absent from this revision on
	// Trace: the operation changed nothing, and left its ID for later attempts of it
	// to find. Readers see through it: the key is absent, if it is a tombstone, and
	// else has what the version at Origin says, the newest below it that is no trace.
	// It names that one instead of repeating its value: a few bytes of an operation
	// must not write megabytes. At or below the floor nobody looks for it any more.
	Trace  bool
	Origin shard.Revision // of a trace that is no tombstone; else 0
}

const (
	flagTombstone     byte = 1 << 0
	flagTrace         byte = 1 << 1
	versionFlagsKnown      = flagTombstone | flagTrace
)

// PutVersion writes key at revision rev, which is not 0. Tombstones and traces have
// no value. key is a full key in the user keyspace.
func (b *Batch) PutVersion(key []byte, rev shard.Revision, h VersionHeader, value []byte) {
	if !versioned(key) || rev == 0 || rev > shard.MaxRevision || (h.Tombstone || h.Trace) && len(value) > 0 ||
		(h.Origin != 0) != (h.Trace && !h.Tombstone) || h.Origin >= rev {
		panic(fmt.Sprintf("storage: version %d of key %x, header %+v, with %d bytes", rev, key, h, len(value)))
	}
	op := b.setDeferred(dataKeyLen(key)+versionSuffixLen, versionHeaderLen(h)+len(value))
	appendVersionKey(op.Key[:0], key, rev)
	copy(op.Value[putVersionHeader(op.Value, h):], value)
	must(op.Finish())
}

// PutUnversioned writes a full key in the system keyspace.
func (b *Batch) PutUnversioned(key, value []byte) {
	if versioned(key) || len(key) == 0 {
		panic(fmt.Sprintf("storage: unversioned key %x", key))
	}
	op := b.setDeferred(dataKeyLen(key), 1+len(value))
	appendDataKey(op.Key[:0], key)
	op.Value[0] = recordFormat
	copy(op.Value[1:], value)
	must(op.Finish())
}

// DeleteUnversioned deletes a full key in the system keyspace.
func (b *Batch) DeleteUnversioned(key []byte) {
	op := b.p.DeleteDeferred(dataKeyLen(key))
	appendDataKey(op.Key[:0], key)
	must(op.Finish())
}

func versionHeaderLen(h VersionHeader) int {
	n := 2 + 8 + uvarintLen(h.Op.Sequence)
	if h.Origin != 0 {
		n += uvarintLen(uint64(h.Origin))
	}
	return n
}

func putVersionHeader(b []byte, h VersionHeader) int {
	b[0], b[1] = recordFormat, 0
	if h.Tombstone {
		b[1] = flagTombstone
	}
	if h.Trace {
		b[1] |= flagTrace
	}
	putUint64(b[2:], uint64(h.Op.Session))
	n := 10 + binary.PutUvarint(b[10:], h.Op.Sequence)
	if h.Origin != 0 {
		n += binary.PutUvarint(b[n:], uint64(h.Origin))
	}
	return n
}

// decodeVersion reads a version's record; value aliases b.
func decodeVersion(b []byte) (h VersionHeader, value []byte, err error) {
	d := decoder{b: b}
	d.format(recordFormat)
	flags := d.byte()
	h.Op.Session = shard.Session(d.uint64())
	h.Op.Sequence = d.uvarint()
	h.Tombstone, h.Trace = flags&flagTombstone != 0, flags&flagTrace != 0
	if h.Trace && !h.Tombstone {
		if h.Origin = d.revision(); d.err == nil && h.Origin == 0 {
			d.fail("a trace of a value without a revision")
		}
	}
	value = d.rest()
	if d.err == nil && h.Trace && len(value) > 0 {
		d.fail("a trace with a value of %d bytes", len(value))
	}
	if d.err == nil && flags&^versionFlagsKnown != 0 {
		d.fail("version flags %#x", flags)
	}
	if d.err == nil && h.Tombstone && len(value) > 0 {
		d.fail("a tombstone with a value of %d bytes", len(value))
	}
	return h, value, d.err
}

func decodeUnversioned(b []byte) ([]byte, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	return d.rest(), d.err
}
