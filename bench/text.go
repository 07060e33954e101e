package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Intro is a line about what is going to run.
func (c *Config) Intro() string {
	loop := "closed loop"
	if c.Rate > 0 {
		loop = fmt.Sprintf("open loop at %s/s", Count(uint64(c.Rate+0.5)))
	}
	first := "loading nothing"
	if c.Load {
		first = "loading all keys first"
	}
	return fmt.Sprintf("%s; %s keys, %s B values, %s, %s clients, %s", first, Count(c.Keys), Count(uint64(c.ValueBytes)),
		c.Distribution, Count(uint64(c.Clients)), loop)
}

// barCells is the width of a progress bar.
const barCells = 20

// String is a line for people.
func (p Progress) String() string {
	switch p.Phase {
	case "load":
		line := fmt.Sprintf("%4.0fs  loading %s of %s keys  %s/s", p.Elapsed.Seconds(), Count(p.Done), Count(p.Keys), Count(uint64(p.OpsPerSec)))
		if p.OpsPerSec > 0 {
			left := time.Duration(float64(p.Keys-min(p.Done, p.Keys)) / p.OpsPerSec * float64(time.Second))
			line += fmt.Sprintf("  %v left", left.Round(time.Second))
		}
		return line + "   " + bar(float64(p.Done)/float64(max(p.Keys, 1)))
	case "warmup":
		return fmt.Sprintf("%4.0fs  warming up", p.Elapsed.Seconds())
	}
	return fmt.Sprintf("%4.0fs  %s/s  p50 %s  p99 %s  max %s  errors %s   %s", p.Elapsed.Seconds(), Count(uint64(p.OpsPerSec)),
		milliseconds(p.P50), milliseconds(p.P99), milliseconds(p.Max), Count(p.Errors), bar(p.Elapsed.Seconds()/p.Of.Seconds()))
}

func bar(done float64) string {
	full := int(min(max(done, 0), 1) * barCells)
	return strings.Repeat("▇", full) + strings.Repeat("▁", barCells-full)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s %s in %.1f s   %s/s   %s errors\n", r.Workload, Count(r.Ops), r.Seconds, Count(uint64(r.OpsPerSec)), Count(r.Errors))
	fmt.Fprintf(&b, "%-9s p50 %s   p95 %s   p99 %s   p99.9 %s   max %s ms\n", "latency",
		short(r.Latency.P50), short(r.Latency.P95), short(r.Latency.P99), short(r.Latency.P999), short(r.Latency.Max))
	if r.Rate > 0 {
		fmt.Fprintf(&b, "%-9s asked for %s/s; %s operations were due and never begun\n", "rate", Count(uint64(r.Rate+0.5)), Count(r.NeverBegun))
	}
	if r.NotFound > 0 {
		fmt.Fprintf(&b, "%-9s %s of %s gets found no value (--load writes all keys first)\n", "misses", Count(r.NotFound), Count(r.Gets+r.Errors))
	}
	if r.Scans > 0 {
		fmt.Fprintf(&b, "%-9s %s, %s/s\n", "rows", Count(r.Rows), Count(uint64(float64(r.Rows)/r.Seconds)))
	}
	if c := r.Cluster; c != nil {
		fmt.Fprintf(&b, "%-9s %s\n", "cluster", strings.Join(c.figures(), ", "))
	}
	e := r.Environment
	fmt.Fprintf(&b, "%-9s %d cores, %s, %s, kiloraft %s\n", "machine", e.Cores, strings.TrimSpace(e.OS+" "+e.Kernel), e.Go, e.Kiloraft)
	for _, text := range r.FirstErrors {
		fmt.Fprintf(&b, "%-9s %s\n", "error", text)
	}
	if r.Interrupted {
		fmt.Fprintf(&b, "%-9s the run was interrupted; the figures cover what it measured\n", "note")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figures lists what is known.
func (c *Cluster) figures() []string {
	list := []string{fmt.Sprintf("%d shards on %d nodes", c.Shards, c.Nodes)}
	for _, f := range []struct {
		value  *float64
		format string
	}{
		{c.FsyncsPerPut, "%.2f fsyncs per put"}, {c.GroupsPerRound, "%.1f groups per round"},
		{c.OperationsPerEntry, "%.1f operations per entry"}, {c.GrantsPerDraw, "%.1f grants per draw"},
		{c.ServerCPUMicrosPerOp, "%.0f µs server CPU per operation"},
	} {
		if f.value != nil {
			list = append(list, fmt.Sprintf(f.format, *f.value))
		}
	}
	return list
}

// Count writes n with commas between groups of three digits.
func Count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func milliseconds(d time.Duration) string { return short(float64(d)/float64(time.Millisecond)) + " ms" }

// short writes a number with about three digits.
func short(v float64) string {
	switch {
	case v < 1:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
