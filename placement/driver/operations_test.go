package driver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// ask records an operation, as a person's call does.
func (w *world) ask(id shard.ID, from, to shard.NodeID) (op catalog.Operation) {
	w.t.Helper()
	answered := false
	w.records.BeginOperation(catalog.Operation{Shard: id, From: from, To: to}, func(got catalog.Operation, err error) {
		if err != nil {
			w.t.Error(err)
		}
		op, answered = got, true
	})
	w.until(time.Minute, "an operation recorded", func() bool { return answered })
	return op
}

// state is how far the last operation of a shard has come.
func (w *world) state(id shard.ID) (op catalog.Operation) {
	answered := false
	w.records.ListOperations(func(ops []catalog.Operation, err error) {
		for _, got := range ops {
			if got.Shard == id {
				op = got
			}
		}
		answered = true
	})
	w.until(time.Minute, "operations listed", func() bool { return answered })
	return op
}

// want asks for a node's state, as a person's call does.
func (w *world) want(n shard.NodeID, state shard.NodeState) {
	w.t.Helper()
	answered := false
	w.records.SetNodeState(n, state, 0, func(_ router.Node, err error) {
		if err != nil {
			w.t.Error(err)
		}
		answered = true
	})
	w.until(time.Minute, "a node's state set", func() bool { return answered })
}

func (w *world) recorded(n shard.NodeID) shard.NodeState {
	r, err := router.DecodeNode(w.kv.Get(router.NodeKey(n)))
	if err != nil {
		w.t.Fatal(err)
	}
	return r.State
}

// on counts the voters that a node has, and all its replicas.
func (w *world) on(n shard.NodeID) (voters, all int) {
	for _, s := range w.shards {
		if r, ok := s.d.ReplicaOn(n); ok {
			all++
			if r.Role == shard.Voter {
				voters++
			}
		}
	}
	return voters, all
}

// without is a node that has no replica of a shard.
func (w *world) without(id shard.ID) shard.NodeID {
	for n := range shard.NodeID(len(w.nodes) + 1) {
		if _, member := w.shards[id-1].d.ReplicaOn(n); n > 0 && !member {
			return n
		}
	}
	w.t.Fatalf("every node has a replica of shard %d", id)
	return 0
}

// steady is that every shard has three live voters and nothing else.
func (w *world) steady() bool {
	for _, s := range w.shards {
		if len(s.d.Replicas) != 3 || s.d.Joint() || s.leader == 0 {
			return false
		}
		for _, r := range s.d.Replicas {
			if r.Role != shard.Voter || !w.nodes[r.Node] {
				return false
			}
		}
	}
	return true
}

func tuned(d *Driver, t Tuning) *Driver {
	d.Tune(func(now *Tuning) { *now = t })
	return d
}

// fewest is the least number of voters on live nodes that any shard ever has.
func (w *world) fewest() int {
	least := 99
	for _, s := range w.shards {
		n := 0
		for _, r := range s.d.Replicas {
			if (r.Role == shard.Voter || r.Role == shard.Outgoing) && w.nodes[r.Node] {
				n++
			}
		}
		least = min(least, n)
	}
	return least
}

func TestAMoveIsCarriedOutAndRecorded(t *testing.T) {
	w := newWorld(t, 4, 8)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", func() bool { return w.complete(3) == nil })
	w.env.RunFor(2 * time.Second)
	s := w.shards[3]
	from := s.leader // the leader has to go first
	to := w.without(s.d.ID)
	w.ask(s.d.ID, from, to)
	took := w.until(20*time.Second, "moved", func() bool { return w.state(s.d.ID).State == catalog.OperationDone })
	if r, ok := s.d.ReplicaOn(to); !ok || r.Role != shard.Voter || len(s.d.Replicas) != 3 || s.d.Joint() {
		t.Fatalf("%+v", s.d.Replicas)
	}
	if _, there := s.d.ReplicaOn(from); there || s.leader == from {
		t.Fatalf("%+v led by %d", s.d.Replicas, s.leader)
	}
	t.Logf("moved after %v", took)
	// It stays.
	epoch := s.d.Epoch
	w.env.RunFor(30 * time.Second)
	if s.d.Epoch != epoch {
		t.Fatalf("placement went on with %+v", s.d)
	}
}

