package router

import (
	"bytes"
	"slices"
	"sort"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/kiloraft/kiloraft/shard"
)

// Route is what is known of one shard. A Route is never modified once it was
// handed out: news replace it.
type Route struct {
	Descriptor shard.Descriptor
	// Leader in Term; zero if it is not known, or was found not to lead.
	// Leader.ID may be missing from the descriptor's replicas when news of the
	// leader were faster than those of the membership.
	Leader Leader
	// Term is the newest that was heard of, 0 if none was.
	Term uint64
}

// Leader is the replica that leads a shard, and its node.
type Leader struct {
	Replica shard.ReplicaID
	Node    shard.NodeID
}

// Target is whom an attempt at r's leader is meant for.
func (r *Route) Target() shard.Target {
	return shard.Target{Shard: r.Descriptor.ID, Version: r.Descriptor.Epoch.Version, Replica: r.Leader.Replica, Term: r.Term}
}

// Cache holds routes. It is not safe for concurrent use.
//
// Invariant: spans holds the routes of lru, each once, in order of their start
// keys, and no two overlap. Order by start key is then order by end key too.
// A sorted slice: inserts move pointers, which is rare, so that lookups are one
// binary search without allocation.
type Cache struct {
	spans []*Route
	lru   *simplelru.LRU[shard.ID, *Route]
}

// NewCache makes a cache of at most shardsMax routes (at least 1); the least
// recently used ones make room for new ones.
func NewCache(shardsMax int) *Cache {
	c := &Cache{}
	var err error
	c.lru, err = simplelru.NewLRU(max(shardsMax, 1), func(_ shard.ID, r *Route) { c.unlist(r) })
	if err != nil {
		panic(err) // it refuses only sizes below 1
	}
	return c
}

// Len is how many routes the cache holds.
func (c *Cache) Len() int { return len(c.spans) }

// Lookup finds the route of the shard that covers a full key.
func (c *Cache) Lookup(key []byte) (*Route, bool) {
	i := c.firstEndingAfter(key)
	if i == len(c.spans) || bytes.Compare(c.spans[i].Descriptor.Span.Start, key) > 0 {
		return nil, false
	}
	return c.used(c.spans[i]), true
}

// LookupBefore finds the route of the shard that covers the keys just below
// end: where a scan from end downwards begins.
func (c *Cache) LookupBefore(end []byte) (*Route, bool) {
	i := sort.Search(len(c.spans), func(i int) bool {
		return bytes.Compare(c.spans[i].Descriptor.Span.End, end) >= 0
	})
	if i == len(c.spans) || bytes.Compare(c.spans[i].Descriptor.Span.Start, end) >= 0 {
		return nil, false
	}
	return c.used(c.spans[i]), true
}

// Shard finds the route of a shard. It does not count as a use.
func (c *Cache) Shard(id shard.ID) (*Route, bool) { return c.lru.Peek(id) }

// All are the routes in order of their spans, for those who inspect.
func (c *Cache) All() []*Route { return slices.Clone(c.spans) }

// Insert takes in a descriptor, and evicts the routes that it overlaps. It
// reports false, and changes nothing, if the cache holds something as new: the
// same shard at this epoch or a newer one, or a shard that overlaps d and whose
// epoch version is not lower.
//
// The versions of different shards compare because every change of the shard
// that covers a key raises the version: a split gives both sides the parent's
// version plus one, a merge the larger one plus one.
//
// What was known of the shard's leader stays known. The cache keeps d's slices.
func (c *Cache) Insert(d shard.Descriptor) bool {
	if !d.Span.Valid() {
		return false
	}
	next := &Route{Descriptor: d}
	if old, ok := c.lru.Peek(d.ID); ok {
		if !d.Epoch.Newer(old.Descriptor.Epoch) {
			return false
		}
		next.Leader, next.Term = old.Leader, old.Term
	}
	from := c.firstEndingAfter(d.Span.Start)
	to := from
	for ; to < len(c.spans) && bytes.Compare(c.spans[to].Descriptor.Span.Start, d.Span.End) < 0; to++ {
		if o := &c.spans[to].Descriptor; o.ID != d.ID && o.Epoch.Version >= d.Epoch.Version {
			return false
		}
	}
	for range to - from {
		c.lru.Remove(c.spans[from].Descriptor.ID)
	}
	c.lru.Remove(d.ID) // its span before may have lain elsewhere
	c.lru.Add(d.ID, next)
	c.spans = slices.Insert(c.spans, c.firstEndingAfter(d.Span.Start), next)
	return true
}

// Remove forgets a shard, if what is known of it is not newer than the given
// epoch version.
func (c *Cache) Remove(id shard.ID, version uint64) {
	if r, ok := c.lru.Peek(id); ok && r.Descriptor.Epoch.Version <= version {
		c.lru.Remove(id)
	}
}

// SetLeader takes in news of a shard's leader and tells whether they changed
// anything. They are accepted if their term is newer, or if it is the same and
// no leader was known. Term 0 stands for a guess without a term: it is accepted
// only if no leader is known. A shard that is not in the cache is ignored.
func (c *Cache) SetLeader(id shard.ID, l Leader, term uint64) bool {
	r, ok := c.lru.Peek(id)
	if !ok {
		return false
	}
	if term == 0 {
		term = r.Term
	}
	known := r.Leader != Leader{}
	if term < r.Term || term == r.Term && (known || l == Leader{}) {
		return false
	}
	c.replace(r, &Route{Descriptor: r.Descriptor, Leader: l, Term: term})
	return true
}

// LeaderFailed forgets a shard's leader if it is the given one in the given
// term: it did not answer, or said that it does not lead. The term is kept.
func (c *Cache) LeaderFailed(id shard.ID, replica shard.ReplicaID, term uint64) {
	if r, ok := c.lru.Peek(id); ok && r.Leader.Replica == replica && r.Term == term && replica != 0 {
		c.replace(r, &Route{Descriptor: r.Descriptor, Term: r.Term})
	}
}

// firstEndingAfter is the place of the first route whose end lies above key: the
// one that covers key, if any does.
func (c *Cache) firstEndingAfter(key []byte) int {
	lo, hi := 0, len(c.spans)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(c.spans[mid].Descriptor.Span.End, key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (c *Cache) used(r *Route) *Route {
	c.lru.Get(r.Descriptor.ID)
	return r
}

// replace puts next, of the same shard and span, in old's place.
func (c *Cache) replace(old, next *Route) {
	c.spans[c.firstEndingAfter(old.Descriptor.Span.Start)] = next
	c.lru.Add(next.Descriptor.ID, next)
}

// unlist follows every removal from lru, evictions included.
func (c *Cache) unlist(r *Route) {
	i := c.firstEndingAfter(r.Descriptor.Span.Start)
	c.spans = slices.Delete(c.spans, i, i+1)
}
