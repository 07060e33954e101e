package node

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/raftgroup/raftgrouptest"
	"github.com/kiloraft/kiloraft/revision"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

func members(roles ...shard.Role) (rs []shard.Replica) {
	for i, role := range roles {
		rs = append(rs, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1), Role: role})
	}
	return rs
}

// Whether a majority may be left: by voters, and in a joint configuration by both halves.
func TestMajorityLeft(t *testing.T) {
	const v, l, in, out = shard.Voter, shard.Learner, shard.Incoming, shard.Outgoing
	for _, c := range []struct {
		all  []shard.Replica
		left []int // indices
		want bool
	}{
		{members(v), []int{0}, true},
		{members(v, v), []int{0}, false},
		{members(v, v, v), []int{0}, false},
		{members(v, v, v), []int{0, 2}, true},
		{members(v, v, v, v), []int{0, 1}, false},
		{members(v, v, v, l, l), []int{0, 3, 4}, false},
		{members(v, v, v, l), []int{3}, false},
		{members(v, v, in, out), []int{0, 1}, true},
		{members(v, v, in, out), []int{0, 2}, false},
		{members(v, v, in, out), []int{0, 3}, false},
		{members(v, v, in, out), []int{0, 2, 3}, true},
		{members(v, in, in, out, out), []int{0, 1, 3}, true},
		{members(v, in, in, out, out), []int{0, 1, 2}, false},
	} {
		var left []shard.Replica
		for _, i := range c.left {
			left = append(left, c.all[i])
		}
		if got := majority(c.all, left); got != c.want {
			t.Errorf("of %v there are %v: %v", c.all, left, got)
		}
	}
}

