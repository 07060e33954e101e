package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a map; fail, if set, decides about operations.
type fakeStore struct {
	mu     sync.Mutex
	values map[string][]byte
	fail   func(op string) error
	calls  atomic.Int64
	enough func() // called at every operation
}

func newFakeStore() *fakeStore { return &fakeStore{values: map[string][]byte{}} }

func (s *fakeStore) enter(op string) error {
	s.calls.Add(1)
	if s.enough != nil {
		s.enough()
	}
	if s.fail != nil {
		return s.fail(op)
	}
	return nil
}

func (s *fakeStore) Get(_ context.Context, key []byte, _ ...client.CallOption) (client.KeyValue, error) {
	if err := s.enter("get"); err != nil {
		return client.KeyValue{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[string(key)]
	if !ok {
		return client.KeyValue{}, client.ErrNotFound
	}
	return client.KeyValue{Key: key, Value: v}, nil
}

func (s *fakeStore) Put(_ context.Context, key, value []byte, _ ...client.CallOption) (shard.Revision, error) {
	if err := s.enter("put"); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[string(key)] = append([]byte(nil), value...)
	return 1, nil
}

func (s *fakeStore) MultiPut(ctx context.Context, pairs []client.KeyValue, _ ...client.CallOption) ([]shard.Revision, []error) {
	errs := make([]error, len(pairs))
	for i, p := range pairs {
		_, errs[i] = s.Put(ctx, p.Key, p.Value)
	}
	return make([]shard.Revision, len(pairs)), errs
}

func (s *fakeStore) Scan(_ context.Context, o client.ScanOptions) iter.Seq2[client.KeyValue, error] {
	return func(yield func(client.KeyValue, error) bool) {
		if err := s.enter("scan"); err != nil {
			yield(client.KeyValue{}, err)
			return
		}
		for range o.Limit {
			if !yield(client.KeyValue{Key: o.Start}, nil) {
				return
			}
		}
	}
}

// runUntil runs c until done holds at an operation. Runs that ended by the clock
// would measure nothing on a machine that is busy enough.
func runUntil(t *testing.T, store *fakeStore, c Config, done func() bool) *Report {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store.enough = func() {
		if done() {
			cancel()
		}
	}
	r, err := Run(ctx, store, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runOps runs c for n operations, those of a load included.
func runOps(t *testing.T, store *fakeStore, c Config, n int64) *Report {
	t.Helper()
	return runUntil(t, store, c, func() bool { return store.calls.Load() >= n })
}

func config(w Workload) Config {
	return Config{Workload: w, Clients: 4, Duration: time.Hour, Keys: 500, ValueBytes: 64,
		Distribution: Uniform, Timeout: 5 * time.Second}
}

func TestWorkloads(t *testing.T) {
	for _, w := range Workloads {
		for _, d := range Distributions {
			t.Run(fmt.Sprintf("%s/%s", w, d), func(t *testing.T) {
				store := newFakeStore()
				c := config(w)
				c.Distribution, c.Load = d, true
				r := runOps(t, store, c, int64(c.Keys)+400)
				if r.Ops == 0 || r.Errors != 0 || r.NotFound != 0 || r.Ops != r.Puts+r.Gets+r.Scans {
					t.Errorf("report: %+v", r)
				}
				if (w == Put || w == Mixed) != (r.Puts > 0) || (w == Get || w == Mixed) != (r.Gets > 0) || (w == Scan) != (r.Scans > 0) {
					t.Errorf("%d puts, %d gets, %d scans", r.Puts, r.Gets, r.Scans)
				}
				if r.Rows != r.Scans*ScanRows {
					t.Errorf("%d rows of %d scans", r.Rows, r.Scans)
				}
				if len(store.values) != int(c.Keys) {
					t.Errorf("%d keys in the store, want %d: a workload left the loaded keys", len(store.values), c.Keys)
				}
				l := r.Latency
				if l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
					t.Errorf("latency: %+v", l)
				}
			})
		}
	}
}

func TestMissesAreErrorsOnlyAfterLoad(t *testing.T) {
	r := runOps(t, newFakeStore(), config(Get), 200)
	if r.Errors != 0 || r.NotFound == 0 || r.NotFound != r.Gets {
		t.Errorf("without load: %+v", r)
	}
	store := newFakeStore()
	store.fail = func(op string) error {
		if op == "get" {
			return client.ErrNotFound
		}
		return nil
	}
	c := config(Get)
	c.Load = true
	r = runOps(t, store, c, int64(c.Keys)+200)
	if r.Errors == 0 || r.Ops != 0 || len(r.FirstErrors) != 1 {
		t.Errorf("after load: %+v", r)
	}
}

func TestErrorsAreCountedAndFirstOnesShown(t *testing.T) {
	store := newFakeStore()
	var n atomic.Int64
	store.fail = func(string) error {
		if i := n.Add(1); i%2 == 0 {
			return fmt.Errorf("failure %d", i/2%20)
		}
		return nil
	}
	r := runOps(t, store, config(Put), 300)
	if r.Errors == 0 || r.Ops == 0 || len(r.FirstErrors) != errorTextsMax {
		t.Errorf("%d ops, %d errors, shown %q", r.Ops, r.Errors, r.FirstErrors)
	}
}

func TestLoadRepeatsWhatPasses(t *testing.T) {
	store := newFakeStore()
	var n atomic.Int64
	store.fail = func(string) error {
		switch n.Add(1) % 7 {
		case 0:
			return shard.ErrBusy
		case 3:
			return fmt.Errorf("wrapped: %w", shard.ErrUndetermined)
		}
		return nil
	}
	c := config(Put)
	if err := load(context.Background(), store, &c); err != nil {
		t.Fatal(err)
	}
	if len(store.values) != int(c.Keys) {
		t.Errorf("%d keys were loaded, want %d", len(store.values), c.Keys)
	}
}

func TestLoadStopsAtWhatDoesNotPass(t *testing.T) {
	store := newFakeStore()
	store.fail = func(string) error { return &shard.InvalidError{Field: "value", Reason: "is too long"} }
	c := config(Get)
	c.Load = true
	_, err := Run(context.Background(), store, c)
	var invalid *shard.InvalidError
	if !errors.As(err, &invalid) {
		t.Errorf("error: %v", err)
	}
}

func TestWarmupIsNotRecorded(t *testing.T) {
	for name, warm := range map[string]bool{"during warmup": true, "afterwards": false} {
		c := config(Put)
		if warm {
			c.Warmup = time.Hour
		}
		ctx, cancel := context.WithCancel(context.Background())
		store := newFakeStore()
		store.enough = func() {
			if store.calls.Load() > 100 {
				cancel()
			}
		}
		r := newRun(&c, store)
		<-r.start(ctx)
		r.records.collect()
		if got := r.records.total.ops(); (got == 0) != warm {
			t.Errorf("%s: %d operations were recorded", name, got)
		}
	}
}

// Under a rate, latency counts from when an operation was due: a stall shows in
// all operations that it delayed, not in one per client.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	store := newFakeStore()
	var stalled sync.Once
	const stall = 100 * time.Millisecond
	store.fail = func(string) error {
		stalled.Do(func() { time.Sleep(stall) })
		return nil
	}
	c := config(Put)
	c.Clients, c.Rate, c.Duration = 1, 1000, 200*time.Millisecond
	r, err := Run(context.Background(), store, c)
	if err != nil {
		t.Fatal(err)
	}
	// Half of the operations were due during the stall; their delays are spread
	// over its length, so a quarter of all waited for half of it or longer.
	if r.Latency.P95 < float64(stall.Milliseconds())/2 {
		t.Errorf("p95 is %.1f ms, though a stall of %v delayed half of the operations", r.Latency.P95, stall)
	}
}

func TestOpenLoopCountsWhatWasNeverBegun(t *testing.T) {
	store := newFakeStore()
	proceed := make(chan struct{})
	store.fail = func(string) error { <-proceed; return nil }
	c := config(Put)
	c.Clients, c.Rate, c.Duration = 2, 40, 500*time.Millisecond
	r := newRun(&c, store)
	time.AfterFunc(time.Until(r.schedule.end), func() { close(proceed) })
	<-r.start(context.Background())
	r.records.collect()
	if ops, never := r.records.total.ops(), r.schedule.neverBegun(time.Now()); ops != 2 || never != 18 {
		t.Errorf("%d operations answered, %d never begun; want 2 and 18", ops, never)
	}
}

func TestScheduleKeepsTheRate(t *testing.T) {
	c := Config{Rate: 3, Warmup: time.Second, Duration: 2 * time.Second}
	s := newSchedule(time.Unix(0, 0), &c)
	if got := s.index(s.measured); got != 3 {
		t.Errorf("%d operations are due before the measured phase, want 3", got)
	}
	if got := s.neverBegun(s.end.Add(time.Hour)); got != 6 {
		t.Errorf("%d operations were never begun, want 6", got)
	}
	s.taken.Store(5)
	if got := s.neverBegun(s.end); got != 4 {
		t.Errorf("%d operations were never begun, want 4", got)
	}
	if got := s.neverBegun(s.start); got != 0 {
		t.Errorf("%d operations were never begun before the measured phase", got)
	}
}

func TestInterrupt(t *testing.T) {
	c := config(Put)
	c.Duration = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	store := newFakeStore()
	store.fail = func(string) error {
		if store.calls.Load() == 1000 {
			cancel()
		}
		return ctx.Err()
	}
	r, err := Run(ctx, store, c)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Interrupted || r.Ops == 0 || r.Errors != 0 {
		t.Errorf("report: %+v", r)
	}

	c.Warmup = time.Hour
	if _, err := Run(ctx, newFakeStore(), c); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted during warmup: %v", err)
	}
	c.Load = true
	if _, err := Run(ctx, newFakeStore(), c); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted during load: %v", err)
	}
}

