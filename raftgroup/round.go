package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/storage"
)

// round is one pass of a worker over some of its groups. It belongs to the
// worker's step; its memory is reused.
type round struct {
	w      *worker
	groups []*Group

	appends  *storage.Batch // nil until something is staged
	writers  []*Group       // have staged term, vote or entries
	waiting  []delivery     // responses that must not be said before a sync
	applies  []applyWork
	finished []finished
	proposed []raftpb.Entry // scratch of propose
}

// applyWork is what raft asked one group to apply.
type applyWork struct {
	g       *Group
	msg     raftpb.Message
	changes []raftpb.ConfChangeV2 // accepted, in order
	removed []Member              // by these changes
	births  []birth               // of shards that split off
	told    func(error)           // who proposed a membership change that was applied
	outcome error
	first   int // of this group's proposals in round.finished
	last    int
	moved   bool // the applied position has
	err     error
}

// finished is a proposal whose outcome is known once the apply batch is visible.
type finished struct {
	p   *Proposal
	res Result
	err error
}

func (r *round) run() {
	r.groups = r.w.take(r.groups[:0])
	for _, g := range r.groups {
		g.turn(r)
	}
	if !r.commitAppends() || !r.applyAll() {
		// The engine has failed and said so (Config.Fatal). Nothing may happen
		// after a failed write: the groups stay where they are.
		r.w.stopped = true
		return
	}
	for _, g := range r.groups {
		g.settle()
	}
	for _, g := range r.groups {
		g.release()
	}
	r.w.h.stats.rounds.Add(1)
	r.w.h.stats.groupsInRounds.Add(uint64(len(r.groups)))
	clear(r.groups)
}

// batch is the round's append batch.
func (r *round) batch() *storage.Batch {
	if r.appends == nil {
		r.appends = r.w.h.engine.NewBatch()
	}
	return r.appends
}

// release ends the turn, or puts the group at the tail if it has more to do.
func (g *Group) release() {
	if g.parked {
		return // stays queued, so that nothing wakes it: see installed
	}
	if g.dead == nil && (!g.in.empty() || g.rn.HasReady() || g.canPropose()) {
		g.w.enqueue(g)
		return
	}
	if !g.box.release(g.gone.Load()) {
		g.w.enqueue(g)
	}
}
