package sim

import (
	"log/slog"
	"testing"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

// partedMachine is one of a shard that was split.
type partedMachine struct {
	raftgroup.Machine
	left shard.Descriptor
}

func (m *partedMachine) Descriptor() *shard.Descriptor { return &m.left }

func TestSplitVerdicts(t *testing.T) {
	before := userShard(2, 1, "", "\x02t")
	for name, c := range map[string]struct {
		tamper func(h *machine.Header, before, left *shard.Descriptor, born *storage.ReplicaState)
		want   string
	}{
		"as it should be":           {nil, ""},
		"of an older version":       {func(h *machine.Header, _, _ *shard.Descriptor, _ *storage.ReplicaState) { h.Version = 7 }, "a split for epoch"},
		"of an older configuration": {func(_ *machine.Header, b, _ *shard.Descriptor, _ *storage.ReplicaState) { b.Epoch.ConfVersion++ }, "a split for epoch"},
		"while it is joint": {func(_ *machine.Header, b, _ *shard.Descriptor, _ *storage.ReplicaState) {
			b.Replicas = []shard.Replica{{ID: 1, Node: 1, Role: shard.Outgoing}}
		}, "joint: true"},
		"with a gap": {func(_ *machine.Header, _, left *shard.Descriptor, _ *storage.ReplicaState) {
			left.Span.End = []byte("\x02l")
		}, "is split into"},
		"at another key": {func(_ *machine.Header, _, left *shard.Descriptor, s *storage.ReplicaState) {
			left.Span.End, s.Descriptor.Span.Start = []byte("\x02l"), []byte("\x02l")
		}, "is split into"},
		"and the version stays": {func(_ *machine.Header, _, left *shard.Descriptor, _ *storage.ReplicaState) { left.Epoch.Version = 1 }, "makes epochs"},
		"and is born older": {func(_ *machine.Header, _, _ *shard.Descriptor, s *storage.ReplicaState) {
			s.Descriptor.Epoch.Version = 1
		}, "makes epochs"},
		"and is born below what was read": {func(_ *machine.Header, _, _ *shard.Descriptor, s *storage.ReplicaState) { s.LastRevision = 7 }, "with last revision 7"},
		"and is born below the floor":     {func(_ *machine.Header, _, _ *shard.Descriptor, s *storage.ReplicaState) { s.Floor = 2 }, "with floor 2"},
		"and forgets what was split off":  {func(_ *machine.Header, _, _ *shard.Descriptor, s *storage.ReplicaState) { s.Descriptor.ID = 9 }, "has split off"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLog().w
			w.begins([]shard.Descriptor{{ID: shard.MetaID, Span: shard.SystemSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}}, before, userShard(3, 1, "\x02t", "")})
			w.births[9] = shardIndex{2, 5}
			h, was, left, born := machine.Header{Version: 1}, before, userShard(2, 2, "", "\x02m"), &storage.ReplicaState{LastRevision: 8, Floor: 3, Descriptor: userShard(4, 2, "\x02m", "\x02t")}
			if c.tamper != nil {
				c.tamper(&h, &was, &left, born)
			}
			op := shard.AppendCommand(machine.AppendHeader(nil, h), &shard.Command{Kind: shard.KindSplit, Key: user("m"), Right: born.Descriptor.ID, ConfVersion: 1})
			o := &observer{Machine: &partedMachine{left: left}, witness: w, node: "n1", shard: 2, last: 8, floor: 3}
			o.split(raftgroup.Position{Index: 11, Term: 1}, op, &was, &raftgroup.Result{Born: born})
			w.covers("n1", &left)
			o.parted()
			w.covered()
			verdict(t, w.Err(), c.want)
		})
	}
}

// A caller hears of shards only what is true of its operation.
func TestErrorsThatReachCallers(t *testing.T) {
	parted := (&shard.Descriptor{Epoch: shard.Epoch{Version: 2}}).Parted()
	within, across := batch(nil, ops(toPut("\x02a", "1"), toPut("\x02b", "1")), nil), batch(nil, ops(toPut("\x02a", "1"), toPut("\x02x", "1")), nil)
	for _, c := range []struct {
		name string
		cmd  shard.Command
		err  error
		want string
	}{
		{"none", within, nil, ""},
		{"a batch over two shards", across, shard.ErrSpansShards, ""},
		{"a batch within one", within, shard.ErrSpansShards, "covers all of"},
		{"a later attempt whose keys were parted", across, parted, ""},
		{"a later attempt whose keys were not", within, parted, "covers all of"},
		{"an older attempt than is kept", within, &shard.OutcomeLostError{Reason: "it is older than the retention"}, ""},
		{"undetermined", within, shard.ErrUndetermined, ""},
		{"given up", within, &client.GaveUpError{Last: &shard.WrongShardError{}}, ""},
		{"sent astray", within, &shard.WrongShardError{Shard: 2}, "reaches a caller"},
		{"not a leader", within, &shard.NotLeaderError{Shard: 2}, "reaches a caller"},
		{"what a disk says that is as it was", within, &shard.InternalError{}, "reaches a caller"},
		{"busy", within, shard.ErrBusy, "reaches a caller"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newLog().w
			w.begins([]shard.Descriptor{userShard(2, 2, "", "\x02m"), userShard(4, 2, "\x02m", "")})
			(&Workload{cluster: &Cluster{witness: w}}).reached(&c.cmd, c.err)
			verdict(t, w.Err(), c.want)
		})
	}
}

// A store has no states of two shards that overlap.
func TestStatesOfOverlappingShards(t *testing.T) {
	for name, c := range map[string]struct {
		other shard.Descriptor
		want  string
	}{
		"side by side": {userShard(3, 1, "\x02m", ""), ""},
		"overlapping":  {userShard(3, 1, "\x02k", ""), "two shards that overlap"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLog().w
			e, err := storage.Open(storage.Config{Dir: "store", FS: NewDisk().FS(), MemoryBytes: 8 << 20, Env: w.loop.NewEnv("n1", clockExact), Simulated: true,
				Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			b := e.NewBatch()
			b.PutInitialReplica(1, &storage.ReplicaState{Descriptor: userShard(2, 1, "", "\x02m")})
			b.PutInitialReplica(1, &storage.ReplicaState{Descriptor: c.other})
			if err := e.Commit(b); err != nil {
				t.Fatal(err)
			}
			w.disjoint("n1", e)
			verdict(t, w.Err(), c.want)
		})
	}
}