func TestProgress(t *testing.T) {
	c := config(Put)
	var seen atomic.Bool
	var got []Progress
	c.Progress = func(p Progress) {
		got = append(got, p)
		seen.Store(p.OpsPerSec > 0)
	}
	r := runUntil(t, newFakeStore(), c, seen.Load)
	for len(got) > 1 && got[0].OpsPerSec == 0 {
		got = got[1:]
	}
	if len(got) == 0 || got[0].Phase != "run" || got[0].OpsPerSec <= 0 || got[0].Max <= 0 {
		t.Fatalf("progress: %+v", got)
	}
	if line := got[0].String(); !strings.Contains(line, "/s  p50 ") || !strings.Contains(line, "errors 0") {
		t.Errorf("line: %s", line)
	}
	// What progress has shown is part of the report, too.
	if counted := float64(r.Ops) / r.Seconds; math.Abs(counted-r.OpsPerSec) > 1 || r.Latency.Max < float64(got[0].Max)/1e6-0.01 {
		t.Errorf("report %+v does not contain progress %+v", r, got[0])
	}
}

func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	firstBytes := map[byte]int{}
	k := newKeyMaker(Uniform)
	const n = 20_000
	for i := range uint64(n) {
		key := k.key(i)
		if len(key) != 32 || seen[string(key)] {
			t.Fatalf("key %d is %q", i, key)
		}
		seen[string(key)] = true
		firstBytes[key[0]]++
	}
	for b := range 256 {
		if c := firstBytes[byte(b)]; c < n/256/2 || c > n/256*2 {
			t.Errorf("%d of %d keys begin with byte %d", c, n, b)
		}
	}
	s := newKeyMaker(Sequential)
	a := string(s.key(9))
	if b := string(s.key(10)); a != "bench-seq-0000000000000000000009" || b <= a {
		t.Errorf("sequential keys: %q, %q", a, b)
	}
	if got := string(k.key(1e12 - 1)[8:]); got != "bench-key-00999999999999" {
		t.Errorf("the last key is %q", got)
	}
	if got := testing.AllocsPerRun(100, func() { k.key(12345) }); got != 0 {
		t.Errorf("a key costs %g allocations", got)
	}
}

