package replica

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

// checker compares the replicas of shards. A shard's leader proposes a command that
// changes nothing; each replica opens a view when it has applied it, and computes a digest
// of what the command's place in the log says the content is, in parts, at a bounded
// rate. When the leader's own is done it proposes a second command that tells it, and
// each replica compares. A difference is reported by whoever finds it, on each of its
// node's ways to say so, until a later check finds none. Nothing is repaired: which of
// them is right, nobody here can know.
//
// What makes digests comparable (storage.Digest): later versions than the last revision
// at the command do not count, so that it does not matter what else the view holds; nor
// does what the floor at the command allows to drop. The view is opened on the group's
// turn, before any sweep can have dropped by a higher floor. Keys without versions are
// compared only if the views are of the same applied index.
//
// A replica that was not there, came past the command by a snapshot, or has too many
// digests to compute is not compared, which is no difference.
type checker struct {
	store    *Store
	interval atomic.Int64 // nanoseconds between the checks of a shard; 0: none

	mu      sync.Mutex
	jobs    []*digestJob // the first one is being computed
	closed  bool
	reading bool // a step reads the first one
}

const (
	digestsMax = 8        // views that a node keeps for checks
	digestPart = 1 << 20  // bytes
	digestRate = 32 << 20 // bytes per second of all digests of a node
)

// passedOver is why a replica is not compared whose content at the check is not here.
const passedOver = "the replica came past the check by a snapshot"

// digestJob is a digest to be computed.
type digestJob struct {
	r       *Replica
	check   machine.Check
	applied uint64 // in the view
	view    *storage.Snapshot
	digest  *storage.Digest
}

// CheckState is how far a replica's part in a check has come.
type CheckState string

const (
	CheckNone        CheckState = ""             // there was no check
	CheckComputing   CheckState = "computing"    // the digest
	CheckWaiting     CheckState = "waiting"      // for the leader's
	CheckSame        CheckState = "same"         // as the leader's
	CheckDiffers     CheckState = "differs"      // from the leader's
	CheckNotCompared CheckState = "not compared" // see Reason
)

// CheckReport is a replica's part in the last check of its shard that it knows of.
type CheckReport struct {
	Index           uint64 // of the entry, which names the check
	State           CheckState
	Reason          string
	Applied         uint64 // in the view that the digest is of
	Digest, Leaders []byte
	Versions, Bytes uint64
	leadersApplied  uint64
}

// checkState is a replica's.
type checkState struct {
	mu     sync.Mutex
	report CheckReport
	differ bool          // the last comparison found a difference
	began  time.Duration // the last check that this node began; of the upkeep's queue
	known  bool          // began is set
}

// SetCheckInterval sets how often each shard that this node leads is checked; 0: not at all.
func (s *Store) SetCheckInterval(d time.Duration) { s.checks.interval.Store(int64(max(d, 0))) }

// Checked is the replica's part in the last check.
func (r *Replica) Checked() CheckReport {
	r.check.mu.Lock()
	defer r.check.mu.Unlock()
	return r.check.report
}

// Differs tells whether the last comparison of this replica with its leader found a
// difference.
func (r *Replica) Differs() bool {
	r.check.mu.Lock()
	defer r.check.mu.Unlock()
	return r.check.differ
}

// Check begins a check of a shard that this node leads. done is called once: index names
// the check in the replicas' reports, which come in as they are ready.
func (s *Store) Check(id shard.ID, done func(index uint64, err error)) {
	r, ok := s.replicas.get(id)
	if !ok {
		done(0, &shard.WrongShardError{Shard: id})
		return
	}
	r.beginCheck(done)
}

func (r *Replica) beginCheck(done func(index uint64, err error)) {
	l, d := r.leadership.Load(), r.descriptor.Load()
	if d == nil {
		done(0, r.notLeader())
		return
	}
	r.proposeUpkeep(l.Term, d.Epoch.Version, &shard.Command{Kind: shard.KindDigest}, func(res raftgroup.Result, err error) {
		if err == nil {
			err = res.Err
		}
		if err != nil {
			done(0, r.hinted(err))
			return
		}
		index, _ := res.Detail.(uint64)
		done(index, nil)
	})
}

