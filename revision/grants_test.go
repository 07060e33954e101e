package revision

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// metaGroup is the meta shard as all its replicas see it: one bound, one leader
// at a time, and replicas that may not have heard of it.
type metaGroup struct {
	bound  uint64
	term   uint64
	leader *metaFake
}

// elect makes m the leader of the next term, by its own vote and that of others.
func (g *metaGroup) elect(m *metaFake, voters ...*metaFake) {
	g.term++
	g.leader = m
	for _, v := range append(voters, m) {
		v.term = g.term
	}
	m.believes = raftgroup.Leadership{Term: g.term, Leading: true}
}

// metaFake is one replica of it. What it is asked waits until the test lets it go on.
type metaFake struct {
	group    *metaGroup
	id       shard.ReplicaID
	term     uint64 // the latest that it has voted in or heard of
	believes raftgroup.Leadership
	confirms []func(uint64, error)
	raises   []func()
	late     func(bound uint64) // answers the last raise, whoever leads
	refuses  error              // of Confirm
	large    bool               // its configuration: no two voters are a quorum
	pairs    int                // how often they are one before it becomes large
}

func (m *metaFake) Leadership() raftgroup.Leadership { return m.believes }
func (m *metaFake) Self() shard.ReplicaID            { return m.id }
func (m *metaFake) Term() uint64                     { return m.term }

func (m *metaFake) Pair(other shard.ReplicaID) bool {
	if m.pairs > 0 {
		m.pairs--
		m.large = m.pairs == 0
		return true
	}
	return !m.large && other != m.id && other <= 3
}

// Partner takes the nodes for numbered as the replicas on them are.
func (m *metaFake) Partner(avoid shard.ReplicaID) (shard.ReplicaID, shard.NodeID, bool) {
	for id := shard.ReplicaID(1); id <= 3; id++ {
		if id != avoid && m.Pair(id) {
			return id, shard.NodeID(id), true
		}
	}
	return 0, 0, false
}

func (m *metaFake) Confirm(done func(uint64, error)) error {
	if m.refuses != nil {
		return m.refuses
	}
	m.confirms = append(m.confirms, done)
	return nil
}

// confirm answers the oldest confirmation as a ReadIndex does: asked anew in
// whatever term the replica leads by now.
func (m *metaFake) confirm() {
	done := m.confirms[0]
	m.confirms = m.confirms[1:]
	if m.group.leader != m {
		done(0, &shard.NotLeaderError{Shard: shard.MetaID})
		return
	}
	done(m.group.term, nil)
}

func (m *metaFake) Raise(term, n uint64, done func(uint64, error)) {
	m.late = func(bound uint64) { done(bound, nil) }
	m.raises = append(m.raises, func() {
		if m.group.leader != m || m.group.term != term {
			done(0, shard.ErrDropped)
			return
		}
		m.group.bound += n
		done(m.group.bound, nil)
	})
}

func (m *metaFake) raise() {
	run := m.raises[0]
	m.raises = m.raises[1:]
	run()
}

// settle lets everything go on that waits.
func (m *metaFake) settle() {
	for len(m.raises)+len(m.confirms) > 0 {
		if len(m.raises) > 0 {
			m.raise()
		} else {
			m.confirm()
		}
	}
}

func (m *metaFake) grants() *Grants { return m.grantsOf(0) }

func (m *metaFake) grantsOf(raiseBy uint64) *Grants {
	return NewGrants(GrantsConfig{Meta: func() (Meta, bool) { return m, true }, RaiseBy: raiseBy})
}

// reply is what a grant was answered.
type reply struct {
	calls int
	first shard.Revision
	term  uint64 // in which it has to be confirmed; 0: it is
	err   error
}

func (r *reply) take(first shard.Revision, err error) { r.taken(first, 0, err) }

func (r *reply) taken(first shard.Revision, term uint64, err error) {
	r.calls++
	r.first, r.term, r.err = first, term, err
}

func ask(g *Grants, n int) *reply { return askFor(g, n, 0) }

func askFor(g *Grants, n int, voter shard.ReplicaID) *reply {
	r := &reply{}
	g.Grant(n, voter, r.taken)
	return r
}

func granted(t testing.TB, r *reply, first shard.Revision) {
	t.Helper()
	if r.calls != 1 || r.err != nil || r.first != first {
		t.Errorf("%d replies, %d, %v; want %d", r.calls, r.first, r.err, first)
	}
}

