package revision

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// world is time that stands still until the test lets it pass, and a meta shard
// that answers when it is told to.
type world struct {
	timers []*appointment
	asked  []question
	held   *[]func() // steps that wait for the test; nil: steps run at once
	now    time.Duration
}

type appointment struct {
	step    func()
	stopped bool
}

func (a *appointment) Stop() bool { a.stopped = true; return true }

type question struct {
	n     uint64
	voter shard.ReplicaID
	done  func(shard.Result, error)
}

func (w *world) Now() time.Duration { return w.now }
func (w *world) AfterFunc(_ time.Duration, _ env.Queue, step func()) env.Timer {
	a := &appointment{step: step}
	w.timers = append(w.timers, a)
	return a
}
func (w *world) Uint64() uint64                { return 1 }
func (w *world) NewQueue(string) env.Queue     { return w }
func (w *world) NewPool(string, int) env.Queue { return w }
func (w *world) Submit(step func()) {
	if w.held != nil {
		*w.held = append(*w.held, step)
		return
	}
	step()
}
func (w *world) Do(c shard.Command, _ time.Duration, done func(shard.Result, error)) func() {
	if c.Kind != shard.KindDraw {
		panic("not a draw")
	}
	w.asked = append(w.asked, question{c.Limit, c.Voter, done})
	return func() {}
}

// answer answers question i.
func (w *world) answer(i int, first shard.Revision) {
	q := w.asked[i]
	q.done(shard.Result{Revision: first, Count: q.n}, nil)
}

// elsewhere is a world in which another node leads the meta shard.
func elsewhere() (*world, *Draws) {
	w := &world{}
	return w, NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: NewGrants(GrantsConfig{Meta: func() (Meta, bool) { return nil, false }})})
}

func draw(d *Draws, n int) *reply {
	r := &reply{}
	d.Draw(n, r.take)
	return r
}

// A draw serves those who waited when it was sent. Whoever comes later could
// otherwise be given a smaller revision than that of a write elsewhere which was
// acknowledged in between.
func TestNothingIsFetchedAhead(t *testing.T) {
	w, d := elsewhere()
	first := draw(d, 2)
	late, later := draw(d, 3), draw(d, 1)
	if len(w.asked) != 1 || w.asked[0].n != 2 {
		t.Fatalf("asked %+v", w.asked)
	}
	w.answer(0, 100)
	granted(t, first, 100)
	if late.calls != 0 || len(w.asked) != 2 || w.asked[1].n != 4 {
		t.Fatalf("%+v, asked %+v", late, w.asked)
	}
	w.answer(1, 200)
	granted(t, late, 200)
	granted(t, later, 203)
	if draws, n := d.Drawn(); draws != 2 || n != 6 || d.Newest() != 203 {
		t.Errorf("%d draws of %d, newest %d", draws, n, d.Newest())
	}
}

// Those who come before the draw leaves share it, as the writes of one frame do.
func TestDrawsOfOneFrameAreOne(t *testing.T) {
	w, d := elsewhere()
	w.held = &[]func(){}
	a, b := draw(d, 1), draw(d, 2)
	if len(*w.held) != 1 {
		t.Fatalf("%d steps", len(*w.held))
	}
	(*w.held)[0]()
	if len(w.asked) != 1 || w.asked[0].n != 3 {
		t.Fatalf("asked %+v", w.asked)
	}
	c := draw(d, 1)
	w.answer(0, 10)
	granted(t, a, 10)
	granted(t, b, 11)
	if c.calls != 0 || len(*w.held) != 2 || len(w.asked) != 1 {
		t.Errorf("%+v, %d steps, %d questions", c, len(*w.held), len(w.asked))
	}
}

// Whoever draws within an answer waits for the next draw.
func TestDrawWithinAnAnswer(t *testing.T) {
	w, d := elsewhere()
	var second *reply
	d.Draw(1, func(shard.Revision, error) { second = draw(d, 1) })
	w.answer(0, 5)
	if second == nil || second.calls != 0 || len(w.asked) != 2 {
		t.Fatalf("%+v, %d questions", second, len(w.asked))
	}
	w.answer(1, 6)
	granted(t, second, 6)
}

// A draw that takes too long ends with ErrNoRevision, and its answer, should it
// still come, is nobody's.
func TestSupersededDrawsAreIgnored(t *testing.T) {
	w, d := elsewhere()
	lost := draw(d, 1)
	waits := draw(d, 1)
	w.timers[0].step() // no note is waited for
	if lost.calls != 0 {
		t.Fatalf("%+v", lost)
	}
	w.timers[1].step()
	if lost.calls != 1 || !errors.Is(lost.err, shard.ErrNoRevision) {
		t.Errorf("%+v", lost)
	}
	w.answer(0, 10)
	if waits.calls != 0 || d.Newest() != 0 {
		t.Error("the answer of a draw that was given up was used")
	}
	w.answer(1, 20)
	granted(t, waits, 20)
	for _, late := range w.timers {
		late.step()
	}
	w.answer(0, 10)
	third := draw(d, 1)
	w.answer(2, 30)
	granted(t, third, 30)
}

