package replica

import (
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// history remembers which revision one replica had come to at which time, on this
// node's own monotonic clock: every revision up to a sample's was handed out before
// it. So a floor that is the newest sample older than the retention leaves all
// revisions readable that were handed out since. Wall clocks, which jump, and other
// nodes' clocks, which drift, have no part in it.
//
// Followers sample too, of what they have applied, which is no newer: one that
// becomes leader can let the floor rise at once. Otherwise a shard whose leader
// changes more often than the retention lasts would keep everything.
//
// It belongs to the upkeep's queue, but for what says otherwise.
type history struct {
	r       *Replica
	samples []sample // oldest first; times and revisions strictly increase
	below   sample   // the newest one that the floor has reached

	// proposing: a floor is in flight, and owns the proposal.
	proposing atomic.Bool
	proposal  raftgroup.Proposal
}

type sample struct {
	at              time.Duration
	revision        shard.Revision
	versions, bytes uint64 // written so far
}

// samplesMax bounds a history. They are a twentieth of the retention apart at least,
// so that a full one comes from a retention that was shorter before, or from a floor
// that does not rise; then the sample gives way that is closest to its neighbours.
const samplesMax = 32

func (h *history) init(r *Replica) {
	h.r = r
	h.proposal.Done = func(raftgroup.Result, error) { h.proposing.Store(false) }
}

// sample notes where the replica is now, if it has come further since the last
// one, and forgets what the floor has reached.
func (h *history) sample(now, retention time.Duration) {
	s, ok := h.r.State()
	if !ok || s.LastRevision == 0 {
		return
	}
	h.forget(s.Floor)
	if s.Floor == s.LastRevision {
		// All is below it. A replica that was away while the last of it was written,
		// and hears of that together with the floor, has no sample that tells.
		h.below = sample{at: now, revision: s.Floor, versions: s.Versions, bytes: s.Bytes}
		return
	}
	last := sample{at: -1 << 62, revision: s.Floor}
	if n := len(h.samples); n > 0 {
		last = h.samples[n-1]
	}
	if s.LastRevision > last.revision && now-last.at >= retention/20 {
		if len(h.samples) == samplesMax {
			h.thin()
		}
		h.samples = append(h.samples, sample{at: now, revision: s.LastRevision, versions: s.Versions, bytes: s.Bytes})
	}
}

// thin drops the sample whose absence leaves the shortest gap. The oldest one stays:
// it is what the floor rises to next.
func (h *history) thin() {
	drop := 1
	for i := 2; i+1 < len(h.samples); i++ {
		if h.samples[i+1].at-h.samples[i-1].at < h.samples[drop+1].at-h.samples[drop-1].at {
			drop = i
		}
	}
	h.samples = append(h.samples[:drop], h.samples[drop+1:]...)
}

// forget drops the samples up to the floor; the newest of them tells how much lies
// below it.
func (h *history) forget(floor shard.Revision) {
	n := 0
	for n < len(h.samples) && h.samples[n].revision <= floor {
		n++
	}
	if n > 0 {
		h.below = h.samples[n-1]
		h.samples = h.samples[:copy(h.samples, h.samples[n:])]
	}
}

// raise proposes the newest sample that is not younger than until as the floor, if
// this replica leads and the floor is not there yet.
func (h *history) raise(until time.Duration) {
	n := 0
	for n < len(h.samples) && h.samples[n].at <= until {
		n++
	}
	if n == 0 {
		return
	}
	r := h.r
	l, d := r.leadership.Load(), r.descriptor.Load()
	floor := h.samples[n-1].revision
	if !l.Leading || d == nil || floor <= shard.Revision(r.floor.Load()) || !h.proposing.CompareAndSwap(false, true) {
		return
	}
	p := &h.proposal
	p.Header = machine.AppendHeader(nil, machine.Header{Version: d.Epoch.Version})
	p.Body = shard.AppendCommand(nil, &shard.Command{Kind: shard.KindFloor, Revision: floor})
	p.Term = l.Term
	// The outcome shows in the state. One that is lost is proposed again.
	if r.group.Propose(p) != nil {
		h.proposing.Store(false)
		return
	}
	r.store.stats.floorsProposed.Add(1)
}
