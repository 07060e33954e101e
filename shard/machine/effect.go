package machine

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// effect is what a command does to a state, before any of it is done: it depends
// on the command and the state and on nothing else. It is evaluated on the latest
// state to be carried out, and on an older one to tell a later attempt how an
// earlier one came out.
type effect struct {
	kind shard.Kind
	// writes are puts and deletes of different keys, at one revision.
	writes []shard.BatchOp
	// ops of a batch are the list that is carried out, rows has one for each.
	ops  []shard.BatchOp
	rows []shard.Row

	found  bool // all compares hold
	count  uint64
	resume []byte

	refusal error
}

// evaluate gives a command's effect on the state at a revision; MaxRevision: on
// the latest.
func (m *Machine) evaluate(c *shard.Command, at shard.Revision) (e effect, err error) {
	e.kind = c.Kind
	switch c.Kind {
	case shard.KindPut, shard.KindDelete:
		e.writes = []shard.BatchOp{{Kind: c.Kind, Key: c.Key, Value: c.Value}}
	case shard.KindBatch:
		err = m.evaluateBatch(&e, c, at)
	case shard.KindDeleteRange:
		err = m.evaluateDeleteRange(&e, c, at)
	}
	return e, err
}

// evaluateBatch chooses a list by the compares and reads what its gets ask for,
// both on the state before the batch.
func (m *Machine) evaluateBatch(e *effect, c *shard.Command, at shard.Revision) (err error) {
	e.found, e.ops = true, c.Then
	for i := range c.Compares {
		holds, err := m.holds(&c.Compares[i], at)
		if err != nil {
			return err
		}
		if !holds {
			e.found, e.ops = false, c.Else
			break
		}
	}
	e.rows = make([]shard.Row, len(e.ops))
	read := 0
	for i := range e.ops {
		o, row := &e.ops[i], &e.rows[i]
		if o.Kind != shard.KindGet {
			e.writes = append(e.writes, *o)
			continue
		}
		value, rev, err := m.present(o.Key, at)
		if err != nil {
			return err
		}
		if read += len(value); read > shard.PageBytesMax {
			e.refusal = &shard.InvalidError{Field: "batch", Reason: fmt.Sprintf("gets more than %d bytes of values", shard.PageBytesMax)}
			return nil
		}
		row.Value, row.Revision = bytes.Clone(value), rev
	}
	return nil
}

func (m *Machine) holds(x *shard.Compare, at shard.Revision) (bool, error) {
	value, rev, err := m.present(x.Key, at)
	if err != nil {
		return false, err
	}
	switch x.Kind {
	case shard.CompareValue:
		return rev != 0 && bytes.Equal(value, x.Value), nil
	case shard.CompareRevision:
		return rev != 0 && rev == x.Revision, nil
	case shard.CompareAbsent:
		return rev == 0, nil
	default:
		return rev != 0, nil
	}
}

// evaluateDeleteRange finds the first Limit keys of the range that have a value.
// Unlike a page of a scan it does not end early: how many tombstones lie in
// between differs from replica to replica, and every one must find the same keys.
// How wide the range may be is the leader's concern, before it proposes.
func (m *Machine) evaluateDeleteRange(e *effect, c *shard.Command, at shard.Revision) error {
	span := shard.Span{Start: c.Start, End: c.End}
	keys := keysOf{m: m, span: span, at: at, limit: c.Limit, staged: m.staged.versions.visible(span, at)}
	for uint64(len(e.writes)) < c.Limit {
		key, err := keys.next()
		if err != nil {
			return err
		}
		if key == nil {
			return nil
		}
		e.writes = append(e.writes, shard.BatchOp{Kind: shard.KindDelete, Key: key})
		e.count++
	}
	if e.count == 0 {
		return nil
	}
	last := e.writes[e.count-1].Key
	if next := append(bytes.Clone(last), 0); bytes.Compare(next, span.End) < 0 {
		e.resume = next
	}
	return nil
}

// carryOut stages the writes of an effect at a revision.
func (m *Machine) carryOut(b *storage.Batch, rev shard.Revision, op shard.OpID, e *effect) {
	for i := range e.writes {
		o := &e.writes[i]
		m.write(b, rev, op, o.Key, o.Value, o.Kind == shard.KindDelete)
	}
}

// result is what the effect is to the caller when its writes are at rev.
func (e *effect) result(rev shard.Revision) raftgroup.Result {
	if len(e.writes) == 0 {
		rev = 0
	}
	if e.kind == shard.KindPut || e.kind == shard.KindDelete {
		return raftgroup.Result{Revision: rev}
	}
	for i := range e.ops {
		if e.ops[i].Kind != shard.KindGet {
			e.rows[i].Revision = rev
		}
	}
	detail := &shard.Result{Revision: rev, Found: e.found, Rows: e.rows, Count: e.count, Resume: e.resume}
	return raftgroup.Result{Revision: rev, Found: e.found, Detail: detail}
}
