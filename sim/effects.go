package sim

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// effects is what the logs say of every write to a user key. Clients see a part of
// it only: a write that took effect although it was refused, or twice, may be
// overwritten before anybody reads it.
type effects struct {
	model   *model
	byOp    map[shard.OpID]*effect
	byValue map[written]*effect         // of puts
	deletes map[string][]shard.Revision // by key, in the order in which logs were first applied
	// byName are the effects of batches and delete-ranges, by callName. A batch that
	// wrote nothing has none; what it was answered is in idle, each time.
	byName map[string]*effect
	idle   map[string][]*logResult

	next     map[shard.ID]opAt           // of each log: what was applied last by whoever came first
	last     map[shard.ID]shard.Revision // of the last write in each log
	byRev    map[shard.Revision]*effect  // every revision that was written
	answered map[opInLog]string          // what the first replica made of it, where that may differ
}

func newEffects() effects {
	return effects{model: newModel(), byOp: make(map[shard.OpID]*effect), byValue: make(map[written]*effect), deletes: make(map[string][]shard.Revision),
		byName: make(map[string]*effect), idle: make(map[string][]*logResult), next: make(map[shard.ID]opAt), last: make(map[shard.ID]shard.Revision),
		byRev: make(map[shard.Revision]*effect), answered: make(map[opInLog]string)}
}

// opAt is the position of an operation in a log: entries hold several.
type opAt struct {
	index uint64
	op    int
}

type opInLog struct {
	shard shard.ID
	opAt
}

// effect is one write as it was first applied.
type effect struct {
	shard   shard.ID
	index   uint64
	op      shard.OpID
	rev     shard.Revision
	kind    shard.Kind
	result  *logResult // of a batch or delete-range
	removed []string   // keys, of a delete-range
}

// logResult is what a log says of a batch or a delete-range.
type logResult struct {
	shard.Result
	end []byte // of the range, as far as the shard was asked for it
}

func (e *effect) String() string {
	return fmt.Sprintf("operation %x.%d of kind %d at index %d of shard %d with revision %d", e.op.Session, e.op.Sequence, e.kind, e.index, e.shard, e.rev)
}

// callName names a batch or a delete-range by what is in no other one: a value
// that it writes, which is unique in a run; else the key of its last compare, or
// the start of its range, which the workload makes unique.
func callName(c *shard.Command) string {
	if c.Kind == shard.KindDeleteRange {
		return "range " + string(c.Start)
	}
	for _, ops := range [...][]shard.BatchOp{c.Then, c.Else} {
		for i := range ops {
			if ops[i].Kind == shard.KindPut {
				return "value " + string(ops[i].Value)
			}
		}
	}
	if len(c.Compares) == 0 {
		return ""
	}
	return "marker " + string(c.Compares[len(c.Compares)-1].Key)
}

// took notes that a replica applied an operation, and what it made of it. The
// replica that gets there first decides what the effect is; no replica applies an
// entry before another one has applied those before it, so that the first ones
// come in the order of the log.
func (w *Witness) took(o *observer, at raftgroup.Position, op []byte, res raftgroup.Result) {
	var h machine.Header
	var c shard.Command
	if machine.DecodeOperation(op, &h, &c) != nil || !inUserKeyspace(&c) {
		return
	}
	here := opInLog{o.shard, opAt{at.Index, o.ops}}
	if next := w.effects.next[o.shard]; here.index < next.index || here.index == next.index && here.op <= next.op {
		if first, known := w.effects.answered[here]; known && first != answerText(&res) {
			w.Fail("%s shard %d: operation %d of entry %d came out as %s, elsewhere as %s", o.node, o.shard, here.op, here.index, answerText(&res), first)
		}
		return
	}
	w.effects.next[o.shard] = here.opAt
	if c.Retry || res.Err != nil || res.Detail != nil {
		w.effects.answered[here] = answerText(&res)
	}
	if res.Err != nil {
		if errors.Is(res.Err, shard.ErrUndetermined) && !c.Retry {
			w.Fail("the first attempt of operation %x.%d was called undetermined when it was applied", c.Op.Session, c.Op.Sequence)
		}
		return
	}
	if d := o.Machine.Descriptor(); h.Version != d.Epoch.Version || !c.Within(d.Span) {
		w.Fail("shard %d: at index %d an operation for version %d is applied to version %d, which covers %v: %+v", o.shard, at.Index, h.Version, d.Epoch.Version, d.Span, c)
		return
	}
	if err := w.effects.apply(here, &h, &c, &res); err != nil {
		w.Fail("%w", err)
	}
}

// inUserKeyspace: a leader's own commands are about no key.
func inUserKeyspace(c *shard.Command) bool {
	if c.Kind.Upkeep() {
		return false
	}
	anchor := c.Anchor()
	return len(anchor) > 0 && anchor[0] == shard.UserKeyspace
}

func answerText(res *raftgroup.Result) string {
	d, _ := res.Detail.(*shard.Result)
	if d == nil {
		d = &shard.Result{}
	}
	return fmt.Sprintf("revision %d, error %v, %d %v %d %x rows %x", res.Revision, res.Err, d.Revision, d.Found, d.Count, d.Resume, d.Rows)
}

