package storage

import (
	"fmt"
	"io"
	"log"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// open opens a store in memory whose failure ends the test.
func open(t testing.TB, cfg Config) *Engine {
	t.Helper()
	if cfg.FS == nil {
		cfg.FS = vfs.NewMem()
	}
	if cfg.Dir == "" {
		cfg.Dir = "store"
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { t.Errorf("the engine failed: %v", err) }
	}
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if e.db != nil {
			e.Close()
		}
	})
	return e
}

// closeEngine closes e so that the test's clean-up leaves it alone.
func closeEngine(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e.db = nil
}

func commit(t testing.TB, e *Engine, stage func(b *Batch)) {
	t.Helper()
	b := e.NewBatch()
	stage(b)
	if err := e.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func commitSync(t testing.TB, e *Engine, stage func(b *Batch)) {
	t.Helper()
	b := e.NewBatch()
	stage(b)
	done := make(chan struct{})
	if err := e.CommitSync(b, 0, func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	<-done
}

func userKey(text string) []byte { return shard.UserKey([]byte(text)) }

func userSpan(start, end string) shard.Span {
	s := shard.UserSpan()
	if start != "" {
		s.Start = userKey(start)
	}
	if end != "" {
		s.End = userKey(end)
	}
	return s
}

func testState(id shard.ID, span shard.Span) *ReplicaState {
	return &ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{ID: id, Span: span,
		Epoch:    shard.Epoch{Version: 1, ConfVersion: 1},
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}, {ID: 2, Node: 2, Role: shard.Learner}}, NextReplica: 3}}
}

// dump is all rows of a span, one per line.
func dump(t testing.TB, e *Engine, span shard.Span) []string {
	t.Helper()
	v := e.NewView()
	defer v.Close()
	var lines []string
	for span.Start != nil {
		rows, resume, err := v.Scan(ScanOptions{Span: span, At: shard.MaxRevision})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			lines = append(lines, fmt.Sprintf("%s@%d=%s", shard.FormatKey(r.Key), r.Revision, r.Value))
		}
		span.Start = resume
	}
	return lines
}

// fakeEnv runs steps when told to, in order of time and submission.
type fakeEnv struct {
	now   time.Duration
	seed  uint64
	steps []fakeStep
	order int
}

type fakeStep struct {
	at    time.Duration
	order int
	run   func()
}

var _ env.Env = (*fakeEnv)(nil)

func newFakeEnv(seed uint64) *fakeEnv { return &fakeEnv{seed: seed} }

func (e *fakeEnv) Now() time.Duration { return e.now }

func (e *fakeEnv) AfterFunc(d time.Duration, _ env.Queue, step func()) env.Timer {
	e.order++
	e.steps = append(e.steps, fakeStep{e.now + max(d, 0), e.order, step})
	return fakeTimer{}
}

// Uint64 is SplitMix64.
func (e *fakeEnv) Uint64() uint64 {
	e.seed += 0x9e3779b97f4a7c15
	z := e.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (e *fakeEnv) NewQueue(string) env.Queue     { return fakeQueue{e} }
func (e *fakeEnv) NewPool(string, int) env.Queue { return fakeQueue{e} }

// step runs the next step; false if there is none.
func (e *fakeEnv) step() bool {
	if len(e.steps) == 0 {
		return false
	}
	next := 0
	for i, s := range e.steps {
		if n := e.steps[next]; s.at < n.at || s.at == n.at && s.order < n.order {
			next = i
		}
	}
	s := e.steps[next]
	e.steps = slices.Delete(e.steps, next, next+1)
	e.now = s.at
	s.run()
	return true
}

type fakeQueue struct{ e *fakeEnv }

func (q fakeQueue) Submit(step func()) { q.e.AfterFunc(0, nil, step) }

type fakeTimer struct{}

func (fakeTimer) Stop() bool { return false }

// collector gathers values from several goroutines.
type collector[T any] struct {
	mu     sync.Mutex
	values []T
}

func (c *collector[T]) add(v T) {
	c.mu.Lock()
	c.values = append(c.values, v)
	c.mu.Unlock()
}

func (c *collector[T]) all() []T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.values)
}

// discardRaft is a quiet logger for raft.
var discardRaft = &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)}
