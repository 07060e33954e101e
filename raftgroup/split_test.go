package raftgroup

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// split splits a shard at a key, and returns when its leader has applied that.
func (c *cluster) split(id shard.ID, key string, right shard.ID) {
	c.t.Helper()
	for {
		d := c.descriptor(id)
		o := c.waitLeader(id).propose(id, splitOp(&d, key, right))
		c.until("split", o.done)
		if o.err == nil {
			if o.res.Err != nil {
				c.t.Fatalf("split: %v", o.res.Err)
			}
			return
		}
	}
}

// withSplits is a cluster of a shard 5 with some data, ready to be split at "m".
func withSplits(t testing.TB, seed uint64, nodes int) *cluster {
	c := newCluster(t, seed, nodes)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	for i := range 10 {
		c.put(5, fmt.Sprintf("a%d=%d", i, i))
		c.put(5, fmt.Sprintf("z%d=%d", i, i))
	}
	return c
}

// mustServe writes and reads both sides of a split at "m", and compares all replicas.
func (c *cluster) mustServe(left, right shard.ID) {
	c.t.Helper()
	c.mustRead(left, "a3", "3")
	c.mustRead(right, "z3", "3")
	c.put(left, "b=left")
	c.put(right, "y=right")
	c.mustRead(left, "b", "left")
	c.mustRead(right, "y", "right")
	c.mustAgree(left)
	c.mustAgree(right)
}

func TestSplit(t *testing.T) {
	for seed := range uint64(4) {
		c := withSplits(t, 300+seed, 3)
		c.mustAgree(5)
		l := c.waitLeader(5)
		began := c.env.now
		c.split(5, "m", 9)
		if c.waitLeader(9) != l {
			t.Error("another node than the parent's leader's leads the new shard")
		}
		if took := c.env.now - began; took > 50*time.Millisecond {
			t.Errorf("the new shard had a leader after %v: it is to campaign at once", took)
		}
		o := l.propose(5, "z1=lost")
		c.until("a write beyond the new end", o.done)
		var wrong *shard.WrongShardError
		if !errors.As(o.res.Err, &wrong) {
			t.Errorf("a write beyond the new end: %+v", o)
		}
		c.mustServe(5, 9)
		c.split(9, "z5", 10)
		c.split(5, "a5", 11)
		c.mustRead(10, "z7", "7")
		c.mustRead(11, "a7", "7")
		c.mustServe(5, 9)
		for _, n := range c.nodes {
			n.sync()
			n.crash()
		}
		c.start()
		c.mustServe(5, 9)
		c.mustAgree(10)
		c.mustAgree(11)
		for _, n := range c.nodes {
			if s := n.host.Stats(); s.SnapshotsSent > 0 {
				t.Errorf("node %d has sent %d snapshots", n.id, s.SnapshotsSent)
			}
		}
	}
}

// Several splits of a shard, and writes to it, are applied in one batch.
func TestSplitsInOneBatch(t *testing.T) {
	c := withSplits(t, 310, 3)
	c.mustAgree(5)
	away := c.node(c.waitLeader(5).id%3 + 1)
	c.isolate(away.id)
	c.split(5, "m", 9)
	c.put(5, "a1=new")
	c.split(5, "a5", 10)
	c.put(5, "a2=new")
	c.put(10, "a6=new")
	c.put(9, "z1=new")
	c.heal()
	c.mustAgree(5)
	c.mustAgree(9)
	c.mustAgree(10)
	if got := away.machine(5).get("a1") + away.machine(10).get("a6") + away.machine(9).get("z1"); got != "newnewnew" {
		t.Errorf("the node that was away has %q", got)
	}
}

// Whoever has applied the split and not voted in the new shard yet has its state, and
// nothing that says how it voted. After a crash it is there, and may vote.
func TestSplitCrashBeforeChildHardState(t *testing.T) {
	for _, synced := range []bool{true, false} {
		t.Run(fmt.Sprint("synced ", synced), func(t *testing.T) {
			c := withSplits(t, 320, 3)
			c.mustAgree(5)
			c.filter = func(_, _ shard.NodeID, e *envelope) bool { return e.shard != 9 } // nobody is elected
			c.split(5, "m", 9)
			c.until("all have applied the split", func() bool {
				for _, n := range c.nodes {
					if n.machine(9) == nil {
						return false
					}
				}
				return true
			})
			for _, n := range c.nodes {
				if synced {
					n.sync()
				}
				n.crash()
			}
			c.filter = nil
			c.start()
			c.mustServe(5, 9)
		})
	}
}

