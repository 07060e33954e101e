package shard

import (
	"fmt"
)

// CompareKind says what a Compare asks of a key.
type CompareKind byte

const (
	CompareValue    CompareKind = 1 // the key has this value
	CompareRevision CompareKind = 2 // the key has a value, written at this revision
	CompareAbsent   CompareKind = 3 // the key has no value
	ComparePresent  CompareKind = 4 // the key has a value
)

// Compare is a condition on one key, as of before the batch.
type Compare struct {
	Kind     CompareKind
	Key      []byte   // full key
	Value    []byte   // CompareValue
	Revision Revision // CompareRevision
}

// BatchOp is one operation of a batch. Gets see the state before the batch.
type BatchOp struct {
	Kind  Kind   // KindPut, KindDelete or KindGet
	Key   []byte // full key
	Value []byte // KindPut
}

func appendBatch(b []byte, c *Command) []byte {
	b = appendUvarints(b, uint64(len(c.Compares)), uint64(len(c.Then)), uint64(len(c.Else)))
	for i := range c.Compares {
		x := &c.Compares[i]
		b = append(b, byte(x.Kind))
		b = appendBytes(b, x.Key)
		switch x.Kind {
		case CompareValue:
			b = appendBytes(b, x.Value)
		case CompareRevision:
			b = appendUvarints(b, uint64(x.Revision))
		}
	}
	for _, ops := range [...][]BatchOp{c.Then, c.Else} {
		for i := range ops {
			b = append(b, byte(ops[i].Kind))
			b = appendBytes(b, ops[i].Key)
			if ops[i].Kind == KindPut {
				b = appendBytes(b, ops[i].Value)
			}
		}
	}
	return b
}

// batch reads what appendBatch wrote.
func (r *reader) batch(c *Command) {
	compares, then, otherwise := r.uvarint(), r.uvarint(), r.uvarint()
	// Each takes two bytes at least; in memory it is many times that.
	if most := min(uint64(len(r.b))/2, BatchOpsMax); compares > most || then > most || otherwise > most {
		r.fail("%d compares and %d and %d operations in %d bytes", compares, then, otherwise, len(r.b))
		return
	}
	if compares > 0 {
		c.Compares = make([]Compare, compares)
	}
	for i := range c.Compares {
		x := &c.Compares[i]
		x.Kind, x.Key = CompareKind(r.byte()), r.bytes()
		switch x.Kind {
		case CompareValue:
			x.Value = r.bytes()
		case CompareRevision:
			x.Revision = r.revision()
		case CompareAbsent, ComparePresent:
		default:
			r.fail("compare kind %d", x.Kind)
		}
	}
	c.Then, c.Else = r.batchOps(then), r.batchOps(otherwise)
}

func (r *reader) batchOps(n uint64) []BatchOp {
	if n == 0 || r.err != nil {
		return nil
	}
	ops := make([]BatchOp, n)
	for i := range ops {
		o := &ops[i]
		o.Kind, o.Key = Kind(r.byte()), r.bytes()
		switch o.Kind {
		case KindPut:
			o.Value = r.bytes()
		case KindDelete, KindGet:
		default:
			r.fail("operation of kind %d in a batch", o.Kind)
		}
	}
	return ops
}

// checkBatch refuses a batch that does nothing, that is too large, and one whose
// outcome would depend on the order of its operations.
func (c *Command) checkBatch() error {
	n := len(c.Compares) + len(c.Then) + len(c.Else)
	switch {
	case len(c.Then)+len(c.Else) == 0:
		return &InvalidError{Field: "batch", Reason: "has no operation in either list"}
	case n > BatchOpsMax:
		return &InvalidError{Field: "batch", Reason: fmt.Sprintf("has %s compares and operations, the limit is %s", group(n), group(BatchOpsMax))}
	}
	bytes := 0
	for i := range c.Compares {
		x := &c.Compares[i]
		bytes += len(x.Key) + len(x.Value) + batchOpOverhead
		if x.Kind < CompareValue || x.Kind > ComparePresent {
			return &InvalidError{Field: "compare", Reason: "is of an unknown kind"}
		}
		if x.Kind == CompareRevision && (x.Revision == 0 || x.Revision > MaxRevision) {
			return &InvalidError{Field: "revision", Reason: "of a compare is no revision that a write can have"}
		}
		if err := checkBatchKey(x.Key, x.Value); err != nil {
			return err
		}
	}
	for _, ops := range [...][]BatchOp{c.Then, c.Else} {
		seen := make(map[string]bool, len(ops))
		for i := range ops {
			o := &ops[i]
			bytes += len(o.Key) + len(o.Value) + batchOpOverhead
			if o.Kind != KindPut && o.Kind != KindDelete && o.Kind != KindGet {
				return &InvalidError{Field: "batch", Reason: "has an operation that is no put, delete or get"}
			}
			if err := checkBatchKey(o.Key, o.Value); err != nil {
				return err
			}
			if seen[string(o.Key)] {
				return &InvalidError{Field: "batch", Reason: "names key \"" + FormatKey(o.Key) + "\" twice in one list"}
			}
			seen[string(o.Key)] = true
		}
	}
	if most := RequestBytesMax - batchOverhead; bytes > most {
		return &InvalidError{Field: "batch", Reason: fmt.Sprintf("has %s bytes, the limit is %s", group(bytes), group(most))}
	}
	return nil
}

// What the encoding of a batch adds to its keys and values at most: to each, and
// altogether.
const (
	batchOpOverhead = 16
	batchOverhead   = 64
)

func checkBatchKey(key, value []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if key[0] != UserKeyspace {
		return &InvalidError{Field: "key", Reason: "is outside the user keyspace, which batches are for"}
	}
	return CheckValue(value)
}
