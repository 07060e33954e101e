package bench

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is the outcome of a run, as `kiloraft bench -o json` prints it.
type Report struct {
	Workload     Workload     `json:"workload"`
	Clients      int          `json:"clients"`
	Keys         uint64       `json:"keys"`
	ValueBytes   int          `json:"value_size"`
	Distribution Distribution `json:"distribution"`
	Loaded       bool         `json:"loaded"`
	Rate         float64      `json:"rate"` // 0: closed loop

	Seconds     float64 `json:"seconds"` // of the measured phase, up to its last answer
	Interrupted bool    `json:"interrupted"`
	Ops         uint64  `json:"ops"` // answered without an error
	Errors      uint64  `json:"errors"`
	OpsPerSec   float64 `json:"ops_per_sec"`
	// NeverBegun counts operations that were due and that no client was free to
	// begin; they have no latency, so under a rate the percentiles are too good
	// when there are many.
	NeverBegun uint64  `json:"never_begun"`
	Latency    Latency `json:"latency_ms"`

	Puts        uint64   `json:"puts"`
	Gets        uint64   `json:"gets"`
	Scans       uint64   `json:"scans"`
	Rows        uint64   `json:"rows"`
	NotFound    uint64   `json:"not_found"`
	FirstErrors []string `json:"first_errors"` // the first few different ones

	Cluster     *Cluster    `json:"cluster"` // null: it could not be asked
	Environment Environment `json:"environment"`
}

// Latency of operations, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Cluster is what the servers counted during the measured phase, over all nodes.
// A figure that could not be told is null.
type Cluster struct {
	Shards               int      `json:"shards"`
	Nodes                int      `json:"nodes"`
	FsyncsPerPut         *float64 `json:"fsyncs_per_put"`
	CommitsPerPut        *float64 `json:"commits_per_put"`
	GroupsPerRound       *float64 `json:"groups_per_round"`
	OperationsPerEntry   *float64 `json:"operations_per_entry"`
	GrantsPerDraw        *float64 `json:"grants_per_draw"` // revisions that one request to the meta shard's leader drew
	ServerCPUMicrosPerOp *float64 `json:"server_cpu_us_per_op"`
}

// Environment of the load generator.
type Environment struct {
	Cores    int    `json:"cores"`
	OS       string `json:"os"`
	Kernel   string `json:"kernel"` // empty: not told
	Go       string `json:"go"`
	Kiloraft string `json:"kiloraft"` // filled by the caller
}

// CurrentEnvironment describes this machine and program.
func CurrentEnvironment(kiloraft string) Environment {
	e := Environment{Cores: runtime.NumCPU(), OS: runtime.GOOS, Go: runtime.Version(), Kiloraft: kiloraft}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		e.Kernel = strings.TrimSpace(string(release))
	}
	return e
}

// Progress of a run.
type Progress struct {
	Phase   string // "load", "warmup" or "run"
	Elapsed time.Duration
	Of      time.Duration // how long the phase takes; 0 for "load"
	Done    uint64        // keys written so far, of Keys; for "load"
	Keys    uint64
	// Since the last progress; latencies are for "run" only.
	OpsPerSec     float64
	P50, P99, Max time.Duration
	Errors        uint64 // since the start of the phase
}

func progressOf(elapsed, of, since time.Duration, recent *tally, errors uint64) Progress {
	at := func(percentile float64) time.Duration {
		return time.Duration(recent.latency.ValueAtPercentile(percentile)) * time.Microsecond
	}
	p := Progress{Phase: "run", Elapsed: elapsed, Of: of, P50: at(50), P99: at(99),
		Max: time.Duration(recent.latency.Max()) * time.Microsecond, Errors: errors}
	if since > 0 {
		p.OpsPerSec = float64(recent.ops()) / since.Seconds()
	}
	return p
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e3 }
	return Latency{P50: at(50), P95: at(95), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e3}
}

func (r *run) report(ctx context.Context, before *clusterState, finished time.Time) *Report {
	t := r.records.total
	rep := &Report{
		Workload: r.c.Workload, Clients: r.c.Clients, Keys: r.c.Keys, ValueBytes: r.c.ValueBytes,
		Distribution: r.c.Distribution, Loaded: r.c.Load, Rate: r.c.Rate,
		Seconds: finished.Sub(r.schedule.measured).Seconds(), Interrupted: ctx.Err() != nil,
		Ops: t.ops(), Errors: t.errors, NeverBegun: r.schedule.neverBegun(finished), Latency: latencyOf(t.latency),
		Puts: t.puts, Gets: t.gets, Scans: t.scans, Rows: t.rows, NotFound: t.missing,
		FirstErrors: r.records.errors.list(), Environment: CurrentEnvironment(""),
	}
	rep.OpsPerSec = float64(rep.Ops) / rep.Seconds
	// An interrupt ends the run, not the question how it went.
	rep.Cluster = figuresOf(before, askCluster(context.WithoutCancel(ctx), r.c), rep.Ops, rep.Puts)
	return rep
}
