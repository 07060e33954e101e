package raftgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// steadily proposes a change until it is applied: what is refused for now is tried
// again, as whoever drives a move does.
func (c *cluster) steadily(id shard.ID, changes ...shard.Change) {
	c.t.Helper()
	for {
		err := c.change(id, changes...)
		var notReady *shard.NotReadyError
		var notLeader *shard.NotLeaderError
		switch {
		case err == nil:
			return
		case errors.As(err, &notReady), errors.As(err, &notLeader), errors.Is(err, shard.ErrDropped):
			c.runFor(50 * time.Millisecond)
		default:
			c.t.Fatalf("%+v: %v", changes, err)
		}
	}
}

func (c *cluster) descriptor(id shard.ID) shard.Descriptor {
	c.t.Helper()
	return c.waitLeader(id).machine(id).state.Descriptor.Clone()
}

func (c *cluster) joint(id shard.ID) bool {
	d := c.descriptor(id)
	return d.Joint()
}

// replicaOn is the ID of the replica that a node has by the leader's descriptor.
func (c *cluster) replicaOn(id shard.ID, node shard.NodeID) shard.ReplicaID {
	c.t.Helper()
	d := c.descriptor(id)
	r, ok := d.ReplicaOn(node)
	if !ok {
		c.t.Fatalf("node %d has no replica: %+v", node, d.Replicas)
	}
	return r.ID
}

// replace moves a replica from one node to another, up to but without the removal of
// the learner that is left, whose ID it returns.
func (c *cluster) replace(id shard.ID, from, to shard.NodeID) shard.ReplicaID {
	c.t.Helper()
	old := c.replicaOn(id, from)
	added := c.descriptor(id).NextReplica
	c.steadily(id, shard.Change{Kind: shard.AddLearner, Replica: added, Node: to})
	c.steadily(id, shard.Change{Kind: shard.Promote, Replica: added}, shard.Change{Kind: shard.Demote, Replica: old})
	c.until("the joint configuration is left", func() bool { return !c.joint(id) })
	return old
}

// holds lists what a node has of a shard.
func (n *testNode) holds(id shard.ID) (what []string) {
	n.c.t.Helper()
	if _, ok := n.host.Group(id); ok {
		what = append(what, "a group")
	}
	records, err := n.engine.Replicas()
	if err != nil {
		n.c.t.Fatal(err)
	}
	for _, r := range records {
		if r.Shard == id {
			what = append(what, fmt.Sprintf("records of replica %d", r.Replica))
		}
	}
	v := n.engine.NewView()
	defer v.Close()
	rows, _, err := v.Scan(storage.ScanOptions{Span: registerSpan(id), At: shard.MaxRevision, RowsMax: 1})
	if err != nil {
		n.c.t.Fatal(err)
	}
	if len(rows) > 0 {
		what = append(what, "data")
	}
	return what
}

func (n *testNode) free(id shard.ID) bool { return len(n.holds(id)) == 0 }

// sync makes all that a node has committed durable.
func (n *testNode) sync() { n.commitSync(n.engine.NewBatch()) }

// deliver hands a node a message as if another one had sent it.
func (n *testNode) deliver(from shard.NodeID, id shard.ID, m raftpb.Message) {
	n.c.t.Helper()
	if err := n.host.Receive(from, appendMessage(nil, id, nil, &m, messageBytes(id, nil, &m))); err != nil {
		n.c.t.Fatal(err)
	}
}

