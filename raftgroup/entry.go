package raftgroup

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A normal entry's data is a format byte and then operations, each with its
// length before it. An entry without data is a new leader's first.
const entryFormat = 1

func operationBytes(p *Proposal) int {
	n := len(p.Header) + len(p.Body)
	return uvarintBytes(uint64(n)) + n
}

func appendOperation(b []byte, p *Proposal) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.Header)+len(p.Body)))
	b = append(b, p.Header...)
	return append(b, p.Body...)
}

// operations walks an entry's data.
type operations struct{ b []byte }

func openEntry(data []byte) (operations, error) {
	if data[0] != entryFormat {
		return operations{}, fmt.Errorf("%w: entry of format %d, this version reads %d", shard.ErrMalformed, data[0], entryFormat)
	}
	return operations{data[1:]}, nil
}

func (o *operations) more() bool { return len(o.b) > 0 }

// next is the next operation; it aliases the entry.
func (o *operations) next() ([]byte, error) {
	n, w := binary.Uvarint(o.b)
	if w <= 0 || n > uint64(len(o.b)-w) {
		return nil, fmt.Errorf("%w: operation longer than its entry", shard.ErrMalformed)
	}
	op := o.b[w : w+int(n) : w+int(n)]
	o.b = o.b[w+int(n):]
	return op, nil
}

// walkBytes bounds what WalkLog reads at once; a larger entry is read all the same.
const walkBytes = 1 << 20

// WalkLog hands over what the entries of a log above index after hold, in their order:
// each operation, and each membership change as shard.DecodeMembershipChange reads it.
// Both alias the entry. It is for the log of a replica that no group runs. It ends with
// the first error, its callers' included; one of its own wraps shard.ErrMalformed, or is
// the engine's.
func WalkLog(l *storage.Log, after uint64, operation, membership func(index uint64, b []byte) error) error {
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	for after < last {
		entries, err := l.Entries(after+1, last+1, walkBytes)
		if err != nil {
			return err
		}
		for i := range entries {
			e := &entries[i]
			if err := walkEntry(e, operation, membership); err != nil {
				return fmt.Errorf("entry %d of term %d: %w", e.Index, e.Term, err)
			}
			after = e.Index
		}
	}
	return nil
}

func walkEntry(e *raftpb.Entry, operation, membership func(index uint64, b []byte) error) error {
	switch {
	case e.Type == raftpb.EntryConfChangeV2:
		_, change, err := openMembership(e.Data)
		if err != nil {
			return err
		}
		return membership(e.Index, change)
	case e.Type != raftpb.EntryNormal:
		return fmt.Errorf("%w: entry of type %v", shard.ErrMalformed, e.Type)
	case len(e.Data) == 0:
		return nil
	}
	ops, err := openEntry(e.Data)
	for err == nil && ops.more() {
		var op []byte
		if op, err = ops.next(); err == nil {
			err = operation(e.Index, op)
		}
	}
	return err
}

// openMembership reads the entry of a membership change.
func openMembership(data []byte) (cc raftpb.ConfChangeV2, change []byte, err error) {
	if err := cc.Unmarshal(data); err != nil {
		return cc, nil, fmt.Errorf("%w: conf change: %w", shard.ErrMalformed, err)
	}
	return cc, cc.Context, nil
}