// hardState is what a node has on disk of a replica's term and vote.
func (n *testNode) hardState(id shard.ID) raftpb.HardState {
	n.c.t.Helper()
	l, err := n.engine.OpenLog(id, n.group(id).replica)
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer l.Release()
	hs, err := l.InitialState()
	if err != nil {
		n.c.t.Fatal(err)
	}
	return hs
}

// childVotesBeforeSplit has a node vote in a new shard before it has applied the split
// that makes it. The vote must hold when it has: it is of a term that has another candidate.
func childVotesBeforeSplit(t testing.TB) error {
	c := withSplits(t, 330, 3)
	c.mustAgree(5)
	l := c.waitLeader(5)
	late, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		return !(to == late.id && e.shard == 5) && !(to == other.id && e.shard == 9)
	}
	c.split(5, "m", 9)
	var voted raftpb.HardState
	c.until("the late node votes", func() bool {
		if late.machine(9) != nil {
			voted = late.hardState(9)
		}
		return voted.Vote == uint64(l.group(9).replica)
	})
	if late.machine(9).state != nil {
		return errors.New("the late node has a state")
	}
	// Nobody repeats the leader's messages from here on: what the node knows of its vote
	// is what it has on disk.
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return e.shard != 9 }
	c.until("the late node applies the split", func() bool { m := late.machine(9); return m != nil && m.state != nil })
	late.sync()
	late.crash()
	late.start()
	granted := false
	c.sending = func(n *testNode, e *envelope) {
		granted = granted || n == late && e.shard == 9 && e.msg.Type == raftpb.MsgVoteResp && !e.msg.Reject && e.msg.Term == voted.Term
	}
	late.deliver(other.id, 9, raftpb.Message{Type: raftpb.MsgVote, From: uint64(other.id), To: uint64(late.id), Term: voted.Term, Index: 1000, LogTerm: voted.Term})
	c.runFor(100 * time.Millisecond)
	if granted || late.hardState(9).Term < voted.Term {
		return fmt.Errorf("it has voted twice in term %d; on disk it has %+v", voted.Term, late.hardState(9))
	}
	c.filter, c.sending = nil, nil
	c.mustServe(5, 9)
	return nil
}

func TestChildMessageBeforeSplitApply(t *testing.T) {
	if err := childVotesBeforeSplit(t); err != nil {
		t.Error(err)
	}
	// Appends come too, for long. They are dropped until the split is applied, and no
	// snapshot is needed.
	c := withSplits(t, 331, 3)
	c.mustAgree(5)
	late := c.node(c.waitLeader(5).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != late.id || e.shard != 5 }
	c.split(5, "m", 9)
	for i := range 20 {
		c.put(9, fmt.Sprintf("x%d=%d", i, i))
		c.runFor(100 * time.Millisecond)
	}
	if late.machine(9) == nil || late.machine(9).state != nil {
		t.Fatal("the late node has no replica, or one with a state")
	}
	c.filter = nil
	c.mustServe(5, 9)
	for _, n := range c.nodes {
		if s := n.host.Stats(); s.SnapshotsSent+s.SnapshotsUnsent > 0 {
			t.Errorf("node %d has sent %d snapshots and tried %d", n.id, s.SnapshotsSent, s.SnapshotsUnsent)
		}
	}
}

