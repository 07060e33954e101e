package machine

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// version is one that the turn wrote, or one that was read. Its slices are
// somebody else's.
type version struct {
	key, value []byte
	rev        shard.Revision
	header     storage.VersionHeader
}

// overlay gives a turn's commands the versions that the turn wrote. They are in
// the batch, which is read by the first look-up and further on by the next ones.
// Most turns write only and never look anything up: they pay nothing for it.
type overlay struct {
	batch *storage.Batch // of this turn; nil before its first operation
	began storage.Mark   // what is before it in the batch is of other replicas
	read  storage.Mark   // as far as versions go

	versions []version // in order of the log, and so of revisions
	// order are indexes of the first len(order) versions, by key, and of a key the
	// newest first.
	order []int32
}

// begin comes before a turn's first write.
func (o *overlay) begin(b *storage.Batch) {
	if o.batch == nil {
		o.batch, o.began = b, b.Mark()
		o.read = o.began
	}
}

// forget makes the next look-up read the batch anew, after it was rolled back.
func (o *overlay) forget() {
	o.read, o.versions, o.order = o.began, nil, nil
}

// update reads what was written since the last look-up.
func (o *overlay) update() {
	if o.batch == nil {
		return
	}
	o.batch.VersionsSince(o.read, func(key []byte, rev shard.Revision, h storage.VersionHeader, value []byte) {
		o.versions = append(o.versions, version{key: key, value: value, rev: rev, header: h})
	})
	o.read = o.batch.Mark()
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
	o.update()
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
		case v.header.Op == op:
			return v.rev
		}
	}
}

// findOpInSpan needs no order.
func (o *overlay) findOpInSpan(span shard.Span, op shard.OpID, above shard.Revision) (rev shard.Revision, keys int) {
	o.update()
	for i := range o.versions {
		v := &o.versions[i]
		if v.header.Op != op || v.rev <= above || !span.Contains(v.key) {
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
