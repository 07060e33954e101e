package raftgroup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/shard"
)

func TestElectProposeApplyRead(t *testing.T) {
	c := newCluster(t, 1, 3)
	for id := shard.ID(1); id <= 3; id++ {
		c.bootstrap(id, 1, 2, 3)
	}
	c.start()
	for id := shard.ID(1); id <= 3; id++ {
		c.put(id, fmt.Sprintf("a=%d", id))
		c.put(id, fmt.Sprintf("b=%d", id))
		c.mustRead(id, "a", fmt.Sprint(id))
		c.mustAgree(id)
	}
	for _, n := range c.nodes {
		if s := n.host.Stats(); s.ProposalBytes != 0 || s.IncomingBytes != 0 {
			t.Errorf("node %d: %d proposal and %d incoming bytes are in use at rest", n.id, s.ProposalBytes, s.IncomingBytes)
		}
	}
}

// A lone voter does not wait for an election timeout.
func TestLoneVoterLeadsAtOnce(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.bootstrap(5, 1)
	c.start()
	c.waitLeader(5)
	if c.env.now > 50*time.Millisecond {
		t.Errorf("elected after %v", c.env.now)
	}
	c.put(5, "k=v")
	c.mustRead(5, "k", "v")
}

// Many operations share few entries, and results come in the order of calls.
func TestProposalsArePackedInOrder(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	before := l.host.Stats()
	var all []*outcome
	for i := range 500 {
		all = append(all, l.propose(5, fmt.Sprintf("k%d=%d", i%7, i)))
	}
	c.until("all are applied", func() bool { return all[len(all)-1].done() })
	for i, o := range all {
		if o.err != nil || o.calls != 1 || o.res.Revision != all[0].res.Revision+shard.Revision(i) {
			t.Fatalf("operation %d: %d calls, revision %d, error %v", i, o.calls, o.res.Revision, o.err)
		}
	}
	if s := l.host.Stats(); s.Operations-before.Operations != 500 || s.Entries-before.Entries > 3 {
		t.Errorf("%d operations in %d entries", s.Operations-before.Operations, s.Entries-before.Entries)
	}
	c.mustAgree(5)
}

// Operations larger than an entry's share still go through, each on its own.
func TestLargeProposals(t *testing.T) {
	c := newCluster(t, 4, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	before := l.host.Stats().Entries
	big := string(make([]byte, entryBytesMax+1))
	var all []*outcome
	for i := range 3 {
		all = append(all, l.propose(5, fmt.Sprintf("k%d=%s", i, big)))
	}
	for _, o := range all {
		c.until("applied", o.done)
		if o.err != nil {
			t.Error(o.err)
		}
	}
	if n := l.host.Stats().Entries - before; n != 3 {
		t.Errorf("%d entries", n)
	}
	c.mustAgree(5)
}

func TestProposalsForAnotherTermAreRefused(t *testing.T) {
	c := newCluster(t, 5, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	term := l.machine(5).leadership.Term
	for _, n := range c.nodes {
		for _, at := range []uint64{0, term - 1, term + 1} {
			var got error
			calls := 0
			err := n.group(5).Propose(&Proposal{Header: []byte("k=v"), Term: at, Done: func(_ Result, err error) { got, calls = err, calls+1 }})
			if err != nil {
				t.Fatal(err)
			}
			c.until("refused", func() bool { return calls == 1 })
			var nl *shard.NotLeaderError
			if !errors.As(got, &nl) || nl.Shard != 5 || nl.Leader.Node != l.id || nl.Leader.Term != term {
				t.Errorf("node %d, term %d: %v", n.id, at, got)
			}
		}
	}
}

func TestBudgets(t *testing.T) {
	c := newCluster(t, 6, 3)
	c.config = func(cfg *Config) { cfg.ProposalBytesMax = 10_000 }
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	var all []*outcome
	busy := 0
	for i := range 100 {
		o := l.propose(5, fmt.Sprintf("k%d=%0500d", i, i))
		if o.done() {
			if !errors.Is(o.err, shard.ErrBusy) {
				t.Fatal(o.err)
			}
			busy++
		}
		all = append(all, o)
	}
	if busy < 75 || busy == 100 {
		t.Errorf("%d of 100 are refused", busy)
	}
	c.until("the rest is applied", func() bool { return l.host.Stats().ProposalBytes == 0 })
	// One operation larger than the budget is let through when it is alone.
	c.put(5, fmt.Sprintf("big=%020000d", 1))
	for _, o := range all {
		if o.calls != 1 {
			t.Errorf("%d calls", o.calls)
		}
	}

	// Incoming messages past their budget are dropped and counted.
	for _, n := range c.nodes {
		if n != l {
			n.host.cfg.IncomingBytesMax = 10
		}
	}
	dropped := c.nodes[l.id%3].host.Stats().MessagesDropped
	o := l.propose(5, "x=y")
	c.runFor(500 * time.Millisecond)
	if o.done() || c.nodes[l.id%3].host.Stats().MessagesDropped == dropped {
		t.Error("messages past the budget were taken")
	}
	for _, n := range c.nodes {
		n.host.cfg.IncomingBytesMax = 1 << 20
	}
	c.until("decided", o.done)
	c.mustAgree(5)
}

func TestLostMessages(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, seed, 3)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.lossPercent = 20
		for i := range 60 {
			c.put(5, fmt.Sprintf("k%d=%d", i%5, i))
			if i%4 == 0 {
				c.mustRead(5, fmt.Sprintf("k%d", i%5), fmt.Sprint(i))
			}
		}
		c.lossPercent = 0
		c.mustAgree(5)
	}
}