func notLeader(t testing.TB, r *reply) {
	t.Helper()
	var e *shard.NotLeaderError
	if r.calls != 1 || !errors.As(r.err, &e) {
		t.Errorf("%d replies, %d, %v; want a NotLeaderError", r.calls, r.first, r.err)
	}
}

func TestGrantsFollowEachOther(t *testing.T) {
	m := &metaFake{group: &metaGroup{}}
	m.group.elect(m)
	g := m.grants()
	a := ask(g, 3)
	if a.calls != 0 || len(m.raises) != 1 || len(m.confirms) != 0 {
		t.Fatal("granted before the bound was raised")
	}
	m.settle()
	granted(t, a, 1)
	b, c := ask(g, 2), ask(g, 1)
	if b.calls != 0 || len(m.confirms) != 1 {
		t.Error("granted without a confirmation, or with more than one")
	}
	m.settle()
	granted(t, b, 4)
	granted(t, c, 6)
	if n, rounds := g.Granted(); n != 6 || rounds != 3 {
		t.Errorf("%d in %d rounds", n, rounds)
	}
}

// A draw that comes while a confirmation is on its way is not covered by it: its
// numbers are taken after the moment that is confirmed.
func TestOneConfirmationServesThoseWhoWaited(t *testing.T) {
	m := &metaFake{group: &metaGroup{}}
	m.group.elect(m)
	g := m.grants()
	ask(g, 1)
	m.settle()
	early, late := ask(g, 1), (*reply)(nil)
	late = ask(g, 1)
	later := ask(g, 5)
	m.confirm()
	granted(t, early, 2)
	if late.calls+later.calls != 0 || len(m.confirms) != 1 {
		t.Error("one that came after the confirmation was asked for was served by it")
	}
	m.confirm()
	granted(t, late, 3)
	granted(t, later, 4)
}

// A leader that was paused between taking the counter and the confirmation replies
// only if it still leads in that term. Leading again in a later one is not enough:
// a leader in between has granted larger revisions, and their writes were acknowledged.
func TestPausedMetaLeaderGrantsNothing(t *testing.T) {
	group := &metaGroup{}
	old, successor := &metaFake{group: group}, &metaFake{group: group}
	group.elect(old)
	g := old.grants()
	ask(g, 1)
	old.settle()

	paused := ask(g, 1)
	group.elect(successor)
	next := ask(successor.grants(), 1)
	successor.settle()
	granted(t, next, defaultRaiseBy+1)
	old.confirm()
	notLeader(t, paused)

	again := ask(g, 1) // it still believes to lead
	group.elect(old)
	old.confirm() // of the counter of its first term, in its second
	notLeader(t, again)
	fresh := ask(g, 1)
	old.settle()
	granted(t, fresh, 2*defaultRaiseBy+1)
}

// What is left of a range is not granted in a later term.
func TestRangesEndWithTheirTerm(t *testing.T) {
	group := &metaGroup{}
	a, b := &metaFake{group: group}, &metaFake{group: group}
	ga, gb := a.grants(), b.grants()
	last := shard.Revision(0)
	for _, x := range []struct {
		m *metaFake
		g *Grants
	}{{a, ga}, {b, gb}, {a, ga}, {a, ga}, {b, gb}} {
		group.elect(x.m)
		for range 2 {
			r := ask(x.g, 10)
			x.m.settle()
			if r.err != nil || r.first <= last {
				t.Errorf("%d after %d, %v", r.first, last, r.err)
			}
			last = r.first + 9
		}
	}
	if group.bound != 5*defaultRaiseBy {
		t.Errorf("the bound is %d after five terms", group.bound)
	}
}

// RevisionBoundSurvivesMetaFailover: a leader of the meta shard dies before its raise of the
// bound is applied, or after. Its successor grants from above what was ever applied; that
// costs a range at most, and nothing is handed out twice.
func TestRevisionBoundSurvivesMetaFailover(t *testing.T) {
	for _, applied := range []bool{false, true} {
		group := &metaGroup{}
		old, next := &metaFake{group: group}, &metaFake{group: group}
		group.elect(old)
		waits := ask(old.grants(), 1)
		if applied {
			group.bound += defaultRaiseBy // applied everywhere, and the leader never knew
		}
		group.elect(next)
		old.raise()
		if waits.calls != 1 || !errors.Is(waits.err, shard.ErrDropped) {
			t.Errorf("applied %v: %+v", applied, waits)
		}
		r := ask(next.grants(), 1)
		next.settle()
		if want := shard.Revision(group.bound - defaultRaiseBy + 1); r.first != want || applied == (want == 1) {
			t.Errorf("applied %v: %d, want %d", applied, r.first, want)
		}
	}
}

