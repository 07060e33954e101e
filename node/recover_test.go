package node

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/revision"
	"github.com/kiloraft/kiloraft/shard"
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
