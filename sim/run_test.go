package sim

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"testing/cryptotest"
)

// seeds is how many TestSeeds runs; KILORAFT_SEEDS sets another number. The race
// detector makes a run ten times as long, and finds little on one goroutine.
func seeds() uint64 {
	if raceDetector {
		return 5
	}
	return 40
}

// seed0 is the first one.
const seed0 = 1

func config(t *testing.T, seed uint64) Config {
	return Config{Seed: seed, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }}
}

// TestSeeds runs the cluster under the faults of many seeds. KILORAFT_SEED=n
// replays one of them, and KILORAFT_SEED_TRACE=file writes its whole trace.
func TestSeeds(t *testing.T) {
	if one, ok := environmentNumber(t, "KILORAFT_SEED"); ok {
		cfg := config(t, one)
		if path := os.Getenv("KILORAFT_SEED_TRACE"); path != "" {
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cfg.TraceAll = f
		}
		runSeed(t, cfg)
		return
	}
	n, ok := environmentNumber(t, "KILORAFT_SEEDS")
	if !ok {
		n = seeds()
	}
	var acked, crashes int
	for seed := uint64(seed0); seed < seed0+n; seed++ {
		r := runSeed(t, config(t, seed))
		acked += r.Acked
		crashes += r.Crashes
		if t.Failed() {
			return
		}
	}
	t.Logf("%d seeds: %d writes acknowledged, %d crashes", n, acked, crashes)
	if acked == 0 || crashes == 0 {
		t.Fatal("the seeds show nothing: no write was acknowledged, or no node crashed")
	}
}

// runSeed runs one seed; a failure says how to replay it.
func runSeed(t *testing.T, cfg Config) Report {
	t.Helper()
	r, err := Run(cfg)
	if err != nil {
		t.Errorf("%v\nreplay: KILORAFT_SEED=%d go test ./sim -run 'TestSeeds$' -v", err, cfg.Seed)
		return r
	}
	t.Log(&r)
	return r
}

// TestSameSeedSameRun runs seeds twice and compares the hashes of all that happened.
// If they differ it says where the runs part.
func TestSameSeedSameRun(t *testing.T) {
	last := uint64(106)
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

func environmentNumber(t *testing.T, name string) (uint64, bool) {
	s := os.Getenv(name)
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}
