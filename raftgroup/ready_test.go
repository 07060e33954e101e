package raftgroup

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

// Only an append that says nothing of its own is left out.
func TestSupersededAppends(t *testing.T) {
	empty := raftpb.Message{Type: raftpb.MsgApp, To: 2, Term: 5, Index: 10, LogTerm: 5, Commit: 10}
	with := empty
	with.Entries = []raftpb.Entry{{Index: 11, Term: 5}}
	change := func(m raftpb.Message, change func(*raftpb.Message)) raftpb.Message {
		change(&m)
		return m
	}
	for name, c := range map[string]struct {
		m     raftpb.Message
		later []raftpb.Message
		want  bool
	}{
		"the next has entries":        {empty, []raftpb.Message{with}, true},
		"the next is empty too":       {empty, []raftpb.Message{empty}, true},
		"another one is in between":   {empty, []raftpb.Message{change(with, func(m *raftpb.Message) { m.To = 3 }), with}, true},
		"nothing follows":             {empty, nil, false},
		"it has entries itself":       {with, []raftpb.Message{with}, false},
		"the next is for another":     {empty, []raftpb.Message{change(with, func(m *raftpb.Message) { m.To = 3 })}, false},
		"the next begins elsewhere":   {empty, []raftpb.Message{change(with, func(m *raftpb.Message) { m.Index = 9 })}, false},
		"the next knows of less":      {empty, []raftpb.Message{change(with, func(m *raftpb.Message) { m.Commit = 9 })}, false},
		"the next is no append":       {empty, []raftpb.Message{change(empty, func(m *raftpb.Message) { m.Type = raftpb.MsgHeartbeat })}, false},
		"it is a heartbeat":           {change(empty, func(m *raftpb.Message) { m.Type = raftpb.MsgHeartbeat }), []raftpb.Message{with}, false},
		"the next is of a later term": {empty, []raftpb.Message{change(with, func(m *raftpb.Message) { m.Term = 6 })}, false},
	} {
		if got := superseded(&c.m, c.later); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An entry that waits leaves in the message that tells of the commit before it:
// a busy group sends one append per entry and follower, not two.
func TestCommitTravelsWithTheNextEntry(t *testing.T) {
	c := newCluster(t, 41, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	before := l.host.Stats()
	const entries = 50
	last := l.propose(5, "k=v")
	for i := range uint64(entries) {
		c.until("the entry is on its way", func() bool { return l.host.Stats().Entries > before.Entries+i })
		last = l.propose(5, "k=w") // waits for the next one
	}
	c.until("done", last.done)
	now := l.host.Stats()
	sent, proposed := now.Messages-before.Messages, now.Entries-before.Entries
	// Two appends for each entry, and a few messages that tell of the last commit
	// and of the leader's life.
	if most := 2*proposed + 20; proposed < entries || sent > most {
		t.Errorf("%d messages for %d entries, at most %d", sent, proposed, most)
	}
}

// While proposals are about to come, followers hear of a commit with the next entry,
// or with a heartbeat if none comes.
func TestCommitIsLeftToTheNextEntry(t *testing.T) {
	c := newCluster(t, 42, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	f := c.node(l.id%3 + 1)
	empty := 0
	c.sending = func(from *testNode, e *envelope) {
		if from == l && e.msg.Type == raftpb.MsgApp && len(e.msg.Entries) == 0 {
			empty++
		}
	}
	l.machine(5).expecting = true
	const entries = 20
	for range entries {
		c.put(5, "k=w")
	}
	if empty != 0 {
		t.Errorf("%d appends that only tell of a commit", empty)
	}
	last := l.machine(5).Applied()
	c.until("a heartbeat tells of the last one", func() bool { return f.machine(5).Applied() == last })

	l.machine(5).expecting = false
	c.put(5, "k=x")
	c.mustAgree(5)
	if empty == 0 {
		t.Error("nothing else is expected, and nobody tells of the commit")
	}
}

// An append that is lost on its way to all followers is noticed and sent again,
// whatever waits for it.
func TestLostAppendWhileMoreIsExpected(t *testing.T) {
	c := newCluster(t, 44, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	l.machine(5).expecting = true
	lost := 0
	c.filter = func(from, _ shard.NodeID, e *envelope) bool {
		if from == l.id && len(e.msg.Entries) > 0 && lost < 2 {
			lost++
			return false
		}
		return true
	}
	w := l.propose(5, "k=w")
	c.until("the entry is committed", w.done)
	if lost != 2 {
		t.Errorf("%d appends were lost", lost)
	}
}

// What raft waits for the answer to is sent whatever is expected.
func TestProbesAreNotLeftToTheNextEntry(t *testing.T) {
	c := newCluster(t, 43, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	g := l.group(5)
	l.machine(5).expecting = true
	m := raftpb.Message{Type: raftpb.MsgApp, To: uint64(l.id%3 + 1), Term: l.machine(5).leadership.Term}
	if !g.leftToNext(&m, true) {
		t.Error("a follower that replicates")
	}
	if g.leftToNext(&m, false) {
		t.Error("nothing new is committed")
	}
	g.rn.ReportUnreachable(m.To)
	if g.leftToNext(&m, true) {
		t.Error("a follower that is probed")
	}
	m.Type = raftpb.MsgHeartbeat
	if g.leftToNext(&m, true) {
		t.Error("a heartbeat")
	}
}

// A follower to which so much is on its way that no further entry goes there before
// it answers gets what brings the answer, whatever is expected.
func TestThrottledFollowersAreNotLeftToTheNextEntry(t *testing.T) {
	c := newCluster(t, 45, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	f := c.node(l.id%3 + 1)
	l.machine(5).expecting = true
	lost := 0
	c.filter = func(from, to shard.NodeID, e *envelope) bool {
		if from != l.id || to != f.id || e.msg.Type != raftpb.MsgApp {
			return true
		}
		lost++
		return false
	}
	for lost < inflightMessagesMax {
		c.put(5, "k=w")
	}
	m := raftpb.Message{Type: raftpb.MsgApp, To: uint64(f.group(5).Replica()), Term: l.machine(5).leadership.Term}
	throttled := func() (paused bool) {
		l.group(5).rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			paused = paused || id == m.To && pr.State == tracker.StateReplicate && pr.MsgAppFlowPaused
		})
		return paused
	}
	for !throttled() {
		c.put(5, "k=w")
	}
	if l.group(5).leftToNext(&m, true) {
		t.Error("no next entry goes there")
	}
}
