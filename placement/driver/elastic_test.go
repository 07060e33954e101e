package driver

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/shard"
)

// numbered has the next shard's ID follow those that there are.
func (w *world) numbered() {
	w.kv.Put(append([]byte{shard.SystemKeyspace}, "id/shard"...), binary.BigEndian.AppendUint64(nil, uint64(len(w.shards))))
}

func TestASplitIsCarriedOutOnce(t *testing.T) {
	w := newWorld(t, 3, 8)
	w.numbered()
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	s := w.shards[4]
	before := s.d
	s.bytes = 1 << 30
	s.splitAt = append(slices.Clone(before.Span.Start), 7)
	w.until(5*time.Second, "split", func() bool { return w.splits == 1 })
	w.env.RunFor(5 * time.Second)
	right := w.shards[len(w.shards)-1].d
	if len(w.shards) != 10 || w.splits != 1 || right.ID != 10 || s.d.Epoch.Version != before.Epoch.Version+1 || string(right.Span.Start) != string(s.d.Span.End) {
		t.Fatalf("%d shards, %d splits: %+v and %+v", len(w.shards), w.splits, s.d, right)
	}
	if e := d.entries[10]; e == nil || e.Leader == 0 {
		t.Fatal("the right side is not known")
	}
	// Paused, none is.
	d.Tune(func(now *Tuning) { now.Paused = true })
	w.shards[5].splitAt = append(slices.Clone(w.shards[5].d.Span.Start), 7)
	w.env.RunFor(5 * time.Second)
	if w.splits != 1 {
		t.Fatal("split while placement is paused")
	}
}

// The right side of a split counts with half of what its parent bore before its leader can
// tell, so that no leader is moved by figures that begin with nothing.
func TestTheRightSideOfASplitBearsHalf(t *testing.T) {
	w := newWorld(t, 3, 2)
	w.numbered()
	d := w.driver()
	s := w.shards[1]
	s.load = placement.Load{Reads: 600, Writes: 400}
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	s.splitAt = append(slices.Clone(s.d.Span.Start), 7)
	w.until(5*time.Second, "split", func() bool { return w.splits == 1 })
	id := w.shards[len(w.shards)-1].d.ID
	for range 5 {
		w.env.RunFor(time.Second)
		e := d.entries[id]
		if e == nil || e.Leader == 0 || e.Load != (placement.Load{Reads: 300, Writes: 200}) {
			t.Fatalf("the right side is known as %+v", e)
		}
	}
	w.shards[len(w.shards)-1].load = placement.Load{Reads: 900}
	w.env.RunFor(2 * time.Minute)
	if l := d.entries[id].Load; l.Reads < 890 || l.Writes > 10 {
		t.Fatalf("two minutes later it counts with %+v", l)
	}
}

// A shard is where its scatter says, and led where it says, also if whoever drives changes in
// the middle; then the operation is done.
func TestAScatterIsCarriedOut(t *testing.T) {
	for restart := range 6 {
		w := newWorld(t, 4, 6)
		d := w.driver()
		d.Start(1)
		w.until(10*time.Second, "raised", w.raised)
		w.join(5)
		w.join(6)
		want := []shard.NodeID{6, 5, w.shards[3].d.Replicas[0].Node}
		var op catalog.Operation
		w.records.BeginOperation(catalog.Operation{Shard: 4, Nodes: want}, func(got catalog.Operation, err error) {
			if err != nil {
				t.Error(err)
			}
			op = got
		})
		w.until(time.Minute, "the operation recorded", func() bool { return op.ID != 0 })
		w.env.RunFor(time.Duration(restart) * 300 * time.Millisecond)
		if restart > 0 {
			d.Stop(1)
			d = w.driver()
			d.Start(2)
		}
		w.until(time.Minute, "the operation over", func() bool { return w.state(4).State != catalog.OperationRunning })
		s := w.shards[3]
		var at []shard.NodeID
		for _, r := range s.d.Replicas {
			if r.Role == shard.Voter {
				at = append(at, r.Node)
			}
		}
		slices.Sort(at)
		first := s.leader
		slices.Sort(want)
		if end := w.state(4); end.State != catalog.OperationDone || end.ID != op.ID || !slices.Equal(at, want) || first != 6 {
			t.Fatalf("restart %d: operation %+v, voters on %v led by %d, want %v", restart, end, at, first, want)
		}
	}
}

// Of very many moves that somebody asks for at once none is given up because it waits for the
// others.
func TestManyOperationsWaitInLine(t *testing.T) {
	const shards = 100
	w := newWorld(t, 3, shards)
	d := w.driver()
	d.Start(1)
	w.until(time.Minute, "raised", w.raised)
	w.copying = 4 * time.Second // two at once: 200 s for all, beyond taskPatience
	w.join(4)
	for id := shard.ID(2); id < 2+shards; id++ {
		w.ask(id, 3, 4)
	}
	over := func() bool {
		for id := shard.ID(2); id < 2+shards; id++ {
			switch op := w.state(id); op.State {
			case catalog.OperationDone:
			case catalog.OperationRunning:
				return false
			default:
				t.Fatalf("operation %d has %v: %s", op.ID, op.State, op.Reason)
			}
		}
		return true
	}
	w.until(10*time.Minute, "all operations over", over)
}

