package revision

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// leading is a world in which this node's replica 1 leads the meta shard, has a range
// to grant from, and notes are carried.
func leading(t testing.TB) (*world, *post, *metaFake, *Draws) {
	w, p, m := &world{}, &post{lost: true}, &metaFake{group: &metaGroup{}, id: 1}
	m.group.elect(m)
	d := NewDraws(DrawsConfig{Env: w, Queue: w, KV: w, Grants: m.grants(), Notes: p})
	r := draw(d, 1) // raises the bound
	m.settle()
	granted(t, r, 1)
	p.lost = false
	return w, p, m, d
}

// answer lets the witness of the last draw say its term.
func (p *post) answer(d *Draws, term uint64) {
	l := p.sent[len(p.sent)-1]
	_, number, voter, _, _ := decodeNote(l.note)
	d.Note(l.to, appendNote(nil, noteTerm, number, voter, term))
}

// A leader's own draw costs a note to another voter and its answer, no heartbeats.
func TestOwnDrawsAskAWitness(t *testing.T) {
	_, p, m, d := leading(t)
	r := draw(d, 3)
	if r.calls != 0 || len(p.sent) != 1 || p.sent[0].to != 2 || len(m.confirms) != 0 {
		t.Fatalf("%+v, sent %+v, %d confirmations", r, p.sent, len(m.confirms))
	}
	p.answer(d, m.term)
	granted(t, r, 2)
	r = draw(d, 1)
	again := *p
	again.sent = again.sent[:1]
	again.answer(d, m.term)
	if r.calls != 0 {
		t.Error("the answer to an earlier draw was used")
	}
	p.answer(d, m.term)
	granted(t, r, 5)
	if len(m.confirms) != 0 || len(p.sent) != 2 {
		t.Errorf("%d confirmations, %d notes", len(m.confirms), len(p.sent))
	}
}

// The witness says the term of the very replica that is asked for.
func TestWitnessSaysItsTerm(t *testing.T) {
	_, p, m, d := noted()
	for voter, want := range map[shard.ReplicaID]uint64{m.id: m.term, m.id + 1: 0, 0: 0} {
		d.Note(3, appendNote(nil, noteWitness, 7, uint64(voter), 0))
		l := p.sent[len(p.sent)-1]
		if kind, number, a, term, ok := decodeNote(l.note); !ok || l.to != 3 || kind != noteTerm || number != 7 || a != uint64(voter) || term != want {
			t.Errorf("asked for replica %d: % x to node %d", voter, l.note, l.to)
		}
	}
}

// Without a witness that was in the grant's term after the numbers were taken the
// leadership is confirmed by heartbeats, with other numbers.
func TestWitnessesThatDoNotServe(t *testing.T) {
	for name, fail := range map[string]func(w *world, p *post, m *metaFake, d *Draws){
		"silent":                    func(w *world, _ *post, _ *metaFake, _ *Draws) { w.timers[len(w.timers)-1].step() },
		"has voted in a later term": func(_ *world, p *post, m *metaFake, d *Draws) { p.answer(d, m.term+1) },
		"is behind":                 func(_ *world, p *post, m *metaFake, d *Draws) { p.answer(d, m.term-1) },
		"is not there":              func(_ *world, p *post, _ *metaFake, d *Draws) { p.answer(d, 0) },
	} {
		w, p, m, d := leading(t)
		r := draw(d, 2)
		fail(w, p, m, d)
		if r.calls != 0 || len(m.confirms) != 1 {
			t.Fatalf("%s: %+v, %d confirmations", name, r, len(m.confirms))
		}
		p.answer(d, m.group.term) // late
		if r.calls != 0 {
			t.Errorf("%s: an answer was used that nobody waits for", name)
		}
		m.settle()
		granted(t, r, 4)
	}
}

// A note that is not sent, a range that is used up and a configuration in which no
// two voters are a quorum cost no waiting.
func TestOwnDrawsWithoutAWitness(t *testing.T) {
	for name, prepare := range map[string]func(p *post, m *metaFake){
		"not sent": func(p *post, _ *metaFake) { p.lost = true },
		"no pair":  func(_ *post, m *metaFake) { m.large = true },
		"new term": func(_ *post, m *metaFake) { m.group.elect(m) },
	} {
		_, p, m, d := leading(t)
		prepare(p, m)
		r := draw(d, 1)
		m.settle()
		if r.calls != 1 || r.err != nil || len(p.sent) != 0 {
			t.Errorf("%s: %+v, %d notes", name, r, len(p.sent))
		}
	}
}

// A voter that does not answer is left alone while the other one does; if neither
// does, nobody is asked for a while.
func TestSilentWitnesses(t *testing.T) {
	w, p, m, d := leading(t)
	asks := func(want shard.NodeID, answers bool) {
		t.Helper()
		before := len(p.sent)
		r := draw(d, 1)
		switch {
		case want == 0 && len(p.sent) != before:
			t.Fatalf("node %d was asked", p.sent[before].to)
		case want != 0 && (len(p.sent) != before+1 || p.sent[before].to != want):
			t.Fatalf("node %d was not asked: %+v", want, p.sent[before:])
		case answers:
			p.answer(d, m.term)
		case want != 0:
			w.timers[len(w.timers)-1].step()
		}
		m.settle()
		if r.calls != 1 || r.err != nil {
			t.Fatalf("%+v", r)
		}
	}
	asks(2, true)
	asks(2, false)
	asks(3, true)
	asks(3, true)
	asks(3, false)
	asks(2, true)
	asks(2, false)
	asks(3, false) // two in a row
	asks(0, false)
	w.now += witnessRest - 1
	asks(0, false)
	w.now++
	asks(2, true)
}

