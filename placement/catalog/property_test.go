package catalog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/placement/internal/fake"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// records is what the catalog must be to its callers, in the simplest words.
type records struct {
	nodes      map[shard.NodeID]router.Node
	operations map[shard.ID]Operation
	settings   map[string]string
	directory  map[string]router.Entry
	ids        map[uint64]bool // that were handed out for operations and nodes' states
	nodeIDs    map[shard.NodeID]bool
}

// catalogBench is a catalog beside its model.
type catalogBench struct {
	t *rapid.T
	c *Catalog
	e *fake.Env
	m *records
	// lost is how many answers the operation under way has lost; it gives up after
	// attemptsMax.
	lost int
}

// wait runs an operation to its end.
func (b *catalogBench) wait(start func(done func())) {
	calls := 0
	b.lost = 0
	start(func() { calls++ })
	b.e.RunUntil(func() bool { return calls > 0 }, b.e.Now()+time.Hour)
	if calls != 1 {
		b.t.Fatalf("done was called %d times", calls)
	}
}

// Whatever operations come, and whichever answers are lost on the way, the catalog's
// records are those of a few maps, and callers are told what became of them.
func TestCatalogAgreesWithAModel(t *testing.T) { rapid.Check(t, catalogAgreesWithAModel) }

// FuzzCatalog is the same with the choices of a fuzzer.
func FuzzCatalog(f *testing.F) { f.Fuzz(rapid.MakeFuzz(catalogAgreesWithAModel)) }

func catalogAgreesWithAModel(t *rapid.T) {
	e := fake.NewEnv(1)
	kv := fake.NewKV(e, time.Millisecond)
	kv.PageRows = 2
	b := &catalogBench{t: t, e: e, c: New(kv, e, e.NewQueue("catalog")), m: &records{nodes: map[shard.NodeID]router.Node{}, operations: map[shard.ID]Operation{},
		settings: map[string]string{}, directory: map[string]router.Entry{}, ids: map[uint64]bool{}, nodeIDs: map[shard.NodeID]bool{}}}
	kv.Fault = func(*shard.Command) (error, bool) {
		if b.lost < attemptsMax/2 && rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
			b.lost++
			return shard.ErrUndetermined, rapid.Bool().Draw(t, "took effect")
		}
		return nil, true
	}
	t.Repeat(map[string]func(*rapid.T){
		"allocate": b.allocate, "register": b.register, "node state": b.nodeState, "begin": b.begin, "end": b.end,
		"setting": b.setting, "directory": b.update, "": b.lists,
	})
}

func (b *catalogBench) allocate(t *rapid.T) {
	b.wait(func(done func()) {
		b.c.AllocateNode(func(id shard.NodeID, err error) {
			if err != nil || id == 0 || b.m.nodeIDs[id] {
				t.Fatalf("node ID %d, %v", id, err)
			}
			b.m.nodeIDs[id] = true
			done()
		})
	})
}

func drawNode(t *rapid.T) shard.NodeID { return shard.NodeID(rapid.IntRange(1, 4).Draw(t, "node")) }

func (b *catalogBench) register(t *rapid.T) {
	n := router.Node{ID: drawNode(t), Address: "a:1", Incarnation: rapid.Uint64Range(1, 6).Draw(t, "incarnation"), StartNonce: rapid.Uint64Range(1, 3).Draw(t, "nonce")}
	was, known := b.m.nodes[n.ID]
	same := known && was.Incarnation == n.Incarnation && was.StartNonce == n.StartNonce
	b.wait(func(done func()) {
		b.c.RegisterNode(n, func(err error) {
			switch {
			case known && was.State == shard.Removed:
				if !errors.Is(err, ErrRemoved) {
					t.Fatalf("a removed node registers: %v", err)
				}
			case known && !same && was.Incarnation >= n.Incarnation:
				if !errors.Is(err, ErrStoreInUse) {
					t.Fatalf("incarnation %d after %d: %v", n.Incarnation, was.Incarnation, err)
				}
			case err != nil:
				t.Fatalf("%+v after %+v: %v", n, was, err)
			case !same:
				if known && was.State != shard.Draining {
					n.State, n.Operation, n.Since, n.Ended = was.State, was.Operation, was.Since, was.Ended
				}
				b.m.nodes[n.ID] = n
			}
			done()
		})
	})
}

