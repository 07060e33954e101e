package raftgroup

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// Read is a read request on its way through ReadIndex; opaque to the group.
type Read any

// readState holds a group's reads. One ReadIndex is in flight; all reads that
// come meanwhile are served by the next one, because a read may only use a
// confirmation that was asked for after it came.
//
// A deposed leader must not be confirmed by its successor, so ReadIndex is
// stepped only while this replica leads and has applied an entry of its term;
// neither MsgReadIndex nor its response is taken from the network; and no
// context is ever used twice, by any replica or incarnation.
type readState struct {
	waiting  []Read
	inflight *readBatch
	// confirmed batches wait until their index is applied.
	confirmed []readBatch
	counter   uint64
}

type readBatch struct {
	context [24]byte
	term    uint64
	since   uint64 // the group's clock
	index   uint64
	reads   []Read
}

// Read submits a read; it comes back in Machine.Confirmed. An error as in Propose.
func (g *Group) Read(r Read) error {
	if g.h.readsWaiting.Load() >= readsWaitingMax {
		return shard.ErrBusy
	}
	return g.Confirm(r)
}

// Confirm is Read for those of which the caller has a few at a time: however many
// others wait, it is taken.
func (g *Group) Confirm(r Read) error {
	g.h.readsWaiting.Add(1)
	g.box.mu.Lock()
	if err := g.box.closed; err != nil {
		g.box.mu.Unlock()
		g.h.readsWaiting.Add(-1)
		return err
	}
	g.box.reads = append(g.box.reads, r)
	g.unlockAndWake()
	return nil
}

func (g *Group) acceptReads(in *mail) {
	g.reads.waiting = append(g.reads.waiting, in.reads...)
}

// requestReadIndex asks raft to confirm what waits, unless it is busy with an
// earlier request.
func (g *Group) requestReadIndex() {
	s := &g.reads
	if s.inflight == nil && len(s.waiting) == 0 && len(s.confirmed) == 0 {
		return
	}
	term, leads := g.leads()
	if !leads && !planted.On(planted.ReadIndexBySuccessor) {
		g.abandonReads(g.notLeader())
		return
	}
	if s.inflight != nil && s.inflight.term != term {
		// raft forgot it when the term ended.
		s.waiting = append(s.inflight.reads, s.waiting...)
		s.inflight = nil
	}
	// Until an entry of the term is applied the reads wait: the commit index
	// that raft would name may be older than what was acknowledged.
	if s.inflight != nil || len(s.waiting) == 0 || g.applied.Term != term && !planted.On(planted.ReadBeforeOwnTerm) {
		return
	}
	s.counter++
	b := &readBatch{term: term, since: g.clock, reads: s.waiting}
	binary.BigEndian.PutUint64(b.context[0:], uint64(g.replica))
	binary.BigEndian.PutUint64(b.context[8:], g.h.cfg.Incarnation)
	binary.BigEndian.PutUint64(b.context[16:], s.counter)
	s.waiting = nil
	s.inflight = b
	g.h.stats.readIndexes.Add(1)
	g.rn.ReadIndex(b.context[:])
}

// expireReadIndex gives up a request that raft has lost, and asks again with a
// fresh context.
func (g *Group) expireReadIndex() {
	s := &g.reads
	if b := s.inflight; b != nil && g.clock-b.since > uint64(g.h.cfg.ElectionTicks) {
		s.waiting = append(b.reads, s.waiting...)
		s.inflight = nil
	}
}

// readIndexed takes raft's answer.
func (g *Group) readIndexed(rs raft.ReadState) {
	s := &g.reads
	b := s.inflight
	if b == nil || string(rs.RequestCtx) != string(b.context[:]) {
		return // of a request that was given up
	}
	b.index = rs.Index
	s.confirmed = append(s.confirmed, *b)
	s.inflight = nil
	g.requestNextReadIndex()
}

// requestNextReadIndex schedules a turn for reads that came meanwhile.
func (g *Group) requestNextReadIndex() {
	if len(g.reads.waiting) > 0 {
		g.requestReadIndex()
	}
}

// confirmReads hands over the reads whose index is applied. The applied term
// must be the current one: a lone voter that was restarted may be told a
// commit index below entries that it had acknowledged.
func (g *Group) confirmReads() {
	s := &g.reads
	if len(s.confirmed) == 0 {
		return
	}
	term, leads := g.leads()
	n := 0
	for _, b := range s.confirmed {
		switch {
		case (!leads || b.term != term) && !planted.On(planted.ReadIndexBySuccessor):
			g.handBack(b.reads, g.notLeader())
		case g.applied.Index >= b.index && (g.applied.Term == term || planted.On(planted.ReadBeforeOwnTerm)):
			g.handBack(b.reads, nil)
		default:
			s.confirmed[n] = b
			n++
		}
	}
	clear(s.confirmed[n:])
	s.confirmed = s.confirmed[:n]
}

// abandonReads hands all reads back unserved.
func (g *Group) abandonReads(err error) {
	s := &g.reads
	var all []Read
	for _, b := range s.confirmed {
		all = append(all, b.reads...)
	}
	if s.inflight != nil {
		all = append(all, s.inflight.reads...)
	}
	all = append(all, s.waiting...)
	s.confirmed, s.inflight, s.waiting = nil, nil, nil
	if len(all) > 0 {
		g.handBack(all, err)
	}
}

func (g *Group) handBack(reads []Read, err error) {
	g.h.readsWaiting.Add(-int64(len(reads)))
	if err == nil {
		g.h.stats.reads.Add(uint64(len(reads)))
	}
	g.machine.Confirmed(reads, err)
}