// slowSplit has a node apply a split after the new shard has removed its replica and given
// it another one. A state for the first one would overwrite the second one's votes; what
// it has of the data is nobody's.
func slowSplit(t testing.TB, first bool) error {
	c := withSplits(t, 340, 3)
	c.mustAgree(5)
	slow := c.node(c.waitLeader(5).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		return to != slow.id || e.shard == 9 && first
	}
	c.split(5, "m", 9)
	c.put(9, "y=1")
	old := c.replicaOn(9, slow.id)
	c.steadily(9, shard.Change{Kind: shard.Demote, Replica: old})
	c.until("the joint configuration is left", func() bool { return !c.joint(9) })
	c.steadily(9, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	if first {
		c.until("the first replica is removed", func() bool { _, here := slow.host.Group(9); return !here })
	}
	next := c.descriptor(9).NextReplica
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != slow.id || e.shard == 9 }
	c.steadily(9, shard.Change{Kind: shard.AddLearner, Replica: next, Node: slow.id})
	c.until("the later replica is there", func() bool { g, here := slow.host.Group(9); return here && g.replica == next })
	c.put(9, "z1=new")
	c.runFor(2 * time.Second)
	if slow.machine(9).state != nil {
		return errors.New("it took a snapshot over the parent's data")
	}
	c.filter = nil
	c.until("the split is applied", func() bool { return slow.machine(5).state.Descriptor.Epoch.Version == 2 })
	if g, here := slow.host.Group(9); !here || g.replica != next {
		return errors.New("the later replica is gone")
	}
	c.until("the later replica has its snapshot", func() bool { m := slow.machine(9); return m != nil && m.state != nil })
	c.steadily(9, shard.Change{Kind: shard.Promote, Replica: next})
	c.mustRead(9, "z1", "new")
	c.mustServe(5, 9)
	if slow.machine(9).stopped != nil {
		return slow.machine(9).stopped
	}
	slow.sync()
	slow.crash()
	slow.start()
	c.mustServe(5, 9)
	return nil
}

func TestSlowSplitVsRemoveReadd(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("the first replica was there ", first), func(t *testing.T) {
			if err := slowSplit(t, first); err != nil {
				t.Error(err)
			}
		})
	}
}

// A node applies a split after the new shard has removed its replica there, for good. A
// state would be one that the tombstone forbids: the node could not start again.
func TestSlowSplitOfRemovedReplica(t *testing.T) {
	c := withSplits(t, 341, 4)
	c.mustAgree(5)
	slow := c.node(c.waitLeader(5).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != slow.id || e.shard == 9 }
	c.split(5, "m", 9)
	old := c.replicaOn(9, slow.id)
	c.steadily(9, shard.Change{Kind: shard.Demote, Replica: old})
	c.until("the joint configuration is left", func() bool { return !c.joint(9) })
	c.until("the replica is there", func() bool { _, here := slow.host.Group(9); return here })
	c.steadily(9, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.until("the replica is removed", func() bool { _, here := slow.host.Group(9); return !here })
	c.filter = nil
	c.until("the split is applied", func() bool { return slow.machine(5).state.Descriptor.Epoch.Version == 2 })
	for range 2 {
		if lowest, initialized, err := slow.engine.Claims(9); initialized || lowest <= old || err != nil {
			t.Errorf("it has a state: %v, lowest ID %d, %v", initialized, lowest, err)
		}
		if rows := slow.rows(c.descriptor(9).Span); rows > 0 {
			t.Errorf("it has %d keys of the new shard", rows)
		}
		c.mustServe(5, 9)
		slow.sync()
		slow.crash()
		slow.start()
	}
}

// rows is how many keys a node has of a span, up to 1000.
func (n *testNode) rows(span shard.Span) int {
	n.c.t.Helper()
	v := n.engine.NewView()
	defer v.Close()
	rows, _, err := v.Scan(storage.ScanOptions{Span: span, At: shard.MaxRevision, RowsMax: 1000})
	if err != nil {
		n.c.t.Fatal(err)
	}
	return len(rows)
}

// A replica that is no member any more by the time of the split, as its own log says, has
// no part in the new shard, and leaves none of its data.
func TestSplitAfterOwnRemoval(t *testing.T) {
	c := withSplits(t, 345, 4)
	c.mustAgree(5)
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.mustAgree(5)
	// It gets the entries of its removal and of the split together.
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		return to != from.id || e.raft() && e.msg.Type != raftpb.MsgApp
	}
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	l := c.waitLeader(5)
	c.split(5, "m", 9)
	c.waitLeader(9)
	first, _ := l.group(5).log.FirstIndex()
	entries, err := l.group(5).log.Entries(max(first, from.machine(5).state.Applied+1), l.machine(5).state.Applied+1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	prev := entries[0].Index - 1
	term, err := l.group(5).log.Term(prev)
	if err != nil {
		t.Fatal(err)
	}
	from.deliver(l.id, 5, raftpb.Message{Type: raftpb.MsgApp, From: uint64(l.group(5).replica), To: uint64(old), Term: l.machine(5).leadership.Term,
		Index: prev, LogTerm: term, Entries: entries, Commit: l.machine(5).state.Applied})
	c.until("the node is free", func() bool { return from.free(5) && from.machine(9) == nil })
	if rows := from.rows(registerSpan(5)); rows > 0 {
		t.Errorf("it has %d keys", rows)
	}
	c.filter = nil
	c.mustServe(5, 9)
}

// A node that was away for so long that it needs a snapshot of the parent, from after the
// split, needs one of the new shard too. That one has to wait: while the parent covers the
// span here, its installation would clear what the other brings.
func TestOverlappingParentChildSnapshots(t *testing.T) {
	for seed := range uint64(4) {
		c := newCluster(t, 350+seed, 3)
		c.config = func(cfg *Config) { cfg.LogBytesMax = 2000 }
		c.bootstrap(5, 1, 2, 3)
		c.start()
		for i := range 10 {
			c.put(5, fmt.Sprintf("a%d=%d", i, i))
			c.put(5, fmt.Sprintf("z%d=%d", i, i))
		}
		c.mustAgree(5)
		away := c.node(c.waitLeader(5).id%3 + 1)
		c.isolate(away.id)
		if seed >= 2 { // the new shard's replica is there first, without a state
			clear(c.cut)
			c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != away.id || e.shard == 9 }
		}
		c.split(5, "m", 9)
		for i := range 100 {
			c.put(5, fmt.Sprintf("c%d=%0100d", i, i))
			c.put(9, fmt.Sprintf("x%d=%0100d", i, i))
		}
		c.runFor(20 * time.Second)
		if m := away.machine(9); m != nil && m.state != nil {
			t.Errorf("seed %d: the child's snapshot is installed over the parent", seed)
		}
		c.filter = nil
		c.heal()
		c.mustServe(5, 9)
		if got := away.machine(5).get("z1"); got != "1" { // by the engine: it is the other shard's
			t.Errorf("seed %d: the other shard's data has %q", seed, got)
		}
		if away.machine(5).installs == 0 || away.machine(9).installs == 0 {
			t.Errorf("seed %d: %d and %d snapshots were installed", seed, away.machine(5).installs, away.machine(9).installs)
		}
	}
}

