package sim

import (
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

// logOf plays operations to a witness as if one replica after the other applied them.
type logOf struct {
	w     *Witness
	index uint64
}

func newLog() *logOf {
	trace := NewTrace(nil)
	return &logOf{w: NewWitness(NewLoop(1, trace), trace)}
}

// applies plays an operation with the revision that its header has, and the
// result that a machine had.
func (l *logOf) applies(seq uint64, c shard.Command, rev shard.Revision, retry bool, res raftgroup.Result) *logOf {
	l.index++
	return l.again(seq, c, rev, retry, res)
}

// again plays what another replica made of the operation before.
func (l *logOf) again(seq uint64, c shard.Command, rev shard.Revision, retry bool, res raftgroup.Result) *logOf {
	c.Op, c.Retry = shard.OpID{Session: 7, Sequence: seq}, retry
	op := shard.AppendCommand(machine.AppendHeader(nil, machine.Header{Revision: rev, Version: 1}), &c)
	o := &observer{Machine: &wholeMachine{}, witness: l.w, node: "n1", shard: 2, ops: 1}
	l.w.took(o, raftgroup.Position{Index: l.index, Term: 1}, op, res)
	return l
}

func at0(rev shard.Revision) raftgroup.Result { return raftgroup.Result{Revision: rev} }

func detail(res shard.Result) raftgroup.Result {
	return raftgroup.Result{Revision: res.Revision, Detail: &res}
}

func user(key string) []byte { return shard.UserKey([]byte(key)) }

func TestEffectVerdicts(t *testing.T) {
	a, b := string(user("a")), string(user("b"))
	putA := func(value string) shard.Command {
		return shard.Command{Kind: shard.KindPut, Key: user("a"), Value: []byte(value)}
	}
	delA := shard.Command{Kind: shard.KindDelete, Key: user("a")}
	swapA := batch(compares(ifValue(a, "1")), ops(toPut(a, "2"), toGet(b)), ops(toGet(a)))
	ranged := shard.Command{Kind: shard.KindDeleteRange, Start: user("a"), End: user("c"), Limit: 1}
	undetermined := raftgroup.Result{Err: shard.ErrUndetermined}
	for _, c := range []struct {
		name string
		l    *logOf
		want string
	}{
		{"writes", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, delA, 2, false, at0(2)), ""},
		{"a write that is not its log's", newLog().applies(1, putA("1"), 1, false, at0(2)), "revision is 2, not 1"},
		{"a retry finds the first attempt", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(1, putA("1"), 2, true, at0(1)), ""},
		{"a retry does not find it", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(1, putA("1"), 2, true, at0(2)), "took effect twice"},
		{"a late first attempt", newLog().applies(1, putA("1"), 1, true, at0(1)).applies(1, putA("1"), 2, false, at0(2)), "took effect twice"},
		{"a retry finds what is not there", newLog().applies(1, putA("1"), 5, true, at0(2)), "revision is 2, not 5"},
		{"a retry is refused", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(1, putA("1"), 2, true, undetermined), ""},
		{"a first attempt is refused as if it were one", newLog().applies(1, putA("1"), 2, false, undetermined), "undetermined when it was applied"},
		{"a revision that is not larger", newLog().applies(1, putA("1"), 3, false, at0(3)).applies(2, putA("2"), 2, false, at0(2)), "comes after revision 3"},
		{"a revision twice", newLog().applies(1, putA("1"), 3, false, at0(3)).applies(2, putA("2"), 3, false, at0(3)), "two writes have one revision"},
		{"replicas answer alike", newLog().applies(1, ranged, 3, false, detail(shard.Result{})).again(1, ranged, 3, false, detail(shard.Result{})), ""},
		{"replicas differ", newLog().applies(1, ranged, 3, false, detail(shard.Result{})).again(1, ranged, 3, false, detail(shard.Result{Count: 1})), "elsewhere as"},
		{"a swap", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(held(2, wrote(2), saw("", 0)))), ""},
		{"a swap without a result", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, swapA, 2, false, at0(2)), "has no result"},
		{"a swap of something else", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(held(2, wrote(2), saw("", 0)))), "revision is 2, not 0"},
		{"a swap that sees its own write", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(notHeld(0, saw("2", 2)))), "row 0"},
		{"a swap again", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(held(2, wrote(2), saw("", 0)))).
			applies(2, swapA, 3, true, detail(held(2, wrote(2), saw("", 0)))), ""},
		{"a swap again, without look-up", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(held(2, wrote(2), saw("", 0)))).
			applies(2, swapA, 3, true, detail(notHeld(0, saw("2", 2)))), "took effect twice"},
		{"a swap again, answered as of now", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(held(2, wrote(2), saw("", 0)))).
			applies(3, shard.Command{Kind: shard.KindPut, Key: user("b"), Value: []byte("5")}, 3, false, at0(3)).
			applies(2, swapA, 4, true, detail(held(2, wrote(2), saw("5", 3)))), "otherwise than the first"},
		{"a swap that does nothing, again", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, true, detail(notHeld(0, saw("9", 1)))).
			applies(3, putA("1"), 3, false, at0(3)).applies(2, swapA, 4, true, detail(notHeld(0, saw("9", 1)))), ""},
		{"a swap that does nothing, and later something", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, true, detail(notHeld(0, saw("9", 1)))).
			applies(3, putA("1"), 3, false, at0(3)).applies(2, swapA, 4, true, detail(held(4, wrote(4), saw("", 0)))), "was told that it does nothing"},
		{"a swap that does nothing, and then sees something else", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, true, detail(notHeld(0, saw("9", 1)))).
			applies(3, putA("8"), 3, false, at0(3)).applies(2, swapA, 4, true, detail(notHeld(0, saw("8", 3)))), "otherwise than the first"},
		{"one that was no retry did nothing, and then something", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, false, detail(notHeld(0, saw("9", 1)))).
			applies(3, putA("1"), 3, false, at0(3)).applies(2, swapA, 4, true, detail(held(4, wrote(4), saw("", 0)))), ""},
		{"readers do not see the trace", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, true, detail(notHeld(0, saw("9", 1)))).
			applies(3, swapA, 3, false, detail(notHeld(0, saw("9", 1)))), ""},
		{"a write at the trace's revision", newLog().applies(1, putA("9"), 1, false, at0(1)).applies(2, swapA, 2, true, detail(notHeld(0, saw("9", 1)))).
			applies(3, putA("1"), 2, false, at0(2)), "two writes have one revision"},
		{"a range", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, ranged, 2, false, detail(shard.Result{Revision: 2, Count: 1})), ""},
		{"a range that stops early", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, shard.Command{Kind: shard.KindPut, Key: user("b")}, 2, false, at0(2)).
			applies(3, ranged, 3, false, detail(shard.Result{Revision: 3, Count: 1})), "is left"},
		{"a range that goes on", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, shard.Command{Kind: shard.KindPut, Key: user("b")}, 2, false, at0(2)).
			applies(3, ranged, 3, false, detail(shard.Result{Revision: 3, Count: 1, Resume: user("a\x00")})), ""},
		{"a range that counts a tombstone", newLog().applies(1, putA("1"), 1, false, at0(1)).applies(2, delA, 2, false, at0(2)).
			applies(3, ranged, 3, false, detail(shard.Result{Revision: 3, Count: 1})), "revision is 3, not 0"},
	} {
		t.Run(c.name, func(t *testing.T) { verdict(t, c.l.w.Err(), c.want) })
	}
}

