package revision

import (
	"time"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// A draw of the node whose replica leads the meta shard takes its numbers from the
// granter beside it, then asks one other voter, the witness, for its term by a note.
// Invariant: revisions are used only if, after their numbers were taken, this replica
// (Grants.grantVoter sees to that) and the witness were still in the term of the
// grant, and the two a quorum. Then nobody had been elected in a later term when they
// were taken. A round of heartbeats shows the same, at the cost of a message to each
// voter, an answer from each, and a turn of the group for every one of them.

// own is what this node's granter gave to the draw in flight.
type own struct {
	first shard.Revision
	term  uint64
	voter shard.ReplicaID // the witness; 0: none was asked
}

// witness chooses the voter to ask. One that does not answer is not asked again
// until the other one does not answer either; then nobody is for witnessRest. One of
// another term gives way to the other one, too.
type witness struct {
	avoid    shard.ReplicaID // the last that did not answer, or was of another term
	silences int             // since one answered
	rest     time.Duration   // nobody is asked before
}

// witnessRest is how long draws are confirmed by heartbeats alone after two voters
// in a row have not answered.
const witnessRest = 10 * time.Second

// choose tells whom to ask, and on which node.
func (w *witness) choose(meta Meta, now time.Duration) (shard.ReplicaID, shard.NodeID, bool) {
	if now < w.rest {
		return 0, 0, false
	}
	return meta.Partner(w.avoid)
}

func (w *witness) silent(voter shard.ReplicaID, now time.Duration) {
	w.avoid = voter
	w.silences++
	if w.silences == 2 {
		w.silences, w.rest = 0, now+witnessRest
	}
}

// askWitness takes numbers for a draw and asks a witness. It is false if there are
// none to be had in this way, or nobody was asked.
func (d *Draws) askWitness(meta Meta, number uint64, n int) bool {
	d.mu.Lock()
	voter, node, ok := d.witness.choose(meta, d.cfg.Env.Now())
	d.mu.Unlock()
	if !ok {
		return false
	}
	first, term, ok := d.cfg.Grants.grantVoter(n, voter)
	if !ok {
		return false
	}
	d.mu.Lock()
	current := d.number == number && d.noting
	if current {
		d.own = own{first, term, voter}
	}
	d.mu.Unlock()
	if !current {
		return true // it was given up meanwhile
	}
	if planted.On(planted.GrantWithoutConfirming) {
		d.answered(number, first, nil)
		return true
	}
	return d.cfg.Notes.Note(node, appendNote(nil, noteWitness, number, uint64(voter), 0))
}

// termOf is the term of this node's replica of the meta shard, if it is the one that
// is asked for; 0 otherwise.
func (d *Draws) termOf(voter shard.ReplicaID) uint64 {
	if meta, here := d.cfg.Grants.meta(); here && meta.Self() == voter {
		return meta.Term()
	}
	return 0
}

// witnessed takes a witness's answer: its term, after the numbers were taken.
func (d *Draws) witnessed(number uint64, voter shard.ReplicaID, term uint64) {
	d.mu.Lock()
	waits := d.number == number && d.noting && voter != 0 && d.own.voter == voter
	taken, n := d.own, d.asked
	if waits {
		d.noting = false
		d.witness.silences = 0
		if term != taken.term {
			d.witness.avoid = voter
		}
	}
	d.mu.Unlock()
	if !waits {
		return
	}
	if term != taken.term {
		d.grant(number, n)
		return
	}
	d.answered(number, taken.first, nil)
}