func (b *catalogBench) nodeState(t *rapid.T) {
	id, to := drawNode(t), rapid.SampledFrom([]shard.NodeState{shard.Serving, shard.Draining, shard.Leaving, shard.Removed}).Draw(t, "to")
	was, known := b.m.nodes[id]
	refused := !known || was.State != to && (was.State == shard.Removed || to == shard.Removed && was.State != shard.Leaving || to == shard.Draining && was.State == shard.Leaving)
	b.wait(func(done func()) {
		b.c.SetNodeState(id, to, 7, func(n router.Node, err error) {
			var invalid *shard.InvalidError
			switch {
			case refused != errors.As(err, &invalid) || !refused && err != nil:
				t.Fatalf("%v after %+v: %v", to, was, err)
			case refused:
			case was.State == to:
				if n != was {
					t.Fatalf("%+v became %+v by nothing", was, n)
				}
			default:
				want := was
				want.State = to
				switch {
				case was.State == shard.Draining && to == shard.Serving:
					want.Operation, want.Since = 0, 0
				case was.State == shard.Leaving && (to == shard.Serving || to == shard.Removed):
					want.Ended = 7
				default:
					want.Since, want.Ended = 7, 0
					if want.Operation = n.Operation; n.Operation == 0 || b.m.ids[n.Operation] {
						t.Fatalf("operation %d was given before", n.Operation)
					}
					b.m.ids[n.Operation] = true
				}
				if n != want {
					t.Fatalf("%+v became %+v, want %+v", was, n, want)
				}
				b.m.nodes[id] = n
			}
			done()
		})
	})
}

func drawShardID(t *rapid.T) shard.ID { return shard.ID(rapid.IntRange(1, 3).Draw(t, "shard")) }

func (b *catalogBench) begin(t *rapid.T) {
	op := Operation{Shard: drawShardID(t), From: drawNode(t), To: drawNode(t), Began: 5}
	busy := b.m.operations[op.Shard].State == OperationRunning
	b.wait(func(done func()) {
		b.c.BeginOperation(op, func(got Operation, err error) {
			var invalid *shard.InvalidError
			if busy != errors.As(err, &invalid) || !busy && err != nil {
				t.Fatalf("busy %v: %v", busy, err)
			}
			if !busy {
				op.ID, op.State = got.ID, OperationRunning
				if !same(got, op) || got.ID == 0 || b.m.ids[got.ID] {
					t.Fatalf("%+v began, want %+v", got, op)
				}
				b.m.ids[got.ID] = true
				b.m.operations[op.Shard] = got
			}
			done()
		})
	})
}

func (b *catalogBench) end(t *rapid.T) {
	id := drawShardID(t)
	was := b.m.operations[id]
	op := was.ID
	if rapid.IntRange(0, 3).Draw(t, "another") == 0 {
		op += 1000
	}
	state := rapid.SampledFrom([]OperationState{OperationDone, OperationFailed, OperationCancelled}).Draw(t, "how")
	b.wait(func(done func()) {
		b.c.EndOperation(id, op, state, "reason", 9, func(got Operation, err error) {
			want := was
			if was.ID != 0 && was.ID == op && was.State == OperationRunning {
				want.State, want.Reason, want.Ended = state, "reason", 9
				b.m.operations[id] = want
			}
			if err != nil || !same(got, want) {
				t.Fatalf("%+v ended as %+v, %v, want %+v", was, got, err, want)
			}
			done()
		})
	})
}