// Every acknowledged write survives the loss of all that was not synced, on all
// nodes at once.
func TestRestartWithLossOfUnsyncedData(t *testing.T) {
	for seed := range uint64(4) {
		c := newCluster(t, seed, 3)
		c.bootstrap(5, 1, 2, 3)
		c.bootstrap(6, 1, 2, 3)
		c.start()
		last := map[string]string{}
		for round := range 4 {
			for i := range 20 {
				for id := shard.ID(5); id <= 6; id++ {
					key, value := fmt.Sprintf("k%d", i%7), fmt.Sprintf("%d.%d", round, i)
					c.put(id, key+"="+value)
					last[fmt.Sprint(id, key)] = value
				}
			}
			if round%2 == 0 {
				for _, n := range c.nodes {
					n.crash()
				}
				c.start()
			} else {
				n := c.waitLeader(5)
				n.crash()
				c.runFor(time.Duration(c.env.Uint64() % uint64(4*time.Second)))
				n.start()
			}
			for id := shard.ID(5); id <= 6; id++ {
				for i := range 7 {
					key := fmt.Sprintf("k%d", i)
					c.mustRead(id, key, last[fmt.Sprint(id, key)])
				}
			}
		}
		c.mustAgree(5)
		c.mustAgree(6)
	}
}

