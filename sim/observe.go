package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Witness sees what every replica of the cluster does, and compares. It notes
// the first violation; the run ends there.
type Witness struct {
	loop     *Loop
	trace    *Trace
	leaders  map[shardTerm]shard.ReplicaID
	logs     map[shard.ID]map[uint64]*appliedEntry
	states   map[shardIndex]stateMark
	contents map[shardIndex]stateMark
	durable  map[replicaOn]uint64
	effects  effects
	// installing: the replicas whose data is being replaced by a snapshot.
	installing map[shardOn]bool
	promises   promises
	removed    map[member]string // replicas that were removed, by node
	removals   int
	installs   int            // of snapshots
	floorMax   shard.Revision // the highest floor of any shard
	coverage   coverage
	births     map[shard.ID]shardIndex // of shards that have split off, where in which log
	damaged    string                  // the node with a bit that has flipped
	foundOut   int                     // how often that was noticed
	flipped    bool                    // there was such a node
	failure    error
	overlook   func(error) bool // see Config.Overlook
}

type shardTerm struct {
	shard shard.ID
	term  uint64
}

type shardIndex struct {
	shard shard.ID
	index uint64
}

type replicaOn struct {
	node    shard.NodeID
	shard   shard.ID
	replica shard.ReplicaID
}

// appliedEntry is what the first replica that applied an index found there.
type appliedEntry struct {
	term uint64
	ops  []uint64 // hashes, in order
	by   string
	full bool // ops is complete
}

// stateMark is the replicated state at an index, by the node that got there first.
type stateMark struct {
	text string
	by   string
}

// shardOn is a shard's replica on a node of a name.
type shardOn struct {
	node  string
	shard shard.ID
}

// NewWitness makes a witness that has seen nothing.
func NewWitness(loop *Loop, trace *Trace) *Witness {
	return &Witness{loop: loop, trace: trace, leaders: make(map[shardTerm]shard.ReplicaID), logs: make(map[shard.ID]map[uint64]*appliedEntry),
		states: make(map[shardIndex]stateMark), contents: make(map[shardIndex]stateMark), durable: make(map[replicaOn]uint64),
		effects: newEffects(), installing: make(map[shardOn]bool), removed: make(map[member]string), births: make(map[shard.ID]shardIndex),
		promises: promises{votes: make(map[ballot]shard.ReplicaID), last: make(map[member]promised)}}
}

// Fail notes a violation. Only the first one counts: the others follow from it.
//
// That something on a damaged disk cannot be read is none.
func (w *Witness) Fail(format string, args ...any) {
	if w.damaged != "" && slices.ContainsFunc(args, isCorruption) {
		w.foundOut++
		w.trace.Event(w.loop.Now(), w.damaged, "is found out to be damaged")
		return
	}
	if w.failure == nil {
		failure := fmt.Errorf(format, args...)
		if w.overlook != nil && w.overlook(failure) {
			return
		}
		w.failure = failure
		w.trace.Event(w.loop.Now(), "world", "violation: %v", w.failure)
	}
}

func isCorruption(arg any) bool {
	err, ok := arg.(error)
	return ok && (pebble.IsCorruptionError(err) || errors.Is(err, storage.ErrDamaged))
}

// Err is the first violation, or nil.
func (w *Witness) Err() error { return w.failure }

// lead refuses two leaders in one term of a shard. Followers' beliefs count: a
// follower knows a leader only by its messages.
func (w *Witness) lead(id shard.ID, l raftgroup.Leadership) {
	if l.Leader == 0 {
		return
	}
	at := shardTerm{id, l.Term}
	switch first, known := w.leaders[at]; {
	case !known:
		w.leaders[at] = l.Leader
	case first != l.Leader:
		w.Fail("shard %d has two leaders in term %d: replicas %d and %d", id, l.Term, first, l.Leader)
	}
}

