package machine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// operationFormat is the first byte of every logged operation.
const operationFormat = 1

// HeaderBytesMax is the most that AppendHeader appends.
const HeaderBytesMax = 1 + binary.MaxVarintLen64 + binary.MaxVarintLen64

// ErrStaleRevision refuses an operation whose revision is not larger than that of
// one that was applied before it. Revisions within a shard's log strictly
// increase: a scan at revision R would otherwise see a write appear below R after
// it was taken. The leader draws another revision and proposes again.
var ErrStaleRevision = errors.New("the revision is not larger than the last one applied")

// Header is what a leader puts before a command in the log.
type Header struct {
	Revision shard.Revision // 0 in the system keyspace, which has no versions
	Version  uint64         // of the epoch in which the leader accepted the command
}

// AppendHeader appends the encoding of h to b. The command's own bytes, as the
// client encoded them, follow it.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, operationFormat)
	b = binary.AppendUvarint(b, uint64(h.Revision))
	return binary.AppendUvarint(b, h.Version)
}

// DecodeOperation reads a logged operation into h and c. c's slices alias op.
// The error wraps shard.ErrMalformed.
func DecodeOperation(op []byte, h *Header, c *shard.Command) error {
	if len(op) == 0 || op[0] != operationFormat {
		return fmt.Errorf("%w: an operation that does not begin with format %d", shard.ErrMalformed, operationFormat)
	}
	rest := op[1:]
	revision, n := binary.Uvarint(rest)
	if n <= 0 || revision > uint64(shard.MaxRevision) {
		return fmt.Errorf("%w: the revision of an operation", shard.ErrMalformed)
	}
	rest = rest[n:]
	version, n := binary.Uvarint(rest)
	if n <= 0 {
		return fmt.Errorf("%w: the epoch of an operation", shard.ErrMalformed)
	}
	*h = Header{Revision: shard.Revision(revision), Version: version}
	return shard.DecodeCommand(rest[n:], c)
}