// What the leader had proposed when it was cut off is dropped once another
// entry is applied in its place, and provably was never in effect.
func TestDeposedLeadersProposalsAreDropped(t *testing.T) {
	c := newCluster(t, 7, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=1")
	old := c.waitLeader(5)
	c.isolate(old.id)
	var lost []*outcome
	for i := range 10 {
		lost = append(lost, old.propose(5, fmt.Sprintf("k=lost%d", i)))
		c.runFor(10 * time.Millisecond)
	}
	c.until("another leads", func() bool { return c.leader(5) != old })
	c.put(5, "k=2")
	for _, o := range lost {
		var nl *shard.NotLeaderError
		if o.done() && !errors.As(o.err, &nl) {
			t.Errorf("resolved while cut off: %v", o.err)
		}
	}
	c.heal()
	dropped := 0
	for _, o := range lost {
		c.until("resolved", o.done)
		var nl *shard.NotLeaderError
		if errors.Is(o.err, shard.ErrDropped) {
			dropped++
		} else if !errors.As(o.err, &nl) {
			t.Errorf("error %v", o.err)
		}
	}
	if dropped == 0 {
		t.Error("nothing was on its way")
	}
	c.mustRead(5, "k", "2")
	c.mustAgree(5)
}

// Entries that were on their way above the end of the new leader's log are
// resolved as well, without another proposal that reaches their index.
func TestEntriesAboveTheNewLogAreDropped(t *testing.T) {
	c := newCluster(t, 17, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=1")
	old := c.waitLeader(5)
	c.isolate(old.id)
	var lost []*outcome
	for i := range 4 { // one entry each
		lost = append(lost, old.propose(5, fmt.Sprintf("k=lost%d%s", i, string(make([]byte, entryBytesMax)))))
	}
	c.until("another leads", func() bool { l := c.leader(5); return l != nil && l != old })
	c.heal()
	for i, o := range lost {
		c.until("resolved", o.done)
		if !errors.Is(o.err, shard.ErrDropped) {
			t.Errorf("entry %d: %v", i, o.err)
		}
	}
	c.mustRead(5, "k", "1")
}

// A deposed leader's reads are not served, whatever it still believes.
func TestDeposedLeaderServesNoReads(t *testing.T) {
	c := newCluster(t, 8, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=old")
	old := c.waitLeader(5)
	c.isolate(old.id)
	var reads []*outcome
	stop := c.env.now + 5*time.Second
	for c.env.now < stop {
		reads = append(reads, old.read(5, "k"))
		c.runFor(50 * time.Millisecond)
		if l := c.leader(5); l != nil && l != old {
			l.propose(5, "k=new")
		}
	}
	c.heal()
	for _, o := range reads {
		c.until("handed back", o.done)
		var nl *shard.NotLeaderError
		if o.err == nil && o.value != "new" {
			t.Errorf("served %q by a deposed leader", o.value)
		} else if o.err != nil && !errors.As(o.err, &nl) {
			t.Error(o.err)
		}
	}
	c.mustRead(5, "k", "new")
}

// Reads follow leadership through transfers and see every acknowledged write.
func TestReadAfterLeaderChange(t *testing.T) {
	c := newCluster(t, 9, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	for i := range 12 {
		c.put(5, fmt.Sprintf("k=%d", i))
		l := c.waitLeader(5)
		to := shard.ReplicaID(uint64(l.id)%3 + 1)
		var result error
		done := false
		l.group(5).TransferLeader(to, func(err error) { result, done = err, true })
		early := l.read(5, "k")
		c.until("transferred", func() bool { return done })
		if result != nil {
			t.Fatal(result)
		}
		c.until("the successor leads", func() bool { n := c.leader(5); return n != nil && n != l })
		if got := c.leader(5).id; got != shard.NodeID(to) {
			t.Errorf("node %d leads instead of %d", got, to)
		}
		c.mustRead(5, "k", fmt.Sprint(i))
		c.until("the early read ends", early.done)
		if early.err == nil && early.value != fmt.Sprint(i) {
			t.Errorf("the early read gave %q", early.value)
		}
	}
}

func TestTransferIsRefused(t *testing.T) {
	c := newCluster(t, 10, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	refusal := func(n *testNode, to shard.ReplicaID) error {
		var result error
		done := false
		n.group(5).TransferLeader(to, func(err error) { result, done = err, true })
		c.until("answered", func() bool { return done })
		return result
	}
	var nl *shard.NotLeaderError
	var invalid *shard.InvalidError
	if err := refusal(c.nodes[l.id%3], 1); !errors.As(err, &nl) {
		t.Errorf("a follower's transfer: %v", err)
	}
	if err := refusal(l, 9); !errors.As(err, &invalid) {
		t.Errorf("to a stranger: %v", err)
	}
	if err := refusal(l, shard.ReplicaID(l.id)); !errors.As(err, &invalid) {
		t.Errorf("to itself: %v", err)
	}
	// A target that does not answer: given up after an election timeout, and
	// proposals that waited go on.
	to := shard.NodeID(uint64(l.id)%3 + 1)
	c.isolate(to)
	done := false
	var result error
	l.group(5).TransferLeader(shard.ReplicaID(to), func(err error) { result, done = err, true })
	o := l.propose(5, "k=v")
	c.until("given up", func() bool { return done })
	if !errors.Is(result, shard.ErrDropped) {
		t.Errorf("result %v", result)
	}
	c.until("proposed", o.done)
	if o.err != nil {
		t.Error(o.err)
	}
}

// Reads that raft forgets are asked for again with a fresh context.
func TestLostReadIsRetried(t *testing.T) {
	c := newCluster(t, 11, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	contexts := map[string]bool{}
	c.filter = func(_, _ shard.NodeID, e *envelope) bool {
		if e.msg.Type == raftpb.MsgHeartbeatResp && len(e.msg.Context) > 0 {
			contexts[string(e.msg.Context)] = true
			return len(contexts) > 1 // the first context is never answered
		}
		return true
	}
	o := l.read(5, "k")
	c.until("served", o.done)
	if o.err != nil || o.value != "v" || len(contexts) < 2 {
		t.Errorf("%q, %v, %d contexts", o.value, o.err, len(contexts))
	}
}

// All reads that wait share one ReadIndex.
func TestReadsAreBatched(t *testing.T) {
	c := newCluster(t, 12, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	before := l.host.Stats()
	var all []*outcome
	for range 1000 {
		all = append(all, l.read(5, "k"))
	}
	c.until("served", func() bool { return all[999].done() })
	if s := l.host.Stats(); s.ReadIndexes-before.ReadIndexes > 2 || s.Reads-before.Reads != 1000 {
		t.Errorf("%d ReadIndexes for %d reads", s.ReadIndexes-before.ReadIndexes, s.Reads-before.Reads)
	}
}

// Reads that come while others are being confirmed do not wait for a tick.
func TestNextReadsFollowAtOnce(t *testing.T) {
	c := newCluster(t, 18, 2)
	c.bootstrap(5, 1, 2)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	began := c.env.now
	for range 20 {
		first := l.read(5, "k")
		c.until("asked", func() bool { return l.group(5).reads.inflight != nil })
		second := l.read(5, "k")
		c.until("served", func() bool { return first.done() && second.done() })
	}
	if d := c.env.now - began; d > 400*time.Millisecond {
		t.Errorf("20 pairs of reads took %v, two round trips each", d)
	}
}

// What was applied before corruption, in the same batch, is kept with its state.
func TestStateBeforeCorruptionIsWhole(t *testing.T) {
	c := newCluster(t, 19, 1)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=1")
	c.mustAgree(5)
	l := c.waitLeader(5)
	before := l.machine(5).Applied().Index
	// Two entries of one proposal, of a lone voter: they are committed and
	// applied together.
	good := l.propose(5, "k="+strings.Repeat("2", entryBytesMax))
	bad := l.propose(5, "corrupt")
	c.until("decided", bad.done)
	if good.err != nil || !errors.Is(bad.err, shard.ErrUndetermined) {
		t.Errorf("good %v, bad %v", good.err, bad.err)
	}
	for _, n := range c.nodes {
		c.until("it stops", func() bool { return n.machine(5).stopped != nil })
		s, ok, err := n.engine.ReplicaState(5)
		if err != nil || !ok || s.Applied != before+1 || len(n.machine(5).get("k")) != entryBytesMax {
			t.Errorf("node %d: applied %d, want %d; k has %d bytes; error %v", n.id, s.Applied, before+1, len(n.machine(5).get("k")), err)
		}
	}
}

// The operations of an entry that cannot be applied whole leave nothing: a
// restart would evaluate them again.
func TestHalfAnEntryIsNotKept(t *testing.T) {
	c := newCluster(t, 20, 1)
	c.bootstrap(5, 1)
	c.start()
	c.put(5, "k=1")
	c.mustAgree(5)
	l := c.waitLeader(5)
	before := l.machine(5).Applied().Index
	first := l.propose(5, "k=2")
	bad := l.propose(5, "corrupt")
	c.until("decided", bad.done)
	if !errors.Is(first.err, shard.ErrUndetermined) || !errors.Is(bad.err, shard.ErrUndetermined) {
		t.Errorf("they are not of one entry: %v, %v", first.err, bad.err)
	}
	c.until("it stops", func() bool { return l.machine(5).stopped != nil })
	s, ok, err := l.engine.ReplicaState(5)
	if value := l.machine(5).get("k"); err != nil || !ok || s.Applied != before || value != "1" {
		t.Errorf("applied %d, want %d; k is %q; error %v", s.Applied, before, value, err)
	}
}

// Corruption stops the replica, and only it.
func TestCorruptionStopsReplica(t *testing.T) {
	c := newCluster(t, 13, 3)
	c.bootstrap(5, 1, 2, 3)
	c.bootstrap(6, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	good := c.waitLeader(5).propose(5, "a=b")
	bad := c.waitLeader(5).propose(5, "corrupt")
	c.until("decided", bad.done)
	if !errors.Is(bad.err, shard.ErrUndetermined) {
		t.Errorf("the corrupt operation: %v", bad.err)
	}
	_ = good
	c.until("all replicas have stopped", func() bool {
		for _, n := range c.nodes {
			if n.machine(5).stopped == nil {
				return false
			}
		}
		return true
	})
	for _, n := range c.nodes {
		if err := n.group(5).Status().Err; !errors.Is(err, shard.ErrStopped) || !errors.Is(err, errCorrupt) {
			t.Errorf("node %d: status %v", n.id, err)
		}
		if err := n.group(5).Propose(&Proposal{}); !errors.Is(err, shard.ErrStopped) {
			t.Errorf("node %d: propose %v", n.id, err)
		}
		if err := n.group(5).Read(&readRequest{}); !errors.Is(err, shard.ErrStopped) {
			t.Errorf("node %d: read %v", n.id, err)
		}
	}
	c.put(6, "k=v")
	c.mustAgree(6)
}

func TestCloseEndsEverything(t *testing.T) {
	c := newCluster(t, 14, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	c.isolate(l.id)
	w, r := l.propose(5, "k=v"), l.read(5, "k")
	c.runFor(20 * time.Millisecond)
	w2, r2 := l.propose(5, "k=v"), l.read(5, "k")
	g := l.group(5)
	l.host.Close()
	if !errors.Is(w.err, shard.ErrUndetermined) || w.calls != 1 {
		t.Errorf("proposal: %v", w.err)
	}
	if w2.err == nil || w2.calls != 1 {
		t.Errorf("proposal that waited: %v", w2.err)
	}
	for _, o := range []*outcome{r, r2} {
		if !errors.Is(o.err, shard.ErrUnavailable) || o.calls != 1 {
			t.Errorf("read: %v", o.err)
		}
	}
	if err := g.Propose(&Proposal{}); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("propose afterwards: %v", err)
	}
	c.runFor(time.Second)
}

// A thousand groups on three nodes elect within a few seconds of ticks.
func TestManyGroupsElect(t *testing.T) {
	const groups = 300
	c := newCluster(t, 15, 3)
	for id := shard.ID(1); id <= groups; id++ {
		c.bootstrap(id, 1, 2, 3)
	}
	began := c.env.now
	c.start()
	led := func() bool {
		for id := shard.ID(1); id <= groups; id++ {
			if c.leader(id) == nil {
				return false
			}
		}
		return true
	}
	for !led() {
		c.runFor(100 * time.Millisecond)
		if c.env.now-began > 10*time.Second {
			t.Fatal("not all groups have a leader after 10 s")
		}
	}
	// Mostly those lead that all agree on: so split votes are rare, and leaders
	// are spread.
	agreed := 0
	for id := shard.ID(1); id <= groups; id++ {
		if l := c.leader(id); uint64(l.id) == uint64(id)%3+1 {
			agreed++
		}
	}
	if agreed < groups*9/10 {
		t.Errorf("%d of %d groups are led by the agreed replica", agreed, groups)
	}
}

func TestStatus(t *testing.T) {
	c := newCluster(t, 16, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	l := c.waitLeader(5)
	c.until("published", func() bool {
		s := l.group(5).Status()
		return s.Leading && s.Applied == s.Last && s.Commit == s.Last && s.Last > 11 && len(s.Progress) == 3 &&
			s.Progress[0].Match == s.Last && s.Progress[1].Match == s.Last && s.Progress[2].Match == s.Last
	})
	far := shard.NodeID(uint64(l.id)%3 + 1)
	c.isolate(far)
	c.until("a silent follower is seen", func() bool {
		s := l.group(5).Status()
		return len(s.Progress) == 3 && !s.Progress[far-1].Active && s.Progress[l.id-1].Active
	})
	f := c.nodes[uint64(far)%3]
	if f == l {
		f = c.nodes[uint64(far+1)%3]
	}
	if s := f.group(5).Status(); s.Leader != shard.ReplicaID(l.id) || s.LeaderNode != l.id || s.Leading {
		t.Errorf("a follower's status: %+v", s)
	}
}

// A leader stops sending ahead to a node that does not answer.
func TestPeerUnreachable(t *testing.T) {
	c := newCluster(t, 20, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	c.put(5, "k=v")
	c.mustAgree(5)
	l := c.waitLeader(5)
	far := shard.NodeID(uint64(l.id)%3 + 1)
	state := func() (probing bool) {
		l.group(5).rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			probing = probing || id == uint64(far) && pr.State == tracker.StateProbe
		})
		return probing
	}
	if state() {
		t.Fatal("the leader probes a follower that answers")
	}
	c.isolate(far)
	l.host.PeerUnreachable(far)
	c.until("the leader probes", state)
	c.heal()
	c.put(5, "k=w")
	c.until("the leader sends ahead again", func() bool { return !state() })

	// A send that the transport refuses has the same effect.
	c.isolate(far)
	c.put(5, "k=x")
	if !state() {
		t.Error("the leader sends ahead although nothing is taken")
	}
	c.heal()
	c.mustAgree(5)
}
