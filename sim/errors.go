package sim

import (
	"errors"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// reached judges an error that has reached a caller. Where shards are, who leads them,
// and that a node has too much to do is the client's affair: a caller hears that time was
// up or that it cancelled, that a write is undetermined, or what is true of the operation
// itself.
func (w *Workload) reached(c *shard.Command, err error) {
	witness := w.cluster.witness
	var gaveUp *client.GaveUpError
	var lost *shard.OutcomeLostError
	var internal *shard.InternalError
	switch {
	case err == nil, errors.As(err, &gaveUp):
	case errors.Is(err, shard.ErrSpansShards), errors.As(err, &lost) && lost.Reason == partedReason:
		// Shards do not merge: what one of them covers now no two have ever covered.
		if covering := w.cluster.covering(c.Anchor()); c.Within(covering.Span) {
			witness.Fail("a caller is told %q, and shard %d covers all of %+v", err, covering.ID, *c)
		}
	case errors.Is(err, shard.ErrUndetermined):
	case errors.Is(err, shard.ErrCompacted), errors.Is(err, shard.ErrFutureRevision): // see Workload.refusedAt
	case witness.flipped && errors.As(err, &internal): // its reads fail, and nobody else may be there to be asked
	default:
		witness.Fail("an error reaches a caller: %w, of %+v", err, *c)
	}
}

// partedReason is what is told of a write whose keys a split may have parted.
var partedReason = func() string {
	var lost *shard.OutcomeLostError
	parted := shard.Descriptor{Epoch: shard.Epoch{Version: shard.FirstVersion + 1}}
	errors.As(parted.Parted(), &lost)
	return lost.Reason
}()
