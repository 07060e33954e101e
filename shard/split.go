package shard

import (
	"bytes"
	"fmt"
)

// Split parts a shard with exactly the given epoch at a key: what lies below it stays,
// the rest becomes a shard of its own.
type Split struct {
	Shard ID
	Epoch Epoch
	Key   []byte // full key; the first one of the new shard
	Right ID     // the new shard: an ID that no shard ever had
}

// Apply is the shard's descriptor after the split, and that of the new shard, whose
// members are the same replicas under the same IDs. Or why the split does not fit d: a
// WrongShardError if d has another epoch, an InvalidError, or a NotReadyError while d is
// joint. It is deterministic: the leader asks before it proposes, and every replica when
// it applies. The results share memory with s and d.
func (s *Split) Apply(d *Descriptor) (left, right Descriptor, err error) {
	if s.Shard != d.ID || s.Epoch != d.Epoch {
		return left, right, &WrongShardError{Shard: s.Shard, Descriptors: []Descriptor{*d}}
	}
	if err := d.CheckSplit(s.Key); err != nil {
		return left, right, err
	}
	if s.Right == 0 || s.Right == d.ID || s.Right == MetaID {
		return left, right, &InvalidError{Field: "split", Reason: fmt.Sprintf("gives the new shard the ID %d", s.Right)}
	}
	left, right = *d, *d
	right.ID = s.Right
	left.Span.End, right.Span.Start = s.Key, s.Key
	left.Epoch.Version++
	right.Epoch.Version++
	return left, right, nil
}

// CheckSplit says why d cannot be split at a full key now; nil: it can.
//
// While the configuration is joint it cannot: one failure after the joint configuration
// was left could strand those of the new shard that do not know.
func (d *Descriptor) CheckSplit(key []byte) error {
	refuse := func(format string, args ...any) error {
		return &InvalidError{Field: "split key", Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case d.Span.Start[0] == SystemKeyspace:
		return refuse("is in the meta shard, which stays whole")
	case len(key) > StartKeyBytesMax:
		return refuse("has %s bytes, the limit is %s", group(len(key)-1), group(StartKeyBytesMax-1))
	case bytes.Equal(key, d.Span.Start):
		return refuse("is where shard %d starts already", d.ID)
	case !d.Span.Contains(key):
		return refuse("lies outside shard %d, which covers [%s, %s)", d.ID, FormatKey(d.Span.Start), FormatKey(d.Span.End))
	case d.Joint():
		return &NotReadyError{Shard: d.ID, Reason: "its configuration is joint; it can be split when that is left"}
	}
	return nil
}