// A voter that answers and does not serve, because its replica has stopped or is behind, is
// not asked for every draw.
func TestWitnessesThatDoNotServeAreLeftAlone(t *testing.T) {
	_, p, m, d := leading(t)
	for i, want := range []shard.NodeID{2, 3, 3} {
		r := draw(d, 1)
		if l := p.sent[len(p.sent)-1]; l.to != want {
			t.Fatalf("draw %d: node %d was asked", i, l.to)
		}
		term := m.term
		if want == 2 {
			term--
		}
		p.answer(d, term)
		m.settle()
		if r.calls != 1 || r.err != nil {
			t.Fatalf("draw %d: %+v", i, r)
		}
	}
}

// Three nodes draw at once, over notes that are delayed, doubled and lost, while
// leaders are elected, are deposed without knowing, and draws are given up: no
// revision is used twice, and one that was in use before a draw was sent is smaller.
func TestDrawsAreInRealTimeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newDrawing(t)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c.step()
		}
	})
}

// drawing is the three nodes of that test.
type drawing struct {
	t      *rapid.T
	group  *metaGroup
	nodes  []*drawingNode
	notes  []func() // on their way
	newest shard.Revision
	taken  map[shard.Revision]bool
}

type drawingNode struct {
	world
	c     *drawing
	id    shard.NodeID
	meta  *metaFake
	draws *Draws
}

func newDrawing(t *rapid.T) *drawing {
	c := &drawing{t: t, group: &metaGroup{}, taken: make(map[shard.Revision]bool)}
	for id := range shard.NodeID(3) {
		n := &drawingNode{c: c, id: id + 1, meta: &metaFake{group: c.group, id: shard.ReplicaID(id + 1)}}
		n.draws = NewDraws(DrawsConfig{Env: n, Queue: n, KV: n, Notes: n, Grants: n.meta.grantsOf(rapid.SampledFrom([]uint64{0, 7}).Draw(t, "raise by"))})
		c.nodes = append(c.nodes, n)
	}
	c.elect(c.nodes[0], c.nodes[1])
	c.draw(c.nodes[0])
	c.nodes[0].meta.settle()
	return c
}

// Note puts a note on its way.
func (n *drawingNode) Note(to shard.NodeID, note []byte) bool {
	n.c.notes = append(n.c.notes, func() { n.c.nodes[to-1].draws.Note(n.id, note) })
	return true
}

// Do reaches whichever node leads, or believes to.
func (n *drawingNode) Do(cmd shard.Command, _ time.Duration, done func(shard.Result, error)) func() {
	leader := n.c.nodes[rapid.IntRange(0, 2).Draw(n.c.t, "asked")]
	leader.draws.cfg.Grants.Grant(int(cmd.Limit), 0, func(first shard.Revision, _ uint64, err error) {
		done(shard.Result{Revision: first, Count: cmd.Limit}, err)
	})
	return func() {}
}

func (c *drawing) elect(n, voter *drawingNode) {
	c.group.elect(n.meta, voter.meta)
	if n != voter {
		voter.meta.believes = raftgroup.Leadership{Term: c.group.term, Node: n.id}
	}
}

func (c *drawing) draw(n *drawingNode) {
	count, before := rapid.SampledFrom([]int{1, 5, 100}).Draw(c.t, "n"), c.newest
	n.draws.Draw(count, func(first shard.Revision, err error) {
		if err != nil {
			return
		}
		if first <= before {
			c.t.Fatalf("node %d uses %d, drawn after %d was in use", n.id, first, before)
		}
		for r := first; r < first+shard.Revision(count); r++ {
			if c.taken[r] {
				c.t.Fatalf("node %d uses %d again", n.id, r)
			}
			c.taken[r] = true
		}
		c.newest = max(c.newest, first+shard.Revision(count)-1)
	})
}

func (c *drawing) step() {
	t := c.t
	n := c.nodes[rapid.IntRange(0, 2).Draw(t, "node")]
	switch rapid.SampledFrom([]string{"draw", "draw", "draw and settle", "note", "note", "note", "confirm", "raise", "settle", "elect", "hear", "time"}).Draw(t, "step") {
	case "draw":
		c.draw(n)
	case "draw and settle":
		c.draw(n)
		n.meta.settle()
	case "settle":
		n.meta.settle()
	case "note":
		if len(c.notes) == 0 {
			return
		}
		i := rapid.IntRange(0, len(c.notes)-1).Draw(t, "which")
		carry := c.notes[i]
		switch rapid.IntRange(0, 9).Draw(t, "fate") {
		case 0: // doubled
			carry()
			return
		case 1: // lost
			carry = func() {}
		}
		c.notes = append(c.notes[:i], c.notes[i+1:]...)
		carry()
	case "confirm":
		if len(n.meta.confirms) > 0 {
			n.meta.confirm()
		}
	case "raise":
		if len(n.meta.raises) > 0 {
			n.meta.raise()
		}
	case "elect":
		c.elect(n, c.nodes[(int(n.id)+rapid.IntRange(0, 1).Draw(t, "its voter"))%3])
	case "hear": // of the present term and its leader
		n.meta.term = c.group.term
		if c.group.leader != n.meta {
			n.meta.believes = raftgroup.Leadership{Term: c.group.term, Node: shard.NodeID(c.group.leader.id)}
		}
	case "time":
		if len(n.timers) > 0 {
			due := n.timers[len(n.timers)-1]
			if !due.stopped {
				due.stopped = true
				due.step()
			}
		}
	}
}
