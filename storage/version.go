package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// A version's record: format(1) flags(1) session(8) sequence(uvarint) value.
// An unversioned record: format(1) value.

// VersionHeader precedes the value of every version.
type VersionHeader struct {
	Op        shard.OpID // the operation that wrote it
	Tombstone bool       // the key is absent from this revision on
}

const (
	flagTombstone     byte = 1 << 0
	versionFlagsKnown      = flagTombstone
)

// PutVersion writes key at revision rev, which is not 0. A tombstone has no
// value. key is a full key in the user keyspace.
func (b *Batch) PutVersion(key []byte, rev shard.Revision, h VersionHeader, value []byte) {
	if !versioned(key) || rev == 0 || rev > shard.MaxRevision || h.Tombstone && len(value) > 0 {
		panic(fmt.Sprintf("storage: version %d of key %x, tombstone %t, with %d bytes", rev, key, h.Tombstone, len(value)))
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

func versionHeaderLen(h VersionHeader) int { return 2 + 8 + uvarintLen(h.Op.Sequence) }

func putVersionHeader(b []byte, h VersionHeader) int {
	b[0], b[1] = recordFormat, 0
	if h.Tombstone {
		b[1] = flagTombstone
	}
	putUint64(b[2:], uint64(h.Op.Session))
	return 10 + binary.PutUvarint(b[10:], h.Op.Sequence)
}

// decodeVersion reads a version's record; value aliases b.
func decodeVersion(b []byte) (h VersionHeader, value []byte, err error) {
	d := decoder{b: b}
	d.format(recordFormat)
	flags := d.byte()
	h.Op.Session = shard.Session(d.uint64())
	h.Op.Sequence = d.uvarint()
	h.Tombstone = flags&flagTombstone != 0
	value = d.rest()
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
