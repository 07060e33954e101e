package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// make sim builds this package's test binary and runs it with these flags. It is a
// conductor then, and starts itself again as workers, one per core.
var (
	fleetSeeds = flag.Uint64("sim.seeds", 0, "run so many seeds in parallel")
	fleetStart = flag.Uint64("sim.start", seed0, "the first of them")
	fleetSeed  = flag.String("sim.seed", "", "replay one seed, and tell its story")
	fleetTrace = flag.String("sim.trace", "", "write the whole trace of the seed that is replayed to a file")
	fleetBugs  = flag.Bool("sim.planted", false, "show that the planted bugs are caught")
	fleetProcs = flag.Int("sim.procs", runtime.NumCPU(), "processes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case *asWorker:
		os.Exit(m.Run())
	case *fleetSeed != "":
		os.Exit(replay(*fleetSeed))
	case *fleetSeeds > 0:
		os.Exit(runFleet())
	case *fleetBugs:
		os.Exit(runPlanted())
	}
	os.Exit(m.Run())
}

// seedWithin bounds the real time of one run. A run on a loaded machine takes some
// seconds; one that does not end takes for ever.
const seedWithin = 4 * time.Minute

// worker is a process that carries out jobs.
type crew struct {
	process *exec.Cmd
	jobs    io.WriteCloser
	results *json.Decoder
	said    bytes.Buffer // what it has written besides
}

