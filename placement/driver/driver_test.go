package driver

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

func TestRaisesAThousandShards(t *testing.T) {
	w := newWorld(t, 3, 1000)
	w.driver().Start(1)
	took := w.until(20*time.Second, "1,000 shards with three voters each", w.raised)
	t.Logf("%v of simulated time, %d changes, %d transfers, %d polls with %d replicas", took, w.changes, w.transfers, w.polls, w.reported)
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if w.mostSteps > 64 {
		t.Errorf("%d steps at once", w.mostSteps)
	}
	if spread := w.spread(); spread > 1 {
		t.Errorf("leaders %v", w.leaders())
	}
	// Two learners, one joint change, one leave: from one voter to three at once.
	if want := 4 * len(w.shards); w.changes != want {
		t.Errorf("%d changes instead of %d", w.changes, want)
	}
	if want := len(w.shards) * 2 / 3; w.transfers > want+1 {
		t.Errorf("%d transfers, %d do", w.transfers, want)
	}
	if w.shards[0].leader != 1 {
		t.Errorf("the meta shard's leader moved to node %d", w.shards[0].leader)
	}
}

func TestAtRestAPollASecondAndNothingElse(t *testing.T) {
	w := newWorld(t, 3, 100)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(5 * time.Second)
	polls, changes, transfers := w.polls, w.changes, w.transfers
	w.env.RunFor(60 * time.Second)
	if n := w.polls - polls; n < 55 || n > 61 {
		t.Errorf("%d polls in a minute", n)
	}
	if w.changes != changes || w.transfers != transfers {
		t.Errorf("%d changes and %d transfers at rest", w.changes-changes, w.transfers-transfers)
	}
	// A person's transfer stays.
	w.shards[7].lead(1 + w.shards[7].leader%3)
	w.env.RunFor(10 * time.Second)
	if w.transfers != transfers {
		t.Errorf("one transfer was undone: leaders %v", w.leaders())
	}
	// More than one are evened out.
	for _, s := range w.shards[50:90] {
		s.lead(2)
	}
	w.until(5*time.Second, "even again", w.raised)
}

func TestNodesThatJoinOneByOneLeaveNoShardWithTwoVoters(t *testing.T) {
	w := newWorld(t, 1, 20)
	d := w.driver()
	d.Start(1)
	w.env.RunFor(5 * time.Second)
	if w.changes != 0 {
		t.Fatalf("%d changes with one node", w.changes)
	}
	w.nodes[2] = true
	d.Wake()
	w.env.RunFor(time.Second)
	w.nodes[3] = true
	d.Wake()
	w.until(5*time.Second, "raised", w.raised)
	if want := 4 * len(w.shards); w.changes != want {
		t.Errorf("%d changes instead of %d: two raises instead of one", w.changes, want)
	}
}

func TestTwoNodesGetTwoVoters(t *testing.T) {
	w := newWorld(t, 2, 20)
	w.driver().Start(1)
	w.until(10*time.Second, "two voters", w.raised)
	w.nodes[3] = true
	w.until(10*time.Second, "three voters", w.raised)
}

