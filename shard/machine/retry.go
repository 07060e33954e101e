package machine

import (
	"bytes"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// An attempt after the first is marked. Whether an earlier one took effect is
// known here and nowhere else, when the log has come to this one: what is before
// it is applied, what is after it will find this one. An earlier attempt left its
// ID in every version that it wrote, above the operation's birth.
//
// One that wrote nothing, because its compares did not hold or its range had no
// key, has left a trace if it was marked (leaveTrace). Of the attempts of one session
// only the first is not, and those after it are made one at a time, each when the one
// before can do nothing any more (client/retry.go). The attempts of a chosen
// operation are made by several sessions, which do not know of one another: all of
// them are marked. What one of them has been told must hold of all the others that
// come after it in the log, and may have been on their way for long; that a swap was
// not made, too. Without a trace the next one would find nothing and make it.
//
// Nothing may depend on a version below the floor, which some replicas have
// dropped and others not. Versions above it are all there, and so is, of each
// key, the newest at or below it, but for tombstones, and traces, which are not looked
// for there: from the floor on, every state can be evaluated, and a birth at or above
// the floor keeps to those.

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
		return raftgroup.Result{Err: &shard.OutcomeLostError{Reason: "it is older than the retention"}}, true, nil
	}
	rev, keys, err := m.findEarlier(c)
	if err != nil || keys == 0 {
		return raftgroup.Result{}, false, err
	}
	e, err := m.evaluate(c, rev-1)
	if err != nil {
		return raftgroup.Result{}, false, err
	}
	same, err := m.did(c, &e, rev, keys)
	if err != nil {
		return raftgroup.Result{}, false, err
	}
	if !same {
		return raftgroup.Result{Err: errReused}, true, nil
	}
	return e.result(rev), true, nil
}

// leaveTrace writes that a marked operation has changed nothing, where later
// attempts look for what it wrote (storage.VersionHeader.Trace). An operation that
// only reads, whatever holds, leaves none: each attempt of it may be told something
// else, and none does anything.
func (m *Machine) leaveTrace(b *storage.Batch, rev shard.Revision, c *shard.Command) error {
	key := tracePlace(c)
	if key == nil || planted.On(planted.NoTraceOfNothing) {
		return nil
	}
	_, origin, err := m.present(key, shard.MaxRevision)
	if err != nil {
		return err
	}
	m.put(b, rev, key, storage.VersionHeader{Op: c.Op, Tombstone: origin == 0, Trace: true, Origin: origin}, nil)
	return nil
}

// tracePlace is the key at which an operation that writes nothing leaves its trace:
// one of those that findEarlier looks at, the same for all attempts; nil: it can
// write none. In a range without keys, where it begins, that is absent too.
func tracePlace(c *shard.Command) []byte {
	if c.Kind == shard.KindDeleteRange {
		return c.Start
	}
	for _, ops := range [...][]shard.BatchOp{c.Then, c.Else} {
		for i := range ops {
			if ops[i].Kind != shard.KindGet {
				return ops[i].Key
			}
		}
	}
	return nil
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

// did tells whether the operation, which wrote so many keys at rev, wrote there
// what the effect says and nothing else: its trace, if that is nothing. If not, its
// ID was used for two operations, and the outcome of the other one is no answer to
// this one.
func (m *Machine) did(c *shard.Command, e *effect, rev shard.Revision, keys int) (bool, error) {
	if e.refusal != nil || max(1, len(e.writes)) != keys {
		return false, nil
	}
	if len(e.writes) == 0 {
		v, found, err := m.versionAt(tracePlace(c), rev)
		return found && v.rev == rev && v.header.Op == c.Op && v.header.Trace, err
	}
	for i := range e.writes {
		o := &e.writes[i]
		v, found, err := m.versionAt(o.Key, rev)
		if err != nil {
			return false, err
		}
		if want := (storage.VersionHeader{Op: c.Op, Tombstone: o.Kind == shard.KindDelete}); !found || v.rev != rev || v.header != want || !bytes.Equal(v.value, o.Value) {
			return false, nil
		}
	}
	return true, nil
}
