package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/placement/catalog"
)

// Config of a run. Everything that a run does follows from it.
type Config struct {
	Seed uint64

	// PinRandom makes the process's source of randomness start from a seed: raft
	// draws its election jitter from it. Tests pass testing/cryptotest.SetGlobalRandom.
	// nil leaves it as it is, and runs then differ.
	PinRandom func(seed uint64)

	Nodes      int             // 0: drawn from the seed, 3 to 7
	UserShards int             // 0: 3
	Keep       *Keep           // nil: drawn from the seed
	Work       time.Duration   // virtual time during which clients work and faults strike; 0: drawn from the seed
	Workload   *WorkloadConfig // nil: drawn from the seed
	Faults     *Faults         // nil: drawn from the seed
	Grown      *bool           // see ClusterConfig; nil: drawn from the seed

	// Direct takes the place of the faults: it is called once, when the clients
	// begin, and arranges what is to happen. nil: faults strike.
	Direct func(*Stage)

	// Overlook tells which violations do not count, so that it shows what else
	// finds a bug; nil: all count.
	Overlook func(error) bool

	TraceAll io.Writer    // every line of the trace; nil: none
	Told     func(string) // is given the run's story, if nothing failed; nil: nobody
}

func (c *Config) defaults() {
	if c.UserShards == 0 {
		c.UserShards = 3
	}
}

const (
	settleWithin = 60 * time.Second // of virtual time, after everything was healed
	returnWithin = 30 * time.Second // of virtual time, for operations in flight; longer than any time-out
	stepsMax     = 20_000_000       // of one phase

	// changesMin is how many splits and moves a run under drawn faults has at least, and
	// changesWithin how much longer than drawn it goes on for that.
	changesMin    = 20
	changesWithin = 60 * time.Second

	porcupineMax = 30 * time.Second // of real time, for one key
)

// Report is what a run did.
type Report struct {
	Seed         uint64
	TraceHash    uint64
	Steps, Lines uint64
	Virtual      time.Duration
	Grown        bool
	Nodes        int
	Keep         Keep
	RaiseBy      uint64 // see ClusterConfig
	Faults       Faults

	Acked, Undetermined, Refused, Reads int // operations
	Calls, ReadsAt, Compacted           int // see Workload
	Operations                          int // of clients, of whatever outcome, and of the scout
	Histories                           int // of keys, found to be linearizable
	Struck                              Struck
	DisksFailed                         int    // nodes that ended for theirs
	FoundOut                            int    // times that something noticed a bit that had flipped
	Snapshots                           int    // installed
	Removals                            int    // of replicas
	Splits, Moves                       int    // of shards, that came to their end
	Compared                            uint64 // replicas with their leader's, by checks that found them equal
}

func (r *Report) String() string {
	return fmt.Sprintf("seed %d: trace %016x, %d steps, %v; %d operations, %d histories; writes: %d acknowledged, %d undetermined, %d refused, %d of several keys or conditional; %d reads, %d at a revision, %d compacted; %d snapshots, %d removals; %d splits, %d moves; %d nodes, grown %v; %v; the bound is raised by %d; faults %v; struck: %v",
		r.Seed, r.TraceHash, r.Steps, r.Virtual.Round(time.Millisecond), r.Operations, r.Histories, r.Acked, r.Undetermined, r.Refused, r.Calls, r.Reads, r.ReadsAt, r.Compacted, r.Snapshots, r.Removals, r.Splits, r.Moves, r.Nodes, r.Grown, r.Keep, r.RaiseBy, r.Faults, &r.Struck)
}

// Failure is a run that broke a promise.
type Failure struct {
	Seed   uint64
	Phase  string
	Err    error
	Report Report
	Story  string // what led to it; see Trace.Story
}

func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d failed while %s: %v\n  %v\n%s", f.Seed, f.Phase, f.Err, &f.Report, f.Story)
}

func (f *Failure) Unwrap() error { return f.Err }

// Run carries out one simulation on the calling goroutine. The error is a
// *Failure if a promise was broken.
func Run(cfg Config) (Report, error) {
	cfg.defaults()
	if cfg.PinRandom != nil {
		cfg.PinRandom(cfg.Seed)
	}
	r, err := newRun(cfg)
	if err != nil {
		return Report{}, err
	}
	defer r.guarded(r.close)
	for _, p := range []struct {
		name string
		run  func() error
	}{
		{"starting", r.start},
		{"working", r.work},
		{"settling", r.settle},
		{"reading back", r.readBack},
		{"checking", r.check},
	} {
		r.trace.Event(r.loop.Now(), "world", "%s", p.name)
		err := r.guarded(p.run)
		if w := r.witness.Err(); w != nil {
			err = w
		}
		if err != nil {
			return r.report(), &Failure{Seed: cfg.Seed, Phase: p.name, Err: err, Report: r.report(), Story: r.trace.Story(err.Error())}
		}
	}
	if cfg.Told != nil {
		cfg.Told(r.trace.Story(""))
	}
	return r.report(), nil
}

