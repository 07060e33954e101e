package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// remove carries out what a group does when its replica was removed.
func (g *fakeGroup) remove(t testing.TB) {
	t.Helper()
	g.refusal = &shard.WrongShardError{Shard: g.id}
	g.machine.Stopped(raftgroup.ErrRemoved)
	b := g.h.engine.NewBatch()
	if err := g.h.engine.StageRemoval(b, g.id, 9); err != nil {
		t.Fatal(err)
	}
	if err := g.h.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	g.machine.Removed()
}

// Reads that meet the removal of their replica are refused, never answered from what
// is left of the data: neither one that had its view open already, nor one whose
// view is opened afterwards, nor one that waited.
func TestReadsMeetARemoval(t *testing.T) {
	for _, kind := range []shard.Command{get("\x02k"), scan("\x02b", "\x02m")} {
		for _, when := range []string{"before the view", "with the view open", "while waiting"} {
			h := newHome(t)
			_, g := h.shard(7, "\x02b", "\x02m")
			h.write(g, "\x02k", "v")
			if when == "with the view open" {
				h.watched(func(n int) {
					if n == 1 {
						g.remove(t)
					}
				})
			}
			if when == "while waiting" {
				g.machine.InstallBegin()
			}
			a := h.send(target(7), kind)
			g.confirm(nil)
			if when == "while waiting" {
				h.steps.run()
				a.waits(t)
			}
			if when != "with the view open" {
				g.remove(t)
			}
			h.steps.run()
			if p := a.once(t); !errors.Is(p.Err, shard.ErrUnavailable) {
				t.Errorf("%v, %s: %+v", kind.Kind, when, p)
			}
			h.idle()
		}
	}
}

// A removed replica is not found any more, its span is free for others, and a later
// replica of its shard is not confused with it.
func TestRemovedReplicaIsForgotten(t *testing.T) {
	h := newHome(t)
	old, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "v")
	neighbour := &storage.ReplicaState{Descriptor: shard.Descriptor{ID: 8, Span: shard.Span{Start: []byte("\x02b"), End: []byte("\x02c")}}}
	if _, err := h.store.ReserveSpan(neighbour); !errors.Is(err, shard.ErrBusy) {
		t.Fatalf("a span that is taken: %v", err)
	}
	g.machine.Stopped(raftgroup.ErrRemoved)
	if _, err := h.store.ReserveSpan(neighbour); !errors.Is(err, shard.ErrBusy) {
		t.Errorf("a span whose data is still there: %v", err)
	}
	if _, here := h.store.Replica(7); !here {
		t.Error("forgotten before its data is gone")
	}
	g.remove(t)
	release, err := h.store.ReserveSpan(neighbour)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if r, here := h.store.Replica(7); here || len(h.store.Replicas()) != 0 {
		t.Errorf("replica %v is still there", r)
	}
	for _, c := range []shard.Command{get("\x02k"), put("\x02k", "w"), scan("\x02b", "\x02m")} {
		if got := describe(h.send(target(7), c).once(t).Err); got != "wrong shard 7 []" {
			t.Errorf("%v: %s", c.Kind, got)
		}
	}
	if _, err := h.store.InspectKey([]byte("\x02k")); !errors.As(err, new(*shard.WrongShardError)) {
		t.Errorf("inspected: %v", err)
	}

	next, _ := h.replica(7, nil)
	turn{old}.Removed()
	if r, here := h.store.Replica(7); !here || r != next {
		t.Error("the end of the old replica was the end of the new one")
	}
	h.idle()
}

// A sweep that is under way ends with its replica, and others go on.
func TestSweepMeetsARemoval(t *testing.T) {
	h := newHome(t, retained(time.Second))
	_, g := h.shard(7, "\x02b", "\x02m")
	for range 200 {
		h.write(g, "\x02k", "v")
	}
	h.steps.pass(2 * time.Second)
	g.turn(t) // the floor
	h.steps.pass(time.Second)
	if len(g.controls) == 0 {
		t.Fatal("no part of a sweep waits for a turn")
	}
	controls := g.controls
	g.controls = nil
	g.remove(t)
	for _, c := range controls {
		c.abandoned(g.refusal)
	}
	h.steps.pass(2 * time.Second)
	if h.store.upkeep.sweep.run != nil || h.store.upkeep.sweep.busy {
		t.Error("the sweep goes on")
	}
	_, other := h.shard(8, "\x02b", "\x02m")
	for range 200 {
		h.write(other, "\x02k", "v")
	}
	h.steps.pass(2 * time.Second)
	other.turn(t)
	h.steps.pass(time.Second)
	if other.drops() == 0 {
		t.Error("no other replica is swept")
	}
}