// A split and a membership change are on their way at the same time: the one that comes
// second in the log is refused by all, and both shards' configurations are raft's.
func TestSplitRacesConfChange(t *testing.T) {
	for _, splitFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("split first ", splitFirst), func(t *testing.T) {
			c := withSplits(t, 360, 4)
			c.mustAgree(5)
			l := c.waitLeader(5)
			m := l.machine(5)
			d := m.state.Descriptor.Clone()
			var changed error
			done := false
			change := func() {
				l.group(5).ProposeMembership(m.leadership.Term, shard.MembershipChange{Shard: 5, Epoch: d.Epoch,
					Changes: []shard.Change{{Kind: shard.AddLearner, Replica: d.NextReplica, Node: 4}}}, func(err error) { changed, done = err, true })
			}
			var o *outcome
			if splitFirst {
				// Controls are run before proposals: the change waits for the split to be proposed.
				o = l.propose(5, splitOp(&d, "m", 9))
				c.until("the split is proposed", func() bool { return len(l.group(5).pending) > 0 })
				change()
			} else {
				change()
				o = l.propose(5, splitOp(&d, "m", 9))
			}
			c.until("both have their outcome", func() bool { return done && o.done() })
			var wrong *shard.WrongShardError
			if splitFirst && (o.res.Err != nil || !errors.As(changed, &wrong)) || !splitFirst && (changed != nil || !errors.As(o.res.Err, &wrong)) {
				t.Fatalf("split: %v, %v; change: %v", o.err, o.res.Err, changed)
			}
			if !splitFirst {
				c.split(5, "m", 9)
			}
			c.mustServe(5, 9)
			after := c.descriptor(9)
			if _, learner := after.ReplicaOn(4); learner == splitFirst {
				t.Errorf("the new shard has %+v", after.Replicas)
			}
		})
	}
}

// The messages of the new shard's first elections are lost. The parent serves, and the
// new shard has a leader when they come through.
func TestChildElectionLostVotes(t *testing.T) {
	c := withSplits(t, 370, 3)
	c.mustAgree(5)
	c.filter = func(_, _ shard.NodeID, e *envelope) bool { return e.shard != 9 }
	c.split(5, "m", 9)
	for i := range 50 {
		c.put(5, fmt.Sprintf("c%d=%d", i, i))
		c.runFor(100 * time.Millisecond)
	}
	if c.leader(9) != nil {
		t.Fatal("it has a leader")
	}
	c.filter = nil
	c.mustServe(5, 9)
}

