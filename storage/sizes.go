package storage

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// SizesOptions say which keys View.Sizes looks at. No further key is begun past a bound.
type SizesOptions struct {
	Span     shard.Span // in the user keyspace
	KeysMax  int        // at least 1; keys without a value count
	BytesMax int        // of keys and values; at least 1
}

// Sizes is a part of a span that View.Sizes has looked at.
type Sizes struct {
	Visited int // keys, with those that have no value
	Bytes   int // of keys and values
	// Resume is the Start of the next part; nil if the end of the span was reached.
	Resume []byte
}

// Sizes calls each for the keys of a span that have a value, in order, with the bytes of
// the key and its newest value. key is valid during the call. Options out of
// their bounds are a programmer's error.
func (v *View) Sizes(o SizesOptions, each func(key []byte, bytes int)) (part Sizes, err error) {
	if !versioned(o.Span.Start) || o.KeysMax < 1 || o.BytesMax < 1 {
		panic(fmt.Sprintf("storage: sizes of %+v", o))
	}
	if err := v.bound(o.Span); err != nil {
		return part, err
	}
	var user []byte
	for ok := v.it.First(); ok; ok = v.it.NextPrefix() {
		key, rev, err := parseDataKey(v.it.Key())
		if err != nil {
			return part, err
		}
		if part.Visited >= o.KeysMax || part.Bytes >= o.BytesMax {
			part.Resume = bytes.Clone(key)
			return part, nil
		}
		user = append(user[:0], key...)
		part.Visited++
		h, value, err := v.read(true)
		if err == nil && h.Origin != 0 {
			value, err = v.origin(user, h.Origin)
		}
		if err != nil {
			return part, fmt.Errorf("key %x at revision %d: %w", user, rev, err)
		}
		size := len(user) + len(value)
		part.Bytes += size
		if !h.Tombstone {
			each(user, size)
		}
	}
	return part, v.it.Error()
}