// checked takes the checks of a batch that is visible now, on the group's turn.
func (r *Replica) checked(checks []machine.Check, applied uint64) {
	for i := range checks {
		switch c := checks[i]; {
		case c.State == nil:
			r.verify(&c)
		case c.State.Descriptor.Epoch.Version != r.machine.State().Descriptor.Epoch.Version:
			// A part of what the digest is of is another shard's by now, or nobody's here.
			r.report(CheckReport{Index: c.At.Index, State: CheckNotCompared, Applied: applied, Reason: "the shard was split in the batch that has the check"})
		default:
			r.store.checks.open(r, c, applied)
		}
	}
}

func (r *Replica) report(c CheckReport) {
	r.check.mu.Lock()
	r.check.report = c
	r.check.mu.Unlock()
}

// open takes a view for a digest and puts it in line. It takes constant time.
func (k *checker) open(r *Replica, c machine.Check, applied uint64) {
	k.mu.Lock()
	room := !k.closed && len(k.jobs) < digestsMax
	if room {
		view := k.store.cfg.Engine.NewSnapshot()
		k.jobs = append(k.jobs, &digestJob{r: r, check: c, applied: applied, view: view,
			digest: view.NewDigest(storage.DigestOptions{Span: c.State.Descriptor.Span, UpTo: c.State.LastRevision, Floor: c.State.Floor})})
	}
	start := room && len(k.jobs) == 1
	k.mu.Unlock()
	report := CheckReport{Index: c.At.Index, State: CheckComputing, Applied: applied}
	if !room {
		report.State, report.Reason = CheckNotCompared, "the node computes too many digests"
	}
	r.report(report)
	if start {
		k.store.cfg.Reads.Submit(k.step)
	}
}

// step computes a part of the first digest. It runs on the Reads pool, once at a time.
func (k *checker) step() {
	k.mu.Lock()
	if k.closed || len(k.jobs) == 0 {
		k.mu.Unlock()
		return
	}
	job := k.jobs[0]
	k.reading = true
	k.mu.Unlock()

	began := k.store.cfg.Env.Now()
	var read int
	var err error
	done := job.r.hasStopped()
	if !done {
		read, done, err = job.digest.Part(digestPart)
	}

	k.mu.Lock()
	k.reading = false
	closed := k.closed
	end := done || err != nil || closed
	if end {
		_ = job.view.Close()
		k.jobs = k.jobs[1:]
	}
	more := len(k.jobs) > 0
	k.mu.Unlock()
	if closed {
		return
	}
	if end {
		job.end(err)
	}
	if more {
		pause := time.Duration(float64(read)/digestRate*float64(time.Second)) - (k.store.cfg.Env.Now() - began)
		k.store.cfg.Env.AfterFunc(max(pause, 0), k.store.upkeep.queue, func() { k.store.cfg.Reads.Submit(k.step) })
		return
	}
	k.store.upkeep.queue.Submit(k.look)
}

// close ends all digests; a step that runs just now ends its own.
func (k *checker) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for i, job := range k.jobs {
		if i > 0 || !k.reading {
			_ = job.view.Close()
		}
	}
	if k.reading {
		k.jobs = k.jobs[:1]
	} else {
		k.jobs = nil
	}
}