// TestJudge compares what clients say with what logs say.
func TestJudge(t *testing.T) {
	a := string(user("a"))
	swapA := batch(compares(ifValue(a, "1")), ops(toPut(a, "2")), ops(toGet(a)))
	log := func() *logOf {
		return newLog().applies(1, shard.Command{Kind: shard.KindPut, Key: user("a"), Value: []byte("1")}, 1, false, at0(1)).
			applies(2, swapA, 4, false, detail(held(4, wrote(4)))).
			applies(3, batch(compares(ifAbsent(a)), ops(toPut(a, "7")), ops(toGet(a))), 5, false, detail(notHeld(0, saw("2", 4))))
	}
	absent := batch(compares(ifAbsent(a)), ops(toPut(a, "7")), ops(toGet(a)))
	for _, c := range []struct {
		name string
		h    *History
		want string
	}{
		{"as logged", calling(script(put(a, "1", 1, 1, 2)), swapA, held(4, wrote(4)), 3, 4, done), ""},
		{"an unknown outcome", calling(script(with(put(a, "1", 0, 1, 2), undetermined)), swapA, shard.Result{}, 3, 4, undetermined), ""},
		{"a put of another revision", script(put(a, "1", 2, 1, 2)), "not its own"},
		{"a put in no log", script(put(a, "8", 2, 1, 2)), "in no log"},
		{"a refused put in the log", script(with(put(a, "1", 0, 1, 2), refused)), "refused took effect"},
		{"a batch of another revision", calling(script(), swapA, held(3, wrote(3)), 3, 4, done), "answered otherwise"},
		{"a batch that took effect and was answered as if not", calling(script(), swapA, notHeld(0, saw("2", 4)), 3, 4, done), "answered otherwise"},
		{"a refused batch in the log", calling(script(), swapA, shard.Result{}, 3, 4, refused), "refused took effect"},
		{"a batch in no log", calling(script(), batch(nil, ops(toPut(a, "9")), nil), held(9, wrote(9)), 3, 4, done), "in no log"},
		{"an idle batch", calling(script(), absent, notHeld(0, saw("2", 4)), 3, 4, done), ""},
		{"an idle batch, answered from elsewhere", calling(script(), absent, notHeld(0, saw("1", 1)), 3, 4, done), "none of the 1"},
		{"a read at a revision", at(at(script(), 3, a, "1", 1, 1, 2), 4, a, "2", 4, 1, 2), ""},
		{"a read below what came later", at(script(), 4, a, "1", 1, 1, 2), "did not find what the logs say"},
		{"a read at a revision of a key that has none yet", at(script(), 3, a+"x", "", 0, 1, 2), ""},
		{"a draw of a write's revision", script(Op{Kind: shard.KindDraw, Rev: 3, Count: 2, Outcome: done}), "was drawn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := log().w
			w.judge(c.h)
			verdict(t, w.Err(), c.want)
		})
	}
}

