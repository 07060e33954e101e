package machine

import (
	"fmt"
	"strings"

	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// still is a world in which no time passes and nothing runs.
type still struct{}

func (still) Now() time.Duration                                   { return 0 }
func (still) AfterFunc(time.Duration, env.Queue, func()) env.Timer { return still{} }
func (still) Uint64() uint64                                       { return 4 }
func (still) NewQueue(string) env.Queue                            { return still{} }
func (still) NewPool(string, int) env.Queue                        { return still{} }
func (still) Submit(func())                                        {}
func (still) Stop() bool                                           { return true }

func openEngine(t fataler, fs vfs.FS) *storage.Engine {
	e, err := storage.Open(storage.Config{Dir: "store", FS: fs, Env: still{}, Simulated: true, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return e
}

type fataler interface{ Fatalf(string, ...any) }

// bench is a machine with its store, and the position of the last entry.
type bench struct {
	t      fataler
	fs     vfs.FS
	engine *storage.Engine
	id     shard.ID
	m      *Machine
	index  uint64
	batch  *storage.Batch
}

// userState and systemState are what a shard's first replica starts from.
func userState() *storage.ReplicaState {
	return &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{ID: 7, Epoch: shard.Epoch{Version: 2, ConfVersion: 1},
		Span:     shard.Span{Start: []byte("\x02b"), End: []byte("\x02y")},
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}}
}

func systemState() *storage.ReplicaState {
	s := userState()
	s.Descriptor.ID, s.Descriptor.Span = shard.MetaID, shard.SystemSpan()
	return s
}

func newBench(t fataler, s *storage.ReplicaState) *bench {
	b := &bench{t: t, fs: vfs.NewMem(), id: s.Descriptor.ID}
	b.engine = openEngine(t, b.fs)
	batch := b.engine.NewBatch()
	batch.PutInitialReplica(1, s)
	if err := b.engine.Commit(batch); err != nil {
		t.Fatalf("commit: %v", err)
	}
	b.load()
	return b
}

func (b *bench) load() {
	s, ok, err := b.engine.ReplicaState(b.id)
	if err != nil || !ok {
		b.t.Fatalf("state: %v, %v", ok, err)
	}
	b.m = New(&s, func() Reader { return b.engine.NewView() })
	b.index = s.Applied
}

func (b *bench) close() {
	if err := b.engine.Close(); err != nil {
		b.t.Fatalf("close: %v", err)
	}
}

// restart opens the store again and makes a machine from what it holds.
func (b *bench) restart() {
	b.close()
	b.engine = openEngine(b.t, b.fs)
	b.load()
}

// apply applies op as an entry of its own, in the turn that is open.
func (b *bench) apply(op []byte) (raftgroup.Result, error) {
	b.index++
	return b.more(op)
}

// more applies op as a further operation of the last entry.
func (b *bench) more(op []byte) (raftgroup.Result, error) {
	if b.batch == nil {
		b.batch = b.engine.NewBatch()
	}
	return b.m.Apply(b.batch, raftgroup.Position{Index: b.index, Term: 1}, op)
}

// must is apply for what no replica may stop at.
func (b *bench) must(op []byte) raftgroup.Result {
	res, err := b.apply(op)
	if err != nil {
		b.t.Fatalf("entry %d: %v", b.index, err)
	}
	return res
}

// end ends the turn.
func (b *bench) end() {
	if b.batch == nil {
		return
	}
	if err := b.m.EndApply(b.batch, raftgroup.Position{Index: b.index, Term: 1}); err != nil {
		b.t.Fatalf("end: %v", err)
	}
	if err := b.engine.Commit(b.batch); err != nil {
		b.t.Fatalf("commit: %v", err)
	}
	b.batch = nil
	b.m.Published()
}

// dump is all that the store holds of the shard, in words.
func (b *bench) dump(revisions ...shard.Revision) string {
	var s strings.Builder
	state, _, err := b.engine.ReplicaState(b.id)
	fmt.Fprintf(&s, "%+v %v\n", state, err)
	v := b.engine.NewView()
	for _, at := range append(revisions, shard.MaxRevision) {
		rows, resume, err := v.Scan(storage.ScanOptions{Span: state.Descriptor.Span, At: at, RowsMax: 1000, BytesMax: 1 << 20})
		fmt.Fprintf(&s, "at %d: %v %q %v\n", at, rows, resume, err)
	}
	if err := v.Close(); err != nil {
		b.t.Fatalf("view: %v", err)
	}
	return s.String()
}

func user(rev shard.Revision, kind shard.Kind, key, value string) []byte {
	return operation(rev, 2, shard.Command{Kind: kind, Op: shard.OpID{Session: 5, Sequence: uint64(rev)}, Key: []byte("\x02" + key), Value: []byte(value)})
}

func system(c shard.Command) []byte { return operation(0, 2, c) }
