package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement/internal/fake"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// house is a catalog over a meta shard in memory.
type house struct {
	t   *testing.T
	env *fake.Env
	kv  *fake.KV
	*Catalog
}

func newHouse(t *testing.T) *house {
	e := fake.NewEnv(1)
	kv := fake.NewKV(e, 2*time.Millisecond)
	return &house{t: t, env: e, kv: kv, Catalog: New(kv, e, e.NewQueue("catalog"))}
}

// wait runs the loop until an operation has called back exactly once.
func (h *house) wait(start func(done func())) {
	h.t.Helper()
	calls := 0
	start(func() { calls++ })
	h.env.RunUntil(func() bool { return calls > 0 }, h.env.Now()+time.Hour)
	h.env.RunFor(time.Minute)
	if calls != 1 {
		h.t.Fatalf("done was called %d times", calls)
	}
}

func (h *house) register(n router.Node) (err error) {
	h.t.Helper()
	h.wait(func(done func()) { h.RegisterNode(n, func(e error) { err = e; done() }) })
	return err
}

func (h *house) update(e router.Entry, known []byte) (now []byte, err error) {
	h.t.Helper()
	h.wait(func(done func()) {
		h.UpdateDirectory(e, known, func(v []byte, e error) { now, err = v, e; done() })
	})
	return now, err
}

func (h *house) allocate() (id shard.NodeID, err error) {
	h.t.Helper()
	h.wait(func(done func()) { h.AllocateNode(func(n shard.NodeID, e error) { id, err = n, e; done() }) })
	return id, err
}

// bootstrap writes the records of a cluster with the given number of user shards.
func (h *house) bootstrap(users int) []shard.Descriptor {
	h.t.Helper()
	ds, err := InitialDescriptors(1, users)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, w := range BootstrapRecords(router.Node{ID: 1, Address: "a:1", Incarnation: 1, StartNonce: 11}, ds) {
		h.kv.Put(w.Key, w.Value)
	}
	return ds
}

func TestInitialDescriptorsDivideTheKeyspace(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8, 48, 255, 256, 1000, InitialShardsMax} {
		ds, err := InitialDescriptors(7, n)
		if err != nil || len(ds) != n+1 {
			t.Fatalf("%d shards: %d descriptors, %v", n, len(ds), err)
		}
		if !ds[0].Span.Equal(shard.SystemSpan()) || ds[0].ID != shard.MetaID {
			t.Fatalf("meta shard %+v", ds[0])
		}
		at := shard.UserSpan().Start
		narrow, wide := 1<<16, 0
		for i, d := range ds[1:] {
			if d.ID != shard.ID(i+2) || !bytes.Equal(d.Span.Start, at) || !d.Span.Valid() {
				t.Fatalf("%d shards: shard %d has ID %d and span %x", n, i, d.ID, d.Span)
			}
			if (d.Epoch != shard.Epoch{Version: 1, ConfVersion: 1}) || d.NextReplica != 2 ||
				len(d.Replicas) != 1 || (d.Replicas[0] != shard.Replica{ID: 1, Node: 7, Role: shard.Voter}) {
				t.Fatalf("descriptor %+v", d)
			}
			if _, err := shard.DecodeDescriptor(shard.AppendDescriptor(nil, &d)); err != nil {
				t.Fatal(err)
			}
			width := place(d.Span.End) - place(d.Span.Start)
			narrow, wide = min(narrow, width), max(wide, width)
			at = d.Span.End
		}
		if !bytes.Equal(at, shard.UserSpan().End) || wide-narrow > 1 {
			t.Fatalf("%d shards end at %x with widths from %d to %d", n, at, narrow, wide)
		}
	}
	for _, n := range []int{-1, 0, InitialShardsMax + 1} {
		var invalid *shard.InvalidError
		if _, err := InitialDescriptors(1, n); !errors.As(err, &invalid) {
			t.Fatalf("%d shards: %v", n, err)
		}
	}
}

// place is where a bound lies among the first two bytes of user keys.
func place(bound []byte) int {
	if bound[0] != shard.UserKeyspace {
		return 1 << 16
	}
	b := append(bytes.Clone(bound[1:]), 0, 0)
	return int(b[0])<<8 | int(b[1])
}

