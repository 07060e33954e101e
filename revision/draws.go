package revision

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// KV carries out one command on the shard that is meant to; *client.Core is one.
type KV interface {
	Do(cmd shard.Command, timeout time.Duration, done func(shard.Result, error)) (cancel func())
}

// DrawsConfig of a node's draws.
type DrawsConfig struct {
	Env    env.Env
	Queue  env.Queue // on which draws are sent and time out
	KV     KV        // reaches the meta shard's leader, wherever it is
	Grants *Grants   // of this node: spares the message if the leader is here
	Notes  Notes     // nil: all draws of other nodes' leaders go through KV
	// Patience is how long writes wait for a revision; default 5 s, which is longer
	// than the meta shard's next election takes.
	Patience time.Duration
}

const (
	defaultPatience = 5 * time.Second
	// noteWait is how long the answer to a note may take before the draw goes
	// through KV.
	noteWait = 250 * time.Millisecond
)

// Draws is how a node's replicas get revisions: one draw at a time for all of them.
// It is safe for concurrent use and never blocks.
type Draws struct {
	cfg DrawsConfig

	mu      sync.Mutex // guards what follows
	waiting []request
	total   int // revisions that waiting asks for
	// begun: a draw is in flight, or about to be sent.
	begun bool
	// number of the draw in flight; 0: none is. Answers to any other are ignored.
	number  uint64
	sent    []request
	last    uint64 // number of the last draw
	timeout env.Timer
	asked   int  // revisions that the draw in flight asks for
	noting  bool // it went as a note, whose answer is waited for
	own     own  // what this node's own granter gave it; a witness was asked
	witness witness

	newest       atomic.Uint64
	draws, drawn atomic.Uint64

	beginStep func()    // begin
	ahead     revisions // of a planted bug
}

// request is one caller's share of a draw.
type request struct {
	n    int
	done func(shard.Revision, error)
}

var _ replica.Revisions = (*Draws)(nil)

// NewDraws makes a node's draws.
func NewDraws(cfg DrawsConfig) *Draws {
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	// Answers to the draws of an earlier start must not be taken for answers to this
	// one's, so the numbers begin anywhere.
	d := &Draws{cfg: cfg, last: cfg.Env.Uint64() >> 1}
	d.beginStep = d.begin
	return d
}

// Newest is the largest revision that was drawn on this node.
func (d *Draws) Newest() shard.Revision { return shard.Revision(d.newest.Load()) }

// Drawn is how many draws this node has made, and for how many revisions.
func (d *Draws) Drawn() (draws, revisions uint64) { return d.draws.Load(), d.drawn.Load() }

// Draw implements replica.Revisions. n is what the caller's own bounds allow, at
// most shard.DrawMax; the error is ErrNoRevision. Callers' order is kept: of two
// requests in one draw the earlier one gets the smaller revisions.
func (d *Draws) Draw(n int, done func(first shard.Revision, err error)) {
	d.mu.Lock()
	if planted.On(planted.RevisionFetchedAhead) && uint64(n) <= uint64(d.ahead.last-d.ahead.first) {
		first := d.ahead.first
		d.ahead.first += shard.Revision(n)
		d.mu.Unlock()
		done(first, nil)
		return
	}
	d.waiting = append(d.waiting, request{n, done})
	begin := !d.begun
	d.begun = true
	d.mu.Unlock()
	if begin {
		d.cfg.Queue.Submit(d.beginStep)
	}
}

// begin sends the next draw. It is a step of its own so that all writes of one
// frame, which come one after the other, share a draw instead of the first of them
// leaving the others behind.
func (d *Draws) begin() {
	d.mu.Lock()
	d.begun = d.takeLocked()
	begun, number, sum := d.begun, d.number, d.total
	d.mu.Unlock()
	if begun {
		d.send(number, sum)
	}
}

// takeLocked begins the next draw, for what waits now: whoever comes later waits
// for the one after it. It is false if nothing waits.
func (d *Draws) takeLocked() bool {
	if len(d.waiting) == 0 {
		return false
	}
	i, sum := 0, 0
	for i < len(d.waiting) && (i == 0 || sum+d.waiting[i].n <= shard.DrawMax) {
		sum += d.waiting[i].n
		i++
	}
	d.sent = append(d.sent[:0], d.waiting[:i]...)
	rest := copy(d.waiting, d.waiting[i:])
	clear(d.waiting[rest:])
	d.waiting = d.waiting[:rest]
	d.last++
	d.number, d.total, d.own = d.last, sum, own{}
	return true
}