// guarded turns a panic of a step into an error, so that it comes with its seed.
func (r *run) guarded(phase func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return phase()
}

// run is one simulation under way.
type run struct {
	cfg     Config
	trace   *Trace
	loop    *Loop
	witness *Witness
	cluster *Cluster
	load    *Workload
	nemesis *Nemesis
}

func newRun(cfg Config) (*run, error) {
	r := &run{cfg: cfg, trace: NewTrace(cfg.TraceAll)}
	r.loop = NewLoop(cfg.Seed, r.trace)
	r.witness = NewWitness(r.loop, r.trace)
	r.witness.overlook = cfg.Overlook
	if r.cfg.Work == 0 {
		r.cfg.Work = drawWork(r.loop)
	}
	grown := r.loop.rand.IntN(2) == 0
	if cfg.Grown != nil {
		grown = *cfg.Grown
	}
	nodes := drawNodes(r.loop)
	if cfg.Nodes != 0 {
		nodes = cfg.Nodes
	}
	faults := drawFaults(r.loop, nodes > replicationFactor)
	if cfg.Direct != nil {
		faults = 0
	}
	if cfg.Faults != nil {
		faults = *cfg.Faults
	}
	c := ClusterConfig{Nodes: nodes, UserShards: cfg.UserShards, Grown: grown,
		Raft: drawRaft(r.loop), RaiseBy: drawRaiseBy(r.loop)}
	if faults.Has(Drift) {
		c.DriftPPM = []int{20_000, 20_000, 300_000}[r.loop.rand.IntN(3)]
	}
	if faults.Has(EarlySync) {
		c.SyncsEarlyPerMille = 1 + r.loop.rand.IntN(600)
	}
	var err error
	if r.cluster, err = NewCluster(r.loop, r.trace, r.witness, c); err != nil {
		return nil, err
	}
	r.cluster.byHand = faults.Has(Move) && faults.placed()
	r.cluster.keep = drawKeep(r.loop)
	if cfg.Keep != nil {
		r.cluster.keep = *cfg.Keep
	}
	load := drawWorkload(r.loop)
	if cfg.Workload != nil {
		load = *cfg.Workload
	}
	r.load = NewWorkload(r.cluster, load)
	r.nemesis = NewNemesis(r.cluster, faults, r.load)
	r.nemesis.splitEvery = r.cfg.Work / shardsMax
	return r, nil
}

// drawNodes draws the number of nodes. Where there are more of them than replicas of a
// shard, replicas move, and nodes without one of the meta shard draw revisions too.
func drawNodes(l *Loop) int { return []int{3, 3, 3, 3, 3, 4, 4, 5, 6, 7}[l.rand.IntN(10)] }

// drawWork draws how long clients work: most often not for long, since most bugs that
// a seed finds it finds early.
func drawWork(l *Loop) time.Duration {
	return []time.Duration{3 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second, 10 * time.Second}[l.rand.IntN(5)]
}

// drawRaft draws the settings of raft. Short election time-outs give many
// elections, and candidates that meet in one term; logs are truncated early, so
// that who was away for long is sent a snapshot.
func drawRaft(l *Loop) node.RaftConfig {
	cfg := node.RaftConfig{Workers: 1, LogBytesMax: 16 << 10}
	if l.rand.IntN(3) > 0 {
		cfg.ElectionTicks, cfg.HeartbeatTicks = 3+l.rand.IntN(4), 1
	}
	return cfg
}

// drawRaiseBy draws by how much the bound of revisions is raised at a time: most
// often so little that it is raised all the time, under every fault.
func drawRaiseBy(l *Loop) uint64 { return []uint64{0, 1, 10, 100, 1000}[l.rand.IntN(5)] }

// drawWorkload draws how busy the clients are. In a quiet cluster the log of a
// leader that was cut off can be longer than its successor's.
func drawWorkload(l *Loop) WorkloadConfig {
	return WorkloadConfig{Clients: 3, Concurrent: 3, Keys: []int{6, 24, 30, 36}[l.rand.IntN(4)],
		// Long values make snapshots that are ingested as files.
		ValueBytes: []int{300, 300, 300, 8 << 10}[l.rand.IntN(4)],
		Think:      []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 60 * time.Millisecond, time.Second}[l.rand.IntN(4)],
		Scout:      []time.Duration{10 * time.Millisecond, 30 * time.Millisecond}[l.rand.IntN(2)]}
}