func TestFailedDraws(t *testing.T) {
	w, d := elsewhere()
	r := draw(d, 1)
	w.asked[0].done(shard.Result{}, shard.ErrUnavailable)
	if r.calls != 1 || !errors.Is(r.err, shard.ErrNoRevision) {
		t.Errorf("%+v", r)
	}
	r = draw(d, 2)
	w.asked[1].done(shard.Result{Revision: 5, Count: 1}, nil) // not what was asked for
	if r.calls != 1 || !errors.Is(r.err, shard.ErrNoRevision) {
		t.Errorf("%+v", r)
	}
	r = draw(d, 2)
	w.answer(2, 6)
	granted(t, r, 6)
}

// Draws that are too large together are made one after the other.
func TestLargeDrawsAreCut(t *testing.T) {
	w, d := elsewhere()
	draw(d, 1)
	a, b, c := draw(d, shard.DrawMax-1), draw(d, 2), draw(d, 3)
	w.answer(0, 1)
	w.answer(1, 2)
	granted(t, a, 2)
	if b.calls != 0 || w.asked[2].n != 5 {
		t.Fatalf("%+v", w.asked)
	}
	w.answer(2, 1<<40)
	granted(t, b, 1<<40)
	granted(t, c, 1<<40+2)
}

// If this node leads the meta shard nobody else is asked.
func TestOwnGranterIsAskedFirst(t *testing.T) {
	m := &metaFake{group: &metaGroup{}}
	m.group.elect(m)
	w := &world{}
	d := NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: m.grants()})
	r := draw(d, 4)
	m.settle()
	granted(t, r, 1)
	m.group.elect(&metaFake{group: m.group})
	r = draw(d, 1)
	m.settle()
	if len(w.asked) != 1 {
		t.Fatal("the new leader was not asked")
	}
	w.answer(0, 1<<30)
	granted(t, r, 1<<30)
}

func TestHandedOut(t *testing.T) {
	w, d := elsewhere()
	draw(d, 10)
	w.answer(0, 100)
	check := func(r shard.Revision, want bool) {
		t.Helper()
		calls := 0
		asked := len(w.asked)
		d.HandedOut(r, func(known bool, err error) {
			calls++
			if known != want || err != nil {
				t.Errorf("%d: %v, %v", r, known, err)
			}
		})
		if len(w.asked) > asked {
			w.answer(asked, 200+shard.Revision(asked))
		}
		if calls != 1 {
			t.Errorf("%d: %d calls", r, calls)
		}
	}
	check(1, true)
	check(109, true)
	if len(w.asked) != 1 {
		t.Error("what is known was asked for")
	}
	check(110, true) // another node's, or nobody's: below what is drawn now
	check(1000, false)
	calls := 0
	d.HandedOut(1000, func(_ bool, err error) {
		calls++
		if !errors.Is(err, shard.ErrNoRevision) {
			t.Error(err)
		}
	})
	w.timers[len(w.timers)-1].step()
	w.timers[len(w.timers)-1].step()
	if calls != 1 {
		t.Error("no answer")
	}
}

// A draw of a voter is used only if the voter has heard of no later term when the
// answer is here; otherwise the leader is asked again, to see to that itself.
func TestDrawingVoterConfirms(t *testing.T) {
	m := &metaFake{group: &metaGroup{}, id: 2, term: 5}
	w := &world{}
	d := NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: m.grants()})
	told := func(term uint64) []byte { return binary.BigEndian.AppendUint64(nil, term) }
	r := draw(d, 3)
	if w.asked[0].voter != 2 {
		t.Fatalf("asked %+v", w.asked[0])
	}
	w.asked[0].done(shard.Result{Revision: 10, Count: 3, Value: told(5)}, nil)
	granted(t, r, 10)

	r = draw(d, 3)
	m.term = 6 // its vote may have made another leader
	w.asked[1].done(shard.Result{Revision: 13, Count: 3, Value: told(5)}, nil)
	if r.calls != 0 || len(w.asked) != 3 || w.asked[2].voter != 0 || w.asked[2].n != 3 {
		t.Fatalf("%+v, asked %+v", r, w.asked)
	}
	w.asked[2].done(shard.Result{Revision: 1000, Count: 3}, nil)
	granted(t, r, 1000)

	r = draw(d, 1)
	m.id = 9 // was removed and came back
	w.asked[3].done(shard.Result{Revision: 2000, Count: 1, Value: told(6)}, nil)
	if r.calls != 0 || len(w.asked) != 5 || w.asked[4].voter != 0 {
		t.Errorf("%+v, asked %+v", r, w.asked)
	}
}

