package replica

import (
	"fmt"
	"sync"

	"github.com/kiloraft/kiloraft/internal/planted"
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
	// births are the spans of shards that have split off, and whose replicas here have yet
	// to take their states in.
	births map[shard.ID]shard.Span
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
	for other, taken := range g.births { //order-free: any conflict refuses
		if other != id && taken.Overlaps(span) {
			return nil, fmt.Errorf("the snapshot's span is that of shard %d, which has just split off: %w", other, shard.ErrBusy)
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

// reserveBirth keeps the span of a shard that has split off for its replica here, if that
// has to take its state in first. It is called while the replica of the shard that it
// was a part of still covers the span for all to see.
func (s *Store) reserveBirth(born *storage.ReplicaState) {
	g, d := &s.reserved, &born.Descriptor
	g.mu.Lock()
	defer g.mu.Unlock()
	r, here := s.replicas.get(d.ID)
	if !here || r.descriptor.Load() != nil || planted.On(planted.BirthSpanNotKept) {
		return
	}
	if m, ok := d.ReplicaOn(s.cfg.Node); !ok || m.ID != r.self {
		return // a later one, which will get a snapshot
	}
	if g.births == nil {
		g.births = make(map[shard.ID]shard.Span)
	}
	g.births[d.ID] = d.Span
}

// releaseBirth follows once the replica's own descriptor stands for its span, or it is gone.
func (s *Store) releaseBirth(id shard.ID) {
	s.reserved.mu.Lock()
	delete(s.reserved.births, id)
	s.reserved.mu.Unlock()
}