func TestBootstrapRecordsAreWhatTheOperationsRead(t *testing.T) {
	h := newHouse(t)
	ds := h.bootstrap(25)
	h.kv.PageRows = 10
	var rows []DirectoryRow
	var nodes []router.Node
	h.wait(func(done func()) {
		h.ListDirectory(func(r []DirectoryRow, err error) {
			if rows = r; err != nil {
				t.Error(err)
			}
			done()
		})
	})
	h.wait(func(done func()) {
		h.ListNodes(func(n []router.Node, err error) {
			if nodes = n; err != nil {
				t.Error(err)
			}
			done()
		})
	})
	if len(rows) != len(ds) {
		t.Fatalf("%d entries of %d shards", len(rows), len(ds))
	}
	for i, row := range rows {
		if row.Descriptor.ID != ds[i].ID || (row.Leader != shard.LeaderHint{Replica: 1, Node: 1}) {
			t.Fatalf("entry %d: %+v", i, row.Entry)
		}
	}
	if len(nodes) != 1 || nodes[0].ID != 1 || nodes[0].Address != "a:1" {
		t.Fatalf("nodes %+v", nodes)
	}
	if id, err := h.allocate(); id != 2 || err != nil {
		t.Fatalf("the second node's ID is %d, %v", id, err)
	}
	if last, err := decodeCounter(h.kv.Get(counterKey(shardCounter))); last != 26 || err != nil {
		t.Fatalf("the last shard's ID is %d, %v", last, err)
	}
	keys := BootstrapRecords(router.Node{ID: 1}, ds)
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1].Key, keys[i].Key) >= 0 {
			t.Fatalf("record %d is out of order", i)
		}
	}
}

func TestListRepeatsAPageThatFailedWithoutDoublingRows(t *testing.T) {
	h := newHouse(t)
	h.bootstrap(25)
	h.kv.PageRows = 4
	n := 0
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if n++; n%3 == 0 {
			return shard.ErrUnavailable, false
		}
		return nil, true
	}
	h.wait(func(done func()) {
		h.ListDirectory(func(r []DirectoryRow, err error) {
			if err != nil || len(r) != 26 {
				t.Errorf("%d rows, %v", len(r), err)
			}
			done()
		})
	})
}

func TestListReportsAMalformedRecord(t *testing.T) {
	h := newHouse(t)
	h.bootstrap(2)
	h.kv.Put(router.DirectoryKey([]byte{2, 9}), []byte{0xff})
	h.wait(func(done func()) {
		h.ListDirectory(func(r []DirectoryRow, err error) {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Errorf("%d rows, %v", len(r), err)
			}
			done()
		})
	})
}

func TestAllocateNeverHandsOutAnIDTwice(t *testing.T) {
	h := newHouse(t)
	h.bootstrap(1)
	n := 0
	// Every other attempt takes effect and loses its answer.
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if n++; n%2 == 0 {
			return shard.ErrUndetermined, true
		}
		return nil, true
	}
	seen := map[shard.NodeID]bool{1: true}
	for range 20 {
		id, err := h.allocate()
		if err != nil || seen[id] {
			t.Fatalf("ID %d, %v after %v", id, err, seen)
		}
		seen[id] = true
	}
}

func TestOperationsGiveUpAfterABoundedNumberOfAttempts(t *testing.T) {
	h := newHouse(t)
	h.kv.Fault = func(cmd *shard.Command) (error, bool) { return shard.ErrUnavailable, false }
	for name, run := range map[string]func() error{ //order-free: each is checked alone
		"allocate": func() error { _, err := h.allocate(); return err },
		"register": func() error { return h.register(router.Node{ID: 2, Incarnation: 1}) },
		"update":   func() error { _, err := h.update(entry(2, 1, 1, 1), nil); return err },
	} {
		h.kv.Commands = 0
		if err := run(); !errors.Is(err, shard.ErrUnavailable) || h.kv.Commands != attemptsMax {
			t.Errorf("%s: %v after %d attempts", name, err, h.kv.Commands)
		}
	}
}

func TestInvalidIsNotRepeated(t *testing.T) {
	h := newHouse(t)
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		return fmt.Errorf("wrapped: %w", &shard.InvalidError{Field: "f", Reason: "r"}), false
	}
	var invalid *shard.InvalidError
	if _, err := h.allocate(); !errors.As(err, &invalid) || h.kv.Commands != 1 {
		t.Fatalf("%v after %d attempts", err, h.kv.Commands)
	}
}
