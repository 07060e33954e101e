package client

import (
	"context"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// CallOption changes how one call is carried out. One that does not fit the call
// makes it fail with an InvalidError.
type CallOption func(*callOptions)

type callOptions struct {
	retries     *int
	operation   *Operation
	revision    *shard.Revision
	anyReplica  bool
	progress    func(DeleteRangeResult)
	hasProgress bool
}

// WithRetries bounds how often a write is sent again after an answer was lost, in
// place of Options.MaxRetries. 0: never; the call then ends with
// shard.ErrUndetermined when an answer is lost. Attempts that provably did not take
// effect do not count.
func WithRetries(n int) CallOption {
	return func(o *callOptions) { o.retries = &n }
}

// WithOperation makes a write the given operation, so that a caller who does not
// know what became of it, because the program ended, can carry it out later with
// the same operation: it takes effect once. It fits Put, Delete, CompareAndSwap and
// Batch.
//
// The caller keeps the operation, and what it was about to write, where they
// survive, before the first call; and uses it for that one write only. A use of it
// for another key is another write; for the same key with another value it
// is an InvalidError where the cluster can tell.
//
// A result is the operation's, whoever's attempt it was, and every later call is told
// the same: that a swap or batch was not made because its condition did not hold,
// too. No attempt that is still on its way makes it after that. (A batch that could
// only read is read anew each time.) An error says what became of this call's
// attempts, and nothing of those of other programs. An operation that is older than
// the retention ends with a shard.OutcomeLostError, which is shard.ErrUndetermined.
func WithOperation(op Operation) CallOption {
	return func(o *callOptions) { o.operation = &op }
}

// AtRevision makes Get and MultiGet read the values as they were at a revision.
// It must be one that was handed out: that of a write, one that a result tells, or
// one of Client.Revision. shard.ErrFutureRevision: it was not handed out yet;
// shard.ErrCompacted: it is older than the retention.
func AtRevision(r shard.Revision) CallOption {
	return func(o *callOptions) { o.revision = &r }
}

// AnyReplica lets any replica serve a read at a revision (AtRevision, or
// ScanOptions.Revision). One that has not got that far sends the call to the leader.
func AnyReplica() CallOption {
	return func(o *callOptions) { o.anyReplica = true }
}

// WithProgress has DeleteRange tell after each piece what it has done so far. f is
// called by the goroutine that called DeleteRange.
func WithProgress(f func(DeleteRangeResult)) CallOption {
	return func(o *callOptions) { o.progress, o.hasProgress = f, true }
}

// Operation names one write for ever. See WithOperation.
type Operation struct {
	ID shard.OpID
	// Birth is a revision that was handed out before the operation's first attempt.
	// One that is too large lets the write take effect twice.
	Birth shard.Revision
}

// NewOperation makes an operation for one write. It draws a revision for its
// birth: the operation is good for as long as the retention from now on.
func (c *Client) NewOperation(ctx context.Context) (Operation, error) {
	birth, err := c.Revision(ctx)
	if err != nil {
		return Operation{}, err
	}
	return Operation{ID: c.core.newID(), Birth: birth}, nil
}

// The kinds of options that a call may be given.
const (
	mayRetry = 1 << iota
	mayName
	mayReadAt
	mayReadAnywhere
	mayProgress
)

// options collects the options of a call that allows those of the given kinds.
func options(allowed int, list []CallOption) (callOptions, error) {
	if len(list) == 0 {
		return callOptions{}, nil // without the allocation that collecting costs
	}
	return collect(allowed, list)
}

func collect(allowed int, list []CallOption) (o callOptions, err error) {
	for _, f := range list {
		f(&o)
	}
	for _, x := range [...]struct {
		given bool
		kind  int
		name  string
	}{{o.retries != nil, mayRetry, "retries"}, {o.operation != nil, mayName, "operation"}, {o.revision != nil, mayReadAt, "revision"},
		{o.anyReplica, mayReadAnywhere, "any replica"}, {o.hasProgress, mayProgress, "progress"}} {
		if x.given && allowed&x.kind == 0 {
			return o, &shard.InvalidError{Field: x.name, Reason: "is no option of this call"}
		}
	}
	switch {
	case o.operation != nil && (o.operation.ID.Session == 0 || o.operation.Birth > shard.MaxRevision):
		return o, &shard.InvalidError{Field: "operation", Reason: "was not made by NewOperation"}
	case o.revision != nil:
		if err := checkRevision(*o.revision); err != nil {
			return o, err
		}
	}
	if o.anyReplica && allowed&mayReadAt != 0 && o.revision == nil {
		return o, &shard.InvalidError{Field: "any replica", Reason: "is for reads at a revision"}
	}
	return o, nil
}

// at is the revision to read at; 0: the latest state.
func (o *callOptions) at() shard.Revision {
	if o.revision == nil {
		return 0
	}
	return *o.revision
}

// doOptions are those that the core knows.
func (o *callOptions) doOptions() (do DoOptions) {
	if o.retries != nil {
		// To the core 0 says that the caller did not say anything.
		if do.MaxRetries = *o.retries; do.MaxRetries <= 0 {
			do.MaxRetries = -1
		}
	}
	if o.operation != nil {
		do.Operation = *o.operation
	}
	return do
}

// checkRevision refuses what no write can have.
func checkRevision(r shard.Revision) error {
	switch {
	case r == 0:
		return &shard.InvalidError{Field: "revision", Reason: "is 0; revisions begin with 1"}
	case r > shard.MaxRevision:
		return &shard.InvalidError{Field: "revision", Reason: fmt.Sprintf("is %d, which is negative or larger than any revision", int64(r))}
	}
	return nil
}