// TestFloorVerdicts: a floor never falls and is never above what was written, and
// nothing at or above every floor is refused as compacted.
func TestFloorVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(o *observer, w *Workload)
		want string
	}{
		{"rises", func(o *observer, w *Workload) { o.raised(3); o.raised(5) }, ""},
		{"falls", func(o *observer, w *Workload) { o.raised(5); o.raised(3) }, "goes from 5 to 3"},
		{"is above what was written", func(o *observer, w *Workload) { o.raised(9) }, "goes from 0 to 9"},
		{"refuses below", func(o *observer, w *Workload) { o.raised(5); w.refusedAt(4, shard.ErrCompacted) }, ""},
		{"refuses its own revision", func(o *observer, w *Workload) { o.raised(5); w.refusedAt(5, shard.ErrCompacted) }, "no floor is above"},
		{"is not known to those who refuse", func(o *observer, w *Workload) { w.refusedAt(4, shard.ErrCompacted) }, "no floor is above"},
		{"of the future", func(o *observer, w *Workload) { w.refusedAt(4, shard.ErrFutureRevision) }, "one of the future"},
		{"unavailable", func(o *observer, w *Workload) { w.refusedAt(4, shard.ErrUnavailable) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			c.run(&observer{witness: l.w, node: "n1", shard: 2, last: 8}, &Workload{cluster: &Cluster{witness: l.w}})
			verdict(t, l.w.Err(), c.want)
		})
	}
}

// TestRangeGoesOnInTheNextShard: where a shard ends, a client resumes though the
// log says that the piece is done.
func TestRangeGoesOnInTheNextShard(t *testing.T) {
	c := &Call{Command: shard.Command{Kind: shard.KindDeleteRange, Start: user("a"), End: user("z")}}
	for _, v := range []struct {
		logged []byte // the end of the range in the log
		resume []byte
		want   bool
	}{{user("m"), user("m"), true}, {user("m"), nil, false}, {user("m"), user("n"), false}, {user("z"), nil, true}, {user("z"), user("m"), false}} {
		c.Result.Resume = v.resume
		if got := c.answered(&logResult{end: v.logged}); got != v.want {
			t.Errorf("done up to %q, resumed at %q: %v, want %v", v.logged, v.resume, got, v.want)
		}
	}
}

// wholeMachine is one of a shard that covers everything.
type wholeMachine struct{ raftgroup.Machine }

func (*wholeMachine) Descriptor() *shard.Descriptor {
	d := userShard(2, 1, "", "")
	return &d
}

// damagedMachine finds at one index that its data is damaged.
type damagedMachine struct {
	wholeMachine
	at uint64
}

func (m *damagedMachine) Apply(_ *storage.Batch, at raftgroup.Position, _ []byte) (raftgroup.Result, error) {
	if at.Index == m.at {
		return raftgroup.Result{}, storage.ErrDamaged
	}
	return at0(shard.Revision(at.Index)), nil
}

func (*damagedMachine) EndApply(*storage.Batch, raftgroup.Position) {}

// A replica that finds damage stops before the entry: those of the same turn that
// went before are applied.
func TestAnEntryThatCouldNotBeAppliedDoesNotCount(t *testing.T) {
	w := newLog().w
	w.damaged = "n1"
	o := &observer{Machine: &damagedMachine{at: 12}, witness: w, node: "n1", shard: 2}
	for i := uint64(11); i <= 12; i++ {
		op := shard.AppendCommand(machine.AppendHeader(nil, machine.Header{Revision: shard.Revision(i), Version: 1}),
			&shard.Command{Kind: shard.KindPut, Key: user("a"), Value: []byte("1"), Op: shard.OpID{Session: 7, Sequence: i}})
		_, _ = o.Apply(nil, raftgroup.Position{Index: i, Term: 1}, op)
	}
	o.EndApply(nil, raftgroup.Position{Index: 11, Term: 1})
	if w.Err() != nil || w.foundOut != 1 {
		t.Errorf("found out %d times: %v", w.foundOut, w.Err())
	}
	if e := w.entry(o, raftgroup.Position{Index: 12, Term: 1}); e.full {
		t.Error("the entry counts as whole, and others may not apply it")
	}
}