// A raise whose answer comes when another leader has raised since, and this one
// leads again, adds nothing to the range: those who wait get theirs from a new one.
func TestRaiseOfAnEarlierTermIsNotGrantedFrom(t *testing.T) {
	group := &metaGroup{}
	m, other := &metaFake{group: group}, &metaFake{group: group}
	group.elect(m)
	g := m.grants()
	ask(g, 1)
	m.settle()
	for len(m.raises) == 0 { // until the next raise is on its way
		ask(g, shard.DrawMax)
		m.confirm()
	}
	group.bound += defaultRaiseBy
	applied := group.bound
	m.raises = nil
	group.elect(other)
	r := ask(other.grants(), 1)
	other.settle()
	granted(t, r, shard.Revision(applied+1))
	group.elect(m)
	waits := ask(g, 1)
	if waits.calls != 0 || len(m.confirms) != 0 {
		t.Fatal("granted without a raise of the term")
	}
	m.late(applied)
	m.settle()
	granted(t, waits, shard.Revision(applied+defaultRaiseBy+1))
}

// The bound is raised before the range is used up, and a range that ends within a
// draw is left: numbers of one draw are consecutive.
func TestBoundIsRaisedAhead(t *testing.T) {
	m := &metaFake{group: &metaGroup{}}
	m.group.elect(m)
	g := m.grants()
	var last shard.Revision
	for i := range 50 {
		r := ask(g, shard.DrawMax-i)
		if i > 0 && r.calls == 0 && len(m.confirms) == 0 {
			t.Errorf("draw %d waits for a raise", i)
		}
		m.settle()
		if r.err != nil || r.first <= last || uint64(r.first)+uint64(shard.DrawMax-i)-1 > m.group.bound {
			t.Fatalf("draw %d: %d after %d below %d, %v", i, r.first, last, m.group.bound, r.err)
		}
		last = r.first + shard.Revision(shard.DrawMax-i) - 1
	}
}

// However little a raise is meant to be, a draw gets all that it asks for, and what
// one raise has too few of comes with the next one.
func TestRaisesAreAsLargeAsDraws(t *testing.T) {
	m := &metaFake{group: &metaGroup{}, id: 1}
	m.group.elect(m)
	g := m.grantsOf(4)
	var last shard.Revision
	large, small := 0, 0
	for _, n := range []int{1, 1, 1, 1, 10, 3, shard.DrawMax, 1, 1, 1, 1, 1, 5} {
		r, bound := ask(g, n), m.group.bound
		m.settle()
		if r.calls != 1 || r.err != nil || r.first <= last || uint64(r.first)+uint64(n)-1 > m.group.bound {
			t.Fatalf("a draw of %d after %d, below %d: %+v", n, last, m.group.bound, r)
		}
		if raised := m.group.bound - bound; raised >= shard.DrawMax {
			large++
		} else if raised > 0 {
			small++
		}
		last = r.first + shard.Revision(n) - 1
	}
	if large != 1 || small < 3 || m.group.bound > uint64(last)+20 {
		t.Errorf("%d large and %d small raises, to %d with %d granted", large, small, m.group.bound, last)
	}
}

// A voter is granted at once what it will confirm itself; anybody else waits for
// the heartbeats. So does a voter whom the leader has no range of its term for, or
// whom it is no quorum with.
func TestVotersConfirmThemselves(t *testing.T) {
	m := &metaFake{group: &metaGroup{}, id: 1}
	m.group.elect(m)
	g := m.grants()
	first := askFor(g, 1, 2)
	if first.calls != 0 {
		t.Error("granted without a range")
	}
	m.settle()
	granted(t, first, 1)
	if first.term != 0 {
		t.Error("confirmed by heartbeats, and yet to be confirmed")
	}
	own := ask(g, 1)
	voter := askFor(g, 5, 3)
	granted(t, voter, 3)
	if voter.term != m.group.term || own.calls != 0 {
		t.Errorf("%+v, %+v", voter, own)
	}
	m.settle()
	granted(t, own, 2)
	for _, stranger := range []shard.ReplicaID{1, 4} {
		r := askFor(g, 1, stranger)
		if r.calls != 0 {
			t.Errorf("replica %d: %+v", stranger, r)
		}
		m.settle()
		if r.err != nil || r.term != 0 {
			t.Errorf("replica %d: %+v", stranger, r)
		}
	}
	// By the time that the numbers are taken the two are no quorum any more.
	m.pairs = 1
	changed := askFor(g, 1, 2)
	if changed.calls != 0 {
		t.Errorf("%+v", changed)
	}
	m.settle()
	m.large = false
	// It has voted in a later term, and does not know yet that it does not lead.
	m.term++
	r := askFor(g, 1, 2)
	if r.calls != 0 {
		t.Errorf("%+v", r)
	}
}