// An operation outlives the driver that began it, whenever that ends; and what is
// half done is never taken for left over.
func TestAnotherDriverGoesOnWithAnOperation(t *testing.T) {
	for at := time.Duration(0); at < 1200*time.Millisecond; at += 60 * time.Millisecond {
		w := newWorld(t, 4, 4)
		first, second := w.driver(), w.driver()
		first.Start(1)
		w.until(10*time.Second, "raised", func() bool { return w.complete(3) == nil })
		w.env.RunFor(2 * time.Second)
		s := w.shards[2]
		from := s.d.Replicas[0].Node
		to := w.without(s.d.ID)
		w.ask(s.d.ID, from, to)
		w.env.RunFor(at)
		first.Stop(1)
		w.env.RunFor(50 * time.Millisecond)
		second.Start(2)
		w.until(30*time.Second, "moved", func() bool { return w.state(s.d.ID).State == catalog.OperationDone })
		if r, ok := s.d.ReplicaOn(to); !ok || r.Role != shard.Voter || len(s.d.Replicas) != 3 || s.d.NextReplica != 5 {
			t.Fatalf("stopped after %v: %+v, next %d", at, s.d.Replicas, s.d.NextReplica)
		}
	}
}

func TestAnOperationThatGetsNowhereFails(t *testing.T) {
	w := newWorld(t, 4, 2)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", func() bool { return w.complete(3) == nil })
	w.env.RunFor(2 * time.Second)
	s := w.shards[2]
	from := s.d.Replicas[0].Node
	to := w.without(s.d.ID)
	w.snapshots[to] = snapshotsAtOne // it never has room for another snapshot
	w.ask(s.d.ID, from, to)
	w.env.RunFor(taskPatience / 2)
	if op := w.state(s.d.ID); op.State != catalog.OperationRunning {
		t.Fatalf("%+v", op)
	}
	notes := d.Summary().Operations
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "snapshot") {
		t.Errorf("%+v", notes)
	}
	w.env.RunFor(taskPatience)
	op := w.state(s.d.ID)
	if op.State != catalog.OperationFailed || !strings.Contains(op.Reason, "snapshot") || op.Ended != unixNow {
		t.Fatalf("%+v", op)
	}
	// Nothing is left of it.
	if len(s.d.Replicas) != 3 || s.d.Joint() {
		t.Fatalf("%+v", s.d.Replicas)
	}
	if len(d.Summary().Operations) != 0 || len(d.Summary().Shards) != 0 {
		t.Errorf("%+v", d.Summary())
	}
}

func TestACancelledOperationLeavesNothingBehind(t *testing.T) {
	for at := time.Duration(0); at < 1200*time.Millisecond; at += 80 * time.Millisecond {
		w := newWorld(t, 4, 2)
		w.driver().Start(1)
		w.until(10*time.Second, "raised", func() bool { return w.complete(3) == nil })
		w.env.RunFor(2 * time.Second)
		s := w.shards[2]
		to := w.without(s.d.ID)
		op := w.ask(s.d.ID, s.d.Replicas[0].Node, to)
		w.env.RunFor(at)
		w.records.EndOperation(s.d.ID, op.ID, catalog.OperationCancelled, "", 0, func(catalog.Operation, error) {})
		w.env.RunFor(20 * time.Second)
		if !w.steady() {
			t.Fatalf("cancelled after %v: %+v", at, s.d.Replicas)
		}
	}
}