func TestValues(t *testing.T) {
	v := newValues(256, 7)
	r := rand.New(rand.NewPCG(1, 2))
	a, b := v.pick(r), v.pick(r)
	if len(a) != 256 || cap(a) != 256 || bytes.Equal(a, b) {
		t.Error("values are of the wrong size, or all the same")
	}
	if empty := newValues(0, 7); len(empty.pick(r)) != 0 {
		t.Error("an empty value is not empty")
	}
}

func TestZipf(t *testing.T) {
	const keys, draws = 1000, 200_000
	z := newZipf(keys)
	r := rand.New(rand.NewPCG(1, 2))
	counts := make([]int, keys)
	for range draws {
		counts[z.next(r)]++
	}
	for _, rank := range []int{0, 1, 9, 99} {
		want := draws * math.Pow(float64(rank+1), -zipfTheta) / z.zetan
		if got := float64(counts[rank]); got < want*0.7 || got > want*1.4 {
			t.Errorf("rank %d was drawn %.0f times, expected about %.0f", rank, got, want)
		}
	}
	for _, few := range []uint64{1, 2, 3} {
		z := newZipf(few)
		for range 1000 {
			if k := z.next(r); k >= few {
				t.Fatalf("key %d of %d", k, few)
			}
		}
	}
	// The integral continues the sum.
	exact := zeta(zetaExact)
	for k := uint64(zetaExact + 1); k <= zetaExact+1000; k++ {
		exact += math.Pow(float64(k), -zipfTheta)
	}
	if got := zeta(zetaExact + 1000); math.Abs(got-exact) > 1e-6 {
		t.Errorf("zeta beyond the exact part is %v, want %v", got, exact)
	}
}