// entry is the mark of an index, made by the first replica that gets there.
// A different term at an index that was applied elsewhere is a fork of the log.
func (w *Witness) entry(o *observer, at raftgroup.Position) *appliedEntry {
	log := w.logs[o.shard]
	if log == nil {
		log = make(map[uint64]*appliedEntry)
		w.logs[o.shard] = log
	}
	e := log[at.Index]
	if e == nil {
		e = &appliedEntry{term: at.Term, by: o.node}
		log[at.Index] = e
	}
	if e.term != at.Term {
		w.Fail("shard %d forks at index %d: %s applied term %d, %s term %d", o.shard, at.Index, e.by, e.term, o.node, at.Term)
	}
	return e
}

// state compares the replicated state at an index over replicas, and content with it.
func (w *Witness) state(node string, s *storage.ReplicaState, text string) {
	at := shardIndex{s.Descriptor.ID, s.Applied}
	switch first, known := w.states[at]; {
	case !known:
		w.states[at] = stateMark{text, node}
	case first.text != text:
		w.Fail("shard %d differs at index %d:\n  %s: %s\n  %s: %s", at.shard, at.index, first.by, first.text, node, text)
	}
}

// replicaApplied is how far one replica has applied.
type replicaApplied struct {
	replica replicaOn
	applied uint64
}

// applied is how far every replica of a store has applied, synced or not.
func (w *Witness) applied(node shard.NodeID, e *storage.Engine) (all []replicaApplied) {
	w.eachState(e, func(r storage.ReplicaRecord, s *storage.ReplicaState) {
		all = append(all, replicaApplied{replicaOn{node, r.Shard, r.Replica}, s.Applied})
	})
	return all
}

// synced notes that what applied has reported is durable.
func (w *Witness) synced(all []replicaApplied) {
	for _, a := range all {
		w.durable[a.replica] = max(w.durable[a.replica], a.applied)
	}
}

// recovered refuses a store that came back from a crash with less than was durable before.
func (w *Witness) recovered(node shard.NodeID, e *storage.Engine) {
	w.eachState(e, func(r storage.ReplicaRecord, s *storage.ReplicaState) {
		if want := w.durable[replicaOn{node, r.Shard, r.Replica}]; s.Applied < want {
			w.Fail("node %d came back with shard %d applied to %d; %d was synced", node, r.Shard, s.Applied, want)
		}
	})
}

func (w *Witness) eachState(e *storage.Engine, each func(storage.ReplicaRecord, *storage.ReplicaState)) {
	replicas, err := e.Replicas()
	if err != nil {
		w.Fail("list of replicas: %v", err)
	}
	for _, r := range replicas {
		if !r.Initialized {
			continue
		}
		s, ok, err := e.ReplicaState(r.Shard)
		if err != nil || !ok {
			w.Fail("state of shard %d, which is listed: ok=%v err=%v", r.Shard, ok, err)
			continue
		}
		each(r, &s)
	}
}

// Observe wraps the machine of a replica, so that the witness sees what its group
// tells it.
func (w *Witness) Observe(node *Node, g *raftgroup.Group, m raftgroup.Machine) raftgroup.Machine {
	o := &observer{Machine: m, witness: w, engine: node.engine, node: node.Name, id: node.ID, shard: g.Shard(), replica: g.Replica()}
	o.applied = m.Applied()
	if on, gone := w.removed[member{o.shard, o.replica}]; gone {
		w.Fail("%s makes replica %d of shard %d, which was removed from %s", node.Name, o.replica, o.shard, on)
	}
	return o
}

// observer is one replica's machine with a witness. Whatever it does not
// override goes straight to the machine.
type observer struct {
	raftgroup.Machine
	witness *Witness
	engine  *storage.Engine
	node    string
	id      shard.NodeID
	shard   shard.ID
	replica shard.ReplicaID

	applied raftgroup.Position // of the last EndApply or install
	last    shard.Revision
	floor   shard.Revision
	at      raftgroup.Position      // of the entry whose operations are being applied
	ops     int                     // of that entry so far
	born    []*storage.ReplicaState // by splits that are not published yet
	term    uint64                  // of the last leadership
}