func TestStepsThatFailAreDecidedAgain(t *testing.T) {
	w := newWorld(t, 3, 60)
	rng := uint64(0)
	w.fail = func() error {
		if rng++; rng%3 == 0 {
			return shard.ErrUnavailable
		}
		return nil
	}
	var log bytes.Buffer
	d := New(Config{Env: w.env, Cluster: w, Records: w.records, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	d.Start(1)
	took := w.until(time.Minute, "raised", w.raised)
	if n := strings.Count(log.String(), "\n"); n == 0 || n > int(took/warnEvery)+1 {
		t.Errorf("%d lines of log in %v", n, took)
	}
}

func TestAnswersThatNeverComeAreGivenUpOn(t *testing.T) {
	w := newWorld(t, 3, 30)
	n := 0
	w.drop = func() bool { n++; return n%10 == 0 }
	w.driver().Start(1)
	w.until(3*time.Minute, "raised", w.raised)
}

func TestPollsThatNeverEndAreGivenUpOn(t *testing.T) {
	w := newWorld(t, 3, 5)
	var d *Driver
	polls := 0
	d = New(Config{Env: w.env, Cluster: lossyPolls{w, func() bool { polls++; return polls%2 == 1 }}, Records: w.records})
	d.Start(1)
	w.until(5*time.Minute, "raised", w.raised)
}

type lossyPolls struct {
	*world
	lose func() bool
}

func (l lossyPolls) Reports(only []shard.ID, done func([]Report)) {
	if !l.lose() {
		l.world.Reports(only, done)
	}
}

// StalePlacementLeaderStep: a driver that does not know yet that it is no longer
// the one goes on beside its successor, and no change is applied twice.
func TestStalePlacementLeaderStep(t *testing.T) {
	w := newWorld(t, 3, 200)
	first, second := w.driver(), w.driver()
	first.Start(1)
	w.env.RunFor(500 * time.Millisecond)
	second.Start(2)
	w.until(20*time.Second, "raised", w.raised)
	if want := 4 * len(w.shards); w.changes != want {
		t.Errorf("%d changes instead of %d", w.changes, want)
	}
	for _, s := range w.shards {
		if len(s.d.Replicas) != 3 {
			t.Errorf("shard %d: %+v", s.d.ID, s.d.Replicas)
		}
	}
}

func TestAnotherDriverGoesOnWhereOneStopped(t *testing.T) {
	for _, at := range []time.Duration{20, 50, 100, 250, 300, 350, 500, 900} {
		w := newWorld(t, 3, 200)
		first, second := w.driver(), w.driver()
		first.Start(1)
		w.env.RunFor(at * time.Millisecond)
		first.Stop(1)
		w.env.RunFor(100 * time.Millisecond) // steps in flight end by themselves
		changes, polls := w.changes, w.polls
		w.env.RunFor(10 * time.Second)
		if w.changes != changes || w.polls != polls {
			t.Fatalf("a driver that was stopped made %d changes and %d polls", w.changes-changes, w.polls-polls)
		}
		second.Start(2)
		w.until(20*time.Second, "raised", w.raised)
		if want := 4 * len(w.shards); w.changes != want {
			t.Errorf("stopped after %d ms: %d changes instead of %d", at, w.changes, want)
		}
	}
}

func TestTermsOfStartAndStop(t *testing.T) {
	w := newWorld(t, 1, 1)
	d := w.driver()
	running := func() bool { w.env.RunFor(time.Millisecond); return d.term != 0 }
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() { d.Stop(3) }, false},                       // a follower in term 3 …
		{func() { d.Start(3) }, true},                       // … that then wins it
		{func() { d.Stop(2) }, true},                        // late news of an earlier term
		{func() { d.Start(3) }, true},                       // told twice
		{func() { d.Stop(3) }, false},                       //
		{func() { d.Start(3) }, false},                      // a term is led once
		{func() { d.Start(5) }, true},                       //
		{func() { d.Stop(6) }, false},                       // somebody else leads in 6
		{func() { d.Start(7); d.Stop(7); d.Wake() }, false}, //
		{func() { d.Start(8); d.Start(9) }, true},           //
		{func() { d.Stop(8) }, true},                        //
		{func() { d.Stop(9) }, false},                       //
	} {
		if step.do(); running() != step.want {
			t.Fatalf("step %d: running is %v", i, !step.want)
		}
	}
}

// A node that misses a poll, or dies and comes back, costs no replica and no
// needless move.
func TestANodeThatIsSilentForAMomentMovesNothing(t *testing.T) {
	w := newWorld(t, 3, 60)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(3 * time.Second)
	transfers, changes := w.transfers, w.changes
	w.mute[3] = true
	w.env.RunFor(2 * time.Second)
	w.mute[3] = false
	w.env.RunFor(5 * time.Second)
	if w.transfers != transfers || w.changes != changes {
		t.Fatalf("%d transfers, %d changes; leaders %v", w.transfers-transfers, w.changes-changes, w.leaders())
	}
}

func TestANodeThatComesBackLeadsAgain(t *testing.T) {
	w := newWorld(t, 3, 60)
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.kill(3)
	w.env.RunFor(20 * time.Second)
	if counts := w.leaders(); counts[2] != 0 || counts[0]-counts[1] > 2 || counts[1]-counts[0] > 2 {
		t.Fatalf("leaders %v", counts)
	}
	if err := w.complete(3); err != nil {
		t.Fatal(err)
	}
	w.nodes[3] = true
	w.until(10*time.Second, "spread again", w.raised)
}

func TestANodeThatDiesWhileShardsAreRaised(t *testing.T) {
	w := newWorld(t, 3, 100)
	w.driver().Start(1)
	w.env.RunFor(400 * time.Millisecond)
	w.kill(3)
	w.until(20*time.Second, "two live voters each", func() bool {
		for _, s := range w.shards {
			live := 0
			for _, r := range s.d.Replicas {
				if r.Role == shard.Voter && w.nodes[r.Node] {
					live++
				}
			}
			if live < 2 || s.d.Joint() {
				return false
			}
		}
		return true
	})
	w.nodes[3] = true
	for _, s := range w.shards {
		for _, r := range s.d.Replicas {
			s.match[r.ID] = commitIndex
		}
	}
	w.until(20*time.Second, "three voters each", w.raised)
}

