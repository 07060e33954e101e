package shard

import "bytes"

// Keys carry a one-byte keyspace prefix wherever they travel or rest; only the
// public client API and the command line speak of user keys without it.
const (
	// SystemKeyspace holds the records of the meta shard. Its keys are
	// unversioned.
	SystemKeyspace byte = 0x01
	// UserKeyspace holds users' keys. Every write to it is a version.
	UserKeyspace byte = 0x02
)

// Span is a contiguous range of keys [Start, End), keyspace prefix included.
// It is never empty and never unbounded: the keyspaces bound it.
type Span struct {
	Start []byte
	End   []byte
}

// SystemSpan is the span of the meta shard.
func SystemSpan() Span { return Span{Start: []byte{SystemKeyspace}, End: []byte{SystemKeyspace + 1}} }

// UserSpan is the span that all user shards cover together.
func UserSpan() Span { return Span{Start: []byte{UserKeyspace}, End: []byte{UserKeyspace + 1}} }

// UserKey is key in the user keyspace, in a new slice.
func UserKey(key []byte) []byte {
	k := make([]byte, 1+len(key))
	k[0] = UserKeyspace
	copy(k[1:], key)
	return k
}

// Contains tells whether key lies in s.
func (s Span) Contains(key []byte) bool {
	return bytes.Compare(s.Start, key) <= 0 && bytes.Compare(key, s.End) < 0
}

// Covers tells whether all of o lies in s.
func (s Span) Covers(o Span) bool {
	return bytes.Compare(s.Start, o.Start) <= 0 && bytes.Compare(o.End, s.End) <= 0
}

// Overlaps tells whether s and o share a key.
func (s Span) Overlaps(o Span) bool {
	return bytes.Compare(s.Start, o.End) < 0 && bytes.Compare(o.Start, s.End) < 0
}

// Equal tells whether s and o have the same bounds.
func (s Span) Equal(o Span) bool {
	return bytes.Equal(s.Start, o.Start) && bytes.Equal(s.End, o.End)
}

// Valid tells whether s is not empty and lies within one keyspace.
func (s Span) Valid() bool {
	return len(s.Start) > 0 && bytes.Compare(s.Start, s.End) < 0 &&
		(SystemSpan().Covers(s) || UserSpan().Covers(s))
}
