package replica

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// steps is a world in which nothing runs but what a test calls for.
type steps struct {
	mu     sync.Mutex
	queue  []func()
	now    time.Duration
	timers []*timer
}

// timer is due at a time of its world.
type timer struct {
	s    *steps
	at   time.Duration
	step func()
}

func (s *steps) Now() time.Duration            { return s.now }
func (s *steps) Uint64() uint64                { return 4 }
func (s *steps) NewQueue(string) env.Queue     { return s }
func (s *steps) NewPool(string, int) env.Queue { return s }
func (s *steps) AfterFunc(d time.Duration, _ env.Queue, step func()) env.Timer {
	t := &timer{s: s, at: s.now + max(d, 0), step: step}
	s.timers = append(s.timers, t)
	return t
}

// Stop is of a timer.
func (t *timer) Stop() bool {
	i := slices.Index(t.s.timers, t)
	if i >= 0 {
		t.s.timers = slices.Delete(t.s.timers, i, i+1)
	}
	return i >= 0
}

// pass lets time pass, with all timers that are due in it and what they submit.
func (s *steps) pass(d time.Duration) {
	for until := s.now + d; ; {
		s.run()
		var next *timer
		for _, t := range s.timers {
			if t.at <= until && (next == nil || t.at < next.at) {
				next = t
			}
		}
		if next == nil {
			s.now = until
			return
		}
		s.now = max(s.now, next.at)
		next.Stop()
		s.Submit(next.step)
	}
}
func (s *steps) Submit(step func()) {
	s.mu.Lock()
	s.queue = append(s.queue, step)
	s.mu.Unlock()
}

// run runs what was submitted, and what that submits, and counts it.
func (s *steps) run() int {
	for n := 0; ; n++ {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return n
		}
		step := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		step()
	}
}

// numbers hands out revisions at once, or when the test releases them.
type numbers struct {
	mu    sync.Mutex
	next  shard.Revision
	held  bool
	fail  error
	draws []draw

	highest   shard.Revision // handed out, beside next
	heldAsks  bool
	questions []func()
	failAsks  error
	asked     []shard.Revision
}

type draw struct {
	n    int
	done func(shard.Revision, error)
}

func (x *numbers) Newest() shard.Revision { return 0 }

func (x *numbers) Draw(n int, done func(shard.Revision, error)) {
	x.mu.Lock()
	d := draw{n, done}
	if x.held {
		x.draws = append(x.draws, d)
		x.mu.Unlock()
		return
	}
	x.mu.Unlock()
	x.answer(d)
}

func (x *numbers) answer(d draw) {
	x.mu.Lock()
	first, err := x.next+1, x.fail
	if err != nil {
		first = 0
	} else {
		x.next += shard.Revision(d.n)
	}
	x.mu.Unlock()
	d.done(first, err)
}

func (x *numbers) HandedOut(r shard.Revision, done func(bool, error)) {
	answer := func() {
		x.mu.Lock()
		known, err := r <= max(x.next, x.highest), x.failAsks
		x.mu.Unlock()
		done(known && err == nil, err)
	}
	x.mu.Lock()
	x.asked = append(x.asked, r)
	held := x.heldAsks
	if held {
		x.questions = append(x.questions, answer)
	}
	x.mu.Unlock()
	if !held {
		answer()
	}
}

// release answers the oldest draw that is held.
func (x *numbers) release(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	if len(x.draws) == 0 {
		x.mu.Unlock()
		t.Fatal("no draw is in flight")
	}
	d := x.draws[0]
	x.draws = x.draws[1:]
	x.mu.Unlock()
	x.answer(d)
}

// fakeGroup keeps what a replica hands to its group until the test lets it go on.
type fakeGroup struct {
	h *home

	mu          sync.Mutex
	machine     raftgroup.Machine
	id          shard.ID
	index, term uint64
	proposals   []*raftgroup.Proposal
	reads       []raftgroup.Read
	refusal     error
	full        bool // of reads
	changes     []change
	controls    []control
	revisions   []shard.Revision // of all applied, in order of the log
}

type change struct {
	term uint64
	m    shard.MembershipChange
	done func(error)
}

func (g *fakeGroup) Propose(p *raftgroup.Proposal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal != nil {
		return g.refusal
	}
	g.proposals = append(g.proposals, p)
	return nil
}

func (g *fakeGroup) Read(r raftgroup.Read) error {
	if g.full {
		return shard.ErrBusy
	}
	return g.Confirm(r)
}

func (g *fakeGroup) Confirm(r raftgroup.Read) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal != nil {
		return g.refusal
	}
	g.reads = append(g.reads, r)
	return nil
}