func (o *observer) event(format string, args ...any) {
	o.witness.trace.Event(o.witness.loop.Now(), o.node, "shard %d replica %d "+format, append([]any{o.shard, o.replica}, args...)...)
}

// operation compares one operation with what other replicas found in its place.
func (o *observer) operation(at raftgroup.Position, op []byte) {
	if at.Index <= o.applied.Index || at.Index < o.at.Index {
		o.witness.Fail("%s shard %d applies index %d after %d", o.node, o.shard, at.Index, max(o.applied.Index, o.at.Index))
	}
	if at != o.at {
		o.finish()
		o.at, o.ops = at, 0
	}
	h := fnv.New64a()
	h.Write(op)
	sum := h.Sum64()
	e := o.witness.entry(o, at)
	switch {
	case o.ops < len(e.ops) && e.ops[o.ops] != sum:
		o.witness.Fail("shard %d forks at index %d: operation %d differs between %s and %s", o.shard, at.Index, o.ops, e.by, o.node)
	case o.ops == len(e.ops) && e.full:
		o.witness.Fail("shard %d forks at index %d: %s applied %d operations, %s more", o.shard, at.Index, e.by, len(e.ops), o.node)
	case o.ops == len(e.ops):
		e.ops = append(e.ops, sum)
	}
	o.ops++
}

// finish compares the number of operations of the entry that ended.
func (o *observer) finish() {
	if o.at.Index == 0 {
		return
	}
	e := o.witness.entry(o, o.at)
	e.full = true
	if len(e.ops) != o.ops {
		o.witness.Fail("shard %d forks at index %d: %s applied %d operations, %s %d", o.shard, o.at.Index, e.by, len(e.ops), o.node, o.ops)
	}
}

func (o *observer) Apply(b *storage.Batch, at raftgroup.Position, op []byte) (raftgroup.Result, error) {
	o.operation(at, op)
	before := *o.Machine.Descriptor()
	res, err := o.Machine.Apply(b, at, op)
	if err != nil {
		o.witness.Fail("%s shard %d stops at index %d: %v", o.node, o.shard, at.Index, err)
		o.at, o.ops = raftgroup.Position{}, 0 // none of the entry counts as applied
		return res, err
	}
	o.witness.took(o, at, op, res)
	o.split(at, op, &before, &res)
	return res, nil
}

func (o *observer) ApplyMembership(b *storage.Batch, at raftgroup.Position, change []byte) (bool, raftgroup.Result, error) {
	o.operation(at, change)
	before, epoch := o.Machine.Descriptor().Replicas, o.Machine.Descriptor().Epoch
	accepted, res, err := o.Machine.ApplyMembership(b, at, change)
	after := o.Machine.Descriptor()
	o.event("membership at %d accepted=%v: %v", at.Index, accepted, after.Replicas)
	if c, err := shard.DecodeMembershipChange(change); accepted && (err != nil || c.Epoch != epoch) {
		o.witness.Fail("shard %d: at index %d a membership change for epoch %v is applied to epoch %v: %v", o.shard, at.Index, c.Epoch, epoch, err)
	}
	for _, r := range before {
		if _, stays := after.Replica(r.ID); !stays && r.Role != shard.Learner {
			o.witness.Fail("shard %d: replica %d was removed at index %d as %v; a voter is demoted first", o.shard, r.ID, at.Index, r.Role)
		}
	}
	return accepted, res, err
}

func (o *observer) EndApply(b *storage.Batch, at raftgroup.Position) {
	o.finish()
	if at.Index < o.applied.Index || at.Index < o.at.Index {
		o.witness.Fail("%s shard %d: applied index goes from %d back to %d", o.node, o.shard, max(o.applied.Index, o.at.Index), at.Index)
	}
	o.applied, o.at, o.ops = at, raftgroup.Position{}, 0
	o.Machine.EndApply(b, at)
}

