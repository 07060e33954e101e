package storage

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// populated has two replicas side by side, 5 over [a, m) and 6 over [m, z), both
// with data, a log and a vote.
func populated(t *testing.T, e *Engine) {
	t.Helper()
	commitSync(t, e, func(b *Batch) {
		b.PutInitialReplica(1, testState(5, userSpan("a", "m")))
		b.PutInitialReplica(1, testState(6, userSpan("m", "z")))
		for i, key := range []string{"a", "b", "lzz", "m", "n"} {
			b.PutVersion(userKey(key), shard.Revision(i+1), VersionHeader{}, []byte("v"))
		}
	})
	for _, id := range []shard.ID{5, 6} {
		l, err := e.OpenLog(id, 1)
		if err != nil {
			t.Fatal(err)
		}
		commitSync(t, e, func(b *Batch) {
			l.Append(b, []raftpb.Entry{{Index: 11, Term: 2, Data: []byte("x")}, {Index: 12, Term: 2}})
			l.SetHardState(b, raftpb.HardState{Term: 2, Vote: 1, Commit: 11})
		})
	}
}

func remove(t *testing.T, e *Engine, id shard.ID, next shard.ReplicaID) {
	t.Helper()
	commit(t, e, func(b *Batch) {
		if err := e.StageRemoval(b, id, next); err != nil {
			t.Fatal(err)
		}
	})
}

// intact checks that all of shard 5's replica is there, and gone that nothing of it is
// but a tombstone. Both check that its neighbour is untouched.
func intact(t *testing.T, e *Engine) {
	t.Helper()
	checkReplicas(t, e, []ReplicaRecord{{5, 1, true}, {6, 1, true}}, 5)
	if _, found, err := e.Tombstone(5); found || err != nil {
		t.Errorf("tombstone %v, %v", found, err)
	}
	l, err := e.OpenLog(5, 1)
	if err != nil {
		t.Fatal(err)
	}
	if hs, _ := l.InitialState(); hs.Term != 2 || hs.Vote != 1 {
		t.Errorf("hard state %+v", hs)
	}
	if last, _ := l.LastIndex(); last != 12 {
		t.Errorf("the log ends at %d", last)
	}
}

func gone(t *testing.T, e *Engine, next shard.ReplicaID) {
	t.Helper()
	checkReplicas(t, e, []ReplicaRecord{{6, 1, true}}, 2)
	if got, found, err := e.Tombstone(5); !found || err != nil || got.NextReplica != next {
		t.Errorf("tombstone %+v, %v, %v", got, found, err)
	}
	if _, found, err := e.ReplicaState(5); found || err != nil {
		t.Errorf("state %v, %v", found, err)
	}
	// Whoever comes next begins with nothing.
	l, err := e.OpenLog(5, next)
	if err != nil {
		t.Fatal(err)
	}
	hs, _ := l.InitialState()
	if last, _ := l.LastIndex(); last != 0 || hs.Term != 0 || hs.Vote != 0 || hs.Commit != 0 {
		t.Errorf("the next replica finds a log up to %d and %+v", last, hs)
	}
}

func checkReplicas(t *testing.T, e *Engine, want []ReplicaRecord, rows int) {
	t.Helper()
	if got, err := e.Replicas(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("replicas %v, %v, want %v", got, err, want)
	}
	if got := dump(t, e, userSpan("a", "zz")); len(got) != rows || !slices.Contains(got, "m@4=v") || !slices.Contains(got, "n@5=v") {
		t.Errorf("rows %v, want %d", got, rows)
	}
}

func TestRemoval(t *testing.T) {
	e := open(t, Config{})
	populated(t, e)
	view, snapshot := e.NewView(), e.NewSnapshot()
	defer view.Close()
	defer snapshot.Close()
	remove(t, e, 5, 4)
	gone(t, e, 4)

	// Who reads goes on reading what was there.
	if _, _, found, err := view.Get(userKey("b"), shard.MaxRevision); !found || err != nil {
		t.Errorf("a view from before: %v, %v", found, err)
	}
	x, err := snapshot.Export(5)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	records := 0
	for {
		chunk, err := x.Next()
		if err != nil {
			break
		}
		if kind, _, payload, _, err := decodeChunk(chunk); err == nil && kind == chunkData {
			for d := (decoder{b: payload}); len(d.b) > 0; records++ {
				d.dataRecord()
			}
		}
	}
	if records != 3 {
		t.Errorf("an export from before the removal has %d records, want 3", records)
	}
}

// A tombstone is for ever: a later removal of a replica with a higher ID raises it,
// and nothing lowers it. Records of a replica that it does not cover are a bug.
func TestTombstoneRisesOnly(t *testing.T) {
	e := open(t, Config{})
	populated(t, e)
	remove(t, e, 5, 4)
	remove(t, e, 5, 3)
	gone(t, e, 4)
	remove(t, e, 5, 9)
	gone(t, e, 9)
	remove(t, e, 77, 2) // of which there are no records
	if got, found, err := e.Tombstone(77); !found || err != nil || got.NextReplica != 2 {
		t.Errorf("tombstone %+v, %v, %v", got, found, err)
	}
	b := e.NewBatch()
	defer b.Close()
	if err := e.StageRemoval(b, 6, 1); err == nil || !b.Empty() {
		t.Errorf("replica 1 of shard 6 was removed by a tombstone below 1: %v", err)
	}
}

// A crash leaves all of the replica, or nothing but the tombstone.
func TestRemovalIsAtomic(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e := open(t, Config{FS: fs})
	populated(t, e)
	remove(t, e, 5, 4)
	lost := fs.CrashClone(vfs.CrashCloneCfg{})
	commitSync(t, e, func(*Batch) {})
	kept := fs.CrashClone(vfs.CrashCloneCfg{})
	intact(t, open(t, Config{FS: lost}))
	gone(t, open(t, Config{FS: kept}), 4)
}

func TestRemovalOfUnreadableReplica(t *testing.T) {
	e := open(t, Config{})
	populated(t, e)
	commit(t, e, func(b *Batch) { b.set(recordKey(5, stateRecord), []byte{99}) })
	b := e.NewBatch()
	defer b.Close()
	if err := e.StageRemoval(b, 5, 4); !errors.Is(err, shard.ErrMalformed) || !b.Empty() {
		t.Errorf("a replica whose span is not known was removed: %v", err)
	}
}