// A voter is replaced and its learner removed: its node is told, and holds nothing of
// the shard a moment later, and after crashes. Its neighbours stay.
func TestRemovedReplicaLeavesNothing(t *testing.T) {
	for seed := range uint64(4) {
		c := newCluster(t, 50+seed, 4)
		c.bootstrap(5, 1, 2, 3)
		c.bootstrap(6, 1, 2, 3)
		c.start()
		for i := range 20 {
			c.put(5, fmt.Sprintf("k%d=%d", i, i))
			c.put(6, fmt.Sprintf("k%d=%d", i, i))
		}
		from := c.node(shard.NodeID(seed%3 + 1)) // who leads, or who follows
		old := c.replace(5, from.id, 4)
		c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
		c.until("the old node is free", func() bool { return from.free(5) })
		m := from.machine(5)
		if !m.removed || !errors.Is(m.stopped, ErrRemoved) {
			t.Errorf("the machine was told %v, removed %v", m.stopped, m.removed)
		}
		if from.host.Stats().Questions != 0 {
			t.Error("it had to ask")
		}
		c.put(5, "after=removal")
		c.mustAgree(5)
		c.put(6, "after=removal")
		c.mustAgree(6)
		from.sync()
		for _, n := range c.nodes {
			n.crash()
		}
		c.start()
		c.mustAgree(5)
		c.mustAgree(6)
		c.mustRead(5, "after", "removal")
		c.runFor(10 * time.Second)
		if held := from.holds(5); len(held) > 0 {
			t.Errorf("after a crash the old node holds %s", strings.Join(held, ", "))
		}
	}
}

// The leader tells the replica that it removes, which need not learn it from its log.
func TestLeaderTellsTheReplicaItRemoves(t *testing.T) {
	c := newCluster(t, 59, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.mustAgree(5)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != from.id || !e.raft() }
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	if !c.within(100*time.Millisecond, func() bool { return from.free(5) }) {
		t.Errorf("it holds %v", from.holds(5))
	}
}