func TestACancelledOperationDoesNotGoOn(t *testing.T) {
	w := newWorld(t, 4, 2)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.env.RunFor(2 * time.Second)
	s := w.shards[2]
	to := w.without(s.d.ID)
	w.snapshots[to] = snapshotsAtOne // it waits
	op := w.ask(s.d.ID, s.d.Replicas[0].Node, to)
	w.env.RunFor(5 * time.Second)
	if _, added := s.d.ReplicaOn(to); !added {
		t.Fatal("it has not begun")
	}
	w.records.EndOperation(s.d.ID, op.ID, catalog.OperationCancelled, "", 0, func(catalog.Operation, error) {})
	w.until(spareFor+5*time.Second, "nothing left of it", w.steady)
	if w.state(s.d.ID).State != catalog.OperationCancelled {
		t.Error("its record has changed")
	}
}

// A driver that does not know what people want does nothing: what looks left over
// may be wanted.
func TestNothingIsDecidedBeforeTheRecordsWereRead(t *testing.T) {
	w := newWorld(t, 3, 4)
	broken := true
	w.kv.Fault = func(*shard.Command) (error, bool) {
		if broken {
			return shard.ErrUnavailable, false
		}
		return nil, true
	}
	w.driver().Start(1)
	w.env.RunFor(30 * time.Second)
	if w.changes != 0 {
		t.Fatalf("%d changes", w.changes)
	}
	broken = false
	w.until(30*time.Second, "raised", w.raised)
}

func TestADeadNodesReplicasAreRebuiltElsewhere(t *testing.T) {
	w := newWorld(t, 4, 40)
	d := tuned(w.driver(), Tuning{DeadAfter: 20 * time.Second})
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.env.RunFor(5 * time.Second)
	w.kill(2)
	changes := w.changes
	w.env.RunFor(15 * time.Second)
	if w.changes != changes {
		t.Fatalf("%d changes before the node was dead", w.changes-changes)
	}
	w.until(30*time.Second, "rebuilt", w.steady)
	if _, all := w.on(2); all != 0 {
		t.Fatalf("%d replicas are still on the dead node", all)
	}
	w.env.RunFor(2 * time.Second)
	for _, n := range d.Summary().Nodes {
		if n.ID == 2 && (!n.Dead || n.Live || n.Silent < 20*time.Second || n.Replicas != 0) {
			t.Errorf("%+v", n)
		}
	}
	// It comes back and may be used again.
	w.nodes[2] = true
	w.env.RunFor(20 * time.Second)
	if !w.steady() {
		t.Fatal("no longer steady")
	}
}

// A node that was lost before it registered: all that tells of it are the shards.
func TestADeadNodeWithoutARecordIsReplacedToo(t *testing.T) {
	w := newWorld(t, 3, 6)
	w.nodes[4] = true
	d := tuned(w.driver(), Tuning{DeadAfter: 2 * forgetAfter})
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.kill(3)
	w.until(3*forgetAfter, "rebuilt on a node without a record", w.steady)
	w.kill(4)
	w.nodes[3] = true
	w.until(3*forgetAfter, "rebuilt by the driver that has seen it", w.steady)
	if _, all := w.on(4); all != 0 {
		t.Fatalf("%d replicas are still on the dead node", all)
	}
	w.nodes[4] = true
	w.kill(3)
	w.until(3*forgetAfter, "rebuilt on a node without a record", w.steady)
	w.kill(4)
	w.nodes[3] = true
	d.Stop(1)
	tuned(w.driver(), Tuning{DeadAfter: 10 * time.Second}).Start(2)
	w.until(30*time.Second, "rebuilt by a driver that has never seen it", w.steady)
	if _, all := w.on(4); all != 0 {
		t.Fatalf("%d replicas are still on the dead node", all)
	}
}

