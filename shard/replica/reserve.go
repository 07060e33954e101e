package replica

import (
	"fmt"
	"sync"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// reservations are the spans of snapshots on their way into this node's
// replicas. A span is reserved before raft may accept its snapshot and until the
// snapshot is installed, when the replica's descriptor stands for it.
//
// Invariant: no reserved span overlaps another one, or the span of a replica of
// another shard. An installation clears its span first: were a part of it
// another replica's by then, that one's data would be gone.
type reservations struct {
	mu    sync.Mutex
	spans map[shard.ID]shard.Span
}

// ReserveSpan is the host's Config.ReserveSpan. The error wraps ErrBusy: the
// replica that has the span now may be about to give it up.
func (s *Store) ReserveSpan(state *storage.ReplicaState) (release func(), err error) {
	id, span := state.Descriptor.ID, state.Descriptor.Span
	g := &s.reserved
	g.mu.Lock()
	defer g.mu.Unlock()
	for other, taken := range g.spans { //order-free: any conflict refuses
		if other == id || taken.Overlaps(span) {
			return nil, fmt.Errorf("the snapshot's span is reserved for one of shard %d: %w", other, shard.ErrBusy)
		}
	}
	if other, ok := s.replicas.overlapping(id, span); ok {
		return nil, fmt.Errorf("the snapshot's span overlaps that of the replica of shard %d: %w", other, shard.ErrBusy)
	}
	if g.spans == nil {
		g.spans = make(map[shard.ID]shard.Span)
	}
	g.spans[id] = span
	return func() {
		g.mu.Lock()
		delete(g.spans, id)
		g.mu.Unlock()
	}, nil
}
