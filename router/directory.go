package router

import (
	"bytes"
	"encoding/binary"

	"github.com/kiloraft/kiloraft/shard"
)

// Entry is a shard's record in the directory.
type Entry struct {
	Descriptor shard.Descriptor
	// Leader as the shard's leader last reported itself; Address does not rest
	// in the record.
	Leader shard.LeaderHint
}

const (
	directoryPrefix = string(rune(shard.SystemKeyspace)) + "dir/"
	directoryFormat = 1
)

// The directory key of the longest start key must be a legal key itself, and one byte
// more a legal bound of a scan.
var _ [shard.KeyBytesMax + 1 - len(directoryPrefix) - shard.StartKeyBytesMax]struct{}

// DirectoryKey is the key of the record of the shard that starts at a full key.
func DirectoryKey(start []byte) []byte {
	k := make([]byte, 0, len(directoryPrefix)+len(start))
	return append(append(k, directoryPrefix...), start...)
}

// DirectorySpan holds all records of the directory.
func DirectorySpan() shard.Span { return prefixSpan(directoryPrefix) }

// DirectoryBefore is the span whose last record is that of the shard which
// covers the keys just below the full key end, or, with inclusive, end itself.
//
// Start keys have at most shard.StartKeyBytesMax bytes, so one that is at or below a
// longer key is at or below the key's first shard.StartKeyBytesMax bytes.
func DirectoryBefore(end []byte, inclusive bool) shard.Span {
	s := DirectorySpan()
	if len(end) > shard.StartKeyBytesMax {
		end, inclusive = end[:shard.StartKeyBytesMax], true
	}
	s.End = DirectoryKey(end)
	if inclusive {
		s.End = append(s.End, 0)
	}
	return s
}

// DirectoryFrom is the span of the records of shards that start at a full key or
// above it.
func DirectoryFrom(start []byte) shard.Span {
	s := DirectorySpan()
	s.Start = DirectoryKey(start[:min(len(start), shard.StartKeyBytesMax)])
	return s
}

// AppendEntry appends the encoding of e to b.
func AppendEntry(b []byte, e *Entry) []byte {
	b = append(b, directoryFormat)
	d := shard.AppendDescriptor(nil, &e.Descriptor)
	b = binary.AppendUvarint(b, uint64(len(d)))
	b = append(b, d...)
	b = binary.AppendUvarint(b, uint64(e.Leader.Replica))
	b = binary.AppendUvarint(b, uint64(e.Leader.Node))
	return binary.AppendUvarint(b, e.Leader.Term)
}

// DecodeEntry reads what AppendEntry wrote. The result shares no memory with b.
func DecodeEntry(b []byte) (Entry, error) {
	r := reader{b: b}
	var e Entry
	r.format("directory record", directoryFormat)
	d := r.bytes()
	if r.err == nil {
		e.Descriptor, r.err = shard.DecodeDescriptor(d)
	}
	e.Leader.Replica = shard.ReplicaID(r.uvarint())
	e.Leader.Node = shard.NodeID(r.uvarint())
	e.Leader.Term = r.uvarint()
	if err := r.done(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

func prefixSpan(prefix string) shard.Span {
	end := bytes.Clone([]byte(prefix))
	end[len(end)-1]++
	return shard.Span{Start: []byte(prefix), End: end}
}
