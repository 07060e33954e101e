package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// outcome is what a client knows of an operation in the end.
type outcome byte

const (
	pending      outcome = iota // has not returned, or never will
	done                        // took effect, once
	refused                     // had no effect and never will; of a read: gave no answer
	undetermined                // a write that may have taken effect, or may still
)

// classify maps the error of a client's operation to its outcome. Whatever is
// not known to be a refusal counts as undetermined: it promises the least.
func classify(err error) outcome {
	var invalid *shard.InvalidError
	var notLeader *shard.NotLeaderError
	var wrongShard *shard.WrongShardError
	var gaveUp *client.GaveUpError
	switch {
	case err == nil:
		return done
	case errors.Is(err, shard.ErrUndetermined): // whatever else it says
		return undetermined
	case errors.Is(err, shard.ErrBusy), errors.Is(err, shard.ErrDropped), errors.Is(err, shard.ErrUnavailable),
		errors.Is(err, shard.ErrNoRevision), errors.Is(err, shard.ErrSpansShards), errors.Is(err, shard.ErrRangeTooWide),
		errors.Is(err, shard.ErrCompacted), errors.Is(err, shard.ErrFutureRevision),
		errors.As(err, &invalid), errors.As(err, &notLeader), errors.As(err, &wrongShard),
		errors.As(err, &gaveUp) && !gaveUp.Undetermined:
		return refused
	}
	return undetermined
}

// Op is one operation on one key, as its client saw it. A page of a scan of the
// latest state becomes one Op, a get, for every key that the page covers; so does
// a Call. A draw is one without a key.
type Op struct {
	Client  int
	Kind    shard.Kind // KindPut, KindDelete, KindGet, KindDraw; KindBatch: nothing but Conds
	Shard   shard.ID   // where the key lies
	Key     string
	Value   string // written, or found; every written value is unique in a run
	Found   bool   // a get found a value
	Rev     shard.Revision
	Count   shard.Revision  // of a draw
	Conds   []shard.Compare // on the key: they held, just before
	Unmet   bool            // they did not
	Call    int64           // logical times: unique, in the order in which calls and returns happened
	Return  int64
	Outcome outcome
	At      time.Duration // virtual time of the call
}

func (o *Op) String() string {
	s := fmt.Sprintf("[%d,%d] client %d ", o.Call, o.Return, o.Client)
	value := short(o.Value)
	switch o.Kind {
	case shard.KindPut:
		s += fmt.Sprintf("put %q=%q", o.Key, value)
	case shard.KindDelete:
		s += fmt.Sprintf("delete %q", o.Key)
	case shard.KindDraw:
		s += fmt.Sprintf("draw %d", o.Count)
	case shard.KindBatch:
		s += fmt.Sprintf("compare %q unmet=%v", o.Key, o.Unmet)
	default:
		s += fmt.Sprintf("get %q found=%v %q", o.Key, o.Found, value)
	}
	if len(o.Conds) > 0 {
		s += " if" + comparesText(o.Conds)
	}
	return s + fmt.Sprintf(" rev=%d outcome=%d at=%v", o.Rev, o.Outcome, o.At)
}

// short cuts the padding off a value.
func short(value string) string {
	value, _, _ = strings.Cut(value, "|")
	return value
}

// History is all operations of a run, in the order of their calls.
type History struct {
	clock     int64
	ops       []*Op
	calls     []*Call
	snapshots []*Snapshot
	checked   int // keys whose operations were found to be linearizable
	// deletes are the revisions of every delete that took effect, by key, if the
	// logs were watched; nil: nobody knows.
	deletes map[string][]shard.Revision
	// effects of calls by name, and puts by what they wrote, if the logs were watched.
	effects map[string]*effect
	puts    map[written]*effect
}

// Begin notes the call of an operation.
func (h *History) Begin(o *Op) *Op {
	h.clock++
	o.Call = h.clock
	h.ops = append(h.ops, o)
	return o
}

// End notes that an operation returned.
func (h *History) End(o *Op, how outcome) {
	h.clock++
	o.Return = h.clock
	o.Outcome = how
}

// Saw notes a read at a revision that has returned.
func (h *History) Saw(s *Snapshot) {
	h.clock++
	s.Return = h.clock
	h.snapshots = append(h.snapshots, s)
}

// now is a logical time of its own, for a call that becomes several snapshots.
func (h *History) now() int64 {
	h.clock++
	return h.clock
}

// Check tells whether the history could have happened on one copy of the data,
// one operation at a time, and whether revisions follow real time.
//
// A write with an unknown outcome may take effect at any time after its call,
// even after the end; a read that failed says nothing.
func (h *History) Check(timeout time.Duration) error {
	if err := h.checkCalls(); err != nil {
		return err
	}
	ops := h.expand()
	revs, err := h.observedRevisions(ops)
	if err != nil {
		return err
	}
	for _, check := range []func([]*Op) error{h.checkRefused, h.checkRevisionOrder, h.checkUnique, h.checkSnapshots} {
		if err := check(ops); err != nil {
			return err
		}
	}
	keys, byKey := byKey(ops)
	for _, key := range keys {
		if err := checkKey(key, h.settleDeletes(key, byKey[key]), revs, timeout); err != nil {
			return err
		}
		if len(byKey[key]) > 1 { // one alone could not be otherwise
			h.checked++
		}
	}
	return nil
}