// A store with the meta shard and a user shard of three replicas each, of which it has
// replica 2 on node 2.
func recoverable(t *testing.T) (*storage.Engine, *prod.Env) {
	world := prod.New()
	e, err := storage.Open(storage.Config{Dir: "store", FS: vfs.NewMem(), Env: world, MemoryBytes: 32 << 20,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		world.Close()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	durably(t, func(done func()) error {
		return Bootstrap(e, world, "127.0.0.1:1", 1, func(storage.Identity) { done() })
	})
	b := e.NewBatch()
	b.PutIdentity(storage.Identity{Cluster: shard.ClusterID{1}, Node: 2, Incarnation: 1})
	for _, id := range []shard.ID{1, 2} {
		state, _, err := e.ReplicaState(id)
		if err != nil {
			t.Fatal(err)
		}
		state.Descriptor.Replicas = members(shard.Voter, shard.Voter, shard.Voter)
		state.Descriptor.NextReplica = 4
		state.LastRevision = shard.Revision(id) * 1000
		b.PutInitialReplica(2, &state)
	}
	durably(t, func(done func()) error { return e.CommitSync(b, 0, done) })
	return e, world
}

func durably(t *testing.T, commit func(done func()) error) {
	t.Helper()
	done := make(chan struct{})
	if err := commit(func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	<-done
}

// The plan changes nothing; carried out, it gives every shard one voter with a new ID, an
// epoch and IDs far above the old ones, and has the meta shard hand out nothing twice.
func TestRecover(t *testing.T) {
	e, world := recoverable(t)
	var invalid *shard.InvalidError
	if _, err := PlanRecovery(e, world, []shard.NodeID{1, 2}); !errors.As(err, &invalid) {
		t.Errorf("with the own node lost: %v", err)
	}
	plans, err := PlanRecovery(e, world, []shard.NodeID{1})
	if err != nil || len(plans) != 2 {
		t.Fatalf("%+v, %v", plans, err)
	}
	if p := plans[0]; !p.Majority || len(p.Gone) != 1 || len(p.Others) != 1 || p.Others[0].Node != 3 {
		t.Errorf("%+v", p)
	}
	before, _, _ := e.ReplicaState(2)
	again, err := PlanRecovery(e, world, []shard.NodeID{1, 3})
	if err != nil || again[1].Majority || len(again[1].Gone) != 2 || again[1].LastRevision != 2000 || again[1].New == plans[1].New {
		t.Fatalf("%+v, %v", again, err)
	}
	if now, _, _ := e.ReplicaState(2); now.Descriptor.NextReplica != before.Descriptor.NextReplica {
		t.Fatal("a plan has changed something")
	}
	durably(t, func(done func()) error { return Recover(e, again, done) })
	for i, p := range again {
		state, _, err := e.ReplicaState(p.Before.ID)
		if err != nil {
			t.Fatal(err)
		}
		d := state.Descriptor
		if len(d.Replicas) != 1 || d.Replicas[0] != (shard.Replica{ID: p.New, Node: 2, Role: shard.Voter}) || d.NextReplica != p.New+1 ||
			p.New < 4+recoveryJump || d.Epoch.ConfVersion < p.Before.Epoch.ConfVersion+recoveryJump || d.Epoch.Version != p.Before.Epoch.Version {
			t.Errorf("shard %d: %+v", i+1, d)
		}
		for _, id := range []shard.ReplicaID{1, 2, 3, 4, 1000} {
			if !d.Removed(id) {
				t.Errorf("replica %d of shard %d is not proven to be removed", id, p.Before.ID)
			}
		}
		if stone, ok, err := e.Tombstone(p.Before.ID); !ok || err != nil || stone.NextReplica != p.New {
			t.Errorf("tombstone %+v, %v, %v", stone, ok, err)
		}
		if _, err := e.OpenLog(p.Before.ID, p.New); err != nil {
			t.Error(err)
		}
	}
	v := e.NewView()
	defer v.Close()
	for key, least := range map[string]uint64{string(revision.BoundKey()): 2000 + recoveredRevisions, "\x01id/node": 1001, "\x01id/shard": 100_002} {
		value, _, _, err := v.Get([]byte(key), shard.MaxRevision)
		if err != nil || len(value) != 8 || binary.BigEndian.Uint64(value) != least {
			t.Errorf("%q is %x, want %d; %v", key, value, least, err)
		}
	}
	replicas, err := e.Replicas()
	if err != nil || len(replicas) != 2 || replicas[0].Replica != again[0].New {
		t.Errorf("%+v, %v", replicas, err)
	}
}

// waiting is what a log holds that is not applied.
type waiting struct {
	*raftgrouptest.Tail
	version uint64
}

// operations of the epoch version that the shard is expected to have by then, in one entry.
func (w *waiting) operations(cs ...shard.Command) {
	var ops [][]byte
	for i := range cs {
		ops = append(ops, shard.AppendCommand(machine.AppendHeader(nil, machine.Header{Revision: 5000, Version: w.version}), &cs[i]))
	}
	w.Operations(ops...)
}

// A replica that has a split in its log and has not applied it is no base for a recovery;
// a split that would be refused does no harm.
func TestASplitInTheLogIsFoundBeforeARecovery(t *testing.T) {
	put := shard.Command{Kind: shard.KindPut, Op: shard.OpID{Session: 1, Sequence: 1}, Key: shard.UserKey([]byte("k")), Value: []byte("v")}
	split := func(conf uint64, key string, right shard.ID) shard.Command {
		return shard.Command{Kind: shard.KindSplit, Key: shard.UserKey([]byte(key)), ConfVersion: conf, Right: right}
	}
	learner := func(conf uint64) *shard.MembershipChange {
		return &shard.MembershipChange{Shard: 2, Epoch: shard.Epoch{Version: 1, ConfVersion: conf}, Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 4, Node: 4}}}
	}
	for _, c := range []struct {
		name   string
		write  func(w *waiting)
		commit uint64
		index  uint64 // of the split that is found; 0: none
		says   string
	}{
		{name: "nothing", write: func(*waiting) {}},
		{name: "a leader's first entry and writes", write: func(w *waiting) {
			w.Operations()
			w.operations(put, put)
			w.Membership(learner(1))
		}},
		{name: "a split", write: func(w *waiting) {
			w.operations(put)
			w.operations(put, split(1, "m", 9), put)
			w.operations(put)
		}, index: 12, says: "version 2 or a higher one"},
		{name: "two splits", write: func(w *waiting) {
			w.operations(split(1, "m", 9))
			w.version = 2
			w.operations(split(1, "c", 10))
		}, index: 11, says: "shard 9 begins"},
		{name: "two splits for the same epoch, of which one takes effect", write: func(w *waiting) { w.operations(split(1, "m", 9)); w.operations(split(1, "c", 9)) }, index: 11},
		{name: "a split that is known to be committed", write: func(w *waiting) { w.operations(put); w.operations(split(1, "m", 9)) },
			commit: 12, index: 12, says: "start this node"},
		{name: "a split behind what is known to be committed", write: func(w *waiting) { w.operations(put); w.operations(split(1, "m", 9)) },
			commit: 11, index: 12, says: "version 2 or a higher one"},
		{name: "a split behind a membership change", write: func(w *waiting) {
			w.Membership(learner(1))
			w.operations(split(2, "m", 9))
		}, index: 12, says: "splits it at m"},
		{name: "one that the change before it will have refused", write: func(w *waiting) {
			w.Membership(learner(1))
			w.operations(split(1, "m", 9))
		}},
		{name: "one behind a change that will be refused", write: func(w *waiting) {
			w.Membership(learner(5))
			w.operations(split(1, "m", 9))
		}, index: 12},
		{name: "one for an earlier epoch", write: func(w *waiting) { w.version = 0; w.operations(split(1, "m", 9)) }},
		{name: "one where the shard begins", write: func(w *waiting) { w.operations(split(1, "", 9)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, world := recoverable(t)
			log, err := e.OpenLog(2, 2)
			if err != nil {
				t.Fatal(err)
			}
			w := &waiting{raftgrouptest.NewTail(log, 2), 1}
			c.write(w)
			b := e.NewBatch()
			if err := w.Stage(b, max(10, c.commit)); err != nil {
				t.Fatal(err)
			}
			durably(t, func(done func()) error { return e.CommitSync(b, 0, done) })
			plans, err := PlanRecovery(e, world, []shard.NodeID{1, 3})
			if err != nil || len(plans) != 2 || plans[0].Unapplied != nil {
				t.Fatalf("%+v, %v", plans, err)
			}
			p := plans[1]
			if c.index == 0 {
				if p.Unapplied != nil || p.Refusal() != nil {
					t.Fatalf("found %+v", p.Unapplied)
				}
				durably(t, func(done func()) error { return Recover(e, plans, done) })
				return
			}
			if p.Unapplied == nil || p.Unapplied.Index != c.index || p.Unapplied.Right != 9 {
				t.Fatalf("found %+v, want the split in entry %d", p.Unapplied, c.index)
			}
			err = Recover(e, plans, func() { t.Error("carried out") })
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			for _, p := range plans {
				if state, _, err := e.ReplicaState(p.Before.ID); err != nil || state.Descriptor.Epoch != p.Before.Epoch || state.Descriptor.NextReplica != p.Before.NextReplica {
					t.Errorf("changed to %+v, %v", state, err)
				}
			}
		})
	}
}
