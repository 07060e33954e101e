package sim

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// content compares what every replica of a node holds with what the logs say, and
// with what others held at the same applied index. It reads everything: it is for
// drawn moments and the end.
func (w *Witness) content(node string, e *storage.Engine) {
	w.eachState(e, func(r storage.ReplicaRecord, s *storage.ReplicaState) {
		if w.installing[shardOn{node, r.Shard}] {
			return // nobody may look at it now
		}
		v := e.NewView()
		defer v.Close()
		sum, rows, err := contentHash(v, s.Descriptor.Span)
		if err != nil {
			w.Fail("%s shard %d: reading its content: %v", node, r.Shard, err)
			return
		}
		at := shardIndex{r.Shard, s.Applied}
		mark := stateMark{fmt.Sprintf("%d keys, hash %016x", rows, sum), node}
		switch first, known := w.contents[at]; {
		case !known:
			w.contents[at] = mark
		case first.text != mark.text:
			w.Fail("shard %d has different content at index %d: %s: %s; %s: %s", r.Shard, s.Applied, first.by, first.text, node, mark.text)
		}
		if s.Descriptor.Span.Start[0] == shard.UserKeyspace {
			w.versions(node, v, s)
		}
	})
}

// disjoint refuses a store with states of two shards that overlap.
func (w *Witness) disjoint(node string, e *storage.Engine) {
	var held []shard.Descriptor
	w.eachState(e, func(_ storage.ReplicaRecord, s *storage.ReplicaState) {
		for i := range held {
			if held[i].Span.Overlaps(s.Descriptor.Span) {
				w.Fail("%s has states of two shards that overlap: %v and %v", node, held[i], s.Descriptor)
			}
		}
		held = append(held, s.Descriptor)
	})
}

// leftover refuses data in a store that belongs to none of its replicas: what a removed
// replica has left behind would be somebody's data one day.
func (w *Witness) leftover(node string, e *storage.Engine) {
	var held []shard.Span
	w.eachState(e, func(_ storage.ReplicaRecord, s *storage.ReplicaState) { held = append(held, s.Descriptor.Span) })
	v := e.NewView()
	defer v.Close()
	for _, span := range []shard.Span{shard.SystemSpan(), shard.UserSpan()} {
		for start := span.Start; start != nil; {
			rows, resume, err := v.Scan(storage.ScanOptions{Span: shard.Span{Start: start, End: span.End}, At: shard.MaxRevision, RowsMax: shard.PageRowsMax, BytesMax: shard.PageBytesMax})
			if err != nil {
				w.Fail("%s: reading all of its data: %v", node, err)
				return
			}
			for i := range rows {
				if !slices.ContainsFunc(held, func(s shard.Span) bool { return s.Contains(rows[i].Key) }) {
					w.Fail("%s holds key %q, which no replica on it covers", node, rows[i].Key)
					return
				}
			}
			start = bytes.Clone(resume)
		}
	}
}

// versions compares every version of every key with the model: those above the
// floor and the newest at or below it unless it is a tombstone must be there, and
// what else is there must have been written. Which of the others were dropped is
// each replica's own affair.
func (w *Witness) versions(node string, v *storage.View, s *storage.ReplicaState) {
	m := w.effects.model
	for _, key := range m.keys {
		if !s.Descriptor.Span.Contains([]byte(key)) {
			continue
		}
		held, err := heldVersions(v, key)
		if err != nil {
			w.Fail("%s shard %d: reading the versions of %q: %v", node, s.Descriptor.ID, key, err)
			return
		}
		if why := m.differs(key, held, s.Floor, s.LastRevision); why != "" {
			w.Fail("%s holds other versions of %q than the log of shard %d says at index %d, with floor %d: %s", node, key, s.Descriptor.ID, s.Applied, s.Floor, why)
			return
		}
	}
}

// heldVersions are all versions of a key that a store holds, in order.
func heldVersions(v *storage.View, key string) ([]version, error) {
	var held []version
	for at := shard.MaxRevision; ; {
		h, value, rev, found, err := v.VersionAt([]byte(key), at)
		if err != nil || !found {
			return held, err
		}
		x := version{rev: rev, found: !h.Tombstone, value: string(value)}
		if h.Trace {
			x.rev, x.trace = h.Origin, rev
		}
		held = append([]version{x}, held...)
		if rev <= 1 {
			return held, nil
		}
		at = rev - 1
	}
}

// differs says how the versions that are held of a key differ from those that were
// written up to last, or nothing.
func (m *model) differs(key string, held []version, floor, last shard.Revision) string {
	written := m.versions[key]
	written = written[:countUpTo(written, last)]
	must := m.visible(key, floor, last)
	for _, v := range held {
		for len(written) > 0 && written[0].at() < v.at() {
			written = written[1:]
		}
		if len(written) == 0 || written[0] != v {
			return fmt.Sprintf("nobody wrote %v", v)
		}
		if len(must) > 0 && must[0] == v {
			must = must[1:]
		} else if len(must) > 0 && must[0].at() < v.at() {
			break
		}
	}
	if len(must) > 0 {
		return fmt.Sprintf("%v is missing", must[0])
	}
	// What is left of those below the floor must not show: a tombstone goes after
	// all that it hides.
	if n := countUpTo(held, floor); n > 0 && held[n-1].found {
		if want := m.at(key, floor); held[n-1].rev != want.rev {
			return fmt.Sprintf("%v shows at the floor, where there is %v", held[n-1], want)
		}
	}
	return ""
}

func (v version) String() string {
	if v.trace != 0 {
		return fmt.Sprintf("the trace at revision %d of what there is of revision %d", v.trace, v.rev)
	}
	if !v.found {
		return fmt.Sprintf("the tombstone of revision %d", v.rev)
	}
	return fmt.Sprintf("%q of revision %d", short(v.value), v.rev)
}

// contentHash is a hash over the newest version of every key of a span.
func contentHash(v *storage.View, span shard.Span) (sum uint64, rows int, err error) {
	h := fnv.New64a()
	for {
		page, resume, err := v.Scan(storage.ScanOptions{Span: span, At: shard.MaxRevision, RowsMax: shard.PageRowsMax, BytesMax: shard.PageBytesMax})
		if err != nil {
			return 0, 0, err
		}
		for i := range page {
			rows++
			fmt.Fprintf(h, "%x %d %x\n", page[i].Key, page[i].Revision, page[i].Value)
		}
		if resume == nil {
			return h.Sum64(), rows, nil
		}
		span.Start = bytes.Clone(resume)
	}
}
