package raftgroup

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
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
