package revision

import (
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// Meta is the meta shard's replica on this node.
type Meta interface {
	// Leadership is what the replica believes now.
	Leadership() raftgroup.Leadership
	// Self is the replica's ID.
	Self() shard.ReplicaID
	// Term is a term such that the replica has voted in no later one by now.
	Term() uint64
	// Pair tells whether the replica and another one are a quorum of voters.
	Pair(other shard.ReplicaID) bool
	// Partner is a voter that is a pair with the replica, and its node: another one
	// than avoid if there is one.
	Partner(avoid shard.ReplicaID) (shard.ReplicaID, shard.NodeID, bool)
	// Confirm tells the term in which the replica led at some moment after the
	// call. done is called once unless Confirm returns an error.
	Confirm(done func(term uint64, err error)) error
	// Raise adds n to the bound, by a command that is proposed in term or never. done
	// is called once, with the bound that it made when it was applied here.
	Raise(term uint64, n uint64, done func(bound uint64, err error))
}

// BoundKey is the key of the bound: a counter of 8 bytes in the system keyspace.
// No revision above it was ever granted.
func BoundKey() []byte { return append([]byte{shard.SystemKeyspace}, "rev/bound"...) }

const (
	defaultRaiseBy = 1 << 22
	// grantsMax bounds the draws that wait: a node has one in flight, a client that
	// scans another one.
	grantsMax = 1 << 16
)

// GrantsConfig of a node's granter.
type GrantsConfig struct {
	// Meta finds the meta shard's replica on this node; there may be none.
	Meta func() (Meta, bool)
	// RaiseBy is how many revisions one command raises the bound by, at least; default
	// 4,194,304. What is left of them when the leader loses its term is granted to
	// nobody: of 2^63 revisions that is nothing. The next raise is proposed when half
	// of them are used up, so that nobody waits for it.
	RaiseBy uint64
}

// Grants hands out revisions on the leader of the meta shard. On other nodes it
// refuses with a NotLeaderError. It is safe for concurrent use and never blocks.
type Grants struct {
	meta    func() (Meta, bool)
	raiseBy uint64

	mu      sync.Mutex // guards what follows
	waiting []grant
	// granting: somebody works off what waits. Then counted is his.
	granting bool
	// The revisions from next to last may be granted in term, and so may those of
	// spare once they are used up.
	term       uint64
	next, last shard.Revision
	spare      revisions
	raising    bool
	full       func(error) // called once the raise is applied, or has failed

	counted []grant
	bound   atomic.Uint64 // of a planted bug: what this node knows of it
	granted atomic.Uint64
	rounds  atomic.Uint64
}

// revisions are those from first to last; none if last is below first.
type revisions struct{ first, last shard.Revision }

type grant struct {
	n     int
	first shard.Revision
	done  func(first shard.Revision, term uint64, err error)
}

var _ replica.Granter = (*Grants)(nil)

// NewGrants makes a node's granter.
func NewGrants(cfg GrantsConfig) *Grants {
	if cfg.RaiseBy == 0 {
		cfg.RaiseBy = defaultRaiseBy
	}
	return &Grants{meta: cfg.Meta, raiseBy: cfg.RaiseBy}
}

// Granted is how many revisions were granted, and in how many confirmed rounds.
func (g *Grants) Granted() (revisions, rounds uint64) { return g.granted.Load(), g.rounds.Load() }

// Grant implements replica.Granter.
func (g *Grants) Grant(n int, voter shard.ReplicaID, done func(first shard.Revision, term uint64, err error)) {
	if n <= 0 || n > shard.DrawMax {
		done(0, 0, &shard.InvalidError{Field: "draw", Reason: "is of no number of revisions that can be drawn at once"})
		return
	}
	if voter != 0 {
		if first, term, ok := g.grantVoter(n, voter); ok {
			done(first, term, nil)
			return
		}
	}
	g.mu.Lock()
	if len(g.waiting) >= grantsMax {
		g.mu.Unlock()
		done(0, 0, shard.ErrBusy)
		return
	}
	g.waiting = append(g.waiting, grant{n: n, done: done})
	start := !g.granting
	g.granting = true
	g.mu.Unlock()
	if start {
		g.round()
	}
}

// grantVoter grants at once to a voter that will confirm by itself. The two are a
// quorum: this replica had not voted in a later term when the number was taken, and
// if the other one has not by the time it is told, nobody had been elected in a
// later term when the number was taken. That is what a round of heartbeats shows
// too, whose answer comes from another node than the one that waits for it.
func (g *Grants) grantVoter(n int, voter shard.ReplicaID) (first shard.Revision, term uint64, ok bool) {
	meta, here := g.meta()
	if !here {
		return 0, 0, false
	}
	l := meta.Leadership()
	if !l.Leading || !meta.Pair(voter) {
		return 0, 0, false
	}
	g.mu.Lock()
	ok = g.term == l.Term && g.left() >= uint64(n)
	if ok {
		first = g.next
		g.next += shard.Revision(n)
	}
	by := uint64(0)
	if ok {
		by = g.wantsRaise()
	}
	g.mu.Unlock()
	if by > 0 {
		g.raise(meta, l.Term, by)
	}
	// Only now: the number must not be younger than what is asked here. That holds for
	// the configuration too: once this replica has applied another one, the next may be
	// under way, of which the two need be no part.
	if !ok || meta.Term() != l.Term || !meta.Pair(voter) {
		return 0, 0, false
	}
	g.granted.Add(uint64(n))
	return first, l.Term, true
}

// round serves all that waits: it takes the counter, then asks for the
// confirmation, then replies. Whoever comes meanwhile waits for the next round,
// as a confirmation says nothing of numbers that are taken after it.
func (g *Grants) round() {
	meta, here := g.meta()
	if !here {
		g.refuse(&shard.NotLeaderError{Shard: shard.MetaID})
		return
	}
	l := meta.Leadership()
	if !l.Leading {
		g.refuse(&shard.NotLeaderError{Shard: shard.MetaID})
		return
	}
	g.mu.Lock()
	if g.term != l.Term {
		// What was left of another term's range may lie below what was granted since.
		g.term, g.next, g.last, g.spare = l.Term, 1, 0, revisions{1, 0}
	}
	enough := g.count()
	if enough {
		g.rounds.Add(1)
	} else {
		g.full = func(err error) {
			if err != nil {
				g.refuse(err)
				return
			}
			g.round()
		}
	}
	by := g.wantsRaise()
	g.mu.Unlock()
	if by > 0 {
		g.raise(meta, l.Term, by)
	}
	if !enough {
		return
	}
	if planted.On(planted.GrantWithoutConfirming) {
		g.confirmed(l.Term, l.Term, nil)
		return
	}
	if err := meta.Confirm(func(term uint64, err error) { g.confirmed(l.Term, term, err) }); err != nil {
		g.confirmed(l.Term, 0, err)
	}
}

// count gives numbers to those who wait, in order, as far as the range goes, and
// moves them to counted. It is false if not even the first one got any: then the
// bound must be raised first. Numbers of one grant are consecutive; what a range
// has too few of is skipped. mu is held.
func (g *Grants) count() bool {
	i := 0
	for ; i < len(g.waiting); i++ {
		w := &g.waiting[i]
		if g.left() < uint64(w.n) {
			if g.spare.last < g.spare.first {
				break
			}
			g.next, g.last, g.spare = g.spare.first, g.spare.last, revisions{1, 0}
			if g.left() < uint64(w.n) {
				break
			}
		}
		w.first = g.next
		g.next += shard.Revision(w.n)
	}
	g.counted = append(g.counted[:0], g.waiting[:i]...)
	rest := copy(g.waiting, g.waiting[i:])
	clear(g.waiting[rest:])
	g.waiting = g.waiting[:rest]
	return i > 0
}

func (g *Grants) left() uint64 {
	if g.last < g.next {
		return 0
	}
	return uint64(g.last-g.next) + 1
}

// wantsRaise tells by how much a raise is to be proposed now; 0: none is. It gives
// at least what the draw that waits longest asks for. mu is held.
func (g *Grants) wantsRaise() uint64 {
	if g.raising || g.spare.last >= g.spare.first {
		return 0
	}
	asked := uint64(0)
	if len(g.waiting) > 0 {
		asked = uint64(g.waiting[0].n)
	}
	if left := g.left(); left > g.raiseBy/2 && left >= asked {
		return 0
	}
	g.raising = true
	return max(g.raiseBy, asked)
}

// raise proposes to raise the bound. What may be granted is what the command
// itself has added when it was applied, in this term: a bound that is merely read,
// or computed from what was proposed, may be another leader's too.
func (g *Grants) raise(meta Meta, term, by uint64) {
	if planted.On(planted.BoundUnapplied) {
		g.raised(term, by, g.bound.Load()+by, nil)
		meta.Raise(term, by, func(bound uint64, err error) {
			if err == nil {
				g.bound.Store(bound)
			}
		})
		return
	}
	meta.Raise(term, by, func(bound uint64, err error) { g.raised(term, by, bound, err) })
}

// raised takes the bound that a raise by so many has made, in term.
func (g *Grants) raised(term, by, bound uint64, err error) {
	g.mu.Lock()
	g.raising = false
	full := g.full
	g.full = nil
	switch {
	case err != nil:
	case bound < by || bound >= uint64(shard.MaxRevision):
		err = &shard.InternalError{Reason: "the revisions have run out"}
	case g.term == term: // else another term's round has begun, and raises again
		g.spare = revisions{shard.Revision(bound - by + 1), shard.Revision(bound)}
	}
	g.mu.Unlock()
	if full != nil {
		full(err)
	}
}

// confirmed replies to those who were given numbers in term, if this replica still
// led in that very term after they were taken. now is the term in which it led.
func (g *Grants) confirmed(term, now uint64, err error) {
	if err == nil && now != term && !planted.On(planted.ReadIndexBySuccessor) {
		err = &shard.NotLeaderError{Shard: shard.MetaID}
	}
	for i := range g.counted {
		c := &g.counted[i]
		if err != nil {
			c.done(0, 0, err)
			continue
		}
		g.granted.Add(uint64(c.n))
		c.done(c.first, 0, nil)
	}
	clear(g.counted)
	g.again()
}

// again goes on with those who came meanwhile.
func (g *Grants) again() {
	g.mu.Lock()
	more := len(g.waiting) > 0
	g.granting = more
	g.mu.Unlock()
	if more {
		g.round()
	}
}

// refuse ends all that wait.
func (g *Grants) refuse(err error) {
	g.mu.Lock()
	refused := g.waiting
	g.waiting = nil
	g.granting = false
	g.mu.Unlock()
	for _, w := range refused {
		w.done(0, 0, err)
	}
}