func (g *fakeGroup) ProposeMembership(term uint64, m shard.MembershipChange, done func(error)) {
	g.changes = append(g.changes, change{term, m, done})
}

// control is what asked for a turn.
type control struct {
	run       func()
	abandoned func(error)
}

func (g *fakeGroup) Turn(run func(), abandoned func(error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.controls = append(g.controls, control{run, abandoned})
}

// drops runs what asked for a turn.
func (g *fakeGroup) drops() int {
	g.mu.Lock()
	controls := g.controls
	g.controls = nil
	g.mu.Unlock()
	for _, c := range controls {
		c.run()
	}
	return len(controls)
}

// turn proposes, commits and applies what has come, one entry for all of it.
func (g *fakeGroup) turn(t testing.TB) int {
	t.Helper()
	g.mu.Lock()
	proposals := g.proposals
	g.proposals = nil
	g.mu.Unlock()
	b := g.h.engine.NewBatch()
	g.index++
	at := raftgroup.Position{Index: g.index, Term: g.term}
	type outcome struct {
		res raftgroup.Result
		err error
	}
	var outcomes []outcome
	for _, p := range proposals {
		if p.Cancelled.Load() {
			outcomes = append(outcomes, outcome{err: shard.ErrDropped})
			continue
		}
		if p.Term != g.term {
			outcomes = append(outcomes, outcome{err: &shard.NotLeaderError{Shard: g.id}})
			continue
		}
		res, err := g.machine.Apply(b, at, slices.Concat(p.Header, p.Body))
		if err != nil {
			t.Fatal(err)
		}
		if res.Revision != 0 {
			g.revisions = append(g.revisions, res.Revision)
		}
		outcomes = append(outcomes, outcome{res: res})
	}
	g.machine.EndApply(b, at)
	if err := g.h.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	g.machine.Published()
	for i, p := range proposals {
		p.Done(outcomes[i].res, outcomes[i].err)
	}
	return len(proposals)
}

// turns turns until nothing more is proposed.
func (g *fakeGroup) turns(t testing.TB) {
	t.Helper()
	for g.turn(t) > 0 {
	}
}

// confirm hands back the reads that have come.
func (g *fakeGroup) confirm(err error) {
	g.mu.Lock()
	reads := g.reads
	g.reads = nil
	g.mu.Unlock()
	g.machine.Confirmed(reads, err)
	clear(reads) // the slice is the group's
}

func (g *fakeGroup) lead(term uint64) {
	g.term = term
	g.machine.LeaderChanged(raftgroup.Leadership{Term: term, Leader: 1, Node: 1, Leading: true})
}

// home is a store with its world.
type home struct {
	t       testing.TB
	engine  *storage.Engine
	steps   *steps
	numbers *numbers
	store   *Store
	told    []string // by DescriptorChanged
}

func newHome(t testing.TB, adjust ...func(*Config)) *home {
	h := &home{t: t, steps: &steps{}, numbers: &numbers{}}
	var err error
	h.engine, err = storage.Open(storage.Config{Dir: "store", FS: vfs.NewMem(), Env: h.steps, Simulated: true, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{Node: 1, Env: h.steps, Engine: h.engine, Revisions: h.numbers, Reads: h.steps,
		Address: func(n shard.NodeID) string { return fmt.Sprintf("node%d:7400", n) },
		DescriptorChanged: func(d shard.Descriptor, leading bool, term uint64) {
			h.told = append(h.told, fmt.Sprintf("shard %d epoch %v leading %v term %d", d.ID, d.Epoch, leading, term))
		}}
	for _, f := range adjust {
		f(&cfg)
	}
	h.store = NewStore(cfg)
	h.steps.run()
	return h
}

const term = 5

// shard adds a replica with ID 1 of a shard over [start, end), that leads in term.
func (h *home) shard(id shard.ID, start, end string) (*Replica, *fakeGroup) {
	s := &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{ID: id, Epoch: shard.Epoch{Version: 2, ConfVersion: 1},
		Span:     shard.Span{Start: []byte(start), End: []byte(end)},
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}}
	b := h.engine.NewBatch()
	b.PutInitialReplica(1, s)
	if err := h.engine.Commit(b); err != nil {
		h.t.Fatal(err)
	}
	r, g := h.replica(id, s)
	g.lead(term)
	return r, g
}

// replica adds a replica as it is loaded; s nil: not initialized.
func (h *home) replica(id shard.ID, s *storage.ReplicaState) (*Replica, *fakeGroup) {
	g := &fakeGroup{h: h, id: id, index: 10, term: term}
	r := h.store.newReplica(g, id, 1, s)
	g.machine = turn{r}
	h.store.replicas.put(r)
	return r, g
}

// answer is what a request was answered; a copy, since a response's slices are
// valid only during the reply.
type answer struct {
	shard.Response
	mu    sync.Mutex
	times int
}

func (a *answer) take(p shard.Response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times++
	p.Result.Value = bytes.Clone(p.Result.Value)
	p.Result.Resume = bytes.Clone(p.Result.Resume)
	p.Result.Rows = slices.Clone(p.Result.Rows)
	for i := range p.Result.Rows {
		row := &p.Result.Rows[i]
		row.Key, row.Value = bytes.Clone(row.Key), bytes.Clone(row.Value)
	}
	a.Response = p
}

func target(id shard.ID) shard.Target {
	return shard.Target{Shard: id, Version: 2, Replica: 1, Term: term}
}

var nextRequest uint64

func request(t shard.Target, c shard.Command) shard.Request {
	nextRequest++
	return shard.Request{ID: nextRequest, Target: t, Command: shard.AppendCommand(nil, &c)}
}

// send executes a command and tells where its answer will be.
func (h *home) send(t shard.Target, c shard.Command) *answer {
	a := new(answer)
	q := request(t, c)
	h.store.ExecuteTrusted(q, a.to(h.t, q.ID))
	return a
}

// together lets the writes that send sends share an entry, which the next turn
// applies: they come while another write, which changes nothing, is in the log.
func (h *home) together(g *fakeGroup, send func()) {
	h.t.Helper()
	first := h.send(target(g.id), shard.Command{Kind: shard.KindBatch,
		Compares: []shard.Compare{{Kind: shard.CompareValue, Key: g.machine.(turn).descriptor.Load().Span.Start, Value: []byte("nothing has it")}},
		Then:     []shard.BatchOp{{Kind: shard.KindDelete, Key: g.machine.(turn).descriptor.Load().Span.Start}}})
	send()
	if g.turn(h.t) != 1 {
		h.t.Error("a write is proposed while another one is in the log")
	}
	if p := first.once(h.t); p.Err != nil || p.Result.Found {
		h.t.Errorf("%+v", p)
	}
}

// to takes the answer to a request.
func (a *answer) to(t testing.TB, id uint64) func(shard.Response) {
	return func(p shard.Response) {
		if p.ID != id {
			t.Errorf("request %d is answered as %d", id, p.ID)
		}
		a.take(p)
	}
}

// stream opens a stream of session 1.
func (h *home) stream(number uint64) *Stream {
	h.t.Helper()
	st, err := h.store.OpenStream(1, number, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return st
}

// send executes a command that comes on a stream.
func (st *Stream) send(t testing.TB, to shard.Target, c shard.Command) *answer {
	a := new(answer)
	q := request(to, c)
	st.Execute(q, a.to(t, q.ID))
	return a
}

// once fails the test unless a was answered exactly once.
func (a *answer) once(t testing.TB) shard.Response {
	t.Helper()
	if a.times != 1 {
		t.Fatalf("answered %d times: %+v", a.times, a.Response)
	}
	return a.Response
}

func (a *answer) waits(t testing.TB) {
	t.Helper()
	if a.times != 0 {
		t.Fatalf("answered %+v", a.Response)
	}
}

func put(key, value string) shard.Command {
	return shard.Command{Kind: shard.KindPut, Op: shard.OpID{Session: 1, Sequence: 1}, Key: []byte(key), Value: []byte(value)}
}

func get(key string) shard.Command {
	return shard.Command{Kind: shard.KindGet, Key: []byte(key)}
}

func scan(start, end string) shard.Command {
	return shard.Command{Kind: shard.KindScan, Start: []byte(start), End: []byte(end)}
}

// write puts key and lets it be applied.
func (h *home) write(g *fakeGroup, key, value string) shard.Response {
	h.t.Helper()
	a := h.send(target(g.id), put(key, value))
	g.turn(h.t)
	return a.once(h.t)
}

// read carries out a read that the group confirms at once.
func (h *home) read(g *fakeGroup, c shard.Command) shard.Response {
	h.t.Helper()
	a := h.send(target(g.id), c)
	g.confirm(nil)
	h.steps.run()
	return a.once(h.t)
}

// idle fails the test if the store holds on to anything.
func (h *home) idle() {
	h.t.Helper()
	if s := h.store.Stats(); s.Reads != 0 || s.ReadBytes != 0 || s.Writes != 0 || s.WriteBytes != 0 {
		h.t.Errorf("outstanding: %+v", s)
	}
}