// What this node's granter still says of a draw that was given up is nothing to the
// one in flight: asked for as many as the former wanted, it would deal out revisions
// that nobody granted, and that others get.
func TestGranterAnswersADrawThatWasGivenUp(t *testing.T) {
	m := &metaFake{group: &metaGroup{}}
	m.group.elect(m)
	w := &world{}
	d := NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: m.grants()})
	lost := draw(d, 1)
	m.raises[0]()
	m.raises = nil
	w.timers[0].step()
	w.timers[1].step() // the confirmation takes too long
	if lost.calls != 1 || !errors.Is(lost.err, shard.ErrNoRevision) || len(m.confirms) != 1 {
		t.Fatalf("%+v, %d confirmations", lost, len(m.confirms))
	}
	r := draw(d, 3)
	m.group.elect(m)
	m.confirm()        // in a later term: the first grant is refused, the second waits for a raise
	w.timers[2].step() // no note is waited for
	if r.calls != 0 || len(w.asked) != 0 {
		t.Fatalf("%+v, asked %+v", r, w.asked)
	}
	m.settle()
	granted(t, r, 1+defaultRaiseBy)
}

// post carries notes, or loses them.
type post struct {
	lost bool
	sent []letter
}

type letter struct {
	to   shard.NodeID
	note []byte
}

func (p *post) Note(to shard.NodeID, note []byte) bool {
	if p.lost {
		return false
	}
	p.sent = append(p.sent, letter{to, note})
	return true
}

// noted is a world in which node 3 leads the meta shard, and notes are carried.
func noted() (*world, *post, *metaFake, *Draws) {
	w, p := &world{}, &post{}
	m := &metaFake{group: &metaGroup{}, id: 2, term: 5}
	m.believes = raftgroup.Leadership{Term: 5, Leader: 1, Node: 3}
	return w, p, m, NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: m.grants(), Notes: p})
}

// A draw of another node's leader travels as a note, there and back.
func TestDrawsTravelAsNotes(t *testing.T) {
	w, p, m, d := noted()
	leader := &metaFake{group: &metaGroup{}, id: 1}
	leader.group.elect(leader)
	back := &post{}
	there := NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: leader.grants(), Notes: back})
	m.term = leader.group.term
	for i, want := range []shard.Revision{1, 4} {
		r := draw(d, 3)
		if len(p.sent) != i+1 || p.sent[i].to != 3 || len(w.asked) != 0 {
			t.Fatalf("sent %+v, asked %+v", p.sent, w.asked)
		}
		there.Note(2, p.sent[i].note)
		leader.settle()
		d.Note(3, back.sent[i].note)
		granted(t, r, want)
		d.Note(3, back.sent[i].note) // twice
	}
	if back.sent[1].to != 2 {
		t.Errorf("answered to node %d", back.sent[1].to)
	}
	// What is no note of ours is dropped.
	for _, bad := range [][]byte{{}, {noteDraw}, {9, 1, 1, 1}, {noteGrant, 1, 1}, {noteGrant, 1, 1, 1, 1}, appendNote(nil, noteDraw, 1, shard.DrawMax+1, 0)} {
		d.Note(3, bad)
	}
}

// A note that is lost, refused, or whose answer this node's voter cannot confirm
// leaves the draw to the other way; its answer is then nobody's.
func TestNotesThatDoNotServe(t *testing.T) {
	answer := func(p *post, first shard.Revision, term uint64) []byte {
		_, number, _, _, _ := decodeNote(p.sent[len(p.sent)-1].note)
		return appendNote(nil, noteGrant, number, uint64(first), term)
	}
	for name, c := range map[string]struct {
		fail  func(w *world, p *post, m *metaFake, d *Draws)
		voter shard.ReplicaID // of the other way
	}{
		"lost":    {func(w *world, _ *post, _ *metaFake, _ *Draws) { w.timers[0].step() }, 2},
		"refused": {func(_ *world, p *post, _ *metaFake, d *Draws) { d.Note(3, answer(p, 0, 0)) }, 0},
		"not to be confirmed": {func(_ *world, p *post, m *metaFake, d *Draws) {
			m.term = 6
			d.Note(3, answer(p, 10, 5))
		}, 0},
	} {
		w, p, m, d := noted()
		r := draw(d, 2)
		c.fail(w, p, m, d)
		if r.calls != 0 || len(w.asked) != 1 || w.asked[0].n != 2 || w.asked[0].voter != c.voter {
			t.Fatalf("%s: %+v, asked %+v", name, r, w.asked)
		}
		d.Note(3, answer(p, 20, 0)) // late
		if r.calls != 0 {
			t.Errorf("%s: the answer to a note that was given up was used", name)
		}
		w.answer(0, 30)
		granted(t, r, 30)
		if r := draw(d, 1); r.calls != 0 || len(p.sent) != 2 {
			t.Errorf("%s: %+v, %d notes", name, r, len(p.sent))
		}
	}
	w, p, _, d := noted()
	p.lost = true
	draw(d, 1)
	if len(w.asked) != 1 {
		t.Error("a note that was not sent left nothing")
	}
}