// zombieReplicaVotes removes a replica and has a message of long ago ask it for its
// vote, before and after a crash. It must not exist: it would vote with an empty log
// and without what it has voted for.
func zombieReplicaVotes(t testing.TB) error {
	c := newCluster(t, 60, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.until("the replica is gone", func() bool { return from.free(5) })
	votes := 0
	c.sending = func(n *testNode, e *envelope) {
		if n == from && e.shard == 5 && e.raft() {
			votes++
		}
	}
	for round := range 2 {
		for _, typ := range []raftpb.MessageType{raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgApp, raftpb.MsgHeartbeat} {
			from.deliver(1, 5, raftpb.Message{Type: typ, From: uint64(old)%3 + 1, To: uint64(old), Term: 40, Index: 1000, LogTerm: 39})
		}
		c.runFor(time.Second)
		if held := from.holds(5); len(held) > 0 || votes > 0 {
			return fmt.Errorf("a zombie: the node holds %v and has sent %d messages, in round %d", held, votes, round)
		}
		from.sync()
		from.crash()
		from.start()
	}
	c.mustAgree(5)
	return nil
}

func TestZombieReplicaVotes(t *testing.T) {
	if err := zombieReplicaVotes(t); err != nil {
		t.Error(err)
	}
}

// absentReplicaIsTold removes a replica whose node is away, and lets it come back. As
// a learner nobody speaks to it: it has to ask, and to be answered.
func absentReplicaIsTold(t testing.TB, restarts bool) error {
	c := newCluster(t, 61, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.mustAgree(5)
	if restarts {
		from.sync()
		from.crash()
	} else {
		c.isolate(from.id)
	}
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.put(5, "k=w")
	c.runFor(time.Second)
	if restarts {
		from.start()
	}
	if from.free(5) {
		return errors.New("it is gone without having been told")
	}
	c.heal()
	if !c.within(20*time.Second, func() bool { return from.free(5) }) {
		return fmt.Errorf("20 s after its node is back it holds %v", from.holds(5))
	}
	c.mustAgree(5)
	return nil
}

func TestAbsentReplicaIsTold(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		if err := absentReplicaIsTold(t, restarts); err != nil {
			t.Errorf("restarts %v: %v", restarts, err)
		}
	}
}

// A node is away while all three replicas of its shard move: none of the nodes that
// its replica knows of has one any more. It believes to be a voter, and campaigns.
func TestAbsentVoterWhoseShardMovedAway(t *testing.T) {
	c := newCluster(t, 62, 6)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	away := c.node(c.waitLeader(5).id%3 + 1)
	away.sync()
	away.crash()
	to := shard.NodeID(4)
	for _, id := range []shard.NodeID{away.id, away.id%3 + 1, (away.id+1)%3 + 1} {
		old := c.replace(5, id, to)
		c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
		to++
	}
	for _, n := range c.nodes[:3] {
		if n != away {
			c.until("the others are free", func() bool { return n.free(5) })
		}
	}
	term := c.waitLeader(5).machine(5).leadership.Term
	away.start()
	c.until("it is told", func() bool { return away.free(5) })
	c.mustAgree(5)
	if got := c.waitLeader(5).machine(5).leadership.Term; got != term {
		t.Errorf("it has disturbed the shard: term %d, before %d", got, term)
	}
}

// A replica without a leader asks at growing intervals, and one with a leader never.
func TestQuestionsGrowRare(t *testing.T) {
	c := newCluster(t, 63, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.runFor(time.Minute)
	for _, n := range c.nodes {
		if got := n.host.Stats().Questions; got != 0 {
			t.Errorf("node %d has asked %d times in peace", n.id, got)
		}
	}
	lone := c.node(1)
	c.node(2).crash()
	c.node(3).crash()
	asked := func(d time.Duration) uint64 {
		before := lone.host.Stats().Questions
		c.runFor(d)
		return lone.host.Stats().Questions - before
	}
	if n := asked(20 * time.Second); n < 4 {
		t.Errorf("%d questions in 20 s", n)
	}
	asked(4 * time.Minute)
	if n := asked(8 * time.Minute); n < 8 || n > 11 {
		t.Errorf("%d questions in 8 minutes; one in 48 s is the bound", n)
	}
	if lone.free(5) {
		t.Error("it was removed by nobody")
	}
}

// Removed and added again on the same node: messages to and from the replica of
// before go on arriving. They concern nobody, whatever the new one has got to, and
// after crashes.
func TestReaddSameNodeDelayedMessages(t *testing.T) {
	for seed := range uint64(4) {
		c := newCluster(t, 70+seed, 4)
		c.bootstrap(5, 1, 2, 3)
		var delayed []func()
		c.sending = func(n *testNode, e *envelope) {
			if len(delayed) < 3000 && e.shard == 5 && e.raft() && e.msg.Type != raftpb.MsgSnap {
				from, m, to := n.id, e.msg, shard.NodeID(e.to) // the first replicas are called as their nodes
				if to <= 3 {
					delayed = append(delayed, func() {
						if x := c.node(to); x.host != nil {
							x.deliver(from, 5, m)
						}
					})
				}
			}
		}
		c.start()
		for i := range 10 {
			c.put(5, fmt.Sprintf("k%d=%d", i, i))
		}
		from := c.node(c.waitLeader(5).id%3 + 1)
		if seed%2 == 1 {
			from = c.waitLeader(5)
		}
		if seed >= 2 { // the shard has elections to remember
			l := c.waitLeader(5)
			l.crash()
			c.until("another leads", func() bool { n := c.leader(5); return n != nil && n != l })
			l.start()
			c.mustAgree(5)
		}
		old := c.replace(5, from.id, 4)
		again := func() {
			for _, d := range delayed {
				d()
			}
		}
		c.sending = nil
		c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
		next := c.descriptor(5).NextReplica
		c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: next, Node: from.id})
		again()
		c.until("the new replica is made", func() bool { g, ok := from.host.Group(5); return ok && g.replica == next })
		again()
		c.mustAgree(5)
		again()
		c.steadily(5, shard.Change{Kind: shard.Promote, Replica: next}, shard.Change{Kind: shard.Demote, Replica: c.replicaOn(5, 4)})
		again()
		c.until("the joint configuration is left", func() bool { return !c.joint(5) })
		c.put(5, "after=all")
		c.mustAgree(5)
		l := c.waitLeader(5)
		term := l.group(5).Term()
		l.deliver(from.id, 5, raftpb.Message{Type: raftpb.MsgHeartbeat, From: uint64(old), To: uint64(l.group(5).replica), Term: term + 50})
		c.runFor(100 * time.Millisecond)
		if got := l.group(5).Term(); got != term {
			t.Errorf("a message of a removed replica moved the term from %d to %d", term, got)
		}
		for _, n := range c.nodes {
			n.crash()
		}
		c.start()
		again()
		c.mustAgree(5)
		c.mustRead(5, "after", "all")
		if g := from.group(5); g.replica != next || g.Status().Err != nil {
			t.Errorf("replica %d, %v", g.replica, g.Status().Err)
		}
		for _, n := range c.nodes {
			if m := n.machine(5); m != nil && m.stopped != nil && !errors.Is(m.stopped, ErrRemoved) {
				t.Errorf("node %d stopped: %v", n.id, m.stopped)
			}
		}
	}
}