// apply compares the result of an operation with what the rules say it must be,
// and adds its effect to the model.
func (e *effects) apply(at opInLog, h *machine.Header, c *shard.Command, res *raftgroup.Result) error {
	got := &shard.Result{Revision: res.Revision}
	if c.Kind == shard.KindBatch || c.Kind == shard.KindDeleteRange {
		d, _ := res.Detail.(*shard.Result)
		if d == nil {
			return fmt.Errorf("a command of kind %d was applied and has no result: %+v", c.Kind, res)
		}
		got = cloneResult(d)
	}
	said := &logResult{*got, bytes.Clone(c.End)}
	now := &effect{shard: at.shard, index: at.index, op: c.Op, rev: got.Revision, kind: c.Kind}
	if first := e.byOp[c.Op]; first != nil {
		return e.repeated(first, now, c, got)
	}
	want := e.evaluate(h.Revision, c)
	if why := want.differs(c.Kind, got); why != "" {
		return fmt.Errorf("%v, marked as retry: %v, came out otherwise than its log says: %s", now, c.Retry, why)
	}
	if c.Kind == shard.KindBatch || c.Kind == shard.KindDeleteRange {
		now.result = said
		if len(want.changes) == 0 {
			e.idle[callName(c)] = append(e.idle[callName(c)], said)
			return e.left(now, h.Revision, c)
		}
		e.byName[callName(c)] = now
	}
	return e.add(now, c, want.changes)
}

// repeated judges an attempt of an operation that took effect before: it must
// say what the first one said, and do nothing. Only a marked one may come at all.
func (e *effects) repeated(first, now *effect, c *shard.Command, got *shard.Result) error {
	if now.rev != first.rev && first.rev == 0 {
		return fmt.Errorf("a write took effect as %v after a marked attempt was told that it does nothing: %v", now, first)
	}
	if now.rev != first.rev {
		return fmt.Errorf("a write took effect twice: %v, and %v, marked as retry: %v", first, now, c.Retry)
	}
	if first.result == nil {
		return nil
	}
	if f := first.result; got.Found != f.Found || got.Count != f.Count || !bytes.Equal(got.Resume, f.Resume) || !sameRows(got.Rows, f.Rows) {
		return fmt.Errorf("a retry was answered otherwise than the first attempt, %v: %v and %v", first, resultText(&f.Result), resultText(got))
	}
	return nil
}

func (e *effects) evaluate(rev shard.Revision, c *shard.Command) modelResult {
	switch c.Kind {
	case shard.KindBatch:
		return e.model.batch(c, rev)
	case shard.KindDeleteRange:
		return e.model.deleteRange(c, rev)
	}
	return modelResult{res: shard.Result{Revision: rev},
		changes: map[string]version{string(c.Key): {rev: rev, found: c.Kind == shard.KindPut, value: string(c.Value)}}}
}

// place notes that an operation wrote at a revision. It is nobody else's, and above
// those of all writes before it in its log.
func (e *effects) place(now *effect, rev shard.Revision) error {
	if other := e.byRev[rev]; other != nil {
		return fmt.Errorf("two writes have one revision: %v and %v", other, now)
	}
	if before := e.last[now.shard]; rev <= before {
		return fmt.Errorf("%v comes after revision %d in its log", now, before)
	}
	e.byRev[rev] = now
	e.last[now.shard] = rev
	e.byOp[now.op] = now
	return nil
}

// left notes that an operation changed nothing. A marked one leaves a trace, where
// the first key is that it might have written: those after it are told the same.
func (e *effects) left(now *effect, rev shard.Revision, c *shard.Command) error {
	where := c.Start
	for _, ops := range [...][]shard.BatchOp{c.Else, c.Then} {
		for i := len(ops) - 1; i >= 0; i-- {
			if ops[i].Kind != shard.KindGet {
				where = ops[i].Key
			}
		}
	}
	if !c.Retry || where == nil {
		return nil
	}
	if err := e.place(now, rev); err != nil {
		return err
	}
	e.model.trace(string(where), rev)
	return nil
}

// add notes an effect.
func (e *effects) add(now *effect, c *shard.Command, changes map[string]version) error {
	if err := e.place(now, now.rev); err != nil {
		return err
	}
	switch c.Kind {
	case shard.KindDelete:
		e.deletes[string(c.Key)] = append(e.deletes[string(c.Key)], now.rev)
	case shard.KindDeleteRange:
		for _, key := range e.model.keys {
			if _, gone := changes[key]; gone {
				now.removed = append(now.removed, key)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		v := changes[key]
		if v.found {
			e.byValue[written{key, v.value}] = now
		}
		e.model.write(key, v)
	}
	return nil
}

func cloneResult(r *shard.Result) *shard.Result {
	c := *r
	c.Rows = nil
	for _, row := range r.Rows {
		c.Rows = append(c.Rows, shard.Row{Key: bytes.Clone(row.Key), Value: bytes.Clone(row.Value), Revision: row.Revision})
	}
	c.Resume = bytes.Clone(r.Resume)
	return &c
}

func sameRows(a, b []shard.Row) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Revision != b[i].Revision || !bytes.Equal(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

// sameResult compares two answers of a batch or a delete-range.
func sameResult(a, b *shard.Result) bool {
	return a.Revision == b.Revision && a.Found == b.Found && a.Count == b.Count && bytes.Equal(a.Resume, b.Resume) && sameRows(a.Rows, b.Rows)
}

func resultText(r *shard.Result) string {
	s := fmt.Sprintf("revision %d, held %v, %d removed, resume %q", r.Revision, r.Found, r.Count, r.Resume)
	for _, row := range r.Rows {
		s += fmt.Sprintf(", %q@%d", short(string(row.Value)), row.Revision)
	}
	return s
}
