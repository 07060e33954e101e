package sim

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A job is one run that a worker process is given, and result what it says of it.
type job struct {
	Seed     uint64
	Bug      string // planted; empty: none
	Scenario string // empty: drawn faults
	Overlook string // see plantedBugs
	Trace    string // file for the whole trace; empty: none
	Tell     bool   // its story, though nothing failed
}

type result struct {
	Report Report
	Phase  string // in which it failed
	Error  string // empty: all held
	Story  string
	Took   time.Duration // of one core
}

var asWorker = flag.Bool("sim.worker", false, "run the seeds that are asked for on standard input")

// TestWorker is a process of the fleet: it runs job after job, because the source of
// randomness that a run pins belongs to the whole process.
func TestWorker(t *testing.T) {
	if !*asWorker {
		return // it is a part of make sim
	}
	debug.SetGCPercent(200)
	jobs, results := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.NewFile(3, "results"))
	for {
		var j job
		if jobs.Decode(&j) != nil {
			return
		}
		r, err := carryOut(t, &j)
		if err != nil {
			r.Error = err.Error()
		}
		if err := results.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
}

func carryOut(t *testing.T, j *job) (r result, err error) {
	plant(j.Bug)
	cfg := config(t, j.Seed)
	if j.Scenario != "" {
		cfg = directed(t, j.Seed, j.Scenario)
	}
	if j.Overlook != "" {
		cfg.Overlook = func(err error) bool { return contains(err.Error(), j.Overlook) }
	}
	if j.Trace != "" {
		f, err := os.Create(j.Trace)
		if err != nil {
			return r, err
		}
		defer f.Close()
		b := bufio.NewWriter(f)
		defer b.Flush()
		cfg.TraceAll = b
	}
	if j.Tell {
		cfg.Told = func(story string) { r.Story = story }
	}
	began := processorTime()
	report, err := Run(cfg)
	r.Report, r.Took = report, processorTime()-began
	var f *Failure
	if errors.As(err, &f) {
		r.Phase, r.Story, err = f.Phase, f.Story, f.Err
	}
	return r, err
}

// processorTime is what the process has used so far: on a machine that does other things
// too it says more than the time that has passed.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// contains tells whether a text has one of some parts, which bars separate.
func contains(text, parts string) bool {
	for part := range strings.SplitSeq(parts, "|") {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

func (r *result) verdict() string {
	if r.Error == "" {
		return "ok"
	}
	return fmt.Sprintf("failed while %s: %s", r.Phase, r.Error)
}
