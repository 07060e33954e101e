package machine

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/kiloraft/kiloraft/shard"
)

// version is one that the turn wrote, or one that was read. Its slices are
// somebody else's.
type version struct {
	key, value []byte
	op         shard.OpID
	rev        shard.Revision
	tombstone  bool
}

// overlay holds the versions that a turn wrote. Most turns write only and never
// look anything up: to them it costs one append a version, and no key or value is
// copied. The order by key is made by the first look-up, and brought up to date by
// the next ones.
type overlay struct {
	versions []version  // in order of the log, and so of revisions
	buffer   *[]version // from the pool, whose memory versions began with
	// order are indexes of the first len(order) versions, by key, and of a key the
	// newest first.
	order []int32
}

// buffers are used again over all shards, most of which are idle. One that a
// very large turn left is not.
var buffers = sync.Pool{New: func() any { return new([]version) }}

const bufferVersionsMax = 8192

func (o *overlay) add(v version) {
	if o.buffer == nil {
		o.buffer = buffers.Get().(*[]version)
		o.versions = *o.buffer
	}
	o.versions = append(o.versions, v)
}

// truncate forgets all but the first n versions.
func (o *overlay) truncate(n int) {
	clear(o.versions[n:])
	o.versions = o.versions[:n]
	o.order = slices.DeleteFunc(o.order, func(i int32) bool { return int(i) >= n })
}

func (o *overlay) drop() {
	if o.buffer != nil && cap(o.versions) <= bufferVersionsMax {
		clear(o.versions)
		*o.buffer = o.versions[:0]
		buffers.Put(o.buffer)
	}
	*o = overlay{}
}

// compare orders versions by key, and those of a key from the newest on.
func (o *overlay) compare(i, j int32) int {
	if c := bytes.Compare(o.versions[i].key, o.versions[j].key); c != 0 {
		return c
	}
	return cmp.Compare(j, i)
}

// sort brings the order up to date. A few new versions are put in their places,
// as when every other command of a turn looks something up; many are sorted.
func (o *overlay) sort() {
	first, n := len(o.order), len(o.versions)
	if n-first > first/8+8 {
		for i := first; i < n; i++ {
			o.order = append(o.order, int32(i))
		}
		slices.SortFunc(o.order, o.compare)
		return
	}
	for i := first; i < n; i++ {
		at, _ := slices.BinarySearchFunc(o.order, int32(i), o.compare)
		o.order = slices.Insert(o.order, at, int32(i))
	}
}

// seek is the place in the order of the first key that is not below key.
func (o *overlay) seek(key []byte) int {
	if len(o.versions) == 0 {
		return 0
	}
	o.sort()
	at, _ := slices.BinarySearchFunc(o.order, key, func(i int32, key []byte) int {
		// Never 0: the first one of a key is looked for.
		if bytes.Compare(o.versions[i].key, key) < 0 {
			return -1
		}
		return 1
	})
	return at
}

// of is the version at a place in the order if it is one of key, else nil.
func (o *overlay) of(place int, key []byte) *version {
	if place >= len(o.order) {
		return nil
	}
	v := &o.versions[o.order[place]]
	if !bytes.Equal(v.key, key) {
		return nil
	}
	return v
}

// at is the newest version of key at or below a revision, or nil.
func (o *overlay) at(key []byte, at shard.Revision) *version {
	for i := o.seek(key); ; i++ {
		if v := o.of(i, key); v == nil || v.rev <= at {
			return v
		}
	}
}

// findOp is the newest revision above another at which op wrote key, or 0.
func (o *overlay) findOp(key []byte, op shard.OpID, above shard.Revision) shard.Revision {
	for i := o.seek(key); ; i++ {
		switch v := o.of(i, key); {
		case v == nil || v.rev <= above:
			return 0
		case v.op == op:
			return v.rev
		}
	}
}

// findOpInSpan needs no order.
func (o *overlay) findOpInSpan(span shard.Span, op shard.OpID, above shard.Revision) (rev shard.Revision, keys int) {
	for i := range o.versions {
		v := &o.versions[i]
		if v.op != op || v.rev <= above || !span.Contains(v.key) {
			continue
		}
		if v.rev > rev {
			rev, keys = v.rev, 0
		}
		keys++
	}
	return rev, keys
}

// visible walks the keys of a span in order, each at its newest version at or
// below a revision.
type visible struct {
	o     *overlay
	end   []byte
	at    shard.Revision
	place int
}

func (o *overlay) visible(span shard.Span, at shard.Revision) visible {
	return visible{o: o, end: span.End, at: at, place: o.seek(span.Start)}
}

// next is the next key's version, or nil at the end.
func (s *visible) next() *version {
	for s.place < len(s.o.order) {
		v := &s.o.versions[s.o.order[s.place]]
		if bytes.Compare(v.key, s.end) >= 0 {
			return nil
		}
		s.place++
		if v.rev > s.at {
			continue
		}
		for s.o.of(s.place, v.key) != nil {
			s.place++
		}
		return v
	}
	return nil
}
