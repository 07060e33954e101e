package raftgroup

import (
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A machine is known to others (the sweeper, which starts before Load) as soon as
// NewMachine has made it; they may ask its group for a turn before newGroup returns.
func TestTurnBeforeTheGroupIsMade(t *testing.T) {
	e := newThreads()
	engine, err := storage.Open(storage.Config{Dir: "store", FS: vfs.NewMem(), MemoryBytes: 32 << 20, Env: e,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	b := engine.NewBatch()
	b.PutInitialReplica(1, &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{
		ID: 5, Span: registerSpan(5), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 2,
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}}})
	if err := engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	var hosts [4]*Host
	ran := make(chan struct{})
	hosts[1], err = NewHost(Config{Node: 1, Incarnation: 1, Env: e, Engine: engine, Transport: newDirect(e, 1, &hosts), Tick: time.Hour,
		NewMachine: func(g *Group, s *storage.ReplicaState) (Machine, error) {
			g.Turn(func() { close(ran) }, func(error) { close(ran) })
			time.Sleep(50 * time.Millisecond) // the rest of newGroup takes its time
			return newRegister(t, engine, g, s), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := hosts[1].Load(); err != nil {
		t.Fatal(err)
	}
	<-ran
	hosts[1].Close()
	e.close()
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}
