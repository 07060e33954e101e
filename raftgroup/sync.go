package raftgroup

import (
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// Responses to MsgStorageAppend (votes, acknowledgements of appends, and raft's
// message to itself that a write is stable) wait for a sync that began after
// all earlier term, vote and entry writes of their group were committed. This
// holds also for a response whose own MsgStorageAppend writes nothing: a
// repeated vote request is answered from memory, and its answer must not
// overtake the sync of the first.
//
// So each group remembers whether it has such writes that no sync covers
// (uncovered), or else the last sync that covers them (cover). A response
// without a write of its own joins that sync while it is in flight, is due at
// once when it is done, and needs a new one if there is none; that one may
// well be of an empty batch, for which the engine still syncs all that was
// committed before it.

// delivery is the responses of one MsgStorageAppend.
type delivery struct {
	g        *Group
	instance uint64
	msgs     []raftpb.Message
	install  *receivedSnapshot // a large one, to be installed once the sync is done
}

// syncRecord is one sync that was asked of the engine.
type syncRecord struct {
	h *Host

	mu         sync.Mutex // guards what follows
	done       bool
	deliveries []delivery
}

// join adds d to the sync and tells whether it was still in flight.
func (s *syncRecord) join(d delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	s.deliveries = append(s.deliveries, d)
	return true
}

// finish is the engine's callback.
func (s *syncRecord) finish() {
	s.mu.Lock()
	s.done = true
	due := s.deliveries
	s.deliveries = nil
	s.mu.Unlock()
	if s.h.closed.Load() {
		return
	}
	for i := range due {
		due[i].deliver()
	}
}

// deliver sends the responses. Those that a group addresses to itself go
// through its mailbox. Safe outside the turn.
func (d *delivery) deliver() {
	g := d.g
	if d.install != nil {
		s := d.install
		g.h.ingest.Submit(func() { g.ingest(s) })
		return
	}
	if g.gone.Load() {
		return // a removed replica says nothing any more
	}
	local := false
	for i := range d.msgs {
		if shard.ReplicaID(d.msgs[i].To) == g.replica {
			local = true
		} else {
			g.send(&d.msgs[i])
		}
	}
	if !local {
		return
	}
	g.box.mu.Lock()
	if g.box.closed != nil {
		g.box.mu.Unlock()
		return
	}
	for i := range d.msgs {
		if shard.ReplicaID(d.msgs[i].To) == g.replica {
			g.box.local = append(g.box.local, localResponse{d.instance, d.msgs[i]})
		}
	}
	g.unlockAndWake()
}

// commitAppends commits the round's append batch and settles when its
// responses are due. It tells whether the engine still works.
func (r *round) commitAppends() bool {
	var next *syncRecord
	keep := 0
	var early []delivery // planted: before what they tell of is durable
	for _, d := range r.waiting {
		switch g := d.g; {
		case planted.On(planted.NoFsyncBeforeAck) && d.install == nil,
			planted.On(planted.VoteBeforeEarlierSync) && d.install == nil && !slices.Contains(r.writers, g):
			early = append(early, d)
		case g.uncovered:
			r.waiting[keep] = d
			keep++
		case g.cover == nil || !g.cover.join(d):
			d.deliver()
		}
	}
	if keep > 0 {
		next = &syncRecord{h: r.w.h, deliveries: append([]delivery(nil), r.waiting[:keep]...)}
	}
	ok := true
	if next != nil {
		// Whatever was committed before, by other rounds of this worker too, is
		// covered; the groups with responses or writes are those that need to know.
		for _, g := range r.writers {
			g.uncovered, g.cover = false, next
		}
		for i := range next.deliveries {
			g := next.deliveries[i].g
			g.uncovered, g.cover = false, next
		}
		r.w.h.stats.syncedRounds.Add(1)
		ok = r.w.h.engine.CommitSync(r.batch(), r.w.lane, next.finish) == nil
	} else if r.appends != nil {
		ok = r.w.h.engine.Commit(r.appends) == nil
	}
	for i := range early {
		early[i].deliver()
	}
	r.appends = nil
	clear(r.waiting)
	clear(r.writers)
	r.waiting, r.writers = r.waiting[:0], r.writers[:0]
	return ok
}