// An entry that holds a split and, behind it, something that stops the replica has no
// effect at all: neither side is there after a restart.
func TestSplitInAnEntryThatIsNotApplied(t *testing.T) {
	c := withSplits(t, 380, 3)
	c.mustAgree(5)
	l := c.waitLeader(5)
	d := c.descriptor(5)
	split := l.propose(5, splitOp(&d, "m", 9))
	corrupt := l.propose(5, "corrupt")
	c.until("the entry is applied", func() bool { return split.done() && corrupt.done() })
	c.runFor(time.Second)
	for _, n := range c.nodes {
		if m := n.machine(5); m.stopped == nil || n.machine(9) != nil {
			t.Errorf("node %d: stopped %v, new shard %v", n.id, m.stopped, n.machine(9))
		}
		if _, initialized, err := n.engine.Claims(9); initialized || err != nil {
			t.Errorf("node %d has a state of the new shard: %v", n.id, err)
		}
		if len(n.host.claims) > 0 || n.host.Stats().Births > 0 {
			t.Errorf("node %d: claims %v, %d births", n.id, n.host.claims, n.host.Stats().Births)
		}
	}
}

// While the state of a new shard is on its way to the store, a message of that shard makes
// no replica here: it would have been made without a state, and never take that in. Nor
// is one removed that was found: its state would come after its tombstone.
func TestBirthsAreClaimed(t *testing.T) {
	for _, found := range []bool{false, true} {
		c := withSplits(t, 390, 3)
		c.mustAgree(5)
		late := c.node(c.waitLeader(5).id%3 + 1)
		c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != late.id || e.shard == 9 && found }
		c.split(5, "m", 9)
		c.put(9, "y=1")
		if found {
			c.until("a replica is made by a message", func() bool { return late.machine(9) != nil })
		}
		tried := false
		late.machine(5).ended = func(m *register) {
			if m.state.Descriptor.Epoch.Version == 1 || tried {
				return
			}
			tried = true
			if !found {
				if _, err := late.host.create(9, c.replicaOn(9, late.id), false); !errors.Is(err, shard.ErrUnavailable) {
					t.Errorf("a replica is made: %v", err)
				}
			} else if g, _ := late.host.Group(9); late.host.erase(g, g.replica+1) {
				t.Error("a replica is removed")
			}
		}
		c.filter = nil
		c.mustServe(5, 9)
		if m := late.machine(9); !tried || m == nil || m.state == nil {
			t.Errorf("found %v, tried %v: the late node's replica has no state", found, tried)
		}
		if len(late.host.claims) > 0 {
			t.Errorf("claims are left: %v", late.host.claims)
		}
	}
}

// A snapshot of a shard whose parent still covers its place is refused before its data are
// sent, and taken when the split is applied.
func TestSnapshotBeforeTheSplitIsRefusedAtOnce(t *testing.T) {
	c := withSplits(t, 390, 3)
	c.mustAgree(5)
	late := c.node(c.waitLeader(5).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool {
		return to != late.id || e.shard == 9 && e.msg.Type != raftpb.MsgApp
	}
	c.split(5, "m", 9)
	l := c.waitLeader(9)
	m, chunks := l.snapshotNow(9, shard.ReplicaID(late.id), l.machine(9).leadership.Term)
	start := c.descriptor(9).Span.Start
	ask := func() error {
		sink, err := late.host.ReceiveSnapshot(l.id, appendMessage(nil, 9, start, &m, messageBytes(9, start, &m)), false)
		if err == nil {
			sink.Abort(nil)
		}
		return err
	}
	if err := ask(); !errors.Is(err, shard.ErrBusy) || len(chunks) == 0 {
		t.Errorf("%v, %d chunks", err, len(chunks))
	}
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != late.id || e.shard == 5 }
	c.until("the split is applied", func() bool { return late.machine(9) != nil && late.machine(9).state != nil })
	if err := ask(); err != nil {
		t.Error(err)
	}
	c.filter = nil
	c.mustServe(5, 9)
}
