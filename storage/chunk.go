package storage

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/kiloraft/kiloraft/shard"
)

// A snapshot travels as numbered chunks:
//
//	format(1) kind(1) sequence(uvarint) payload crc32c(4, of all before it)
//
// first one with the replicated state, then data in key order, then a final one
// with the totals. A data payload is a run of records:
//
//	key length(uvarint) key revision(uvarint) value length(uvarint) value
//
// where key is a full key and value is as it rests in the store, header and all.
type chunkKind byte

const (
	chunkState chunkKind = 1
	chunkData  chunkKind = 2
	chunkFinal chunkKind = 3
)

const (
	// chunkBytes is the size that a data chunk grows to. A single record may
	// exceed it, by a value of shard.ValueBytesMax at most.
	chunkBytes = 256 << 10
	crcLen     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// totals close a snapshot: a cut or spliced stream does not match them.
type totals struct {
	records uint64
	bytes   uint64 // of keys and values
	crc     uint32 // over the checksums of all chunks before
}

func (t *totals) addChunk(crc uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc)
	t.crc = crc32.Update(t.crc, castagnoli, b[:])
}

func (t *totals) addRecord(key, value []byte) {
	t.records++
	t.bytes += uint64(len(key) + len(value))
}

func appendTotals(b []byte, t totals) []byte {
	return binary.BigEndian.AppendUint32(appendUvarints(b, t.records, t.bytes), t.crc)
}

func decodeTotals(b []byte) (totals, error) {
	d := decoder{b: b}
	t := totals{records: d.uvarint(), bytes: d.uvarint()}
	if crc := d.take(4); crc != nil {
		t.crc = binary.BigEndian.Uint32(crc)
	}
	return t, d.done()
}

// beginChunk starts a chunk in b; endChunk adds the checksum and returns it too.
func beginChunk(b []byte, kind chunkKind, sequence uint64) []byte {
	return binary.AppendUvarint(append(b, recordFormat, byte(kind)), sequence)
}

func endChunk(b []byte) ([]byte, uint32) {
	crc := crc32.Checksum(b, castagnoli)
	return binary.BigEndian.AppendUint32(b, crc), crc
}

// decodeChunk checks a chunk and splits it. payload aliases b.
func decodeChunk(b []byte) (kind chunkKind, sequence uint64, payload []byte, crc uint32, err error) {
	if len(b) < crcLen {
		return 0, 0, nil, 0, malformed("a chunk of %d bytes", len(b))
	}
	body := b[:len(b)-crcLen]
	crc = binary.BigEndian.Uint32(b[len(body):])
	if got := crc32.Checksum(body, castagnoli); got != crc {
		return 0, 0, nil, 0, malformed("a chunk with checksum %08x, its bytes have %08x", crc, got)
	}
	d := decoder{b: body}
	d.format(recordFormat)
	kind = chunkKind(d.byte())
	sequence = d.uvarint()
	if d.err == nil && (kind < chunkState || kind > chunkFinal) {
		d.fail("a chunk of kind %d", kind)
	}
	return kind, sequence, d.rest(), crc, d.err
}

// dataRecord is one record of a data chunk; its slices alias the chunk.
type dataRecord struct {
	key      []byte
	revision shard.Revision
	value    []byte
}

func appendDataRecord(b []byte, r dataRecord) []byte {
	b = appendBytes(b, r.key)
	b = binary.AppendUvarint(b, uint64(r.revision))
	return appendBytes(b, r.value)
}

func (d *decoder) dataRecord() dataRecord {
	return dataRecord{key: d.bytes(), revision: d.revision(), value: d.bytes()}
}

// check refuses a record that no replica could have written, so that a corrupt
// sender is noticed before its bytes are in the store.
func (r *dataRecord) check(span shard.Span) error {
	if !span.Contains(r.key) {
		return malformed("key %x is outside the snapshot's span", r.key)
	}
	if versioned(r.key) != (r.revision > 0) {
		return malformed("key %x has revision %d", r.key, r.revision)
	}
	var err error
	if r.revision > 0 {
		_, _, err = decodeVersion(r.value)
	} else {
		_, err = decodeUnversioned(r.value)
	}
	return err
}

// appendKey appends the record's key in the store.
func (r *dataRecord) appendKey(b []byte) []byte {
	if r.revision > 0 {
		return appendVersionKey(b, r.key, r.revision)
	}
	return appendDataKey(b, r.key)
}
