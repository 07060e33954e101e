package catalog

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/kiloraft/kiloraft/shard"
)

// OperationState is how far an operation has come.
type OperationState byte

const (
	OperationRunning   OperationState = 1
	OperationDone      OperationState = 2
	OperationFailed    OperationState = 3
	OperationCancelled OperationState = 4
)

func (s OperationState) String() string {
	switch s {
	case OperationRunning:
		return "running"
	case OperationDone:
		return "done"
	case OperationFailed:
		return "failed"
	case OperationCancelled:
		return "cancelled"
	}
	return fmt.Sprintf("operation state %d", byte(s))
}

// Operation is a change of a shard's replicas that a person asked for. It is
// written before its first step, so that whoever drives placement carries it out,
// and nobody undoes it meanwhile.
type Operation struct {
	ID    uint64 // unique in the cluster, and growing
	Shard shard.ID
	// From is the node whose replica is to go, To the node that is to get one; one
	// of them may be 0.
	From, To shard.NodeID
	// Nodes, if there are any, are where the shard's voters are to be, and the first of them
	// is to lead; From and To are 0 then.
	Nodes  []shard.NodeID
	State  OperationState
	Reason string // why it failed
	// Began and Ended are Unix times in seconds, by the clocks of whoever asked and of
	// whoever ended it, for people. Ended is 0 while it runs, and of one that was ended by a
	// version that did not record it.
	Began, Ended uint64
}

const (
	// The record of a shard's last operation. There is one for each shard, so that
	// two operations on a shard cannot both begin.
	operationPrefix    = "op/"
	operationFormat    = 1 // without Ended
	endedFormat        = 2
	nodesFormat        = 3 // with Ended, perhaps 0, and Nodes
	operationNodesMax  = 64
	operationReasonMax = 512 // bytes
)

func operationKey(id shard.ID) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{shard.SystemKeyspace}, operationPrefix...), uint64(id))
}

func operationSpan() shard.Span {
	return shard.Span{Start: append([]byte{shard.SystemKeyspace}, operationPrefix...), End: append([]byte{shard.SystemKeyspace}, "op0"...)} // '0' follows '/'
}

func (op *Operation) encode() []byte {
	// One without Ended is written as it was read, whichever version wrote it: it is
	// compared with its bytes before it is removed.
	format, fields := byte(operationFormat), []uint64{op.ID, uint64(op.Shard), uint64(op.From), uint64(op.To), uint64(op.State), op.Began}
	if op.Ended != 0 {
		format, fields = endedFormat, append(fields, op.Ended)
	}
	if len(op.Nodes) > 0 {
		format, fields = nodesFormat, append(fields[:6:6], op.Ended, uint64(len(op.Nodes)))
		for _, n := range op.Nodes {
			fields = append(fields, uint64(n))
		}
	}
	b := []byte{format}
	for _, v := range fields {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, strings.ToValidUTF8(op.Reason[:min(len(op.Reason), operationReasonMax)], "")...)
}

func decodeOperation(b []byte) (Operation, error) {
	malformed := func(what string) (Operation, error) {
		return Operation{}, fmt.Errorf("%w: the record of an operation %s", shard.ErrMalformed, what)
	}
	if len(b) == 0 || b[0] < operationFormat || b[0] > nodesFormat {
		return malformed("is of no known format")
	}
	format := b[0]
	b = b[1:]
	next := func(fields []uint64) bool {
		for i := range fields {
			n := 0
			if fields[i], n = binary.Uvarint(b); n <= 0 {
				return false
			}
			b = b[n:]
		}
		return true
	}
	var v [8]uint64
	if !next(v[:5+format]) {
		return malformed("is cut short")
	}
	var nodes []shard.NodeID
	if format == nodesFormat {
		if v[7] == 0 || v[7] > operationNodesMax {
			return malformed("names no nodes, or too many")
		}
		ids := make([]uint64, v[7])
		if !next(ids) {
			return malformed("is cut short")
		}
		for _, id := range ids {
			nodes = append(nodes, shard.NodeID(id))
		}
	}
	op := Operation{ID: v[0], Shard: shard.ID(v[1]), From: shard.NodeID(v[2]), To: shard.NodeID(v[3]), State: OperationState(v[4]), Began: v[5], Ended: v[6], Nodes: nodes, Reason: string(b)}
	if op.ID == 0 || op.Shard == 0 || v[4] < uint64(OperationRunning) || v[4] > uint64(OperationCancelled) || len(b) > operationReasonMax || !utf8.Valid(b) ||
		format == endedFormat && (op.Ended == 0 || op.State == OperationRunning) || format == nodesFormat && (op.From != 0 || op.To != 0) {
		return malformed("makes no sense")
	}
	return op, nil
}

