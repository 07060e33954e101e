package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var c bench.Config
	distribution := string(bench.Uniform)
	names := make([]string, len(bench.Workloads))
	for i, w := range bench.Workloads {
		names[i] = string(w)
	}
	cmd := &cobra.Command{
		Use:   "bench WORKLOAD",
		Short: "Measure throughput and latency",
		Long: "Measure throughput and latency of a workload: put, get, mixed (half and half) or scan (100 rows each).\n" +
			"Without --rate every client asks again as soon as it is answered; with it, latency counts from\n" +
			"the moment at which an operation was due. Any error makes the exit code 1.",
		Example: `  kiloraft bench put --duration 10s
  kiloraft bench get --load --keys 100000 --rate 5000 -o json`,
		Args:      takes(1, "WORKLOAD"),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Workload = bench.Workload(args[0])
			if !slices.Contains(bench.Workloads, c.Workload) {
				return usagef("there is no workload %q; there are %s", args[0], strings.Join(names, ", "))
			}
			c.Distribution, c.Timeout = bench.Distribution(distribution), a.global.timeout
			if err := c.Check(); err != nil {
				return usagef("%v", err)
			}
			return a.bench(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.Clients, "clients", 256, "`N` clients ask at once")
	f.DurationVar(&c.Duration, "duration", 30*time.Second, "measure for `DURATION`")
	f.DurationVar(&c.Warmup, "warmup", 2*time.Second, "run for `DURATION` before measuring")
	f.Float64Var(&c.Rate, "rate", 0, "`OPS` per second of all clients together; 0 is as many as are answered")
	f.Uint64Var(&c.Keys, "keys", 1_000_000, "`N` different keys")
	f.IntVar(&c.ValueBytes, "value-size", 256, "`BYTES` of a value")
	f.Var(&choice{value: &distribution, of: []string{string(bench.Uniform), string(bench.Zipfian), string(bench.Sequential)}}, "distribution",
		"`HOW` keys are chosen: uniform, zipfian or sequential")
	f.BoolVar(&c.Load, "load", false, "write all keys first; a miss is an error then")
	f.Uint64Var(&c.Seed, "seed", 1, "`N` fixes the choice of keys")
	grouped(cmd, "Load", "clients", "duration", "warmup", "rate")
	grouped(cmd, "Data", "keys", "value-size", "distribution", "load", "seed")
	return cmd
}

// bench runs, reports, and fails if any operation did.
func (a *app) bench(ctx context.Context, c bench.Config) error {
	// The generator shares its machine with what it measures: fewer collections
	// for a somewhat larger heap.
	a.collectLess(0)
	t, err := a.target()
	if err != nil {
		return err
	}
	cluster, err := dialTarget(t)
	if err != nil {
		return err
	}
	defer cluster.close()
	opening, cancel := a.within(ctx)
	defer cancel()
	s, err := a.openStore(opening, t, a.global.timeout)
	if err != nil {
		return err
	}
	defer s.Close()

	fmt.Fprintln(a.stderr, c.Intro())
	line := newProgressLine(a.stderr)
	c.Status, c.Progress = cluster.status, line.show
	report, err := bench.Run(ctx, s, c)
	line.end()
	if err != nil {
		return err
	}
	report.Environment.Kiloraft = versionText()
	if err := a.print(report, report.WriteText); err != nil {
		return err
	}
	switch {
	case report.Errors > 0:
		return fmt.Errorf("%s of %s operations failed; the first error: %s", count(report.Errors), count(report.Errors+report.Ops), report.FirstErrors[0])
	case report.Interrupted:
		return ctx.Err()
	}
	return nil
}

// collectLess sets the garbage collector for speed, unless the environment says
// otherwise: GOGC 400, and memoryBytes, if any, as what the collector defends.
func (a *app) collectLess(memoryBytes int64) {
	if _, set := a.lookupEnv("GOGC"); !set {
		debug.SetGCPercent(400)
	}
	if _, set := a.lookupEnv("GOMEMLIMIT"); !set && memoryBytes > 0 {
		debug.SetMemoryLimit(memoryBytes)
	}
}

// quietInterval is between two lines of progress where there is no terminal.
const quietInterval = 5 * time.Second

// progressLine shows progress: in place on a terminal, else as a line now and
// then.
type progressLine struct {
	w       io.Writer
	inPlace bool
	phase   string
	last    time.Duration
}

func newProgressLine(w io.Writer) *progressLine {
	f, _ := w.(*os.File)
	return &progressLine{w: w, inPlace: f != nil && terminal(f)}
}

// clearLine returns to the start of the line and erases it.
const clearLine = "\r\x1b[K"

func (l *progressLine) show(p bench.Progress) {
	if l.inPlace {
		if l.phase == "load" && p.Phase != "load" {
			fmt.Fprintln(l.w)
		}
		l.phase = p.Phase
		fmt.Fprintf(l.w, "%s%s", clearLine, p)
		return
	}
	if p.Phase != l.phase {
		l.phase, l.last = p.Phase, 0
	}
	if p.Phase == "warmup" || p.Elapsed-l.last < quietInterval-quietInterval/20 {
		return
	}
	l.last = p.Elapsed
	fmt.Fprintln(l.w, p)
}

// end leaves the last line behind.
func (l *progressLine) end() {
	if l.inPlace && l.phase != "" {
		fmt.Fprintln(l.w)
	}
}
