package client

import (
	"context"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// Condition is something that a key's value must fulfil. IfValue, IfRevision,
// IfAbsent and IfPresent make one; the zero Condition is invalid.
type Condition struct {
	kind     shard.CompareKind
	value    []byte
	revision shard.Revision
}

// IfValue holds if the key has exactly this value; an empty one is a value.
func IfValue(v []byte) Condition { return Condition{kind: shard.CompareValue, value: v} }

// IfRevision holds if the key has a value that the write at r made.
func IfRevision(r shard.Revision) Condition {
	return Condition{kind: shard.CompareRevision, revision: r}
}

// IfAbsent holds if the key has no value.
func IfAbsent() Condition { return Condition{kind: shard.CompareAbsent} }

// IfPresent holds if the key has a value.
func IfPresent() Condition { return Condition{kind: shard.ComparePresent} }

// Compare asks for a condition on a key.
type Compare struct {
	Key []byte
	If  Condition
}

// BatchOp is one operation of a batch. PutOp, DeleteOp and GetOp make one.
type BatchOp struct {
	Kind  shard.Kind // KindPut, KindDelete or KindGet
	Key   []byte
	Value []byte // of a put
}

// PutOp writes a value.
func PutOp(key, value []byte) BatchOp { return BatchOp{Kind: shard.KindPut, Key: key, Value: value} }

// DeleteOp removes a key, whether it has a value or not.
func DeleteOp(key []byte) BatchOp { return BatchOp{Kind: shard.KindDelete, Key: key} }

// GetOp reads the value that a key has before the batch.
func GetOp(key []byte) BatchOp { return BatchOp{Kind: shard.KindGet, Key: key} }

// BatchRequest is an atomic batch: if all Compares hold, Then is carried out, else
// Else. Compares and gets see the state before the batch; all writes have one
// revision. Compares may be empty, and one of the lists. There are at most
// shard.BatchOpsMax compares and operations; no list names a key twice; and all
// keys lie in one shard, or the call fails with shard.ErrSpansShards.
type BatchRequest struct {
	Compares   []Compare
	Then, Else []BatchOp
}

// BatchResult is what a batch did.
type BatchResult struct {
	Held     bool           // all compares held
	Revision shard.Revision // of the writes; 0 if nothing was written
	// Results has one element for each operation of the list that was carried out,
	// in its order: of a get, the value and the revision of the write that made it, or
	// Revision 0 if there is none; of a put or delete, the batch's revision.
	Results []KeyValue
}

// Batch carries out an atomic batch within one shard. It does not keep the slices;
// those of the result belong to the caller.
func (c *Client) Batch(ctx context.Context, b BatchRequest, opts ...CallOption) (BatchResult, error) {
	var key []byte
	switch {
	case len(b.Compares) > 0:
		key = b.Compares[0].Key
	case len(b.Then) > 0:
		key = b.Then[0].Key
	case len(b.Else) > 0:
		key = b.Else[0].Key
	}
	res, err := c.batch(ctx, &b, opts)
	if err != nil {
		return BatchResult{}, &OpError{Op: "batch", Key: key, Err: err}
	}
	return res, nil
}

// SwapResult is what CompareAndSwap did.
type SwapResult struct {
	Swapped  bool           // the condition held, and the value was written
	Revision shard.Revision // of the write; 0 if it did not hold
	// Current is what the key has if the condition did not hold; Revision 0: nothing.
	Current KeyValue
}

// CompareAndSwap writes value if the condition on the key's present value holds,
// atomically. A condition that does not hold is no error. It does not keep the slices.
func (c *Client) CompareAndSwap(ctx context.Context, key []byte, condition Condition, value []byte, opts ...CallOption) (SwapResult, error) {
	res, err := c.batch(ctx, &BatchRequest{Compares: []Compare{{key, condition}}, Then: []BatchOp{PutOp(key, value)}, Else: []BatchOp{GetOp(key)}}, opts)
	if err != nil {
		return SwapResult{}, &OpError{Op: "compare-and-swap", Key: key, Err: err}
	}
	s := SwapResult{Swapped: res.Held, Revision: res.Revision}
	if !res.Held {
		s.Current = res.Results[0]
	}
	return s, nil
}

// batch carries out a batch and gives its rows the caller's form.
func (c *Client) batch(ctx context.Context, b *BatchRequest, opts []CallOption) (BatchResult, error) {
	cmd := shard.Command{Kind: shard.KindBatch}
	size := 0
	for i := range b.Compares {
		size += 1 + len(b.Compares[i].Key)
	}
	for _, ops := range [...][]BatchOp{b.Then, b.Else} {
		for i := range ops {
			size += 1 + len(ops[i].Key)
		}
	}
	arena := make([]byte, 0, size)
	full := func(key []byte) []byte {
		from := len(arena)
		arena = append(append(arena, shard.UserKeyspace), key...)
		return arena[from:len(arena):len(arena)]
	}
	for i := range b.Compares {
		x := &b.Compares[i]
		cmd.Compares = append(cmd.Compares, shard.Compare{Kind: x.If.kind, Key: full(x.Key), Value: x.If.value, Revision: x.If.revision})
	}
	operations := func(ops []BatchOp) (list []shard.BatchOp) {
		for i := range ops {
			list = append(list, shard.BatchOp{Kind: ops[i].Kind, Key: full(ops[i].Key), Value: ops[i].Value})
		}
		return list
	}
	cmd.Then, cmd.Else = operations(b.Then), operations(b.Else)
	res, err := c.write(ctx, c.newWaiter(nil), &cmd, opts)
	if err != nil {
		return BatchResult{}, err
	}
	ran := b.Then
	if !res.Found {
		ran = b.Else
	}
	if len(res.Rows) != len(ran) {
		return BatchResult{}, fmt.Errorf("%w: %d results of a list of %d operations", shard.ErrMalformed, len(res.Rows), len(ran))
	}
	out := BatchResult{Held: res.Found, Revision: res.Revision, Results: make([]KeyValue, len(ran))}
	for i := range ran {
		out.Results[i] = KeyValue{Key: ran[i].Key, Value: res.Rows[i].Value, Revision: res.Rows[i].Revision}
	}
	return out, nil
}