// send asks for the n revisions of the draw in flight: by a note first.
func (d *Draws) send(number uint64, n int) {
	d.draws.Add(1)
	ask := n
	if planted.On(planted.RevisionFetchedAhead) {
		ask += 1000
	}
	d.mu.Lock()
	current := d.number == number
	if current { // else asked is another draw's
		d.asked, d.noting = ask, true
	}
	d.mu.Unlock()
	if !current {
		return
	}
	d.waitFor(number, noteWait, func() {
		d.noteLost(number)
		d.waitFor(number, d.cfg.Patience, func() { d.answered(number, 0, shard.ErrNoRevision) })
	})
	if !d.sendNote(number, ask) {
		d.noteLost(number)
	}
}

// noteLost lets a draw go the other ways whose note was not sent, or not answered.
func (d *Draws) noteLost(number uint64) {
	d.mu.Lock()
	lost := d.number == number && d.noting
	if lost {
		d.noting = false
		if d.own.voter != 0 {
			d.witness.silent(d.own.voter, d.cfg.Env.Now())
		}
	}
	n := d.asked
	d.mu.Unlock()
	if lost {
		d.grant(number, n)
	}
}

// grant asks this node's own granter, which has its leadership confirmed by a round
// of heartbeats, and whoever leads the meta shard if this node does not.
func (d *Draws) grant(number uint64, n int) {
	d.cfg.Grants.Grant(n, 0, func(first shard.Revision, _ uint64, err error) {
		switch {
		case err == nil:
			d.answered(number, first, nil)
		case d.current(number):
			d.ask(number, n, d.voter())
		}
	})
}

func (d *Draws) current(number uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.number == number
}

// waitFor arms the timer of the draw in flight.
func (d *Draws) waitFor(number uint64, after time.Duration, step func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.number == number {
		d.timeout = d.cfg.Env.AfterFunc(after, d.cfg.Queue, step)
	}
}

// ask asks the leader of the meta shard, which is another node's replica. voter is
// this node's, which confirms what it is granted; if it cannot, because it has
// heard of a later term or has gone, the leader is asked to see to that itself.
func (d *Draws) ask(number uint64, n int, voter shard.ReplicaID) {
	d.cfg.KV.Do(shard.Command{Kind: shard.KindDraw, Limit: uint64(n), Voter: voter}, d.cfg.Patience, func(res shard.Result, err error) {
		switch {
		case err != nil:
		case res.Count != uint64(n) || len(res.Value) != 0 && len(res.Value) != 8:
			err = shard.ErrMalformed
		case len(res.Value) == 8 && !d.confirm(voter, binary.BigEndian.Uint64(res.Value)):
			d.ask(number, n, 0)
			return
		}
		d.answered(number, res.Revision, err)
	})
}

// confirm tells whether this node's replica of the meta shard, as the given voter,
// has still not voted in a later term than that of a grant which was received.
func (d *Draws) confirm(voter shard.ReplicaID, term uint64) bool {
	if planted.On(planted.GrantWithoutConfirming) {
		return true
	}
	meta, here := d.cfg.Grants.meta()
	return here && voter != 0 && meta.Self() == voter && meta.Term() == term
}

// answered deals out the revisions of a draw, and sends the next one. Only the
// draw in flight is of interest: one that was given up has been answered.
func (d *Draws) answered(number uint64, first shard.Revision, err error) {
	d.mu.Lock()
	if d.number != number {
		d.mu.Unlock()
		return
	}
	// From here on answers to this draw are ignored; the next one is sent when all
	// of this one's callers have their numbers.
	d.number, d.noting = 0, false
	if d.timeout != nil {
		d.timeout.Stop()
		d.timeout = nil
	}
	sent, n := d.sent, d.total
	d.sent = nil
	if err == nil {
		d.drawn.Add(uint64(n))
		d.newest.Store(uint64(first) + uint64(n) - 1)
		if planted.On(planted.RevisionFetchedAhead) {
			d.ahead = revisions{first + shard.Revision(n), first + shard.Revision(n) + 1000}
		}
	}
	d.mu.Unlock()
	for i := range sent {
		if err != nil {
			sent[i].done(0, shard.ErrNoRevision)
			continue
		}
		sent[i].done(first, nil)
		first += shard.Revision(sent[i].n)
	}
	clear(sent)
	d.mu.Lock()
	if cap(sent) <= sentMax {
		d.sent = sent[:0]
	}
	d.mu.Unlock()
	d.cfg.Queue.Submit(d.beginStep)
}

// sentMax is how many requests the buffer of an idle node has room for.
const sentMax = 1024

// HandedOut tells whether r was handed out to somebody, or skipped: nobody will be
// given it from now on. If that is not known here another revision is drawn.
func (d *Draws) HandedOut(r shard.Revision, done func(known bool, err error)) {
	if r <= d.Newest() {
		done(true, nil)
		return
	}
	d.Draw(1, func(first shard.Revision, err error) { done(r <= first, err) })
}