// busyError: the shard has an operation that is not over.
func busyError(op *Operation) error {
	return &shard.InvalidError{Field: "shard", Reason: fmt.Sprintf("%d has operation %d under way; wait for it (ops show %d) or end it (ops cancel %d)", op.Shard, op.ID, op.ID, op.ID)}
}

// BeginOperation records an operation that is to be carried out and gives it its
// ID. An InvalidError says that the shard has one that is not over. A record whose
// answer was lost is found again: one and the same call begins one operation.
func (c *Catalog) BeginOperation(op Operation, done func(Operation, error)) {
	o := &operation{c: c, what: fmt.Sprintf("recording an operation on shard %d", op.Shard), end: func(err error) { done(Operation{}, err) }}
	op.State, op.Reason, op.Ended = OperationRunning, "", 0
	o.again = func() {
		c.changeOperation(op.Shard, o.what, func(was *Operation) (*Operation, error) {
			switch {
			case was != nil && was.ID == op.ID:
				return nil, nil // an earlier attempt's, whose answer was lost; it may even be over
			case was == nil || was.State != OperationRunning:
				return &op, nil
			}
			return nil, busyError(was)
		}, done)
	}
	c.allocate(opCounter, "an operation ID", func(id uint64, err error) {
		if err != nil {
			o.end(err)
			return
		}
		op.ID = id
		o.again()
	})
}

// MayBeginOperation answers as BeginOperation would for a shard, and writes nothing.
func (c *Catalog) MayBeginOperation(id shard.ID, done func(error)) {
	c.changeOperation(id, fmt.Sprintf("reading the operation of shard %d", id), func(was *Operation) (*Operation, error) {
		if was != nil && was.State == OperationRunning {
			return nil, busyError(was)
		}
		return nil, nil
	}, func(_ Operation, err error) { done(err) })
}

// EndOperation records how an operation ended, and when by the caller's Unix time in
// seconds, and returns its record. One that has
// ended already stays as it is; if the shard's record is of another operation, that
// one is returned and nothing is written.
func (c *Catalog) EndOperation(id shard.ID, op uint64, state OperationState, reason string, ended uint64, done func(Operation, error)) {
	c.changeOperation(id, fmt.Sprintf("ending operation %d", op), func(was *Operation) (*Operation, error) {
		if was == nil || was.ID != op || was.State != OperationRunning {
			return nil, nil
		}
		next := *was
		next.State, next.Reason, next.Ended = state, reason, ended
		return &next, nil
	}, done)
}

// changeOperation changes a shard's record by compare-and-put. change gets what is
// there, nil if nothing, and returns what is to be, nil if nothing changes.
func (c *Catalog) changeOperation(id shard.ID, what string, change func(was *Operation) (*Operation, error), done func(Operation, error)) {
	key := operationKey(id)
	o := &operation{c: c, what: what, end: func(err error) { done(Operation{}, err) }}
	var try func(old []byte)
	try = func(old []byte) {
		var was *Operation
		if old != nil {
			there, err := decodeOperation(old)
			if err != nil {
				o.failed(err)
				return
			}
			was = &there
		}
		next, err := change(was)
		if err != nil || next == nil {
			if was == nil {
				was = &Operation{}
			}
			done(*was, err)
			return
		}
		c.compareAndPut(key, old, next.encode(), func(res shard.Result, err error) {
			switch {
			case err != nil:
				o.failed(err)
			case res.Found:
				done(*next, nil)
			case o.outrun():
				try(present(res))
			}
		})
	}
	o.again = func() {
		c.get(key, func(old []byte, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			try(old)
		})
	}
	o.again()
}

// ListOperations lists the last operation of each shard that ever had one, in
// order of shard.
func (c *Catalog) ListOperations(done func([]Operation, error)) {
	var ops []Operation
	c.scan("listing operations", operationSpan(), func(_, value []byte) error {
		op, err := decodeOperation(value)
		ops = append(ops, op)
		return err
	}, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(ops, nil)
	})
}

// ForgetOperation removes the record of an operation that has ended, unless it has
// changed.
func (c *Catalog) ForgetOperation(op Operation, done func(error)) {
	if op.State == OperationRunning {
		done(&shard.InvalidError{Field: "operation", Reason: fmt.Sprintf("%d is under way", op.ID)})
		return
	}
	o := &operation{c: c, what: fmt.Sprintf("forgetting operation %d", op.ID), end: done}
	o.again = func() {
		c.do(shard.Command{Kind: shard.KindCompareAndPut, Key: operationKey(op.Shard), Expect: op.encode(), Remove: true}, func(_ shard.Result, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			done(nil)
		})
	}
	o.again()
}