// settleDeletes replaces the deletes of a key whose outcome is unknown by those
// that took effect: nothing else tells them apart, and each one that could have
// happened at any time doubles the work of the check. All count as called when the first was.
func (h *History) settleDeletes(key string, ops []*Op) []*Op {
	if h.deletes == nil {
		return ops
	}
	revs := slices.Clone(h.deletes[key])
	var kept []*Op
	var unknown *Op // the first
	for _, o := range ops {
		switch {
		case o.Kind != shard.KindDelete || o.Outcome == refused, o.Outcome != done && o.Rev != 0:
			kept = append(kept, o)
		case o.Outcome == done:
			kept = append(kept, o)
			revs = slices.DeleteFunc(revs, func(r shard.Revision) bool { return r == o.Rev })
		case unknown == nil:
			unknown = o
		}
	}
	if unknown == nil {
		return kept
	}
	for _, r := range revs {
		o := *unknown
		o.Rev = r
		kept = append(kept, &o)
	}
	return kept
}

// written names a value: values are unique for a key.
type written struct{ key, value string }

// observedRevisions collects the revision of every value, as acknowledged and as
// read, and refuses two revisions of one value: a write that took effect twice.
func (h *History) observedRevisions(ops []*Op) (map[written]shard.Revision, error) {
	revs := make(map[written]shard.Revision)
	see := func(w written, rev shard.Revision, by fmt.Stringer) error {
		if r, known := revs[w]; known && r != rev {
			return fmt.Errorf("one write has two revisions, %d and another: %v", r, by)
		}
		revs[w] = rev
		return nil
	}
	for _, o := range ops {
		if o.Outcome != done || o.Kind != shard.KindPut && (o.Kind != shard.KindGet || !o.Found) {
			continue
		}
		if err := see(written{o.Key, o.Value}, o.Rev, o); err != nil {
			return nil, err
		}
	}
	for _, s := range h.snapshots {
		if !s.Found {
			continue
		}
		if err := see(written{s.Key, s.Value}, s.Rev, s); err != nil {
			return nil, err
		}
	}
	return revs, nil
}

// checkRefused refuses a value that was read although its write was refused, or
// that nobody wrote.
func (h *History) checkRefused(ops []*Op) error {
	writes := make(map[written]*Op)
	for _, o := range ops {
		if o.Kind == shard.KindPut {
			writes[written{o.Key, o.Value}] = o
		}
	}
	read := func(found written, by fmt.Stringer) error {
		switch w := writes[found]; {
		case w == nil:
			return fmt.Errorf("a read found what nobody wrote: %v", by)
		case w.Outcome == refused:
			return fmt.Errorf("a write that was refused took effect: %v, read by %v", w, by)
		}
		return nil
	}
	for _, o := range ops {
		if o.Kind == shard.KindGet && o.Outcome == done && o.Found {
			if err := read(written{o.Key, o.Value}, o); err != nil {
				return err
			}
		}
	}
	for _, s := range h.snapshots {
		if s.Found {
			if err := read(written{s.Key, s.Value}, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func byKey(ops []*Op) (keys []string, byKey map[string][]*Op) {
	byKey = make(map[string][]*Op)
	for _, o := range ops {
		if o.Kind == shard.KindDraw {
			continue
		}
		if byKey[o.Key] == nil {
			keys = append(keys, o.Key)
		}
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	return keys, byKey
}

// register is the state of one key: its newest version.
type register struct {
	found bool
	value string
	rev   shard.Revision
}

// checkKey asks porcupine about one key's operations.
func checkKey(key string, ops []*Op, revs map[written]shard.Revision, timeout time.Duration) error {
	var history []porcupine.Operation
	for _, o := range ops {
		if o.Outcome == refused || (o.Kind == shard.KindGet || o.Kind == shard.KindBatch) && o.Outcome != done {
			continue
		}
		rev, ret := o.Rev, o.Return
		if o.Outcome != done {
			ret = never
			if o.Kind == shard.KindPut && rev == 0 {
				r, read := revs[written{o.Key, o.Value}]
				if !read {
					continue // nobody saw it: it may as well have happened last
				}
				rev = r
			}
		}
		history = append(history, porcupine.Operation{ClientId: o.Client, Input: o, Output: seen{rev: rev}, Call: o.Call, Return: ret})
	}
	if err := tighten(history); err != nil {
		return fmt.Errorf("the history of key %q is not linearizable: %w%s", key, err, list(ops))
	}
	if res := porcupine.CheckOperationsTimeout(registerModel, history, timeout); res != porcupine.Ok {
		return fmt.Errorf("the history of key %q is not linearizable (%s):%s", key, res, list(ops))
	}
	return nil
}

func list(ops []*Op) []byte {
	var s []byte
	for _, o := range ops {
		s = fmt.Appendf(s, "\n  %v", o)
	}
	return s
}

// registerModel is one key on one copy of the data. Revisions take part: versions
// come in their order, and a read finds the revision with which its value was written.
var registerModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		s, o, out := state.(register), input.(*Op), output.(seen)
		for i := range o.Conds {
			if holds(&o.Conds[i], version{rev: s.rev, found: s.found, value: s.value}) == o.Unmet {
				return false, s
			}
		}
		if o.Kind == shard.KindBatch {
			return true, s
		}
		if o.Kind == shard.KindGet {
			return s.found == o.Found && s.value == o.Value && (!o.Found || s.rev == out.rev), s
		}
		if out.rev != 0 && out.after != s.rev {
			return false, s
		}
		return true, register{found: o.Kind == shard.KindPut, value: o.Value, rev: max(out.rev, s.rev)}
	},
}