// A message to a higher replica ID is proof enough: the leader's notice is lost, and
// the node is given another replica while it still has the old one.
func TestHigherReplicaReplacesLower(t *testing.T) {
	c := newCluster(t, 80, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	// No notices, and nothing by which the old one could apply its removal itself.
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return e.raft() && (to != from.id || e.to != old) }
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	next := c.descriptor(5).NextReplica
	if g := from.group(5); g.replica != old {
		t.Fatalf("replica %d", g.replica)
	}
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: next, Node: from.id})
	c.until("the new replica has taken the place", func() bool { g, ok := from.host.Group(5); return ok && g.replica == next })
	if ts, ok, err := from.engine.Tombstone(5); !ok || err != nil || ts.NextReplica != next {
		t.Errorf("tombstone %+v, %v, %v", ts, ok, err)
	}
	c.mustAgree(5)
}

// The node was given another replica before the old one hears of its removal: its
// tombstone must leave room for that one. Of all that is sent to the node only notices
// arrive, so that the message to the higher ID does not come first.
func TestTombstoneLeavesRoomForTheNextReplica(t *testing.T) {
	c := newCluster(t, 86, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	c.mustAgree(5)
	c.isolate(from.id)
	c.steadily(5, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	next := c.descriptor(5).NextReplica
	c.steadily(5, shard.Change{Kind: shard.AddLearner, Replica: next, Node: from.id})
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != from.id || !e.raft() }
	c.heal()
	c.until("the old replica is told", func() bool { return from.free(5) })
	if ts, ok, err := from.engine.Tombstone(5); !ok || err != nil || ts.NextReplica > next {
		t.Errorf("tombstone %+v, %v, %v, the next replica is %d", ts, ok, err, next)
	}
	c.filter = nil
	c.mustAgree(5)
}

// A replica that applies its own removal needs nobody to tell it; and one that
// crashes between that and its end finds it out again.
func TestReplicaAppliesItsOwnRemoval(t *testing.T) {
	c := newCluster(t, 81, 1)
	n := c.node(1)
	n.open()
	d := shard.Descriptor{ID: 5, Span: registerSpan(5), Epoch: shard.Epoch{Version: 1, ConfVersion: 4}, NextReplica: 4,
		Replicas: []shard.Replica{{ID: 2, Node: 2, Role: shard.Voter}}}
	b := n.engine.NewBatch()
	b.PutInitialReplica(3, &storage.ReplicaState{Descriptor: d})
	b.PutVersion(registerKey(5, "k"), 7, storage.VersionHeader{}, []byte("v"))
	if err := n.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	n.start()
	c.until("it is gone", func() bool { return n.free(5) })
	if n.host.Stats().ReplicasRemoved != 1 {
		t.Errorf("%+v", n.host.Stats())
	}

	// Everybody applies the entry before its proposer does, the removed one too.
	c = newCluster(t, 82, 4)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	from := c.node(c.waitLeader(5).id%3 + 1)
	old := c.replace(5, from.id, 4)
	l := c.waitLeader(5)
	g := from.group(5)
	index, _ := l.group(5).log.LastIndex()
	d = c.descriptor(5)
	change := shard.MembershipChange{Shard: 5, Epoch: d.Epoch, Changes: []shard.Change{{Kind: shard.RemoveLearner, Replica: old}}}
	cc := confChange(&change)
	cc.Context = shard.AppendMembershipChange(nil, &change)
	data, err := cc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	c.mustAgree(5)
	c.isolate(from.id)
	term := l.machine(5).leadership.Term
	from.deliver(l.id, 5, raftpb.Message{Type: raftpb.MsgApp, From: uint64(c.replicaOn(5, l.id)), To: uint64(old), Term: term, LogTerm: term,
		Index: index, Commit: index + 1, Entries: []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Term: term, Index: index + 1, Data: data}}})
	c.until("it is gone", func() bool { return from.free(5) })
	if !g.gone.Load() {
		t.Error("another group is gone")
	}
}

