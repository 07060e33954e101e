package catalog

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// Every ID that is handed out comes from a counter, and every counter jumps; the one
// of operations may not be there yet.
func TestNoIDIsGivenAgainAfterARecovery(t *testing.T) {
	h := newHouse(t)
	h.bootstrap(3)
	recoverCounters := func() {
		t.Helper()
		ws, err := RecoveredCounters(func(key []byte) ([]byte, error) {
			if !h.kv.Has(key) {
				return nil, nil
			}
			return h.kv.Get(key), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range ws {
			h.kv.Put(w.Key, w.Value)
		}
	}
	recoverCounters()
	op, err := h.begin(Operation{Shard: 2, To: 2})
	if err != nil || op.ID <= recoveredOperations {
		t.Fatalf("%+v, %v", op, err)
	}
	recoverCounters()
	later, err := h.begin(Operation{Shard: 3, To: 2})
	if err != nil || later.ID <= op.ID+recoveredOperations {
		t.Fatalf("%+v after %+v, %v", later, op, err)
	}
	if id, err := h.allocate(); err != nil || id <= 2*recoveredNodes {
		t.Fatalf("node %d, %v", id, err)
	}
	if _, err := RecoveredCounters(func([]byte) ([]byte, error) { return nil, nil }); !errors.Is(err, shard.ErrMalformed) {
		t.Fatalf("a meta shard without counters: %v", err)
	}
}
