package replica

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A span is reserved once, and not while another shard's replica covers a part.
func TestSpansAreReservedApart(t *testing.T) {
	h := newHome(t)
	state := func(id shard.ID, start, end string) *storage.ReplicaState {
		return &storage.ReplicaState{Descriptor: shard.Descriptor{ID: id,
			Span: shard.Span{Start: shard.UserKey([]byte(start)), End: shard.UserKey([]byte(end))}}}
	}
	reserve := func(id shard.ID, start, end string, free bool) (release func()) {
		t.Helper()
		release, err := h.store.ReserveSpan(state(id, start, end))
		if free != (err == nil) || err != nil && !errors.Is(err, shard.ErrBusy) {
			t.Errorf("shard %d [%s, %s): %v", id, start, end, err)
		}
		return release
	}
	h.shard(7, string(shard.UserKey([]byte("m"))), string(shard.UserKey([]byte("p"))))
	first := reserve(100, "a", "c", true)
	reserve(101, "b", "d", false)
	reserve(100, "a", "c", false) // one snapshot of a shard at a time
	second := reserve(101, "c", "d", true)
	reserve(102, "o", "q", false) // the replica's
	reserve(7, "m", "p", true)()  // its own
	first()
	second()
	reserve(101, "b", "d", true)
}

// The span of a shard that has split off is kept for its replica here until that has its
// state: nothing else covers it meanwhile, and a snapshot of a part of it, of a shard that
// has split off in turn, would be overwritten by what the replica applies next.
func TestSpanIsKeptForABirth(t *testing.T) {
	h := newHome(t)
	born := &storage.ReplicaState{Descriptor: shard.Descriptor{ID: 9, Span: shard.Span{Start: shard.UserKey([]byte("m")), End: shard.UserKey([]byte("z"))},
		Replicas: []shard.Replica{{ID: 3, Node: h.store.cfg.Node, Role: shard.Voter}}, NextReplica: 4}}
	part := &storage.ReplicaState{Descriptor: shard.Descriptor{ID: 10, Span: shard.Span{Start: shard.UserKey([]byte("p")), End: shard.UserKey([]byte("z"))}}}
	free := func() bool {
		release, err := h.store.ReserveSpan(part)
		if err == nil {
			release()
		}
		return err == nil
	}
	h.store.reserveBirth(born)
	if !free() {
		t.Error("kept for a replica that is not here")
	}
	for _, c := range []struct {
		self shard.ReplicaID
		kept bool
	}{{3, true}, {4, false}} {
		r := h.store.newReplica(&fakeGroup{}, 9, c.self, nil)
		h.store.replicas.put(r)
		h.store.reserveBirth(born)
		if free() == c.kept {
			t.Errorf("replica %d: free %v", c.self, free())
		}
		if release, err := h.store.ReserveSpan(born); err != nil {
			t.Errorf("replica %d's own snapshot: %v", c.self, err)
		} else {
			release()
		}
		turn{r}.Removed()
		if !free() {
			t.Errorf("kept for replica %d, which is gone", c.self)
		}
	}
	r := h.store.newReplica(&fakeGroup{}, 9, 3, nil)
	h.store.replicas.put(r)
	h.store.reserveBirth(born)
	turn{r}.InstallBegin()
	turn{r}.InstallEnd(born)
	if len(h.store.reserved.births) > 0 {
		t.Error("kept, though the replica has its state")
	}
	if free() {
		t.Error("free, though the replica covers it")
	}
	h.store.reserveBirth(born)
	if len(h.store.reserved.births) > 0 {
		t.Error("kept once more")
	}
}