func (b *catalogBench) setting(t *rapid.T) {
	text := rapid.SampledFrom([]string{"1", "100", "50000", "-1", "", "x"}).Draw(t, "value")
	b.wait(func(done func()) {
		b.c.SetSetting(KVDropRate, text, func(v SettingValue, err error) {
			var invalid *shard.InvalidError
			if err != nil && !errors.As(err, &invalid) {
				t.Fatal(err)
			}
			if err == nil {
				b.m.settings[KVDropRate] = v.Format(v.Value)
			}
			if bad := text == "-1" || text == "" || text == "x"; bad != (err != nil) {
				t.Fatalf("%q: %v", text, err)
			}
			done()
		})
	})
}

func (b *catalogBench) update(t *rapid.T) {
	e := router.Entry{Descriptor: shard.Descriptor{ID: drawShardID(t), Span: shard.Span{Start: shard.UserKey([]byte(rapid.SampledFrom([]string{"a", "m"}).Draw(t, "start"))), End: shard.UserKey([]byte("z"))},
		Epoch:    shard.Epoch{Version: rapid.Uint64Range(1, 3).Draw(t, "version"), ConfVersion: rapid.Uint64Range(1, 3).Draw(t, "conf")},
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}}
	e.Leader.Replica, e.Leader.Node, e.Leader.Term = 1, 1, rapid.Uint64Range(1, 4).Draw(t, "term")
	key := string(e.Descriptor.Span.Start)
	want, known := b.m.directory[key]
	switch {
	case !known, want.Descriptor.ID != e.Descriptor.ID && e.Descriptor.Epoch.Version > want.Descriptor.Epoch.Version:
		want = e
	case want.Descriptor.ID == e.Descriptor.ID:
		if e.Descriptor.Epoch.Newer(want.Descriptor.Epoch) {
			want.Descriptor = e.Descriptor
		}
		if e.Leader.Term > want.Leader.Term {
			want.Leader = e.Leader
		}
	}
	b.wait(func(done func()) {
		b.c.UpdateDirectory(e, nil, func(now []byte, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if got, err := router.DecodeEntry(now); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("the entry is %+v, %v, want %+v", got, err, want)
			}
			b.m.directory[key] = want
			done()
		})
	})
}

// lists reads everything.
func (b *catalogBench) lists(t *rapid.T) {
	b.wait(func(done func()) {
		b.c.ListNodes(func(nodes []router.Node, err error) {
			if err != nil || len(nodes) != len(b.m.nodes) || !slices.IsSortedFunc(nodes, func(x, y router.Node) int { return int(x.ID) - int(y.ID) }) {
				t.Fatalf("nodes %+v, %v", nodes, err)
			}
			for _, n := range nodes {
				if b.m.nodes[n.ID] != n {
					t.Fatalf("node %+v, want %+v", n, b.m.nodes[n.ID])
				}
			}
			done()
		})
	})
	b.wait(func(done func()) {
		b.c.ListOperations(func(ops []Operation, err error) {
			if err != nil || len(ops) != len(b.m.operations) {
				t.Fatalf("operations %+v, %v, want %+v", ops, err, b.m.operations)
			}
			for _, op := range ops {
				if !same(b.m.operations[op.Shard], op) {
					t.Fatalf("operation %+v, want %+v", op, b.m.operations[op.Shard])
				}
			}
			done()
		})
	})
	b.wait(func(done func()) {
		b.c.ListDirectory(func(rows []DirectoryRow, err error) {
			if err != nil || len(rows) != len(b.m.directory) {
				t.Fatalf("directory %+v, %v", rows, err)
			}
			for _, r := range rows {
				if want := b.m.directory[string(r.Descriptor.Span.Start)]; fmt.Sprint(r.Entry) != fmt.Sprint(want) {
					t.Fatalf("entry %+v, want %+v", r.Entry, want)
				}
			}
			done()
		})
	})
	b.wait(func(done func()) {
		b.c.ListSettings(func(values []SettingValue, err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if want, set := b.m.settings[v.Name]; v.Set != set || set && v.Format(v.Value) != want || v.Err != nil {
					t.Fatalf("setting %+v, want %q", v, want)
				}
			}
			done()
		})
	})
}