// Published compares the whole replicated state: the record and what the machine
// says must agree, and both with every other replica at the same index.
func (o *observer) Published() {
	o.Machine.Published()
	s, ok, err := o.engine.ReplicaState(o.shard)
	if err != nil || !ok {
		o.witness.Fail("%s shard %d: no state after apply: ok=%v err=%v", o.node, o.shard, ok, err)
		return
	}
	if s.Applied != o.applied.Index || s.AppliedTerm != o.applied.Term {
		o.witness.Fail("%s shard %d: the record says applied %d/%d, the group %v", o.node, o.shard, s.Applied, s.AppliedTerm, o.applied)
	}
	if s.LastRevision < o.last {
		o.witness.Fail("%s shard %d: last revision goes from %d back to %d", o.node, o.shard, o.last, s.LastRevision)
	}
	o.last = s.LastRevision
	o.raised(s.Floor)
	o.witness.covers(o.node, &s.Descriptor)
	o.parted()
	o.witness.state(o.node, &s, stateText(&s))
	o.witness.trace.Detail(o.witness.loop.Now(), o.node, "shard %d replica %d applied %d/%d revision %d", o.shard, o.replica, s.Applied, s.AppliedTerm, s.LastRevision)
}

// raised checks that a floor never falls, and stays at or below what was written.
func (o *observer) raised(floor shard.Revision) {
	if floor < o.floor || floor > o.last {
		o.witness.Fail("%s shard %d: the floor goes from %d to %d, with last revision %d", o.node, o.shard, o.floor, floor, o.last)
	}
	o.floor = floor
	o.witness.floorMax = max(o.witness.floorMax, floor)
}

func (o *observer) InstallBegin() {
	o.event("install begins")
	o.witness.installing[shardOn{o.node, o.shard}] = true
	o.Machine.InstallBegin()
}

func (o *observer) InstallEnd(s *storage.ReplicaState) {
	o.Machine.InstallEnd(s)
	delete(o.witness.installing, shardOn{o.node, o.shard})
	if s == nil {
		o.event("install abandoned")
		return
	}
	if s.Applied < o.applied.Index {
		o.witness.Fail("%s shard %d: a snapshot at %d replaced the state at %d", o.node, o.shard, s.Applied, o.applied.Index)
	}
	o.applied, o.last = raftgroup.Position{Index: s.Applied, Term: s.AppliedTerm}, s.LastRevision
	o.raised(s.Floor)
	o.witness.covers(o.node, &s.Descriptor)
	o.witness.state(o.node, s, stateText(s))
	o.witness.installs++
	o.event("installed %d/%d revision %d", s.Applied, s.AppliedTerm, s.LastRevision)
}

func (o *observer) LeaderChanged(l raftgroup.Leadership) {
	if l.Term < o.term {
		o.witness.Fail("%s shard %d: term goes from %d back to %d", o.node, o.shard, o.term, l.Term)
	}
	o.term = l.Term
	o.witness.lead(o.shard, l)
	o.event("term %d leader %d leading=%v", l.Term, l.Leader, l.Leading)
	o.Machine.LeaderChanged(l)
}

// Removed notes a replica that must not be seen again, unless its node forgets the
// removal in a crash.
func (o *observer) Removed() {
	o.event("removed")
	o.Machine.Removed()
	o.witness.removed[member{o.shard, o.replica}] = o.node
	o.witness.removals++
}

func (o *observer) Stopped(err error) {
	o.event("stopped: %v", err)
	o.Machine.Stopped(err)
}

func stateText(s *storage.ReplicaState) string {
	return fmt.Sprintf("applied %d/%d revision %d floor %d versions %d bytes %d descriptor %x",
		s.Applied, s.AppliedTerm, s.LastRevision, s.Floor, s.Versions, s.Bytes, shard.AppendDescriptor(nil, &s.Descriptor))
}

// crashed forgets what a node was in the middle of.
func (w *Witness) crashed(node string) {
	maps.DeleteFunc(w.installing, func(on shardOn, _ bool) bool { return on.node == node })
	maps.DeleteFunc(w.removed, func(_ member, on string) bool { return on == node })
}
