package catalog

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

func TestRegisterNode(t *testing.T) {
	ours := router.Node{ID: 2, Address: "b:1", Incarnation: 5, StartNonce: 55, Version: "v"}
	older, same, copied, newer := ours, ours, ours, ours
	older.Incarnation, older.StartNonce = 4, 44
	copied.StartNonce = 66
	newer.Incarnation, newer.StartNonce = 6, 77
	for _, c := range []struct {
		name   string
		there  *router.Node
		refuse bool
	}{
		{"first start", nil, false},
		{"restart", &older, false},
		{"own attempt whose answer was lost", &same, false},
		{"a copy of the store started", &copied, true},
		{"a copy of the store is further", &newer, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			if c.there != nil {
				h.kv.Put(router.NodeKey(2), router.AppendNode(nil, c.there))
			}
			err := h.register(ours)
			if errors.Is(err, ErrStoreInUse) != c.refuse || err != nil && !c.refuse {
				t.Fatalf("%v", err)
			}
			want := ours
			if c.refuse {
				want = *c.there
			}
			if got, err := router.DecodeNode(h.kv.Get(router.NodeKey(2))); got != want || err != nil {
				t.Fatalf("record %+v, %v", got, err)
			}
		})
	}
}

func TestRegisterNodeIsIdempotentWhenAnswersAreLost(t *testing.T) {
	h := newHouse(t)
	lost := 0
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if cmd.Kind == shard.KindCompareAndPut && lost < 3 {
			lost++
			return shard.ErrUndetermined, true
		}
		return nil, true
	}
	n := router.Node{ID: 2, Incarnation: 1, StartNonce: 9}
	if err := h.register(n); err != nil {
		t.Fatal(err)
	}
	if lost != 1 {
		t.Fatalf("%d writes: the first one was found to have taken effect", lost)
	}
	if err := h.register(n); err != nil {
		t.Fatal(err)
	}
}

// SameStoreStartedTwiceRefused: of two processes that start with copies of one
// store at the same time exactly one registers, in every interleaving of their
// reads and writes.
func TestSameStoreStartedTwiceRefused(t *testing.T) {
	for _, copiesWriteFirst := range []bool{false, true} {
		h := newHouse(t)
		a := router.Node{ID: 2, Incarnation: 3, StartNonce: 1}
		b := a
		b.StartNonce = 2
		if copiesWriteFirst {
			// b's write lands between a's read and a's write.
			h.kv.Meanwhile = func(cmd *shard.Command) {
				if cmd.Kind == shard.KindCompareAndPut && !h.kv.Has(router.NodeKey(2)) {
					h.kv.Put(router.NodeKey(2), router.AppendNode(nil, &b))
				}
			}
			if err := h.register(a); !errors.Is(err, ErrStoreInUse) {
				t.Fatalf("%v", err)
			}
			continue
		}
		var errs [2]error
		pending := 2
		h.RegisterNode(a, func(err error) { errs[0] = err; pending-- })
		h.RegisterNode(b, func(err error) { errs[1] = err; pending-- })
		h.env.RunUntil(func() bool { return pending == 0 }, 1<<62)
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("%v", errs)
		}
	}
}

func TestRegisterNodeNeedsAnIdentity(t *testing.T) {
	h := newHouse(t)
	var invalid *shard.InvalidError
	for _, n := range []router.Node{{Incarnation: 1}, {ID: 1}} {
		if err := h.register(n); !errors.As(err, &invalid) || h.kv.Commands != 0 {
			t.Fatalf("%+v: %v", n, err)
		}
	}
}
