package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// applyAll applies the committed entries of all groups of the round in one
// unsynced batch (more than one only past the byte budget; a group is never cut
// in two). raft hands out only entries that are stable here, so in the WAL an
// entry's append always precedes its apply, and losing the tail of the WAL
// never leaves a state without its log. It tells whether the engine still works.
func (r *round) applyAll() bool {
	h := r.w.h
	for from := 0; from < len(r.applies); {
		b := h.engine.NewBatch()
		to := from
		for to < len(r.applies) && (to == from || int64(b.Bytes()) < h.cfg.ApplyBytesMax) {
			w := &r.applies[to]
			w.first = len(r.finished)
			w.err = w.g.apply(r, b, w)
			w.last = len(r.finished)
			to++
		}
		if err := h.engine.Commit(b); err != nil {
			return false
		}
		for i := from; i < to; i++ {
			r.applied(&r.applies[i])
		}
		from = to
	}
	clear(r.applies)
	clear(r.finished)
	r.applies, r.finished = r.applies[:0], r.finished[:0]
	return true
}

// apply stages one group's share. After an error the state stays that of the
// last entry that was applied whole.
func (g *Group) apply(r *round, b *storage.Batch, w *applyWork) error {
	before := g.applied
	var err error
	for i := range w.msg.Entries {
		e := &w.msg.Entries[i]
		if e.Index != g.applied.Index+1 {
			panic(fmt.Sprintf("raftgroup: shard %d applies entry %d after %d", g.shard, e.Index, g.applied.Index))
		}
		whole, born, mark := len(r.finished), len(w.births), b.Mark()
		if err = g.applyEntry(r, b, w, e); err != nil {
			// The batch is committed for the entries and groups before this one. The
			// part of it that was staged must not be: the applied position stays
			// before it, so that a restart would evaluate it on its own outcome.
			b.RollBack(mark)
			r.finished = r.finished[:whole]
			g.h.abandonBirths(w.births[born:])
			w.births = w.births[:born]
			err = fmt.Errorf("apply entry %d of term %d: %w", e.Index, e.Term, err)
			break
		}
		g.applied = Position{Index: e.Index, Term: e.Term}
	}
	if g.applied != before {
		w.moved = true
		if planted.On(planted.StateApartFromData) {
			apart := g.h.engine.NewBatch()
			g.machine.EndApply(apart, g.applied)
			_ = g.h.engine.CommitSync(apart, 0, func() {})
		} else {
			g.machine.EndApply(b, g.applied)
		}
		if err == nil {
			err = g.truncate(b, before.Index)
		}
	}
	return err
}

func (g *Group) applyEntry(r *round, b *storage.Batch, w *applyWork, e *raftpb.Entry) error {
	at := Position{Index: e.Index, Term: e.Term}
	mine := g.pendingAt(at)
	switch {
	case e.Type == raftpb.EntryConfChangeV2:
		return g.applyMembership(b, w, at, e, mine)
	case e.Type != raftpb.EntryNormal:
		return fmt.Errorf("%w: entry of type %v", shard.ErrMalformed, e.Type)
	case len(e.Data) == 0:
		return nil
	}
	ops, err := openEntry(e.Data)
	if err != nil {
		return err
	}
	for i := 0; ops.more(); i++ {
		op, err := ops.next()
		if err != nil {
			return err
		}
		res, err := g.machine.Apply(b, at, op)
		if err != nil {
			return err
		}
		if res.Born != nil {
			if err := g.stageBirth(b, w, res.Born); err != nil {
				return err
			}
		}
		if mine != nil {
			r.finished = append(r.finished, finished{p: mine.proposals[i], res: res})
		}
	}
	return nil
}

// applied follows the commit of the batch: raft first, then the machine, then
// those who wait.
func (r *round) applied(w *applyWork) {
	g := w.g
	for i, c := range w.changes {
		cs := g.rn.ApplyConfChange(c)
		if w.err == nil && i == len(w.changes)-1 {
			w.err = g.checkConfiguration(*cs)
		}
	}
	_ = g.rn.Step(w.msg.Responses[0])
	g.bear(w.births)
	if w.moved {
		g.machine.Published()
	}
	for i := w.first; i < w.last; i++ {
		f := &r.finished[i]
		g.finish(f.p, f.res, f.err)
	}
	if w.told != nil {
		w.told(w.outcome)
	}
	g.tellThoseRemoved(w.removed)
	g.resolvePending()
	if w.err != nil {
		g.fail(w.err)
	}
}

// checkConfiguration compares raft's configuration with the machine's: they
// are computed apart from the same entries.
func (g *Group) checkConfiguration(cs raftpb.ConfState) error {
	if err := cs.Equivalent(confState(g.members())); err != nil {
		return fmt.Errorf("%w: raft's configuration is not the descriptor's: %w", shard.ErrMalformed, err)
	}
	return nil
}

// fail stops the replica for good: its data or log is not what it must be.
// What it had proposed may or may not have taken effect.
func (g *Group) fail(err error) {
	if g.dead != nil {
		return
	}
	g.h.log.Error("a replica stopped", "shard", uint64(g.shard), "replica", uint64(g.replica), "error", err)
	g.stop(fmt.Errorf("%w: %w", shard.ErrStopped, err), shard.ErrStopped)
	g.machine.Stopped(g.dead)
}

// stop ends the group's part; why is its status, refusal what callers get.
func (g *Group) stop(why, refusal error) {
	g.dead = why
	g.box.mu.Lock()
	g.box.closed = refusal
	g.box.mu.Unlock()
	g.abandonAll(refusal)
	g.discardMail()
	g.log.Release()
	g.publishStatus()
}