// What a poll says of a shard that changed after the poll began is older than
// what the change's answer said.
func TestAnOldReportDoesNotUndoAnAnswer(t *testing.T) {
	w := newWorld(t, 3, 3)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(3 * time.Second)
	e := d.entries[2]
	before := e.Leader
	report := []Report{{Node: before, Replicas: []ReplicaReport{{Descriptor: e.Descriptor, Term: 99, Leading: true}}}}
	asked := d.clock
	d.clock++
	e.changed = d.clock
	e.Leader = 1 + before%3
	d.merge(report, nil, asked)
	if e.Leader == before {
		t.Fatalf("a report from before a transfer made node %d the leader again", before)
	}
	e.InFlight = &placement.Step{}
	d.merge(report, nil, d.clock+1)
	if e.Leader == before {
		t.Fatal("a report changed a shard whose step is in flight")
	}
	e.InFlight = nil
	d.merge(report, nil, d.clock+1)
	if e.Leader != before {
		t.Fatal("a report from after the transfer was ignored")
	}
}

// Of two replicas that believe to lead, the one in the newer term does, whoever
// reports first and although the other may be the last to be heard.
func TestTheNewestLeaderCounts(t *testing.T) {
	w := newWorld(t, 3, 3)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(3 * time.Second)
	e := d.entries[2]
	says := func(node shard.NodeID, term uint64) Report {
		return Report{Node: node, Replicas: []ReplicaReport{{Descriptor: e.Descriptor, Term: term, Leading: true}}}
	}
	for i, reports := range [][]Report{{says(1, 20), says(2, 21)}, {says(2, 21), says(3, 19)}, {says(3, 19)}} {
		d.clock++
		d.merge(reports, nil, d.clock)
		if want := shard.NodeID(2); e.Leader != want {
			t.Fatalf("poll %d: node %d leads", i, e.Leader)
		}
	}
	// The new leader's node answers, and it no longer leads.
	d.clock++
	d.merge([]Report{says(3, 19), {Node: 2}}, nil, d.clock)
	if e.Leader != 0 {
		t.Fatalf("node %d leads", e.Leader)
	}
}

func TestAnswersToAnEarlierRunAreDropped(t *testing.T) {
	w := newWorld(t, 3, 3)
	d := w.driver()
	d.Start(1)
	w.env.RunFor(20 * time.Millisecond)
	d.Stop(1)
	d.Start(2)
	d.submit(d.run, func() { t.Error("an answer to the first run was taken in by the second") })
	w.env.RunFor(0)
}

// With little room for steps every one that ends makes room for the next at once.
func TestRoomIsUsedAsSoonAsThereIsSome(t *testing.T) {
	w := newWorld(t, 3, 100)
	New(Config{Env: w.env, Cluster: w, Records: w.records, Limits: placement.Limits{StepsMax: 2}}).Start(1)
	w.until(5*time.Second, "raised two steps at a time", w.raised)
}

// An answer that promised more than happened is corrected by the leader's report.
func TestAReportOfTheLeaderCorrectsAnAnswer(t *testing.T) {
	w := newWorld(t, 3, 3)
	d := w.driver()
	d.Start(1)
	w.env.RunUntil(func() bool { return d.entries[2] != nil }, time.Second)
	ahead := d.entries[2].Descriptor.Clone()
	ahead.Epoch.ConfVersion += 9
	d.entries[2].Descriptor = ahead
	w.until(10*time.Second, "raised", w.raised)
}

func TestARefusalTellsTheCurrentDescriptor(t *testing.T) {
	w := newWorld(t, 3, 1)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(3 * time.Second)
	e := d.entries[2]
	newer := e.Descriptor.Clone()
	newer.Epoch.ConfVersion += 5
	st, ok := d.plan.Next(&e.Shard)
	if ok {
		t.Fatalf("%v", &st)
	}
	e.failures = 0
	d.failed(e, &st, errors.Join(&shard.WrongShardError{Shard: 2, Descriptors: []shard.Descriptor{newer}}))
	if e.Descriptor.Epoch != newer.Epoch || !e.Hold {
		t.Fatalf("%+v", e.Shard)
	}
}

func TestShardsAndNodesThatAreGoneAreForgotten(t *testing.T) {
	w := newWorld(t, 3, 10)
	d := w.driver()
	d.Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.nodes[4] = true // it answers, and never registers
	w.env.RunFor(2 * time.Second)
	if len(d.members) != 4 {
		t.Fatalf("%d nodes are known", len(d.members))
	}
	w.shards = w.shards[:5]
	w.nodes[3], w.nodes[4] = false, false
	w.env.RunFor(2 * forgetAfter)
	if len(d.entries) != 5 || len(d.sorted) != 5 || len(d.members) != 3 {
		t.Fatalf("%d shards and %d nodes are remembered", len(d.entries), len(d.members))
	}
}

// BenchmarkRaise is what raising 1,000 shards costs the driver, its fake world
// included.
func BenchmarkRaise(b *testing.B) {
	for b.Loop() {
		w := newWorld(b, 3, 1000)
		w.driver().Start(1)
		w.until(20*time.Second, "raised", w.raised)
	}
}
