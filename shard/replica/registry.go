package replica

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/shard"
)

// registry finds a node's replicas, by shard on every request and by key for the
// answer to a request that went astray.
type registry struct {
	parts [64]struct {
		mu       sync.RWMutex
		replicas map[shard.ID]*Replica
	}

	// The index by key is made anew by the first who asks after descriptors have
	// changed: changes come in bursts, and most of them nobody asks about.
	stale atomic.Bool
	mu    sync.Mutex
	index []indexed // in order of start
}

type indexed struct {
	start   []byte
	replica *Replica
}

func (g *registry) put(r *Replica) {
	p := &g.parts[uint64(r.id)%uint64(len(g.parts))]
	p.mu.Lock()
	if p.replicas == nil {
		p.replicas = make(map[shard.ID]*Replica)
	}
	p.replicas[r.id] = r
	p.mu.Unlock()
	g.stale.Store(true)
}

// remove forgets r, unless another replica of its shard has come since.
func (g *registry) remove(r *Replica) {
	p := &g.parts[uint64(r.id)%uint64(len(g.parts))]
	p.mu.Lock()
	if p.replicas[r.id] == r {
		delete(p.replicas, r.id)
	}
	p.mu.Unlock()
	g.stale.Store(true)
}

func (g *registry) get(id shard.ID) (*Replica, bool) {
	p := &g.parts[uint64(id)%uint64(len(g.parts))]
	p.mu.RLock()
	r, ok := p.replicas[id]
	p.mu.RUnlock()
	return r, ok
}

func (g *registry) all() []*Replica {
	var all []*Replica
	for i := range g.parts {
		p := &g.parts[i]
		p.mu.RLock()
		for _, r := range p.replicas { //order-free: sorted below
			all = append(all, r)
		}
		p.mu.RUnlock()
	}
	slices.SortFunc(all, func(a, b *Replica) int { return cmp.Compare(a.id, b.id) })
	return all
}

// overlapping finds a replica of another shard than id that covers a part of span.
func (g *registry) overlapping(id shard.ID, span shard.Span) (shard.ID, bool) {
	for _, r := range g.all() {
		if d := r.descriptor.Load(); d != nil && d.ID != id && d.Span.Overlaps(span) {
			return d.ID, true
		}
	}
	return 0, false
}

// covering is a local replica whose span has the place that the command begins at; nil:
// there is none.
func (g *registry) covering(c *shard.Command) *Replica {
	g.mu.Lock()
	if g.stale.Swap(false) {
		g.rebuild()
	}
	index := g.index
	g.mu.Unlock()
	first := c.Anchor()
	i := sort.Search(len(index), func(i int) bool { return bytes.Compare(index[i].start, first) > 0 })
	// Two replicas' spans may overlap while one of them lags behind a split: the
	// neighbour before may be the one that covers the place.
	for k := i - 1; k >= 0 && k >= i-3; k-- {
		if d := index[k].replica.descriptor.Load(); d != nil && begins(c, d.Span) {
			return index[k].replica
		}
	}
	return nil
}

func (g *registry) rebuild() {
	index := make([]indexed, 0, len(g.index)+1)
	for _, r := range g.all() {
		if d := r.descriptor.Load(); d != nil {
			index = append(index, indexed{start: d.Span.Start, replica: r})
		}
	}
	slices.SortStableFunc(index, func(a, b indexed) int { return bytes.Compare(a.start, b.start) })
	g.index = index
}

// begins tells whether a command begins in a span: its key lies there, or the
// first key that its scan may give. End bounds are exclusive, so that a reverse
// scan may begin at the span's own end.
func begins(c *shard.Command, s shard.Span) bool {
	if c.Kind == shard.KindScan && c.Reverse {
		return bytes.Compare(s.Start, c.End) < 0 && bytes.Compare(c.End, s.End) <= 0
	}
	return s.Contains(c.Anchor())
}
