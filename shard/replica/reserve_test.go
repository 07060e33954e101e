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