func startWorker() (*crew, error) {
	w := &crew{process: exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=0", "-sim.worker")}
	// One core is all that a run uses; Pebble's goroutines wait for it, or it for them.
	w.process.Env = append(os.Environ(), "GOMAXPROCS=1")
	w.process.Stdout, w.process.Stderr = &w.said, &w.said
	in, err := w.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w.process.ExtraFiles = []*os.File{out}
	w.jobs, w.results = in, json.NewDecoder(r)
	err = w.process.Start()
	out.Close()
	return w, err
}

// do carries out a job. An error is about the process, which has ended then.
func (w *crew) do(j *job) (r result, err error) {
	timeout := time.AfterFunc(seedWithin, func() { w.process.Process.Kill() })
	defer timeout.Stop()
	if err = json.NewEncoder(w.jobs).Encode(j); err == nil {
		err = w.results.Decode(&r)
	}
	if err != nil {
		w.process.Process.Kill()
		err = fmt.Errorf("the process ended, or did not come to an end in %v: %w\n%s", seedWithin, errors.Join(err, w.process.Wait()), lastBytes(w.said.String(), 20_000))
	}
	return r, err
}

func (w *crew) close() {
	w.jobs.Close()
	w.process.Wait()
}

func lastBytes(s string, n int) string { return s[max(0, len(s)-n):] }

// workerJobs is how many jobs a process carries out before another one takes its
// place: what a store that has failed leaves behind cannot all be let go of.
const workerJobs = 20

// inParallel carries out tasks in several processes. Each has jobs run, one after the
// other, by the process that it is given to.
func inParallel(procs int, tasks []func(run func(*job) result)) {
	waiting := make(chan func(func(*job) result), len(tasks))
	for _, task := range tasks {
		waiting <- task
	}
	close(waiting)
	var all sync.WaitGroup
	for range procs {
		all.Go(func() {
			var w *crew
			jobs := 0
			run := func(j *job) (r result) {
				var err error
				if jobs++; w != nil && jobs%workerJobs == 0 {
					w.close()
					w = nil
				}
				if w == nil {
					w, err = startWorker()
				}
				if err == nil {
					r, err = w.do(j)
				}
				if err != nil {
					w = nil
					return result{Report: Report{Seed: j.Seed}, Phase: "running", Error: err.Error()}
				}
				return r
			}
			for task := range waiting {
				task(run)
			}
			if w != nil {
				w.close()
			}
		})
	}
	all.Wait()
}

// replay runs one seed, or a scenario with a seed, and tells what each node did.
func replay(which string) int {
	j := &job{Trace: *fleetTrace, Tell: true}
	if _, err := fmt.Sscanf(which, "%d", &j.Seed); err != nil {
		fmt.Fprintf(os.Stderr, "sim: %q is no seed\n", which)
		return 2
	}
	var res result
	inParallel(1, []func(func(*job) result){func(run func(*job) result) { res = run(j) }})
	fmt.Printf("%s%v\nsim: seed %d %s\n", res.Story, &res.Report, j.Seed, res.verdict())
	if res.Error != "" {
		return 1
	}
	return 0
}

// twiceEvery: one seed in so many is run twice, and must come out the same.
const twiceEvery = 100

// fleet is what all seeds came to.
type fleet struct {
	mu      sync.Mutex // guards what follows
	began   time.Time
	seeds   int
	twice   int
	ops     int
	keys    int
	struck  Struck
	faults  int
	splits  int
	moves   int
	virt    time.Duration
	busy    time.Duration // of one core
	hashes  map[uint64]uint64
	failed  []uint64
	unknown int
}

// runFleet runs many seeds and ends in one line that says what they came to.
func runFleet() int {
	f := &fleet{began: time.Now(), hashes: make(map[uint64]uint64)}
	var todo []func(func(*job) result)
	for seed := *fleetStart; seed < *fleetStart+*fleetSeeds; seed++ {
		task := func(run func(*job) result) {
			j := &job{Seed: seed}
			f.take(j, run(j))
		}
		todo = append(todo, task)
		if (seed-*fleetStart)%twiceEvery == 0 {
			todo = append(todo, task)
		}
	}
	inParallel(*fleetProcs, todo)
	return f.sum()
}

func (f *fleet) take(j *job, r result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, known := f.hashes[j.Seed]
	switch {
	case r.Error != "":
		f.fail(j, r.verdict(), r.Story)
	case known && first != r.Report.TraceHash:
		f.fail(j, fmt.Sprintf("two runs are not the same: trace %016x and %016x; write two traces and compare them", first, r.Report.TraceHash), "")
	}
	f.hashes[j.Seed] = r.Report.TraceHash
	f.virt += r.Report.Virtual
	f.busy += r.Took
	if strings.Contains(r.Error, "(Unknown)") {
		f.unknown++
	}
	if known {
		f.twice++
		return
	}
	f.seeds++
	f.ops += r.Report.Operations
	f.keys += r.Report.Histories
	for k, n := range r.Report.Struck {
		f.struck[k] += n
	}
	f.faults += r.Report.Struck.Total()
	f.splits += r.Report.Splits
	f.moves += r.Report.Moves
	if f.seeds%50 == 0 {
		fmt.Printf("sim: %d of %d seeds after %v\n", f.seeds, *fleetSeeds, time.Since(f.began).Round(time.Second))
	}
}

func (f *fleet) fail(j *job, why, story string) {
	f.failed = append(f.failed, j.Seed)
	fmt.Printf("sim: seed %d %s\n%sreplay: make sim SEED=%d (TRACE=file writes everything)\n", j.Seed, why, story, j.Seed)
}

// What a run of many seeds must come to for each of them, on average: a fleet that
// tests nothing must not say that all is well.
const (
	opsPerSeedMin  = 500
	keysPerSeedMin = 20
)

func (f *fleet) sum() int {
	fmt.Printf("sim: struck: %v\n", &f.struck)
	took := time.Since(f.began)
	fmt.Printf("sim: %d seeds run twice and the same; %.1f seeds/s, %d operations and %d histories per seed, %v of real time\n",
		f.twice, float64(f.seeds)/took.Seconds(), f.ops/max(f.seeds, 1), f.keys/max(f.seeds, 1), took.Round(time.Second))
	verdict, code := "ok", 0
	switch {
	case len(f.failed) > 0:
		verdict, code = fmt.Sprintf("FAILED (seeds %v)", f.failed), 1
	case f.seeds >= 100 && (f.ops < opsPerSeedMin*f.seeds || f.keys < keysPerSeedMin*f.seeds):
		verdict, code = fmt.Sprintf("FAILED (fewer than %d operations or %d histories per seed)", opsPerSeedMin, keysPerSeedMin), 1
	}
	fmt.Printf("sim: seeds=%d ops=%d histories=%d unknown=%d faults=%d splits=%d moves=%d simulated=%.0fs speed=%.1fx %s\n",
		f.seeds, f.ops, f.keys, f.unknown, f.faults, f.splits, f.moves, f.virt.Seconds(), f.virt.Seconds()/max(f.busy.Seconds(), 1e-9), verdict)
	return code
}
