package sim

import (
	"bytes"
	"strconv"
	"testing"
	"testing/cryptotest"
)

// seed0 is the first seed that tests run.
const seed0 = 1

func config(t *testing.T, seed uint64) Config {
	return Config{Seed: seed, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }}
}

// TestSeeds runs the cluster under the faults of a few seeds; make sim runs many. The
// race detector makes a run ten times as long, and finds little on one goroutine.
func TestSeeds(t *testing.T) {
	n := uint64(10)
	if raceDetector {
		n = 3
	}
	var acked int
	var struck Struck
	for seed := uint64(seed0); seed < seed0+n; seed++ {
		r := runSeed(t, config(t, seed))
		acked += r.Acked
		for k, n := range r.Struck {
			struck[k] += n
		}
		if t.Failed() {
			return
		}
	}
	if acked == 0 || struck[Crash] == 0 {
		t.Fatal("the seeds show nothing: no write was acknowledged, or no node crashed")
	}
}

// runSeed runs one seed; a failure tells what led to it.
func runSeed(t *testing.T, cfg Config) Report {
	t.Helper()
	r, err := Run(cfg)
	if err != nil {
		t.Errorf("%v\nreplay: make sim SEED=%d, if the seed decided everything", err, cfg.Seed)
		return r
	}
	t.Log(&r)
	return r
}

// TestSameSeedSameRun runs seeds twice and compares the hashes of all that happened.
// If they differ it says where the runs part.
func TestSameSeedSameRun(t *testing.T) {
	last := uint64(102)
	if raceDetector {
		last = 101
	}
	for seed := uint64(101); seed <= last; seed++ {
		first := config(t, seed)
		a, err := Run(first)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Run(first)
		if err != nil {
			t.Fatal(err)
		}
		if a != b {
			t.Fatalf("seed %d differs between two runs:\n%v\n%v\n%s", seed, &a, &b, firstDifference(t, seed))
		}
	}
}

// firstDifference runs a seed twice more with whole traces.
func firstDifference(t *testing.T, seed uint64) string {
	var traces [2]bytes.Buffer
	for i := range traces {
		cfg := config(t, seed)
		cfg.TraceAll = &traces[i]
		if _, err := Run(cfg); err != nil {
			return err.Error()
		}
	}
	a, b := bytes.Split(traces[0].Bytes(), []byte("\n")), bytes.Split(traces[1].Bytes(), []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			return "line " + strconv.Itoa(i) + "\n< " + string(bytes.Join(a[max(0, i-10):i+1], []byte("\n< "))) + "\n> " + string(b[i])
		}
	}
	return "two more runs did not differ"
}
