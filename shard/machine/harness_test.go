package machine

import (
	"fmt"
	"strconv"
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
	entry  storage.Mark // where the last entry began in the batch
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
	b.turn()
	b.entry = b.batch.Mark()
	return b.more(op)
}

// turn begins a turn unless one is open.
func (b *bench) turn() {
	if b.batch == nil {
		b.batch = b.engine.NewBatch()
	}
}

// more applies op as a further operation of the last entry.
func (b *bench) more(op []byte) (raftgroup.Result, error) {
	res, err := b.m.Apply(b.batch, raftgroup.Position{Index: b.index, Term: 1}, op)
	if err != nil {
		b.batch.RollBack(b.entry)
	}
	return res, err
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

// versioned is a command at a revision, by operation number op.
func versioned(rev shard.Revision, op uint64, c shard.Command) []byte {
	c.Op = shard.OpID{Session: 5, Sequence: op}
	return operation(rev, 2, c)
}

// again is a later attempt of a command, born at a revision.
func again(c shard.Command, birth shard.Revision) shard.Command {
	c.Retry, c.Birth = true, birth
	return c
}

func key(name string) []byte { return []byte("\x02" + name) }

func put(name, value string) shard.Command {
	return shard.Command{Kind: shard.KindPut, Key: key(name), Value: []byte(value)}
}

func remove(name string) shard.Command { return shard.Command{Kind: shard.KindDelete, Key: key(name)} }

func deleteRange(start, end string, limit uint64) shard.Command {
	return shard.Command{Kind: shard.KindDeleteRange, Start: key(start), End: key(end), Limit: limit}
}

// batch is a batch in words: "k=v" puts, "-k" deletes, "?k" gets; of the compares,
// "k=v" asks for a value, "k@5" for a revision, "-k" for absence, "+k" for presence.
func batch(compares, then, otherwise string) shard.Command {
	c := shard.Command{Kind: shard.KindBatch, Then: batchOps(then), Else: batchOps(otherwise)}
	for _, word := range strings.Fields(compares) {
		x := shard.Compare{Kind: shard.CompareAbsent, Key: key(word[1:])}
		if name, value, ok := strings.Cut(word, "="); ok {
			x = shard.Compare{Kind: shard.CompareValue, Key: key(name), Value: []byte(value)}
		} else if name, rev, ok := strings.Cut(word, "@"); ok {
			n, err := strconv.ParseUint(rev, 10, 64)
			if err != nil {
				panic(err)
			}
			x = shard.Compare{Kind: shard.CompareRevision, Key: key(name), Revision: shard.Revision(n)}
		} else if word[0] == '+' {
			x.Kind = shard.ComparePresent
		}
		c.Compares = append(c.Compares, x)
	}
	return c
}

func batchOps(words string) (ops []shard.BatchOp) {
	for _, word := range strings.Fields(words) {
		o := shard.BatchOp{Kind: shard.KindDelete, Key: key(word[1:])}
		if name, value, ok := strings.Cut(word, "="); ok {
			o = shard.BatchOp{Kind: shard.KindPut, Key: key(name), Value: []byte(value)}
		} else if word[0] == '?' {
			o.Kind = shard.KindGet
		}
		ops = append(ops, o)
	}
	return ops
}

// told is a result in words: what the operation's caller learns.
func told(res raftgroup.Result) string {
	if res.Err != nil {
		return fmt.Sprintf("%T: %v", res.Err, res.Err)
	}
	s := fmt.Sprintf("at %d", res.Revision)
	d, ok := res.Detail.(*shard.Result)
	if !ok {
		return s
	}
	if d.Revision != res.Revision || d.Found != res.Found {
		return fmt.Sprintf("%+v tells otherwise than %+v", d, res)
	}
	if d.Found {
		s += " holds"
	}
	for _, r := range d.Rows {
		s += fmt.Sprintf(" [%s @%d]", r.Value, r.Revision)
	}
	if d.Count > 0 {
		s += fmt.Sprintf(" count %d", d.Count)
	}
	if d.Resume != nil {
		s += fmt.Sprintf(" resume %q", d.Resume[1:])
	}
	return s
}

func system(c shard.Command) []byte { return operation(0, 2, c) }