func TestADeadNodesReplicasStayWhenThereIsNoElsewhere(t *testing.T) {
	w := newWorld(t, 3, 6)
	d := tuned(w.driver(), Tuning{DeadAfter: 10 * time.Second})
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.kill(3)
	changes := w.changes
	w.env.RunFor(time.Minute)
	if w.changes != changes {
		t.Fatalf("%d changes", w.changes-changes)
	}
	summary := d.Summary()
	if len(summary.Shards) != len(w.shards) || !strings.Contains(summary.Shards[0].Text, "start another node") {
		t.Errorf("%+v", summary.Shards)
	}
	if n := summary.Nodes[2]; n.Homeless != len(w.shards) || !n.Dead {
		t.Errorf("%+v", n)
	}
	// A fourth node is an elsewhere.
	w.join(4)
	w.until(20*time.Second, "rebuilt", w.steady)
}

// A driver that was suspended, or starts, takes nobody for dead: silence counts
// only while it asks.
func TestSilenceCountsWhileItIsListenedTo(t *testing.T) {
	w := newWorld(t, 4, 6)
	d := tuned(w.driver(), Tuning{DeadAfter: 30 * time.Second})
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.env.RunFor(2 * time.Second)
	d.passed -= time.Hour // as if no poll had ended for so long
	w.mute[2], w.mute[3], w.mute[4] = true, true, true
	changes := w.changes
	w.env.RunFor(6 * time.Second)
	for _, n := range d.Summary().Nodes {
		if n.Dead || n.Silent > 15*time.Second {
			t.Errorf("%+v", n)
		}
	}
	if w.changes != changes {
		t.Errorf("%d changes", w.changes-changes)
	}
	// A new driver begins to count anew.
	w.env.RunFor(18 * time.Second)
	second := tuned(w.driver(), Tuning{DeadAfter: 30 * time.Second})
	d.Stop(1)
	second.Start(2)
	w.env.RunFor(20 * time.Second)
	for _, n := range second.Summary().Nodes {
		if n.Dead {
			t.Errorf("%+v", n)
		}
	}
}

func TestADrainedNodeLeadsNothingAndKeepsItsReplicas(t *testing.T) {
	w := newWorld(t, 3, 30)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(2 * time.Second)
	w.want(2, shard.Draining)
	w.until(10*time.Second, "no leader on the node", func() bool { return w.leaders()[1] == 0 })
	if voters, _ := w.on(2); voters != len(w.shards) {
		t.Errorf("%d voters are left on the node", voters)
	}
	w.env.RunFor(20 * time.Second)
	if w.leaders()[1] != 0 {
		t.Fatal("it leads again")
	}
	w.want(2, shard.Serving)
	w.until(20*time.Second, "it leads its share", w.raised)
}

func TestADecommissionedNodeIsEmptiedAndRemoved(t *testing.T) {
	for _, alive := range []bool{true, false} {
		w := newWorld(t, 4, 30)
		d := w.driver()
		d.Start(1)
		w.until(10*time.Second, "raised", w.steady)
		w.env.RunFor(2 * time.Second)
		if !alive {
			w.kill(2)
		}
		w.want(2, shard.Leaving)
		w.until(60*time.Second, "removed", func() bool {
			if n := w.fewest(); n < 2 {
				t.Fatalf("a shard has %d live voters", n)
			}
			if _, all := w.on(2); all > 0 && w.recorded(2) == shard.Removed {
				t.Fatal("removed with replicas")
			}
			return w.recorded(2) == shard.Removed
		})
		if !w.steady() {
			t.Fatal("not steady")
		}
		w.env.RunFor(10 * time.Second)
		if _, all := w.on(2); all != 0 {
			t.Fatalf("%d replicas went to a removed node", all)
		}
	}
}

