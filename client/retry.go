package client

import (
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// How a write takes effect once.
//
// An attempt that carries the retry mark looks, when it is applied, for what an
// earlier attempt wrote; one without does not, which is what makes first attempts
// cheap. So all rests on one invariant:
//
//	An attempt without the mark is never proposed after one of the same
//	operation with the mark was.
//
// The core's part of it: a write is in one place at a time, so that the next attempt
// is made only when the one before was answered or its stream was given up. As long
// as all answers prove that their attempts did not and will not take effect, no
// attempt needs the mark. The first that has no such answer is the last one
// without: marked is never cleared.
//
// The servers' part is to see to it that this last one, which may still be on its
// way when a marked one arrives, is proposed before that or never:
//   - Another leader proposes in a later term. An attempt is proposed only in the
//     term that it names, and of an entry of an earlier term only what precedes the
//     later ones in the log is ever applied.
//   - The shard was split: an attempt is applied only in the epoch that it names,
//     and the right side starts with all that was applied before.
//   - The same leader in the same term is the same incarnation of the same node.
//     The attempt was sent on a stream that was greeted, that is known to the node's
//     store (replica.Store.OpenStream); a later attempt either comes on the
//     same stream, after the answer, or on one that was opened later. Before
//     that one is greeted, what the older one has queued is cancelled and what it
//     still brings is refused. The core sends no operation before the greeting.
//
// A caller-chosen operation (DoOptions.Operation) is marked in all its attempts,
// whoever makes them: each looks for what the others wrote. One that wrote nothing,
// because its condition did not hold, has left a trace (package machine), and what it
// was told is what all others are told that come after it in the log.
//
// The look-up sees versions above the operation's birth. All that an attempt can
// write is above it, because its revision was drawn after the attempt began.

// unanswered decides what becomes of a write whose attempt may have taken effect.
// It ends it, or marks it and reports true: it is to be sent again.
func (c *Core) unanswered(o *op, cause error) bool {
	o.last = cause
	o.maybe = o.maybe || !errors.Is(cause, shard.ErrStopped) // whose proposals were not made
	if o.system || o.retries <= 0 {
		// Keys of the system keyspace have no versions that would tell.
		c.finish(o, shard.Result{}, cause)
		return false
	}
	o.retries--
	if !o.marked {
		o.marked = true
		shard.MarkRetry(o.command)
	}
	c.stats.retriesUnanswered.Add(1)
	return true
}

// unknowing tells whether an answer leaves open what became of the attempt, so
// that a later one may find out. An OutcomeLostError is another thing.
func unknowing(err error) bool {
	var internal *shard.InternalError
	return errors.Is(err, shard.ErrStopped) || errors.Is(err, shard.ErrUndetermined) || errors.As(err, &internal)
}

// verdict is the error with which a write ends. Whatever its last attempt was told,
// an earlier one whose answer is lost may have taken effect.
func (c *Core) verdict(o *op, err error) error {
	if o.maybe && !errors.Is(err, shard.ErrUndetermined) {
		err = &failedError{cause: err}
	}
	if errors.Is(err, shard.ErrUndetermined) {
		c.stats.undetermined.Add(1)
	}
	return err
}

// fits tells whether a route serves an operation about a span as it is, and ends
// the operation if not.
func (c *Core) fits(o *op, r *router.Route) bool {
	span := r.Descriptor.Span
	switch {
	case o.scan == nil:
	case o.whole && !span.Covers(shard.Span{Start: o.scan.Start, End: o.scan.End}):
		c.finish(o, shard.Result{}, errSeveralShards)
		return false
	case o.marked && o.write() && !span.Covers(o.clip):
		// The bounds are fixed: both sides of a split would have to carry out a
		// half each, and whichever did before the split cannot be told.
		c.finish(o, shard.Result{}, shard.ErrSpansShards)
		return false
	}
	return true
}

// errSeveralShards: see DoOptions.whole.
var errSeveralShards = errors.New("the range is not within one shard")

// rebirth gives an unmarked operation that was made before the session knew any
// revision, or had heard of one for long, the newest that it knows now: below the
// floor no attempt could ever be repeated. None of its attempts so far took effect.
func (c *Core) rebirth(o *op) {
	newest := shard.Revision(c.newest.Load())
	if o.marked || newest == 0 {
		return
	}
	var cmd shard.Command
	if err := shard.DecodeCommand(o.command, &cmd); err != nil {
		panic(fmt.Sprintf("the core's own command does not decode: %v", err))
	}
	cmd.Birth = newest
	o.command = shard.AppendCommand(make([]byte, 0, len(o.command)+commandOverhead), &cmd)
	if o.scan != nil {
		o.scan.Birth = newest
	}
	o.birth = newest
}
