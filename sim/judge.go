package sim

import (
	"bytes"

	"github.com/kiloraft/kiloraft/shard"
)

// judge compares what clients were told with what the logs say, once all
// operations have returned and every log was applied somewhere to its end.
func (w *Witness) judge(h *History) {
	for _, o := range h.ops {
		switch o.Kind {
		case shard.KindPut:
			w.judgePut(o)
		case shard.KindDraw:
			w.judgeDraw(o)
		}
	}
	for _, c := range h.calls {
		w.judgeCall(c)
	}
	for _, s := range h.snapshots {
		if want := w.effects.model.at(s.Key, s.At); want != s.version() {
			w.Fail("a read at a revision did not find what the logs say, which is found=%v %q of revision %d: %v", want.found, short(want.value), want.rev, s)
		}
	}
	h.deletes = w.effects.deletes
	h.effects = w.effects.byName
	h.puts = w.effects.byValue
}

func (w *Witness) judgePut(o *Op) {
	e := w.effects.byValue[written{o.Key, o.Value}]
	switch {
	case o.Outcome == refused && e != nil:
		w.Fail("a write that was refused took effect as %v: %v", e, o)
	case o.Outcome == done && e == nil:
		w.Fail("a write was acknowledged and is in no log: %v", o)
	case o.Outcome == done && e.rev != o.Rev:
		w.Fail("a write was acknowledged with a revision that is not its own, which is %v: %v", e, o)
	}
}

// judgeDraw refuses a draw of a revision that a write has.
func (w *Witness) judgeDraw(o *Op) {
	if o.Outcome != done {
		return
	}
	for r := o.Rev; r < o.Rev+o.Count; r++ {
		if e := w.effects.byRev[r]; e != nil {
			w.Fail("revision %d was drawn and is that of %v: %v", r, e, o)
		}
	}
}

// judgeCall compares the answer of a batch or a delete-range with its effect; one
// that wrote nothing may have been evaluated several times, and has one of the answers.
func (w *Witness) judgeCall(c *Call) {
	e, idle := w.effects.byName[c.Name], w.effects.idle[c.Name]
	switch {
	case c.Outcome == refused && e != nil:
		w.Fail("a write that was refused took effect as %v: %v", e, c)
	case c.Outcome != done:
	case e != nil && !c.answered(e.result):
		w.Fail("a write took effect as %v, %v, and was answered otherwise: %v", e, resultText(&e.result.Result), c)
	case e == nil && c.Result.Revision != 0:
		w.Fail("a write was acknowledged and is in no log: %v", c)
	case e == nil:
		for _, r := range idle {
			if c.answered(r) {
				return
			}
		}
		w.Fail("an answer is none of the %d that the log gives: %v", len(idle), c)
	}
}

// answered tells whether what a log says is what the client was answered. Where
// a shard ends, a delete-range that goes on resumes in the next one.
func (c *Call) answered(l *logResult) bool {
	want := l.Result
	if want.Resume == nil && c.Command.Kind == shard.KindDeleteRange && bytes.Compare(l.end, c.Command.End) < 0 {
		want.Resume = l.end
	}
	return sameResult(&want, &c.Result)
}