func TestSequenceWrapsAround(t *testing.T) {
	s := newChooser(Sequential, 3)
	var got []uint64
	for range 5 {
		got = append(got, s.next(nil))
	}
	if fmt.Sprint(got) != "[0 1 2 0 1]" {
		t.Errorf("keys %v", got)
	}
}

func TestCheckNamesTheFlag(t *testing.T) {
	for flag, change := range map[string]func(*Config){
		"workload":       func(c *Config) { c.Workload = "ycsb-z" },
		"--distribution": func(c *Config) { c.Distribution = "normal" },
		"--clients":      func(c *Config) { c.Clients = 0 },
		"--duration":     func(c *Config) { c.Duration = 0 },
		"--warmup":       func(c *Config) { c.Warmup = -1 },
		"--keys":         func(c *Config) { c.Keys = 0 },
		"--value-size":   func(c *Config) { c.ValueBytes = shard.ValueBytesMax + 1 },
		"--rate":         func(c *Config) { c.Rate = math.NaN() },
		"--timeout":      func(c *Config) { c.Timeout = 0 },
	} {
		c := config(Put)
		change(&c)
		var invalid *shard.InvalidError
		if _, err := Run(context.Background(), newFakeStore(), c); !errors.As(err, &invalid) || invalid.Field != flag {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func status(incarnation uint64, counters map[string]float64) *kiloraftpb.StatusResponse {
	return &kiloraftpb.StatusResponse{Shards: 9, NodeInfos: []*kiloraftpb.NodeInfo{
		{Id: 1, Live: true, Incarnation: incarnation, Counters: counters},
		{Id: 2, Live: true, Incarnation: 1, Counters: counters},
		{Id: 3, Live: false},
	}}
}

func counters(x float64) map[string]float64 {
	return map[string]float64{"wal_syncs_total": x, "commits_total": 2 * x, "rounds_total": 10 * x, "groups_in_rounds_total": 45 * x,
		"entries_total": 5 * x, "operations_total": 10 * x,
		"revision_draws_total": 3 * x, "revisions_drawn_total": 24 * x, "process_cpu_seconds_total": x / 1000}
}

func TestClusterFigures(t *testing.T) {
	var asked atomic.Int64
	c := config(Put)
	c.Status = func(context.Context) (*kiloraftpb.StatusResponse, error) {
		return status(1, counters(float64(100*asked.Add(1)))), nil
	}
	r := runUntil(t, newFakeStore(), c, func() bool { return asked.Load() > 0 })
	if r.Cluster == nil || asked.Load() != 2 {
		t.Fatalf("%+v after %d questions", r, asked.Load())
	}
	f := r.Cluster
	if f.Shards != 9 || f.Nodes != 2 || *f.FsyncsPerPut != 200/float64(r.Puts) || *f.GroupsPerRound != 4.5 || *f.OperationsPerEntry != 2 || *f.GrantsPerDraw != 8 ||
		math.Abs(*f.ServerCPUMicrosPerOp-200_000/float64(r.Ops)) > 1e-6 {
		t.Errorf("figures: %+v", f)
	}

	state := func(s *kiloraftpb.StatusResponse) *clusterState {
		return askCluster(context.Background(), &Config{Status: func(context.Context) (*kiloraftpb.StatusResponse, error) { return s, nil }})
	}
	if f := figuresOf(state(status(1, counters(1))), state(status(2, counters(5))), 10, 10); f.FsyncsPerPut != nil || f.Shards != 9 {
		t.Errorf("figures across a restart: %+v", f)
	}
	if f := figuresOf(state(status(1, nil)), state(status(1, nil)), 10, 10); f.FsyncsPerPut != nil {
		t.Errorf("figures without counters: %+v", f)
	}
	// Servers that draw no revisions, in or out of this workload.
	undrawn := func(x float64) map[string]float64 {
		c := counters(x)
		c["revision_draws_total"], c["revisions_drawn_total"] = 7, 9
		return c
	}
	if f := figuresOf(state(status(1, undrawn(1))), state(status(1, undrawn(2))), 10, 10); f.GrantsPerDraw != nil {
		t.Errorf("figures of a run without draws: %+v", f)
	}
	if f := figuresOf(state(status(1, counters(1))), state(status(1, counters(2))), 10, 0); f.FsyncsPerPut != nil || f.ServerCPUMicrosPerOp == nil {
		t.Errorf("figures of a run without puts: %+v", f)
	}
	if f := figuresOf(nil, nil, 10, 10); f != nil {
		t.Errorf("figures of a cluster that does not answer: %+v", f)
	}
}

func TestReportTexts(t *testing.T) {
	ratio := func(v float64) *float64 { return &v }
	r := &Report{Workload: Put, Seconds: 30, Ops: 1_236_090, OpsPerSec: 41_203, Latency: Latency{4.9, 11.8, 17.2, 31, 144},
		FirstErrors: []string{"put: busy"}, Rate: 50_000, NeverBegun: 7, Interrupted: true,
		Cluster:     &Cluster{Shards: 48, Nodes: 3, FsyncsPerPut: ratio(0.27), GrantsPerDraw: ratio(16.24), ServerCPUMicrosPerOp: ratio(31)},
		Environment: Environment{Cores: 2, OS: "linux", Kernel: "6.18", Go: "go1.26.8", Kiloraft: "0.1.0 (a1b2c3d)"}}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"put       1,236,090 in 30.0 s   41,203/s   0 errors\n",
		"latency   p50 4.9   p95 11.8   p99 17.2   p99.9 31.0   max 144 ms\n",
		"cluster   48 shards on 3 nodes, 0.27 fsyncs per put, 16.2 grants per draw, 31 µs server CPU per operation\n",
		"machine   2 cores, linux 6.18, go1.26.8, kiloraft 0.1.0 (a1b2c3d)\n",
		"rate      asked for 50,000/s; 7 operations were due and never begun\n",
		"error     put: busy\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ops":1236090`, `"errors":0`, `"ops_per_sec":41203`, `"latency_ms":{"p50":4.9,"p95":11.8,"p99":17.2,"p999":31,"max":144}`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	c := config(Put)
	c.Keys, c.Clients, c.ValueBytes = 1_000_000, 256, 256
	if got, want := c.Intro(), "loading nothing; 1,000,000 keys, 256 B values, uniform, 256 clients, closed loop"; got != want {
		t.Errorf("intro %q, want %q", got, want)
	}
	load := Progress{Phase: "load", Elapsed: 5 * time.Second, Done: 250_000, Keys: 1_000_000, OpsPerSec: 50_000}
	if got, want := load.String(), "   5s  loading 250,000 of 1,000,000 keys  50,000/s  15s left   ▇▇▇▇▇▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁"; got != want {
		t.Errorf("progress %q, want %q", got, want)
	}
}

func BenchmarkClientLoop(b *testing.B) {
	r := &run{c: &Config{Workload: Put, Distribution: Uniform, Keys: 1e6, ValueBytes: 256, Timeout: time.Second},
		store: nothing{}, values: newValues(256, 1), chooser: newChooser(Uniform, 1e6), records: newRecords(1)}
	ops := &operator{run: r, keys: newKeyMaker(Uniform), rand: rand.New(rand.NewPCG(1, 2))}
	d := deadlines{parent: context.Background(), timeout: time.Second}
	defer d.stop()
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		o := ops.one(d.at(now))
		o.took = time.Since(now)
		r.records.recorders[0].record(o)
	}
}

// nothing answers at once.
type nothing struct{ Store }

func (nothing) Put(context.Context, []byte, []byte, ...client.CallOption) (shard.Revision, error) {
	return 1, nil
}
