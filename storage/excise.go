package storage

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrReplaced: a snapshot was installed over what was to be read. A view of before is
// of no use any more; one that is opened when the installation is over is.
var ErrReplaced = errors.New("the content was replaced by an installed snapshot")

// keyBounds are keys of the store: from lower, up to but without upper.
type keyBounds struct{ lower, upper []byte }

func (b keyBounds) overlaps(o keyBounds) bool {
	return comparer.Compare(b.lower, o.upper) < 0 && comparer.Compare(o.lower, b.upper) < 0
}

func overlapAny(spans []keyBounds, b keyBounds) bool {
	return slices.ContainsFunc(spans, b.overlaps)
}

// excises know which spans are being excised, and which views that makes useless.
//
// An excise takes files out of the engine's present version. It is not of the order of
// sequence numbers, by which views see:
//
//   - An iterator keeps the version that it was opened on, and so sees the old content
//     wholly, or the new. One that is opened while an excise is under way can see
//     neither, without an error.
//   - A Snapshot opens iterators later. Any that it opens after an excise has begun can
//     lack the old content.
//
// Invariant: no read of an excised span by such a view returns without ErrReplaced.
type excises struct {
	mu        sync.Mutex
	running   []keyBounds // that have begun and not ended; never changed in place
	snapshots map[*Snapshot]struct{}

	// begun and ended count; both are changed under mu.
	begun, ended atomic.Uint64
}

// begin comes before an excise of b may touch the engine; the function that it returns
// comes when that is over and all of it is visible.
func (x *excises) begin(b keyBounds) (end func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running = append(slices.Clip(x.running), b)
	for s := range x.snapshots { //order-free: each gets the same
		s.replaced = append(s.replaced, b)
	}
	x.begun.Add(1)
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		i := slices.IndexFunc(x.running, func(o keyBounds) bool { return &o.lower[0] == &b.lower[0] })
		x.running = slices.Delete(slices.Clone(x.running), i, i+1)
		x.ended.Add(1)
	}
}

// during returns the spans that an iterator may lack which was opened since ended was
// loaded. false: that is not known, and another one must be opened.
func (x *excises) during(ended uint64) (lacks []keyBounds, known bool) {
	if x.begun.Load() == ended {
		return nil, true // all that ever began had ended before
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.running, x.ended.Load() == ended
}

// opening registers a snapshot that is about to be opened.
func (x *excises) opening(s *Snapshot) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.replaced = slices.Clone(x.running)
	if x.snapshots == nil {
		x.snapshots = map[*Snapshot]struct{}{}
	}
	x.snapshots[s] = struct{}{}
}

func (x *excises) closing(s *Snapshot) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.snapshots, s)
}

// pierced tells whether an iterator that s has just opened over b may lack content.
func (x *excises) pierced(s *Snapshot, b keyBounds) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return overlapAny(s.replaced, b)
}
