package raftgroup

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// mailbox is everything that waits for a group's next turn. Bytes of proposals
// and messages are bounded by the host's budgets, reads by their number,
// messages of one group and ticks by constants; the rest has at most a few
// elements by construction.
type mailbox struct {
	mu sync.Mutex
	// queued: the group is in the run queue, in a round, or parked. See worker.
	queued bool
	closed error // non-nil: nothing is taken any more, and why
	// removed is the lowest replica ID that may follow this replica, once there is
	// proof of its removal. It is stored under mu, and only grows.
	removed atomic.Uint64
	// born: a split has written this replica's state; campaign: it is to lead.
	born, campaign bool
	mail
}

// mail is what one turn takes out of the mailbox.
type mail struct {
	local     []localResponse
	messages  []incoming
	proposals []*Proposal
	reads     []Read
	controls  []control
	ticks     int
	snapshot  *receivedSnapshot  // complete, not stepped yet
	installed *installedSnapshot // a large one whose ingest has ended
}

// localResponse is raft's message to itself about a storage write.
type localResponse struct {
	instance uint64
	msg      raftpb.Message
}

// incoming is a message of another replica.
type incoming struct {
	node  shard.NodeID
	bytes int64 // in the host's budget
	// startKey of an append that probes: where the sender's shard starts.
	startKey []byte
	msg      raftpb.Message
}

// control is a rare request. Exactly one of its functions is called: run on a
// turn, or abandon when the group has stopped.
type control struct {
	run     func()
	abandon func(error)
}

func (m *mail) empty() bool {
	return len(m.local) == 0 && len(m.messages) == 0 && len(m.proposals) == 0 && len(m.reads) == 0 &&
		len(m.controls) == 0 && m.ticks == 0 && m.snapshot == nil && m.installed == nil
}

// recycle empties m and keeps the memory of its slices, but not that of a burst.
func (m *mail) recycle() {
	m.local = recycled(m.local)
	m.messages = recycled(m.messages)
	m.proposals = recycled(m.proposals)
	m.reads = recycled(m.reads)
	m.controls = recycled(m.controls)
	m.ticks, m.snapshot, m.installed = 0, nil, nil
}

func recycled[T any](s []T) []T {
	if cap(s) > 256 {
		return nil
	}
	clear(s)
	return s[:0]
}

// take swaps the mailbox's mail with m, which must be empty.
func (b *mailbox) take(m *mail) {
	b.mu.Lock()
	b.mail, *m = *m, b.mail
	b.mu.Unlock()
}

// takeTicks takes the ticks, and leaves the other mail.
func (b *mailbox) takeTicks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.ticks
	b.ticks = 0
	return n
}

// takeInstalled takes the end of a large installation, and leaves the other mail.
func (b *mailbox) takeInstalled() *installedSnapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.mail.installed
	b.mail.installed = nil
	return i
}

// release ends the group's turn: it clears the queued flag and returns true if
// nothing came in meanwhile, and no removal waits. gone: it was carried out.
func (b *mailbox) release(gone bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A replica that has stopped takes no state in: a removed one's is deleted, and that of
	// another waits for the next start.
	if !b.mail.empty() || b.born && b.closed == nil || b.removed.Load() != 0 && !gone {
		return false
	}
	b.queued = false
	return true
}

// unlockAndWake ends a critical section that has put something in.
func (g *Group) unlockAndWake() {
	wake := !g.box.queued
	g.box.queued = true
	g.box.mu.Unlock()
	if wake {
		g.w.enqueue(g)
	}
}

// pushTick counts the time of a stopped replica, too: see ask.
func (g *Group) pushTick() {
	g.box.mu.Lock()
	if g.gone.Load() || g.box.ticks >= ticksPendingMax {
		g.box.mu.Unlock()
		return
	}
	g.box.ticks++
	g.unlockAndWake()
}

// pushMessage tells whether the message was taken.
func (g *Group) pushMessage(m incoming) bool {
	g.box.mu.Lock()
	if g.box.closed != nil || len(g.box.messages) >= incomingPerGroupMax {
		g.box.mu.Unlock()
		return false
	}
	g.box.messages = append(g.box.messages, m)
	g.unlockAndWake()
	return true
}

// pushControl hands in c; if the group has stopped it is abandoned at once.
func (g *Group) pushControl(c control) {
	g.box.mu.Lock()
	if err := g.box.closed; err != nil {
		g.box.mu.Unlock()
		c.abandon(err)
		return
	}
	g.box.controls = append(g.box.controls, c)
	g.unlockAndWake()
}
