package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// coverage is which shard covers which keys, by the newest descriptor of each that any
// replica has applied.
type coverage struct {
	newest  []shard.Descriptor // in order of span
	changed bool               // a span has, and was not looked at since
}

// newestDescriptors are those of all shards; the caller does not change them.
func (w *Witness) newestDescriptors() []shard.Descriptor { return w.coverage.newest }

// begins takes in what a cluster begins with.
func (w *Witness) begins(ds []shard.Descriptor) {
	for i := range ds {
		w.coverage.newest = append(w.coverage.newest, ds[i].Clone())
	}
	w.coverage.changed = true
	w.coverage.sort()
}

// covers takes in a descriptor that a replica has applied. One version of a shard has
// one span, and one epoch one descriptor.
func (w *Witness) covers(node string, d *shard.Descriptor) {
	c := &w.coverage
	i := slices.IndexFunc(c.newest, func(n shard.Descriptor) bool { return n.ID == d.ID })
	if i < 0 {
		c.newest, c.changed = append(c.newest, d.Clone()), true
		c.sort()
		return
	}
	was := &c.newest[i]
	switch {
	case d.Epoch.Version == was.Epoch.Version && !d.Span.Equal(was.Span):
		w.Fail("%s shard %d: version %d has the span %v, and %v elsewhere", node, d.ID, d.Epoch.Version, d.Span, was.Span)
	case d.Epoch == was.Epoch && !bytes.Equal(shard.AppendDescriptor(nil, d), shard.AppendDescriptor(nil, was)):
		w.Fail("%s shard %d: epoch %v has the descriptor %v, and %v elsewhere", node, d.ID, d.Epoch, *d, *was)
	case d.Epoch.Version > was.Epoch.Version:
		*was, c.changed = d.Clone(), true
		c.sort()
	case d.Epoch.Version == was.Epoch.Version && d.Epoch.ConfVersion > was.Epoch.ConfVersion:
		*was = d.Clone()
	}
}

func (c *coverage) sort() {
	slices.SortFunc(c.newest, func(a, b shard.Descriptor) int {
		return cmp.Or(bytes.Compare(a.Span.Start, b.Span.Start), cmp.Compare(a.ID, b.ID))
	})
}

// covered is called after every step: what the shards of a change tell apart must be
// together by then. Every key has exactly one shard.
func (w *Witness) covered() {
	if !w.coverage.changed {
		return
	}
	w.coverage.changed = false
	if why := gapOrOverlap(w.coverage.newest); why != "" {
		w.Fail("%s", why)
	}
}

// gapOrOverlap says which keys have no shard, or two, or nothing. The shards are in
// order of span.
func gapOrOverlap(ds []shard.Descriptor) string {
	spans := []shard.Span{shard.SystemSpan(), shard.UserSpan()}
	at := spans[0].Start
	for i := range ds {
		s := ds[i].Span
		if len(spans) > 0 && bytes.Equal(at, spans[0].End) {
			spans = spans[1:]
			if len(spans) > 0 {
				at = spans[0].Start
			}
		}
		if len(spans) == 0 || !bytes.Equal(s.Start, at) {
			return fmt.Sprintf("shard %d begins at %x, where %x is next to be covered", ds[i].ID, s.Start, at)
		}
		at = s.End
	}
	if len(spans) != 1 || !bytes.Equal(at, spans[0].End) {
		return fmt.Sprintf("no shard covers %x", at)
	}
	return ""
}
