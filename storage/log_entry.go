package storage

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"
)

// An entry's record: format(1) term(uvarint) kind(1) data. Its index is its key's.
// An anchor has a kind of its own and no data.
type entryKind byte

const (
	entryNormal       entryKind = 1
	entryConfChange   entryKind = 2
	entryConfChangeV2 entryKind = 3
	entryAnchor       entryKind = 4
)

type entryRecord struct {
	term uint64
	kind entryKind // never 0 when decoded
	data []byte    // aliases the record
}

var kindOfType = [...]entryKind{
	raftpb.EntryNormal:       entryNormal,
	raftpb.EntryConfChange:   entryConfChange,
	raftpb.EntryConfChangeV2: entryConfChangeV2,
}

// entry gives the record as raft sees it. Its Data aliases the record.
func (r *entryRecord) entry(index uint64) raftpb.Entry {
	e := raftpb.Entry{Index: index, Term: r.term}
	switch r.kind {
	case entryConfChange:
		e.Type = raftpb.EntryConfChange
	case entryConfChangeV2:
		e.Type = raftpb.EntryConfChangeV2
	}
	if len(r.data) > 0 {
		e.Data = r.data
	}
	return e
}

// entrySize is what an entry counts in a log's Bytes.
func entrySize(dataLen int) int64 { return int64(logKeyLen + 4 + dataLen) }

func entryLen(e *raftpb.Entry) int { return 1 + uvarintLen(e.Term) + 1 + len(e.Data) }

func putEntry(b []byte, e *raftpb.Entry) {
	b[0] = recordFormat
	n := 1 + binary.PutUvarint(b[1:], e.Term)
	b[n] = byte(kindOfType[e.Type])
	copy(b[n+1:], e.Data)
}

func appendAnchor(b []byte, term uint64) []byte {
	b = binary.AppendUvarint(append(b, recordFormat), term)
	return append(b, byte(entryAnchor))
}

// decodeEntry reads an entry or anchor; its data aliases b.
func decodeEntry(b []byte) (entryRecord, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	r := entryRecord{term: d.uvarint(), kind: entryKind(d.byte())}
	r.data = d.rest()
	if d.err == nil && (r.kind < entryNormal || r.kind > entryAnchor) {
		d.fail("an entry of kind %d", r.kind)
	}
	if d.err == nil && r.kind == entryAnchor && len(r.data) > 0 {
		d.fail("an anchor with %d bytes of data", len(r.data))
	}
	return r, d.err
}

// decodeEntryHead is decodeEntry without the data, which would not outlive the read.
func decodeEntryHead(b []byte) (entryRecord, error) {
	r, err := decodeEntry(b)
	r.data = nil
	return r, err
}
