package replica

import (
	"errors"
	"slices"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

func TestDescriptorsAndLeadershipAreTold(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	if got := turn(turn{r}).Descriptor().Replicas; len(got) != 1 || got[0].ID != 1 {
		t.Errorf("members %v", got)
	}
	g.addLearner(t, func() {
		// The group sees the change before it is published, others do not.
		if got := g.machine.Descriptor().Replicas; len(got) != 2 {
			t.Errorf("members %v", got)
		}
		if s, _ := r.State(); len(s.Descriptor.Replicas) != 1 {
			t.Errorf("published early: %+v", s)
		}
	})
	g.machine.LeaderChanged(raftgroup.Leadership{Term: 6, Leader: 2, Node: 2})
	g.addLearner(t, func() {})
	g.lead(7)
	g.machine.LeaderChanged(raftgroup.Leadership{Term: 7, Leader: 1, Node: 1, Leading: true})
	want := []string{
		"shard 7 epoch 2.1 leading true term 5",
		"shard 7 epoch 2.2 leading true term 5",
		"shard 7 epoch 2.3 leading false term 6",
		"shard 7 epoch 2.3 leading true term 7",
	}
	if !slices.Equal(h.told, want) {
		t.Errorf("told\n%q, want\n%q", h.told, want)
	}
	if l := r.Leadership(); l.Term != 7 || !l.Leading {
		t.Errorf("%+v", l)
	}
	if g.machine.Applied() != (raftgroup.Position{Index: 12, Term: 6}) && g.machine.Applied().Index != 12 {
		t.Errorf("%+v", g.machine.Applied())
	}
}

// A replica that a message created knows nothing until a snapshot is installed.
func TestUninitializedReplica(t *testing.T) {
	h := newHome(t)
	_, other := h.shard(8, "\x02m", "\x02q")
	r, g := h.replica(7, nil)
	if _, ok := r.State(); ok || g.machine.Descriptor() != nil || g.machine.Applied() != (raftgroup.Position{}) {
		t.Error("an uninitialized replica has a state")
	}
	state, _ := other.machine.(turn).State()
	state.Descriptor.ID, state.Applied, state.AppliedTerm = 7, 99, 4
	state.Descriptor.Span = shard.Span{Start: []byte("\x02b"), End: []byte("\x02m")}
	g.machine.InstallBegin()
	g.machine.InstallEnd(&state)
	if s, ok := r.State(); !ok || s.Applied != 99 || g.machine.Applied() != (raftgroup.Position{Index: 99, Term: 4}) {
		t.Errorf("%+v, %v", s, ok)
	}
	g.lead(term)
	if got := describe(h.send(target(8), get("\x02c")).once(t).Err); got != "wrong shard 8 [8 7]" {
		t.Errorf("the new span is not found by its key: %s", got)
	}
	g.index = 99
	if p := h.write(g, "\x02k", "v"); p.Err != nil {
		t.Error(p.Err)
	}
	if all := h.store.Replicas(); len(all) != 2 || all[0] != r {
		t.Errorf("%v", all)
	}
	if got, ok := h.store.Replica(7); !ok || got != r {
		t.Error("not found")
	}
}

func TestChangeMembership(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	s, _ := r.State()
	add := shard.MembershipChange{Shard: 7, Epoch: s.Descriptor.Epoch, Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 2, Node: 2}}}
	var outcomes []error
	done := func(err error) { outcomes = append(outcomes, err) }
	last := func() error { return outcomes[len(outcomes)-1] }

	bad := add
	bad.Changes = []shard.Change{{Kind: shard.Demote, Replica: 1}}
	r.ChangeMembership(bad, done)
	if got := describe(last()); got != "invalid membership change" {
		t.Error(got)
	}
	old := add
	old.Epoch.ConfVersion--
	r.ChangeMembership(old, done)
	if got := describe(last()); got != "wrong shard 7 [7]" {
		t.Error(got)
	}
	if len(g.changes) != 0 {
		t.Fatal("a change that does not fit was proposed")
	}

	r.ChangeMembership(add, done)
	if len(outcomes) != 2 || len(g.changes) != 1 || g.changes[0].term != term {
		t.Fatalf("%v, %+v", outcomes, g.changes)
	}
	r.ChangeMembership(add, done)
	if !errors.Is(last(), shard.ErrDropped) || len(g.changes) != 1 {
		t.Errorf("a second change at once: %v", last())
	}
	g.changes[0].done(&shard.NotLeaderError{Shard: 7, Leader: shard.LeaderHint{Replica: 2, Node: 22, Term: 9}})
	if got := describe(last()); got != "not leader 7: replica 2 on node 22 (node22:7400) in term 9" {
		t.Error(got)
	}
	r.ChangeMembership(add, done)
	g.changes[1].done(nil)
	if last() != nil || len(outcomes) != 5 {
		t.Errorf("%v", outcomes)
	}
	g.machine.LeaderChanged(raftgroup.Leadership{Term: 6, Leader: 3, Node: 33})
	r.ChangeMembership(add, done)
	if got := describe(last()); got != "not leader 7: replica 3 on node 33 (node33:7400) in term 6" {
		t.Error(got)
	}
}

func TestBudget(t *testing.T) {
	b := budget{countMax: 2, bytesMax: 10}
	if b.take(11) || !b.take(10) || b.take(1) || !b.take(0) || b.take(0) {
		t.Error("bounds")
	}
	b.give(10)
	b.give(0)
	if b.count.Load() != 0 || b.bytes.Load() != 0 {
		t.Errorf("%d, %d", b.count.Load(), b.bytes.Load())
	}
}
