package raftgroup

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// checkDurable opens what a node would have after losing all that is not
// synced now, and compares it with a promise that it is making.
func checkDurable(n *testNode, e *envelope) {
	t := n.c.t
	m := &e.msg
	if m.Reject || m.Type != raftpb.MsgVoteResp && m.Type != raftpb.MsgAppResp {
		return
	}
	end := &life{loop: newLoop(1)}
	engine, err := storage.Open(storage.Config{Dir: "store", FS: n.fs.CrashClone(vfs.CrashCloneCfg{}), MemoryBytes: 16 << 20,
		Env: end, Simulated: true, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	log, err := engine.OpenLog(e.shard, e.from)
	if err != nil {
		t.Fatal(err)
	}
	hs, err := log.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	switch m.Type {
	case raftpb.MsgVoteResp:
		if hs.Term < m.Term || hs.Term == m.Term && hs.Vote != m.To {
			t.Errorf("node %d votes for %d in term %d, and would remember vote %d in term %d", n.id, m.To, m.Term, hs.Vote, hs.Term)
		}
	case raftpb.MsgAppResp:
		if hs.Term < m.Term || last < m.Index {
			t.Errorf("node %d acknowledges index %d in term %d, and would have index %d in term %d", n.id, m.Index, m.Term, last, hs.Term)
		}
	}
}

// No vote and no acknowledgement leaves a node before what it promises is
// durable, in particular not when a request is repeated.
func TestPromisesAreDurable(t *testing.T) {
	for seed := range uint64(6) {
		c := newCluster(t, seed, 3)
		checked := 0
		c.sending = func(n *testNode, e *envelope) {
			checked++
			checkDurable(n, e)
		}
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.doublePercent, c.lossPercent = 60, 5
		for i := range 12 {
			c.put(5, fmt.Sprintf("k=%d", i))
		}
		l := c.waitLeader(5)
		c.isolate(l.id)
		c.until("another leads", func() bool { return c.leader(5) != l })
		c.put(5, "k=x")
		c.heal()
		c.lossPercent = 0
		c.mustAgree(5)
		if checked < 50 || t.Failed() {
			t.Fatalf("seed %d: %d promises were checked", seed, checked)
		}
	}
}

// A response without a write of its own waits for the sync in flight, and costs
// no sync once that is done.
func TestRepeatedVoteWaitsForTheFirst(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.start()
	n := c.node(2)
	votes := 0
	c.sending = func(from *testNode, e *envelope) {
		if from == n && e.msg.Type == raftpb.MsgVoteResp {
			votes++
			checkDurable(n, e)
		}
	}
	ask := func() {
		m := raftpb.Message{Type: raftpb.MsgVote, From: 1, To: 2, Term: 4, Index: 12, LogTerm: 3}
		if err := n.host.Receive(1, appendMessage(nil, 7, nil, &m, messageBytes(7, nil, &m))); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	for again, rounds := 0, n.host.Stats().Rounds; votes == 0; {
		if r := n.host.Stats().Rounds; r != rounds && again < 3 {
			rounds, again = r, again+1
			ask() // the first vote is committed, and on its way to the disk
		}
		if !c.env.step() {
			t.Fatal("it does not vote")
		}
	}
	c.runFor(50 * time.Millisecond)
	if votes < 3 {
		t.Errorf("%d votes", votes)
	}
	before, synced := votes, n.host.Stats().SyncedRounds
	ask()
	c.runFor(50 * time.Millisecond)
	if s := n.host.Stats(); votes != before+1 || s.SyncedRounds != synced {
		t.Errorf("%d more votes with %d more syncs", votes-before, s.SyncedRounds-synced)
	}
}

// A term that was learned without a response is synced before the first
// response that relies on it, even if that one has nothing to write.
func TestUnsyncedTermIsCovered(t *testing.T) {
	c := newCluster(t, 2, 3)
	c.bootstrap(5, 1, 2, 3)
	c.node(2).start()
	n := c.node(2)
	acks := 0
	c.sending = func(from *testNode, e *envelope) {
		if e.msg.Type == raftpb.MsgAppResp {
			acks++
			checkDurable(n, e)
		}
	}
	deliver := func(m raftpb.Message) {
		m.From, m.To = 1, 2
		if err := n.host.Receive(1, appendMessage(nil, 5, nil, &m, messageBytes(shard.ID(5), nil, &m))); err != nil {
			t.Fatal(err)
		}
	}
	deliver(raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 8})
	c.runFor(5 * time.Millisecond)
	if s := n.host.Stats(); s.SyncedRounds != 0 {
		t.Errorf("%d syncs that nothing waits for", s.SyncedRounds)
	}
	deliver(raftpb.Message{Type: raftpb.MsgApp, Term: 8, Index: 10, LogTerm: 1, Commit: 10})
	c.until("it acknowledges", func() bool { return acks > 0 })
}