func TestGrantsRefuse(t *testing.T) {
	nowhere := NewGrants(GrantsConfig{Meta: func() (Meta, bool) { return nil, false }})
	notLeader(t, ask(nowhere, 1))
	m := &metaFake{group: &metaGroup{}}
	g := m.grants()
	notLeader(t, ask(g, 1)) // follows
	var invalid *shard.InvalidError
	for _, n := range []int{0, -1, shard.DrawMax + 1} {
		if r := ask(g, n); !errors.As(r.err, &invalid) {
			t.Errorf("%d: %v", n, r.err)
		}
	}
	m.group.elect(m)
	r := ask(g, 1)
	m.settle()
	granted(t, r, 1)
	m.refuses = shard.ErrBusy
	if r := ask(g, 1); r.calls != 1 || !errors.Is(r.err, shard.ErrBusy) {
		t.Errorf("%+v", r)
	}
	m.refuses = nil
	m.group.bound = uint64(shard.MaxRevision) - defaultRaiseBy
	m.group.elect(m)
	r = ask(g, 1)
	m.settle()
	var internal *shard.InternalError
	if !errors.As(r.err, &internal) {
		t.Errorf("after the last revision: %+v", r)
	}
}

// Whatever the order of elections, pauses and answers: no revision is used
// twice, and one that was in use before a draw began is smaller than its own.
func TestGrantsAreInRealTimeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		group := &metaGroup{}
		metas := []*metaFake{{group: group, id: 1}, {group: group, id: 2}, {group: group, id: 3}}
		raiseBy := rapid.SampledFrom([]uint64{0, 1, 7, 100}).Draw(t, "raise by")
		grants := []*Grants{}
		for _, m := range metas {
			grants = append(grants, m.grantsOf(raiseBy))
		}
		group.elect(metas[0], metas[1])
		newest := shard.Revision(0)
		var taken []revisions
		var travelling []func() // answers to voters on other nodes
		use := func(before, first shard.Revision, n int) {
			if first <= before {
				t.Fatalf("%d is used by a draw that began after %d was in use", first, before)
			}
			last := first + shard.Revision(n) - 1
			if slices.ContainsFunc(taken, func(r revisions) bool { return first <= r.last && r.first <= last }) {
				t.Fatalf("[%d, %d] is used twice", first, last)
			}
			taken = append(taken, revisions{first, last})
			newest = max(newest, last)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "node")
			m, g := metas[i], grants[i]
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				n, before := rapid.SampledFrom([]int{1, 5, shard.DrawMax}).Draw(t, "n"), newest
				voter := metas[rapid.IntRange(0, 2).Draw(t, "voter")]
				g.Grant(n, voter.id, func(first shard.Revision, term uint64, err error) {
					switch {
					case err != nil:
					case term == 0:
						use(before, first, n)
					default:
						travelling = append(travelling, func() {
							if voter.term == term {
								use(before, first, n)
							}
						})
					}
				})
			case 6:
				if len(travelling) > 0 {
					i := rapid.IntRange(0, len(travelling)-1).Draw(t, "answer")
					arrive := travelling[i]
					travelling = slices.Delete(travelling, i, i+1)
					arrive()
				}
			case 7: // it hears of the present term
				m.term = group.term
			case 2:
				if len(m.confirms) > 0 {
					m.confirm()
				}
			case 3:
				if len(m.raises) > 0 {
					m.raise()
				}
			case 4:
				if rapid.IntRange(0, 2).Draw(t, "elect") == 0 {
					group.elect(m, metas[rapid.IntRange(0, 2).Draw(t, "its voter")])
				}
			case 5: // it hears that it does not lead
				if group.leader != m {
					m.believes.Leading = false
				}
			}
		}
	})
}