// Whatever a removed group still has in hand ends: proposals, reads, transfers,
// snapshots in both directions, and its places in the host's budgets.
func TestRemovedGroupLetsGo(t *testing.T) {
	c := newCluster(t, 83, 3)
	c.config = func(cfg *Config) { cfg.LogBytesMax = 8 << 10 }
	c.bootstrap(5, 1, 2, 3)
	c.bootstrap(6, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.put(6, "k=v")
	l := c.waitLeader(5)
	far := c.node(l.id%3 + 1)
	c.leaveBehind(5, far, 500)
	l = c.waitLeader(5)
	c.snapshotDelay = time.Hour
	c.heal()
	c.until("a snapshot is under way", func() bool { return len(l.group(5).outgoing) > 0 })
	c.isolate(l.id) // nothing is committed from here on
	g := l.group(5)
	w, r := l.propose(5, "k=lost"), l.read(5, "k")
	transferred, changed := &outcome{}, &outcome{}
	c.runFor(10 * time.Millisecond)
	g.TransferLeader(shard.ReplicaID(6-l.id-far.id), func(err error) { transferred.err = err; transferred.calls++ })
	w2 := l.propose(5, "k=later")
	g.pushRemoved(9)
	g.ProposeMembership(1, shard.MembershipChange{Shard: 5}, func(err error) { changed.err = err; changed.calls++ })
	c.until("it is gone", func() bool { return l.free(5) })
	late := &outcome{}
	p := &Proposal{Body: []byte("k=late"), Done: func(_ Result, err error) { late.calls++; late.err = err }}
	var wrong *shard.WrongShardError
	if err := g.Propose(p); !errors.As(err, &wrong) || late.calls != 0 {
		t.Errorf("a proposal afterwards: %v, %d calls", err, late.calls)
	}
	for name, o := range map[string]*outcome{"proposal": w, "later proposal": w2, "read": r, "transfer": transferred, "change": changed} {
		if o.calls != 1 || o.err == nil {
			t.Errorf("%s: %d calls, %v", name, o.calls, o.err)
		}
	}
	if !errors.Is(w.err, shard.ErrUndetermined) {
		t.Errorf("what was in the log: %v", w.err)
	}
	c.snapshotDelay = 0
	for _, s := range l.sources {
		s.Close()
	}
	h := l.host
	if h.incomingBytes.Load() != 0 || h.proposalBytes.Load() != 0 || h.readsWaiting.Load() != 0 {
		t.Errorf("%d incoming bytes, %d of proposals, %d reads", h.incomingBytes.Load(), h.proposalBytes.Load(), h.readsWaiting.Load())
	}
	if groups := h.Groups(); len(groups) != 1 || groups[0].shard != 6 {
		t.Errorf("%d groups", len(groups))
	}
	c.heal()
	c.mustAgree(6)
}

// Proof that comes while a large snapshot is being ingested waits for the end of that:
// what the ingest brings would be there after the removal.
func TestRemovalWaitsForIngest(t *testing.T) {
	c := newCluster(t, 84, 3)
	reserved := 0
	c.config = func(cfg *Config) {
		cfg.LogBytesMax = 8 << 10
		cfg.ReserveSpan = func(*storage.ReplicaState) (func(), error) {
			reserved++
			return func() { reserved-- }, nil
		}
	}
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	far := c.node(c.waitLeader(5).id%3 + 1)
	c.leaveBehind(5, far, 10<<10)
	c.heal()
	g := far.group(5)
	c.until("the group is parked", func() bool { return g.parked })
	g.pushRemoved(9)
	c.isolate(far.id)
	c.until("it is gone", func() bool { return far.free(5) })
	if far.machine(5).installs != 1 {
		t.Errorf("%d snapshots were installed", far.machine(5).installs)
	}
	if far.host.snapshotsIn.Load() != 0 || reserved != 0 {
		t.Errorf("%d snapshots, %d reservations", far.host.snapshotsIn.Load(), reserved)
	}
}

// A replica that stopped because it is corrupt is removed all the same.
func TestStoppedReplicaIsRemoved(t *testing.T) {
	c := newCluster(t, 85, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	n := c.node(c.waitLeader(5).id%3 + 1)
	g := n.group(5)
	failed := false
	g.Turn(func() { failed = true }, func(error) {})
	c.until("a turn", func() bool { return failed })
	g.fail(errCorrupt) // between two turns
	g.pushRemoved(9)
	c.until("it is gone", func() bool { return n.free(5) })
	if m := n.machine(5); !m.removed || !errors.Is(m.stopped, shard.ErrStopped) {
		t.Errorf("the machine was told %v, removed %v", m.stopped, m.removed)
	}
}

// The node crashes at any moment of a removal: it comes back with the whole replica or
// with nothing, and in the end it has nothing.
func TestCrashDuringRemoval(t *testing.T) {
	whole, nothing := 0, 0
	for seed := range uint64(24) {
		c := newCluster(t, 100+seed, 4)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		for i := range 5 {
			c.put(5, fmt.Sprintf("k%d=%d", i, i))
		}
		from := c.node(c.waitLeader(5).id%3 + 1)
		old := c.replace(5, from.id, 4)
		c.mustAgree(5)
		from.sync()
		l := c.waitLeader(5)
		o := &outcome{}
		l.group(5).ProposeMembership(l.machine(5).leadership.Term, shard.MembershipChange{Shard: 5, Epoch: c.descriptor(5).Epoch,
			Changes: []shard.Change{{Kind: shard.RemoveLearner, Replica: old}}}, func(err error) { o.calls++; o.err = err })
		c.until("removed", func() bool { return o.done() })
		if o.err != nil {
			t.Fatal(o.err)
		}
		for range seed {
			c.env.step()
		}
		if seed%2 == 1 {
			c.until("it is gone", func() bool { return from.free(5) })
			if seed%4 == 1 {
				from.sync()
			}
		}
		from.crash()
		from.open()
		records, err := from.engine.Replicas()
		if err != nil {
			t.Fatal(err)
		}
		_, buried, err := from.engine.Tombstone(5)
		if err != nil || buried == (len(records) == 1) {
			t.Errorf("seed %d: records %v, a tombstone %v, %v", seed, records, buried, err)
		}
		if buried {
			nothing++
		} else {
			whole++
		}
		from.start()
		c.until("it is gone", func() bool { return from.free(5) })
		c.mustAgree(5)
	}
	if whole == 0 || nothing == 0 {
		t.Errorf("%d crashes left the replica, %d nothing: both are meant to be seen", whole, nothing)
	}
}

// A removed replica that has missed so much that it speaks to replicas of before is
// told by who has come in their place.
func TestStrangerOfLongAgoIsTold(t *testing.T) {
	c := newCluster(t, 91, 2)
	n := c.node(1)
	n.open()
	b := n.engine.NewBatch()
	b.PutInitialReplica(7, &storage.ReplicaState{Descriptor: shard.Descriptor{ID: 5, Span: registerSpan(5), Epoch: shard.Epoch{Version: 1, ConfVersion: 9},
		NextReplica: 8, Replicas: []shard.Replica{{ID: 7, Node: 1, Role: shard.Voter}}}})
	if err := n.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	var told []shard.ReplicaID
	c.sending = func(_ *testNode, e *envelope) {
		if e.next != 0 {
			told = append(told, e.to, e.next)
		}
	}
	n.start()
	n.deliver(2, 5, raftpb.Message{Type: raftpb.MsgPreVote, From: 3, To: 1, Term: 9, Index: 90, LogTerm: 8})
	if fmt.Sprint(told) != "[3 8]" {
		t.Errorf("told %v", told)
	}
}

// What a replica has written and not yet acknowledged when it is removed, it never
// acknowledges: the sync that its responses wait for ends after it.
func TestRemovedReplicaSaysNothing(t *testing.T) {
	caught := 0
	for seed := range uint64(10) {
		c := newCluster(t, 130+seed, 3)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=v")
		c.mustAgree(5)
		l := c.waitLeader(5)
		n := c.node(l.id%3 + 1)
		g := n.group(5)
		last, _ := g.log.LastIndex()
		l.propose(5, "k=w")
		c.until("the entry is appended", func() bool { now, _ := g.log.LastIndex(); return now > last })
		if g.cover != nil && !g.cover.done && len(g.cover.deliveries) > 0 {
			caught++
		}
		g.pushRemoved(9)
		for !n.free(5) {
			c.env.step()
		}
		c.filter = func(from, _ shard.NodeID, _ *envelope) bool { return from == n.id } // the new one is not made
		c.runFor(50 * time.Millisecond)
	}
	if caught == 0 {
		t.Error("no response was waiting for a sync")
	}
}

// Notices are bounded: one per group and tick, and a number per host and tick.
func TestNoticesAreBounded(t *testing.T) {
	c := newCluster(t, 90, 2)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=v")
	n := c.node(1)
	g := n.group(5)
	p := *g.proof.Load()
	p.next = 9
	g.proof.Store(&p)
	sent := 0
	c.sending = func(_ *testNode, e *envelope) {
		if e.next != 0 {
			sent++
			if e.to != 4 || e.next != 9 {
				t.Errorf("notice to replica %d, next %d", e.to, e.next)
			}
		}
	}
	for range 100 {
		n.deliver(2, 5, raftpb.Message{Type: raftpb.MsgHeartbeat, From: 4, To: 1, Term: 90})
		if err := n.host.Receive(2, appendAsk(nil, 5, 4)); err != nil {
			t.Fatal(err)
		}
	}
	c.runFor(50 * time.Millisecond)
	if sent < 1 || sent > 2 {
		t.Errorf("%d notices within a tick", sent)
	}
	if s := g.Status(); s.Term > 10 {
		t.Errorf("a removed replica's message was stepped: %+v", s)
	}
	c.runFor(200 * time.Millisecond)
	n.host.notices.Store(noticesPerTickMax)
	before := sent
	if err := n.host.Receive(2, appendAsk(nil, 5, 4)); err != nil {
		t.Fatal(err)
	}
	if sent != before {
		t.Error("a notice beyond the host's bound")
	}
	// Whoever is listed, or comes later, is not told anything.
	for _, id := range []shard.ReplicaID{1, 9, 10} {
		if g.tellRemoved(id, 2) {
			t.Errorf("replica %d was told that it was removed", id)
		}
	}
}