// until runs the loop until done, a violation, or d of virtual time; it tells
// whether done came.
func (r *run) until(d time.Duration, done func() bool) (bool, error) {
	return r.loop.Run(r.loop.Now()+d, stepsMax, func() bool {
		r.witness.covered()
		return r.witness.failure != nil || done != nil && done()
	})
}

// start starts the nodes. They find each other, and elect leaders, while the
// clients are at work already and faults strike.
func (r *run) start() error {
	r.cluster.Start()
	return nil
}

func (r *run) work() error {
	r.cluster.administer(r.cfg.Work)
	if r.nemesis.faults.placed() {
		// Nodes that are away for long are given up.
		r.cluster.set(catalog.PlacementDeadAfter, "5s")
	}
	r.cluster.checkShards()
	r.load.Start()
	if r.cfg.Direct != nil {
		r.cfg.Direct(&Stage{r})
	} else {
		r.nemesis.Start()
	}
	if _, err := r.until(r.cfg.Work, nil); err != nil || r.cfg.Direct != nil || !r.nemesis.faults.Has(Split) {
		return err
	}
	// Where so much fails that shards are hardly ever split, it takes longer.
	ok, err := r.until(changesWithin, func() bool { return len(r.witness.births)+r.nemesis.moves >= changesMin })
	if err == nil && !ok {
		err = fmt.Errorf("%d splits and %d moves came to their end, of at least %d, in %v", len(r.witness.births), r.nemesis.moves, changesMin, r.cfg.Work+changesWithin)
	}
	return err
}

// settle heals everything and waits until the operations in flight have returned
// and the replicas agree.
func (r *run) settle() error {
	r.load.Stop()
	r.nemesis.Stop()
	ok, err := r.until(returnWithin, r.load.Idle)
	if err == nil && !ok {
		err = fmt.Errorf("operations have not returned %v after everything was healed", returnWithin)
	}
	if err != nil {
		return err
	}
	// Agreement is looked for at intervals, not after every step: it costs.
	for end := r.loop.Now() + settleWithin; ; {
		if _, err := r.until(100*time.Millisecond, nil); err != nil {
			return err
		}
		if r.witness.failure != nil {
			return nil // time stands still from there on
		}
		why := r.cluster.Unsettled()
		if why == "" {
			return nil
		}
		if r.loop.Now() > end {
			return fmt.Errorf("not settled %v after everything was healed: %s", settleWithin, why)
		}
	}
}

// readBack reads every key once more: what was acknowledged must be there. And it
// asks again, at every replica, what was read at older revisions.
func (r *run) readBack() error {
	read := false
	r.load.ReadAll(func() {
		if r.load.cfg.Plain {
			read = true
			return
		}
		r.load.lookBackEverywhere(func() { read = true })
	})
	ok, err := r.until(settleWithin, func() bool { return read })
	if err == nil && !ok {
		err = fmt.Errorf("not all keys could be read within %v", settleWithin)
	}
	return err
}

// check compares the replicas' content and the clients' histories.
func (r *run) check() error {
	r.cluster.findDifferences()
	for _, n := range r.cluster.nodes {
		if n.gone {
			continue
		}
		r.witness.disjoint(n.Name, n.engine)
		r.witness.content(n.Name, n.engine)
		r.witness.leftover(n.Name, n.engine)
	}
	r.witness.judge(r.load.history)
	return r.load.history.Check(porcupineMax)
}

func (r *run) report() Report {
	return Report{Seed: r.cfg.Seed, TraceHash: r.trace.Hash(), Steps: r.loop.Steps(), Lines: r.trace.Lines(), Virtual: r.loop.Now(), Grown: r.cluster.grown, Nodes: len(r.cluster.nodes), Keep: r.cluster.keep, RaiseBy: r.cluster.raiseBy, Faults: r.nemesis.faults,
		Acked: r.load.Acked, Undetermined: r.load.Undetermined, Refused: r.load.Refused, Reads: r.load.Reads,
		Calls: r.load.Calls, ReadsAt: r.load.ReadsAt, Compacted: r.load.Compacted,
		Operations: r.load.Operations, Histories: r.load.history.checked, Struck: r.nemesis.struck, DisksFailed: r.nemesis.disksFailed, FoundOut: r.witness.foundOut,
		Snapshots: r.witness.installs, Removals: r.witness.removals, Splits: len(r.witness.births), Moves: r.nemesis.moves, Compared: r.cluster.compared()}
}

func (r *run) close() error {
	r.load.Close()
	r.cluster.Close()
	return nil
}