// A node that still holds a replica, or that the directory lists, is not removed.
func TestANodeIsRemovedOnlyOnProofThatNothingIsLeft(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.steady)
	lost := shard.Descriptor{ID: 77, Span: shard.Span{Start: shard.UserKey([]byte("z")), End: shard.UserSpan().End}, Epoch: shard.Epoch{Version: 1, ConfVersion: 1},
		Replicas: []shard.Replica{{ID: 1, Node: 2, Role: shard.Voter}}, NextReplica: 2}
	key := router.DirectoryKey(lost.Span.Start)
	w.kv.Put(key, router.AppendEntry(nil, &router.Entry{Descriptor: lost}))
	w.want(2, shard.Leaving)
	w.env.RunFor(30 * time.Second)
	if _, all := w.on(2); all != 0 || w.recorded(2) != shard.Leaving {
		t.Fatalf("%d replicas, and the node is %v", all, w.recorded(2))
	}
	w.held = map[shard.NodeID]int{2: 1}
	w.kv.Delete(key)
	w.env.RunFor(10 * time.Second)
	if w.recorded(2) != shard.Leaving {
		t.Fatal("removed although it says that it holds something")
	}
	w.held = nil
	w.until(10*time.Second, "removed", func() bool { return w.recorded(2) == shard.Removed })
}

// A node is not removed while the directory leaves open who covers some keys: a shard that
// has split off, and that no leader has reported and recorded yet, may have a replica there.
func TestANodeIsNotRemovedWhileTheDirectoryHasAGap(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.steady)
	parent := w.shards[len(w.shards)-1].d
	split := shard.Split{Shard: parent.ID, Epoch: parent.Epoch, Key: append(slices.Clone(parent.Span.Start), 0xff, 0xff), Right: 99}
	left, right, err := split.Apply(&parent)
	if err != nil {
		t.Fatal(err)
	}
	// Neither side's record lists the node.
	right.Replicas = slices.DeleteFunc(right.Clone().Replicas, func(r shard.Replica) bool { return r.Node == 2 })
	left.Replicas = right.Replicas
	w.want(2, shard.Leaving)
	for _, side := range []shard.Descriptor{left, right} {
		for range 2000 { // whatever the driver does meanwhile
			w.kv.Delete(router.DirectoryKey(parent.Span.Start))
			w.record(side)
			w.env.RunFor(5 * time.Millisecond)
			if w.recorded(2) != shard.Leaving {
				t.Fatalf("removed with only [%q, %q) recorded of [%q, %q)", side.Span.Start, side.Span.End, parent.Span.Start, parent.Span.End)
			}
		}
		w.kv.Delete(router.DirectoryKey(side.Span.Start))
	}
	if _, all := w.on(2); all != 0 {
		t.Fatalf("%d replicas are left", all)
	}
	w.record(left)
	w.record(right)
	w.until(10*time.Second, "removed", func() bool { return w.recorded(2) == shard.Removed })
}

func TestGapOfTheDirectory(t *testing.T) {
	all := shard.UserSpan()
	span := func(start, end []byte) DirectoryRow {
		return DirectoryRow{Entry: router.Entry{Descriptor: shard.Descriptor{Span: shard.Span{Start: start, End: end}}}}
	}
	c, m := shard.UserKey([]byte("c")), shard.UserKey([]byte("m"))
	meta := span(shard.SystemSpan().Start, shard.SystemSpan().End)
	for _, x := range []struct {
		rows []DirectoryRow
		want []byte
	}{
		{nil, all.Start},
		{[]DirectoryRow{meta}, all.Start},
		{[]DirectoryRow{meta, span(all.Start, all.End)}, nil},
		{[]DirectoryRow{span(all.Start, c), span(c, m), span(m, all.End)}, nil},
		{[]DirectoryRow{span(all.Start, c), span(m, all.End)}, c},
		{[]DirectoryRow{span(all.Start, c), span(c, m)}, m},
		{[]DirectoryRow{span(c, all.End)}, all.Start},
		{[]DirectoryRow{span(all.Start, all.End), span(c, m)}, nil}, // a record of before the split
		{[]DirectoryRow{span(all.Start, m), span(c, c), span(m, all.End)}, nil},
	} {
		if got := gap(x.rows); !slices.Equal(got, x.want) {
			t.Errorf("%+v: %q, want %q", x.rows, got, x.want)
		}
	}
}

