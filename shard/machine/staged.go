package machine

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// staged is what a turn wrote and did not publish yet, over a view of what was
// committed before the turn. A batch cannot be read; without this, two increments
// in one turn would both count from the same value. It is bounded by what the
// group applies in one turn.
type staged struct {
	view     Reader                 // opened by the first look-up of a turn
	versions overlay                // of keys with versions
	values   map[string]stagedValue // of keys without versions
	// undo is what the current entry replaced in values, in order.
	undo []replaced
}

type stagedValue struct {
	value []byte
	found bool
}

type replaced struct {
	key    string
	before stagedValue
	staged bool // there was one
}

func (s *staged) put(key, value []byte, found bool) {
	if s.values == nil {
		s.values = make(map[string]stagedValue)
	}
	before, was := s.values[string(key)]
	s.undo = append(s.undo, replaced{string(key), before, was})
	s.values[string(key)] = stagedValue{value: value, found: found}
}

// begin comes before an entry's first operation.
func (s *staged) begin() {
	clear(s.undo)
	s.undo = s.undo[:0]
}

// rollBack forgets what the current entry staged: it counts as not applied, and
// the caller discards its part of the batch. If the turn has no other entry, no
// EndApply follows.
func (s *staged) rollBack() {
	s.endTurn()
	s.versions.forget()
	for i := len(s.undo) - 1; i >= 0; i-- {
		u := &s.undo[i]
		if u.staged {
			s.values[u.key] = u.before
		} else {
			delete(s.values, u.key)
		}
	}
	s.begin()
}

// endTurn lets go of the view, which keeps files and memory alive while it is open.
func (s *staged) endTurn() {
	if s.view != nil {
		_ = s.view.Close()
		s.view = nil
	}
}

func (s *staged) drop() {
	s.endTurn()
	s.versions = overlay{}
	clear(s.values)
	s.begin()
}

// committed is the view under what is staged.
func (m *Machine) committed() Reader {
	if m.staged.view == nil {
		m.staged.view = m.view()
	}
	return m.staged.view
}

// lookup reads a key without versions as of the operations applied so far. The
// value is valid until the next lookup.
func (m *Machine) lookup(key []byte) (value []byte, found bool, err error) {
	if v, ok := m.staged.values[string(key)]; ok {
		return v.value, v.found, nil
	}
	value, _, found, err = m.committed().Get(key, shard.MaxRevision)
	return value, found, err
}

// versionAt finds the newest version of a key at or below revision at, of those
// that were applied so far. It may be a tombstone, which to every command is
// absence. The value is valid until the next look-up.
func (m *Machine) versionAt(key []byte, at shard.Revision) (v version, found bool, err error) {
	// All that the turn wrote is newer than all that was there before it.
	if v := m.staged.versions.at(key, at); v != nil {
		return *v, true, nil
	}
	h, value, rev, found, err := m.committed().VersionAt(key, at)
	return version{key: key, value: value, rev: rev, header: h}, found, err
}

// present is versionAt of keys that have a value, seen through traces; others have
// revision 0.
func (m *Machine) present(key []byte, at shard.Revision) (value []byte, rev shard.Revision, err error) {
	v, found, err := m.versionAt(key, at)
	if err != nil || !found || v.header.Tombstone {
		return nil, 0, err
	}
	if origin := v.header.Origin; origin != 0 {
		if v, found, err = m.versionAt(key, origin); err != nil {
			return nil, 0, err
		}
		if !found || v.rev != origin {
			return nil, 0, fmt.Errorf("%w: key %x has a trace of revision %d, which is not there", shard.ErrMalformed, key, origin)
		}
	}
	return v.value, v.rev, nil
}

// findOp finds the newest version of a key that op wrote above a revision; 0 if
// there is none.
func (m *Machine) findOp(key []byte, op shard.OpID, above shard.Revision) (shard.Revision, error) {
	if rev := m.staged.versions.findOp(key, op, above); rev != 0 {
		return rev, nil
	}
	rev, _, err := m.committed().FindOp(key, op, above)
	return rev, err
}

// findOpInSpan finds the newest revision above another at which op wrote keys of
// a span, and how many.
func (m *Machine) findOpInSpan(span shard.Span, op shard.OpID, above shard.Revision) (rev shard.Revision, keys int, err error) {
	// An operation's writes are all of one turn.
	if rev, keys = m.staged.versions.findOpInSpan(span, op, above); keys > 0 {
		return rev, keys, nil
	}
	return m.committed().FindOpInSpan(span, op, above)
}
