package machine

import (
	"bytes"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// An attempt after the first is marked. Whether an earlier one took effect is
// known here and nowhere else, when the log has come to this one: what is before
// it is applied, what is after it will find this one. An earlier attempt left its
// ID in every version that it wrote, above the operation's birth.
//
// Nothing may depend on a version below the floor, which some replicas have
// dropped and others not. Versions above it are all there, and so is, of each
// key, the newest at or below it that is no tombstone: from the floor on, every
// state can be evaluated, and a birth at or above the floor keeps to those.

var errReused = &shard.InvalidError{Field: "operation", Reason: "ID was used before for something else"}

// earlier looks for the effect of an earlier attempt. decided is false if there
// was none: the command is to be carried out.
func (m *Machine) earlier(h *Header, c *shard.Command) (res raftgroup.Result, decided bool, err error) {
	switch {
	case planted.On(planted.RetryWithoutLookUp):
		return raftgroup.Result{}, false, nil
	case c.Birth >= h.Revision:
		// The session cannot have known a revision that was drawn after it made the
		// operation. Above such a birth the look-up would miss the operation's own.
		return raftgroup.Result{Err: &shard.InvalidError{Field: "birth", Reason: "is not below the revisions that the operation may have"}}, true, nil
	case c.Birth < m.state.Floor:
		return raftgroup.Result{Err: shard.ErrUndetermined}, true, nil
	}
	rev, keys, err := m.findEarlier(c)
	if err != nil || keys == 0 {
		return raftgroup.Result{}, false, err
	}
	e, err := m.evaluate(c, rev-1)
	if err != nil {
		return raftgroup.Result{}, false, err
	}
	same, err := m.wrote(&e, rev, c.Op, keys)
	if err != nil {
		return raftgroup.Result{}, false, err
	}
	if !same {
		return raftgroup.Result{Err: errReused}, true, nil
	}
	return e.result(rev), true, nil
}

// findEarlier finds the newest revision above its birth at which the operation
// wrote, and how many keys; none if keys is 0. It looks at every key that any of
// its branches could write: which of them an earlier attempt took is not known yet.
func (m *Machine) findEarlier(c *shard.Command) (rev shard.Revision, keys int, err error) {
	look := func(key []byte) error {
		at, err := m.findOp(key, c.Op, c.Birth)
		if at > rev {
			rev, keys = at, 0
		}
		if at != 0 && at == rev {
			keys++
		}
		return err
	}
	switch c.Kind {
	case shard.KindDeleteRange:
		return m.findOpInSpan(shard.Span{Start: c.Start, End: c.End}, c.Op, c.Birth)
	case shard.KindBatch:
		seen := make(map[string]bool, len(c.Then)+len(c.Else)) // a key may be in both lists
		for _, ops := range [...][]shard.BatchOp{c.Then, c.Else} {
			for i := range ops {
				o := &ops[i]
				if o.Kind == shard.KindGet || seen[string(o.Key)] {
					continue
				}
				seen[string(o.Key)] = true
				if err := look(o.Key); err != nil {
					return 0, 0, err
				}
			}
		}
		return rev, keys, nil
	default:
		err = look(c.Key)
		return rev, keys, err
	}
}

// wrote tells whether the operation, which wrote so many keys at rev, wrote there
// what the effect says and nothing else. If not, its ID was used for two
// operations, and the outcome of the other one is no answer to this one.
func (m *Machine) wrote(e *effect, rev shard.Revision, op shard.OpID, keys int) (bool, error) {
	if e.refusal != nil || len(e.writes) != keys {
		return false, nil
	}
	for i := range e.writes {
		o := &e.writes[i]
		v, found, err := m.versionAt(o.Key, rev)
		if err != nil {
			return false, err
		}
		if !found || v.rev != rev || v.op != op || v.tombstone != (o.Kind == shard.KindDelete) || !bytes.Equal(v.value, o.Value) {
			return false, nil
		}
	}
	return true, nil
}