func TestANodeThatJoinsGetsItsShareOfReplicas(t *testing.T) {
	w := newWorld(t, 3, 40)
	d := tuned(w.driver(), Tuning{Rebalance: true})
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.env.RunFor(5 * time.Second)
	changes := w.changes
	w.env.RunFor(10 * time.Second)
	if w.changes != changes {
		t.Fatalf("%d changes in an even cluster", w.changes-changes)
	}
	w.join(4)
	share := 3 * len(w.shards) / 4
	w.until(2*time.Minute, "even", func() bool {
		voters, _ := w.on(4)
		return voters >= share-2 && w.steady()
	})
	moved, _ := w.on(4)
	w.env.RunFor(30 * time.Second)
	if voters, _ := w.on(4); voters != moved || !w.steady() {
		t.Errorf("%d voters became %d", moved, voters)
	}
	if want := changes + 4*moved; w.changes != want {
		t.Errorf("%d changes instead of %d: replicas were moved twice", w.changes, want)
	}
}

func TestPausedPlacementDoesOnlyWhatIsAskedFor(t *testing.T) {
	w := newWorld(t, 4, 8)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.env.RunFor(2 * time.Second)
	tuned(d, Tuning{Paused: true, Rebalance: true, DeadAfter: 5 * time.Second})
	w.kill(4)
	w.env.RunFor(time.Minute)
	changes := w.changes
	if w.steady() {
		t.Fatal("rebuilt while paused")
	}
	s := w.shards[2]
	var from shard.NodeID
	for _, r := range s.d.Replicas {
		if r.Node != 4 {
			from = r.Node
		}
	}
	w.nodes[4] = true
	w.ask(s.d.ID, from, w.without(s.d.ID))
	w.until(20*time.Second, "moved", func() bool { return w.state(s.d.ID).State == catalog.OperationDone })
	if w.changes != changes+4 {
		t.Errorf("%d changes", w.changes-changes)
	}
}

func TestOnlyTheLatestEndedOperationsAreKept(t *testing.T) {
	w := newWorld(t, 3, 1)
	slow := w.ask(99, 1, 2)
	for id := shard.ID(100); id < 100+endedMax+50; id++ {
		op := w.ask(id, 1, 2)
		w.records.EndOperation(id, op.ID, catalog.OperationDone, "", unixNow, func(catalog.Operation, error) {})
	}
	w.records.EndOperation(99, slow.ID, catalog.OperationDone, "", unixNow+1, func(catalog.Operation, error) {})
	w.env.RunFor(time.Minute)
	w.driver().Start(1)
	w.env.RunFor(20 * time.Second)
	if first := w.state(100); first.ID != 0 {
		t.Errorf("%+v is still there", first)
	}
	if n := w.state(100 + endedMax + 49); n.ID == 0 {
		t.Error("the last one is gone")
	}
	if w.state(151).ID == 0 || w.state(150).ID != 0 {
		t.Errorf("not those that ended first were removed")
	}
	if w.state(99).ID == 0 {
		t.Error("the first one is gone, which ended last")
	}
}

func TestOperationsRefuseWhatCannotBe(t *testing.T) {
	w := newWorld(t, 4, 2)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.steady)
	w.want(4, shard.Draining)
	w.env.RunFor(2 * time.Second)
	for _, c := range []struct {
		id       shard.ID
		from, to shard.NodeID
		says     string
	}{{2, 1, 4, "draining"}, {2, 1, 9, "not known"}, {3, 9, w.without(3), "no replica"}, {44, 1, 2, "no node reports"}} {
		w.ask(c.id, c.from, c.to)
		w.env.RunFor(taskPatience + 10*time.Second)
		if op := w.state(c.id); op.State != catalog.OperationFailed || !strings.Contains(op.Reason, c.says) {
			t.Errorf("%+v: %+v", c, op)
		}
	}
	if !w.steady() {
		t.Error(fmt.Sprint("not steady: ", w.complete(3)))
	}
}