// What a shard bears counts slowly, and a new leader's figures not at first.
func TestLoadCountsSlowly(t *testing.T) {
	e := &entry{}
	report := func(node shard.NodeID, at time.Duration, writes float64) float64 {
		e.Leader = node // known before its figures if placement itself has had it lead
		e.measure(node, &ReplicaReport{Load: placement.Load{Writes: writes}}, at)
		return e.Load.Writes
	}
	if got := report(1, time.Second, 100); got != 100 {
		t.Fatalf("the first figure counts as %v", got)
	}
	if got := report(1, 2*time.Second, 1000); got < 101 || got > 200 {
		t.Fatalf("a gust of a second counts as %v", got)
	}
	was := report(1, 60*time.Second, 1000)
	if was < 900 {
		t.Fatalf("after a minute 1,000 count as %v", was)
	}
	if got := report(2, 61*time.Second, 0); got != was {
		t.Fatalf("the figures of a new leader count: %v", got)
	}
	if got := report(2, 120*time.Second, 1000); got < was {
		t.Fatalf("%v after a minute with the new leader", got)
	}
}

func TestLimitsFollowSettings(t *testing.T) {
	w := newWorld(t, 1, 1)
	d := w.driver()
	d.tuning = Tuning{LowSpace: 70, FullSpace: 90, MovesMax: 3}
	if l := d.tuned(); l.LowSpace != 70 || l.FullSpace != 90 || l.MovesMax != 3 {
		t.Fatalf("%+v", l)
	}
}

// Nodes' disks and places reach decisions, and explanations.
func TestDisksAndPlacesReachPlacement(t *testing.T) {
	w := newWorld(t, 3, 6)
	w.place = map[shard.NodeID]shard.Locality{4: "zone=b"}
	w.disk = map[shard.NodeID][2]uint64{1: {1000 << 30, 900 << 30}, 2: {1000 << 30, 900 << 30}, 3: {1000 << 30, 900 << 30}, 4: {1000 << 30, 30 << 30}}
	d := w.driver()
	d.Tune(func(now *Tuning) { now.Rebalance = true })
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.join(4)
	w.env.RunFor(20 * time.Second)
	if _, all := w.on(4); all != 0 {
		t.Fatalf("%d replicas on a node with little space", all)
	}
	var lines []string
	d.Explain(0, 4, func(got []string) { lines = got })
	w.env.RunFor(time.Second)
	if len(lines) < 2 || lines[0] != "node 4 has 3 % of its disk free; moves to it resume at 20 %" || lines[1] != "it is at zone=b" {
		t.Fatalf("%q", lines)
	}
	w.disk[4] = [2]uint64{1000 << 30, 900 << 30}
	w.until(time.Minute, "a replica of every shard in zone b", func() bool { voters, all := w.on(4); return voters == all && voters >= len(w.shards)-1 })
}

// Where there are very many shards all of them are asked for less often, and nodes are heard as
// often as ever.
func TestVeryManyShardsAreAskedForSeldom(t *testing.T) {
	w := newWorld(t, 1, 16_000)
	d := w.driver()
	d.Start(1)
	w.env.RunFor(3 * time.Second)
	polls, reported := w.polls, w.reported
	w.env.RunFor(20 * time.Second)
	polls, reported = w.polls-polls, w.reported-reported
	if polls < 18 || reported > 11*16_001 || reported < 9*16_001 {
		t.Fatalf("%d polls with %d replicas in 20 s", polls, reported)
	}
	if m := d.members[1]; m.silent != 0 || !m.live(w.env.Now()) {
		t.Fatalf("%+v", m)
	}
	// One that ends is silent at once.
	w.nodes[1] = false
	w.env.RunFor(5 * time.Second)
	if m := d.members[1]; m.live(w.env.Now()) {
		t.Fatalf("%+v", m)
	}
}

// Where there are many shards a poll for one that waits is enough for its next step.
func TestOneOfManyShardsDoesNotWaitForTheOthers(t *testing.T) {
	w := newWorld(t, 3, 1100)
	w.driver().Start(1)
	w.until(20*time.Second, "raised", w.raised)
	w.join(4)
	w.env.RunFor(5 * time.Second)
	w.ask(7, w.shards[6].d.Replicas[0].Node, 4)
	began := func() bool { _, added := w.shards[6].d.ReplicaOn(4); return added }
	w.until(5*time.Second, "a learner", began)
	if took := w.until(5*time.Second, "a voter", func() bool { r, _ := w.shards[6].d.ReplicaOn(4); return r.Role == shard.Voter }); took > 500*time.Millisecond {
		t.Fatalf("the learner waited for %v", took)
	}
}