// end keeps a computed digest. A leader tells the others.
func (j *digestJob) end(err error) {
	r := j.r
	r.check.mu.Lock()
	report := &r.check.report
	if report.Index != j.check.At.Index { // there was another check meanwhile
		r.check.mu.Unlock()
		return
	}
	switch {
	case errors.Is(err, storage.ErrReplaced):
		report.State, report.Reason = CheckNotCompared, passedOver
		r.check.mu.Unlock()
		return
	case err != nil:
		report.State, report.Reason = CheckNotCompared, "its content cannot be read: "+err.Error()
		r.check.mu.Unlock()
		r.store.cfg.Logger.Error("a replica's content cannot be read", "shard", uint64(r.id), "replica", uint64(r.self), "error", err)
		return
	case r.hasStopped():
		report.State, report.Reason = CheckNotCompared, "the replica has stopped"
		r.check.mu.Unlock()
		return
	}
	r.store.stats.digests.Add(1)
	report.Digest = j.digest.Sum(digestedState(j.check.State))
	report.Versions, report.Bytes = j.digest.Versions, j.digest.Bytes
	report.State = CheckWaiting
	known := report.Leaders != nil
	digest := report.Digest
	r.check.mu.Unlock()
	if known {
		r.compare()
		return
	}
	if l, d := r.leadership.Load(), r.descriptor.Load(); l.Leading && l.Term == j.check.At.Term && d != nil {
		r.proposeUpkeep(l.Term, d.Epoch.Version, &shard.Command{Kind: shard.KindVerify, Digested: j.check.At.Index, Applied: j.applied, Value: digest},
			func(raftgroup.Result, error) {}) // one that is lost is only a check that did not come to an end
	}
}

// digestedState is what counts of the replicated state.
func digestedState(s *storage.ReplicaState) []byte {
	var b []byte
	for _, v := range []uint64{uint64(s.LastRevision), uint64(s.Floor), s.Versions, s.Bytes} {
		b = binary.AppendUvarint(b, v)
	}
	return shard.AppendDescriptor(b, &s.Descriptor)
}

// verify takes the leader's digest, on the group's turn.
func (r *Replica) verify(c *machine.Check) {
	r.check.mu.Lock()
	report := &r.check.report
	if report.Index != c.Digested {
		*report = CheckReport{Index: c.Digested, State: CheckNotCompared, Reason: passedOver}
	}
	report.Leaders, report.leadersApplied = c.Digest, c.Applied
	ready := report.State == CheckWaiting
	r.check.mu.Unlock()
	if ready {
		r.compare()
	}
}

// compare ends a check whose two digests are here.
func (r *Replica) compare() {
	d := r.descriptor.Load()
	r.check.mu.Lock()
	defer r.check.mu.Unlock()
	report := &r.check.report
	system := d != nil && d.Span.Start[0] == shard.SystemKeyspace
	switch {
	case report.State != CheckWaiting:
	case system && report.Applied != report.leadersApplied:
		report.State, report.Reason = CheckNotCompared, "the leader's digest is of another applied index"
	case bytes.Equal(report.Digest, report.Leaders):
		report.State = CheckSame
		r.check.differ = false
		r.store.stats.checksSame.Add(1)
	default:
		report.State = CheckDiffers
		r.check.differ = true
		r.store.stats.checksDiffer.Add(1)
		r.store.cfg.Logger.Error("A REPLICA DIFFERS FROM ITS LEADER'S: one of them has lost or changed data, and reads of it are wrong",
			"shard", uint64(r.id), "replica", uint64(r.self), "index", report.Index, "digest", hex.EncodeToString(report.Digest),
			"leaders_digest", hex.EncodeToString(report.Leaders), "versions", report.Versions, "bytes", report.Bytes)
	}
}

// look begins the check of a shard that this node leads and whose time has come, if
// the node has nothing else to compute. It is of the upkeep's queue.
func (k *checker) look() {
	interval := time.Duration(k.interval.Load())
	k.mu.Lock()
	busy := k.closed || len(k.jobs) > 0
	k.mu.Unlock()
	if interval == 0 || busy {
		return
	}
	now := k.store.cfg.Env.Now()
	var next *Replica
	for _, r := range k.store.replicas.all() {
		c := &r.check
		if !c.known { // so that not all come at once
			c.known = true
			c.began = now - time.Duration(k.store.cfg.Env.Uint64()%uint64(interval/2+1))
		}
		if r.leadership.Load().Leading && now-c.began >= interval && (next == nil || c.began < next.check.began) {
			next = r
		}
	}
	if next == nil {
		return
	}
	next.check.began = now
	next.beginCheck(func(uint64, error) {}) // the next one is as good
}
