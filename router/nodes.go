package router

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// Node is a node's record in the system keyspace.
type Node struct {
	ID          shard.NodeID
	Address     string // where clients and peers reach it, host:port
	HTTPAddress string // its HTTP server; "" if it has none
	Incarnation uint64
	StartNonce  uint64 // random at each start: tells two starts of one incarnation (a copied store) apart
	Version     string // of the program
	Locality    shard.Locality
	State       shard.NodeState
	// Operation is the operation that brought the node into its state, and Since
	// when that was, in seconds of Unix time by the clock of whoever asked; both 0
	// for a node that nobody ever asked to leave its place. Of a node that serves it is
	// its decommissioning that was cancelled last, if there was one.
	Operation uint64
	Since     uint64
	// Ended is when the operation ended, by the clock of whoever ended it; 0: it has
	// not, or a version ended it that did not record that.
	Ended uint64
}

const (
	nodePrefix = string(rune(shard.SystemKeyspace)) + "node/"
	// A record's format is nodeFormat plus what it has beside that: a version that knows of
	// nothing else reads all records without.
	nodeFormat  = 1
	nodeLocated = 1 // a locality
	nodeEnded   = 2 // when its operation has ended
	// nodeStringBytesMax bounds each string of a record.
	nodeStringBytesMax = 1 << 10
)

// NodeKey is the key of a node's record.
func NodeKey(id shard.NodeID) []byte {
	return binary.BigEndian.AppendUint64([]byte(nodePrefix), uint64(id))
}

// NodeSpan holds the records of all nodes, in order of their IDs.
func NodeSpan() shard.Span { return prefixSpan(nodePrefix) }

// AppendNode appends the encoding of n to b. One without Ended is written as every
// version reads it.
func AppendNode(b []byte, n *Node) []byte {
	format := byte(nodeFormat)
	if n.Locality != "" {
		format += nodeLocated
	}
	if n.Ended != 0 {
		format += nodeEnded
	}
	b = append(b, format)
	b = binary.AppendUvarint(b, uint64(n.ID))
	b = appendString(b, n.Address)
	b = appendString(b, n.HTTPAddress)
	b = binary.AppendUvarint(b, n.Incarnation)
	b = binary.BigEndian.AppendUint64(b, n.StartNonce)
	b = appendString(b, n.Version)
	b = append(b, byte(n.State))
	b = binary.AppendUvarint(b, n.Operation)
	b = binary.AppendUvarint(b, n.Since)
	if n.Locality != "" {
		b = appendString(b, string(n.Locality))
	}
	if n.Ended != 0 {
		b = binary.AppendUvarint(b, n.Ended)
	}
	return b
}

// DecodeNode reads what AppendNode wrote. The result shares no memory with b.
func DecodeNode(b []byte) (Node, error) {
	r := reader{b: b}
	var n Node
	has := r.format("node record", nodeFormat, nodeFormat+nodeLocated, nodeFormat+nodeEnded, nodeFormat+nodeLocated+nodeEnded) - nodeFormat
	n.ID = shard.NodeID(r.uvarint())
	n.Address = r.string()
	n.HTTPAddress = r.string()
	n.Incarnation = r.uvarint()
	n.StartNonce = r.uint64()
	n.Version = r.string()
	n.State = shard.NodeState(r.byte())
	n.Operation = r.uvarint()
	n.Since = r.uvarint()
	if has&nodeLocated != 0 {
		n.Locality = shard.Locality(r.string())
		if l, err := shard.ParseLocality(string(n.Locality)); r.err == nil && (err != nil || l == "") {
			r.fail("a node at %q", n.Locality)
		}
	}
	if has&nodeEnded != 0 {
		if n.Ended = r.uvarint(); r.err == nil && n.Ended == 0 {
			r.fail("an end that is none")
		}
	}
	if r.err == nil && !n.State.Valid() {
		r.fail("a node in state %d", n.State)
	}
	if r.err == nil && n.ID == 0 {
		r.fail("a record of node 0")
	}
	if err := r.done(); err != nil {
		return Node{}, err
	}
	return n, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader decodes a byte slice. The first malformed field sets err; every later
// read then returns a zero value.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", shard.ErrMalformed, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// format reads the format byte, which has to be one of those known.
func (r *reader) format(what string, known ...byte) byte {
	if len(r.b) == 0 {
		r.fail("an empty %s", what)
		return 0
	}
	format := r.b[0]
	if !slices.Contains(known, format) {
		r.fail("%s of format %d, this version reads %d", what, format, known)
		return 0
	}
	r.b = r.b[1:]
	return format
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if r.err != nil || len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	if r.err != nil || len(r.b) < 8 {
		r.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// bytes is a length-prefixed field; it aliases the input.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.err != nil || n > uint64(len(r.b)) {
		r.fail("a field of %d bytes, %d are left", n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	s := r.bytes()
	if len(s) > nodeStringBytesMax {
		r.fail("a string of %d bytes", len(s))
		return ""
	}
	return string(s)
}
