package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// model is what the user keys hold, worked out from the logs alone and in the
// simplest way: every version of every key is kept for ever. What replicas make of
// a log, and what clients read at any revision, is compared with it.
type model struct {
	keys     []string // ever written, in order
	versions map[string][]version
}

// version is a value of a key, or that it has none (found false), from a revision on.
type version struct {
	rev   shard.Revision
	found bool
	value string
	// trace is not 0 if the operation of this revision changed nothing and left its
	// trace: rev and found are then those of what there was, value is empty.
	trace shard.Revision
}

// at is the version's own revision.
func (v version) at() shard.Revision {
	if v.trace != 0 {
		return v.trace
	}
	return v.rev
}

func newModel() *model { return &model{versions: make(map[string][]version)} }

// trace adds a trace of what a key has.
func (m *model) trace(key string, rev shard.Revision) {
	now := m.at(key, rev)
	m.write(key, version{rev: now.rev, found: now.found, trace: rev})
}

// write adds a version. Revisions of a key come in order: whoever fills the model
// has refused others.
func (m *model) write(key string, v version) {
	if m.versions[key] == nil {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	m.versions[key] = append(m.versions[key], v)
}

// at is the state of a key at a revision: its newest version at or below it. A
// key without a value is the zero version: a tombstone is absence.
func (m *model) at(key string, rev shard.Revision) version {
	all := m.versions[key]
	i := slices.IndexFunc(all, func(v version) bool { return v.at() > rev })
	if i < 0 {
		i = len(all)
	}
	if i == 0 || !all[i-1].found {
		return version{}
	}
	if v := all[i-1]; v.trace != 0 {
		return m.at(key, v.rev)
	}
	return all[i-1]
}

// visible is what a replica must still hold of a key once it has applied up to
// last, in order: the versions above the floor, and the newest at or below it that is
// no trace, unless that is a tombstone.
func (m *model) visible(key string, floor, last shard.Revision) []version {
	all := m.versions[key]
	all = all[:countUpTo(all, last)]
	below := countUpTo(all, floor)
	visible := all[below:]
	if i := lastWrite(all[:below]); i >= 0 && all[i].found {
		visible = append([]version{all[i]}, visible...)
	}
	return visible
}

// lastWrite is the place of the newest version that is no trace, or -1.
func lastWrite(all []version) int {
	i := len(all) - 1
	for i >= 0 && all[i].trace != 0 {
		i--
	}
	return i
}

func countUpTo(all []version, rev shard.Revision) int {
	n, _ := slices.BinarySearchFunc(all, rev+1, func(v version, r shard.Revision) int { return cmp.Compare(v.at(), r) })
	return n
}

// outcome of a batch or a delete-range, and the keys that it changes.
type modelResult struct {
	res     shard.Result
	changes map[string]version
	more    string // of a delete-range: the first key that is left in its span, or ""
}

// batch evaluates a batch on the state before rev.
func (m *model) batch(c *shard.Command, rev shard.Revision) modelResult {
	out := modelResult{changes: make(map[string]version)}
	out.res.Found = true
	for i := range c.Compares {
		if !holds(&c.Compares[i], m.at(string(c.Compares[i].Key), rev-1)) {
			out.res.Found = false
		}
	}
	ops := c.Then
	if !out.res.Found {
		ops = c.Else
	}
	for i := range ops {
		o := &ops[i]
		row := shard.Row{Key: o.Key, Revision: rev}
		switch o.Kind {
		case shard.KindPut:
			out.changes[string(o.Key)] = version{rev: rev, found: true, value: string(o.Value)}
		case shard.KindDelete:
			out.changes[string(o.Key)] = version{rev: rev}
		default:
			v := m.at(string(o.Key), rev-1)
			row.Revision, row.Value = v.rev, []byte(v.value)
		}
		out.res.Rows = append(out.res.Rows, row)
	}
	if len(out.changes) > 0 {
		out.res.Revision = rev
	}
	return out
}

// holds tells whether a compare holds of the state of its key.
func holds(x *shard.Compare, v version) bool {
	switch x.Kind {
	case shard.CompareValue:
		return v.found && v.value == string(x.Value)
	case shard.CompareRevision:
		return v.found && v.rev == x.Revision
	case shard.CompareAbsent:
		return !v.found
	case shard.ComparePresent:
		return v.found
	}
	panic(fmt.Sprintf("a compare of kind %d", x.Kind))
}

// deleteRange evaluates a delete-range on the state before rev.
func (m *model) deleteRange(c *shard.Command, rev shard.Revision) modelResult {
	out := modelResult{changes: make(map[string]version)}
	span := shard.Span{Start: c.Start, End: c.End}
	for _, key := range m.keys {
		if !span.Contains([]byte(key)) || !m.at(key, rev-1).found {
			continue
		}
		if out.res.Count == c.Limit {
			out.more = key
			break
		}
		out.res.Count++
		out.res.Revision = rev
		out.res.Resume = append([]byte(key), 0)
		out.changes[key] = version{rev: rev}
	}
	return out
}

// differs says how what was answered differs from what the model says, or
// nothing. A delete-range that removed as many keys as it may need not know
// whether it reached the end.
func (want *modelResult) differs(kind shard.Kind, got *shard.Result) string {
	w := &want.res
	switch {
	case got.Revision != w.Revision:
		return fmt.Sprintf("its revision is %d, not %d", got.Revision, w.Revision)
	case kind == shard.KindDeleteRange:
		return want.differsInRange(got)
	case got.Found != w.Found:
		return fmt.Sprintf("its compares held: %v, not %v", got.Found, w.Found)
	case len(got.Rows) != len(w.Rows):
		return fmt.Sprintf("it has %d rows, not %d", len(got.Rows), len(w.Rows))
	}
	for i := range w.Rows {
		if g, w := &got.Rows[i], &w.Rows[i]; g.Revision != w.Revision || !bytes.Equal(g.Value, w.Value) {
			return fmt.Sprintf("row %d, of key %q, has revision %d and %q, not %d and %q", i, w.Key, g.Revision, short(string(g.Value)), w.Revision, short(string(w.Value)))
		}
	}
	return ""
}

func (want *modelResult) differsInRange(got *shard.Result) string {
	w := &want.res
	switch {
	case got.Count != w.Count:
		return fmt.Sprintf("it removed %d keys, not %d", got.Count, w.Count)
	case got.Resume == nil && want.more != "":
		return fmt.Sprintf("it is said to be at the end although %q is left", want.more)
	case got.Resume != nil && bytes.Compare(got.Resume, w.Resume) < 0:
		return fmt.Sprintf("it resumes at %q, not after what it removed, at %q", got.Resume, w.Resume)
	case got.Resume != nil && want.more != "" && string(got.Resume) > want.more:
		return fmt.Sprintf("it resumes at %q, after %q, which is left", got.Resume, want.more)
	}
	return ""
}
