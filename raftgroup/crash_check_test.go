package raftgroup

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// crashPoint is a moment at which the power goes, and what is left on the disks.
type crashPoint struct {
	op       diskOp
	unsynced int // percent of what was not synced that is there
	facts    moment
	disk     *vfs.MemFS                  // of the operation's node
	all      map[shard.NodeID]*vfs.MemFS // of all nodes, if the cluster is to be started from them
}

func (p *crashPoint) String() string {
	return fmt.Sprintf("crash %v, %d %% of unsynced data kept", p.op, p.unsynced)
}

// at reports failures of a test together with where they belong.
type at struct {
	testing.TB
	where string
}

func (t *at) Errorf(format string, args ...any) {
	t.TB.Helper()
	t.TB.Errorf("%s: %s", t.where, fmt.Sprintf(format, args...))
}

func (t *at) Fatalf(format string, args ...any) {
	t.TB.Helper()
	t.TB.Fatalf("%s: %s", t.where, fmt.Sprintf(format, args...))
}

func (t *at) Error(args ...any) { t.TB.Helper(); t.Errorf("%s", fmt.Sprint(args...)) }
func (t *at) Fatal(args ...any) { t.TB.Helper(); t.Fatalf("%s", fmt.Sprint(args...)) }

// reopened is a store after a crash, and what must be in it.
type reopened struct {
	t      testing.TB
	node   shard.NodeID
	engine *storage.Engine
	facts  *facts
	moment *moment
	shards []shard.ID
}

// checkDisk opens the disk of one node as after a crash, looks at it, crashes again
// at once, and looks again. It returns how far each replica had come.
func checkDisk(t testing.TB, p *crashPoint, f *facts, shards []shard.ID) map[shard.ID]recovered {
	var first, second map[shard.ID]recovered
	left := p.disk
	for i, seen := range []*map[shard.ID]recovered{&first, &second} {
		t := &at{TB: t, where: fmt.Sprintf("%v, opened %d times", p, i+1)}
		mem := left
		engine, err := storage.Open(storage.Config{Dir: "store", FS: mem, MemoryBytes: 16 << 20,
			Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
		if err != nil {
			t.Fatal(err)
		}
		r := reopened{t: t, node: p.op.node, engine: engine, facts: f, moment: &p.facts, shards: shards}
		*seen = r.check(mem)
		left = mem.CrashClone(vfs.CrashCloneCfg{})
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
	for id, s := range first {
		if second[id] != s {
			t.Errorf("%v: shard %d was %+v when it was opened, and is %+v after another crash", p, id, s, second[id])
		}
	}
	return first
}

// recovered is how far a replica has come by its records.
type recovered struct {
	replica               shard.ReplicaID
	term, vote            uint64
	commit, applied, last uint64
}

func (r *reopened) check(fs vfs.FS) map[shard.ID]recovered {
	r.t.Helper()
	if names, err := fs.List(fs.PathJoin("store", "incoming")); err == nil && len(names) > 0 {
		r.t.Errorf("files of an installation that was cut short: %v", names)
	}
	records, err := r.engine.Replicas()
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[shard.ID]recovered{}
	for _, record := range records {
		all[record.Shard] = r.replica(record)
	}
	for _, id := range r.shards {
		tombstone, _, err := r.engine.Tombstone(id)
		if err != nil {
			r.t.Fatal(err)
		}
		if want := r.moment.tombstones[tombstoneKey{r.node, id}]; tombstone.NextReplica < want {
			r.t.Errorf("shard %d: the tombstone forbids replicas below %d, it did below %d", id, tombstone.NextReplica, want)
		}
		got, here := all[id]
		if here && got.replica < tombstone.NextReplica {
			r.t.Errorf("shard %d: replica %d is here, the tombstone forbids those below %d", id, got.replica, tombstone.NextReplica)
		}
		r.birth(id, tombstone.NextReplica, all)
		r.promises(id, tombstone.NextReplica, got)
	}
	r.nothingElse()
	return all
}

// birth demands both sides of a split, or neither. The other half of it is that no two
// replicas cover the same key (nothingElse).
func (r *reopened) birth(id shard.ID, forbidden shard.ReplicaID, all map[shard.ID]recovered) {
	parent, parted := r.moment.parted[partedKey{r.node, id}]
	if !parted || r.facts.isForgone(r.node, id) {
		return
	}
	p, _ := r.facts.born(r.moment, id)
	from, got := all[p.parent], all[id]
	// The new shard's replicas have the IDs of the parent's.
	if from.replica == parent && from.applied >= p.at.Index && got.applied == 0 && got.replica <= parent && forbidden <= parent {
		r.t.Errorf("shard %d: nothing of it is here, and shard %d, from which it was split off at index %d, has applied %d", id, p.parent, p.at.Index, from.applied)
	}
}

// nothingElse demands that no two replicas with a state cover the same key, and that there
// are no data outside of what they cover.
func (r *reopened) nothingElse() {
	covered := initializedSpans(r.t, r.engine)
	at := shard.UserSpan().Start
	v := r.engine.NewView()
	defer v.Close()
	for _, d := range append(covered, shard.Descriptor{Span: shard.Span{Start: shard.UserSpan().End}}) {
		gap := shard.Span{Start: at, End: d.Span.Start}
		at = d.Span.End
		if bytes.Compare(gap.Start, gap.End) >= 0 {
			continue
		}
		if rows, _, err := v.Scan(storage.ScanOptions{Span: gap, At: shard.MaxRevision, RowsMax: 1}); err != nil || len(rows) > 0 {
			r.t.Errorf("%+v is there, and no replica covers it; %v", rows, err)
		}
	}
}

// initializedSpans are the descriptors of all replicas with a state, in order of their
// spans, of which no two may overlap.
func initializedSpans(t testing.TB, e *storage.Engine) (all []shard.Descriptor) {
	t.Helper()
	records, err := e.Replicas()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if s, ok, err := e.ReplicaState(r.Shard); ok && err == nil {
			all = append(all, s.Descriptor)
		}
	}
	slices.SortFunc(all, func(a, b shard.Descriptor) int { return bytes.Compare(a.Span.Start, b.Span.Start) })
	for i := 1; i < len(all); i++ {
		if all[i-1].Span.Overlaps(all[i].Span) {
			t.Fatalf("shards %d and %d overlap", all[i-1].ID, all[i].ID)
		}
	}
	return all
}

// replica looks at one replica by itself.
func (r *reopened) replica(record storage.ReplicaRecord) (got recovered) {
	t, id := r.t, record.Shard
	state, initialized, err := r.engine.ReplicaState(id)
	if err != nil || initialized != record.Initialized {
		t.Fatalf("shard %d: record %+v, state %v, %v", id, record, initialized, err)
	}
	log, err := r.engine.OpenLog(id, record.Replica)
	if err != nil {
		t.Fatalf("shard %d: %v", id, err)
	}
	defer log.Release()
	hs, _ := log.InitialState()
	got = recovered{replica: record.Replica, term: hs.Term, vote: hs.Vote, commit: hs.Commit, applied: state.Applied}
	if !initialized {
		return got
	}
	first, _ := log.FirstIndex()
	got.last, _ = log.LastIndex()
	if first > state.Applied+1 || hs.Commit < state.Applied || got.last < hs.Commit {
		t.Errorf("shard %d: log %d to %d, commit %d, applied %d", id, first, got.last, hs.Commit, state.Applied)
		return got
	}
	if term, err := log.Term(state.Applied); err != nil || term != state.AppliedTerm {
		t.Errorf("shard %d: applied index %d has term %d in the log, %d in the state; %v", id, state.Applied, term, state.AppliedTerm, err)
	}
	if got.last >= first {
		entries, err := log.Entries(first, got.last+1, 1<<40)
		if err != nil || uint64(len(entries)) != got.last+1-first {
			t.Errorf("shard %d: %d entries from %d to %d: %v", id, len(entries), first, got.last, err)
		}
		for i, e := range entries {
			if e.Index != first+uint64(i) || e.Term > max(hs.Term, 1) {
				t.Errorf("shard %d: entry %d of term %d where %d should be, in term %d", id, e.Index, e.Term, first+uint64(i), hs.Term)
			}
		}
	}
	if d := &state.Descriptor; d.ID != id || !d.Span.Equal(r.facts.span(id, state.Applied)) {
		t.Errorf("shard %d has the descriptor %+v at index %d, and is to cover %+v", id, d, state.Applied, r.facts.span(id, state.Applied))
	}
	_, last := r.facts.content(id, state.Applied)
	if state.LastRevision != last {
		t.Errorf("shard %d: last revision %d at index %d, want %d", id, state.LastRevision, state.Applied, last)
	}
	r.content(&state)
	return got
}

// content compares the data of a shard with what its log says up to where it is applied.
func (r *reopened) content(state *storage.ReplicaState) {
	d := &state.Descriptor
	want, _ := r.facts.content(d.ID, state.Applied)
	compareContent(r.t, r.engine, d, want, fmt.Sprintf("at index %d", state.Applied))
}

// compareContent wants exactly these versions.
func compareContent(t testing.TB, e *storage.Engine, d *shard.Descriptor, want map[string][]applied, when string) {
	t.Helper()
	id := d.ID
	v := e.NewView()
	defer v.Close()
	seen := 0
	for span := d.Span; span.Start != nil; {
		rows, resume, err := v.Scan(storage.ScanOptions{Span: span, At: shard.MaxRevision})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			seen++
			key := shard.FormatKey(row.Key)
			versions := want[string(row.Key)]
			if len(versions) == 0 || versions[0].revision != row.Revision || versions[0].value != string(row.Value) {
				t.Errorf("shard %d %s: %s has revision %d and %d bytes, want %d versions", id, when, key, row.Revision, len(row.Value), len(versions))
				return
			}
			found, err := v.Versions(row.Key, len(versions)+1)
			if err != nil || len(found) != len(versions) {
				t.Errorf("shard %d %s: %s has %d versions, want %d; %v", id, when, key, len(found), len(versions), err)
				return
			}
			for i := range found {
				if found[i].Revision != versions[i].revision {
					t.Errorf("shard %d %s: %s has revision %d, want %d", id, when, key, found[i].Revision, versions[i].revision)
				}
			}
		}
		span.Start = resume
	}
	if seen != len(want) {
		t.Errorf("shard %d %s: %d keys, want %d", id, when, seen, len(want))
	}
}

// promises looks for what replicas of a shard on this node have told others.
func (r *reopened) promises(id shard.ID, forbidden shard.ReplicaID, got recovered) {
	for k, p := range r.moment.told {
		if k.node != r.node || k.shard != id || k.replica < forbidden {
			continue // another's, or it was removed since
		}
		switch {
		case got.replica != k.replica:
			r.t.Errorf("shard %d: replica %d has promised %+v, and %d is here", id, k.replica, p, got.replica)
		case got.term < p.term:
			r.t.Errorf("shard %d: replica %d is in term %d, it has promised %+v", id, k.replica, got.term, p)
		case got.term == p.voted && got.vote != uint64(p.vote):
			r.t.Errorf("shard %d: replica %d has voted for %d, it has promised %+v", id, k.replica, got.vote, p)
		case got.last < p.acked.Index && got.term <= p.acked.Term:
			r.t.Errorf("shard %d: the log of replica %d ends at %d in term %d, it has promised %+v", id, k.replica, got.last, got.term, p)
		case got.applied < p.applied:
			r.t.Errorf("shard %d: replica %d has applied %d, it has promised %+v", id, k.replica, got.applied, p)
		}
	}
	for k := range r.moment.started {
		if k.node == r.node && k.shard == id && k.replica >= forbidden && got.replica != k.replica {
			r.t.Errorf("shard %d: the first replica %d is not here", id, k.replica)
		}
	}
}

// checkCluster starts all nodes from what the crash has left them, lets them elect
// leaders and go on, and that twice. Nothing that was committed may be missing.
func checkCluster(t testing.TB, p *crashPoint, f *facts, shards []shard.ID) {
	c := &cluster{t: &at{TB: t, where: fmt.Sprintf("%v, cluster started from it", p)}, env: newLoop(uint64(p.op.number)), cut: map[[2]shard.NodeID]bool{}}
	for id := shard.NodeID(1); id <= shard.NodeID(len(p.all)); id++ {
		c.nodes = append(c.nodes, &testNode{c: c, id: id, fs: p.all[id]})
	}
	defer func() {
		for _, n := range c.nodes {
			n.stop()
		}
	}()
	for round := range 2 {
		c.start()
		for _, id := range shards {
			if _, there := f.born(&p.facts, id); !there {
				continue
			}
			committed := p.facts.committed[id].Index
			l := c.waitLeader(id)
			c.until("what was committed is applied", func() bool { l = c.waitLeader(id); return l.machine(id).Applied().Index >= committed })
			f.holds(c.t, l.engine, id, committed)
			d := l.machine(id).state.Descriptor
			first := string(d.Span.Start[len(registerSpan(id).Start):]) + "!" // a key that no split takes away
			if round == 1 {
				c.mustRead(id, first, "after the crash")
			}
			c.put(id, first+"=after the crash")
		}
		for _, n := range c.nodes {
			initializedSpans(c.t, n.engine)
			n.crash()
		}
	}
}

// holds demands all versions that the log has up to an index.
func (f *facts) holds(t testing.TB, e *storage.Engine, id shard.ID, index uint64) {
	want, _ := f.content(id, index)
	v := e.NewView()
	defer v.Close()
	for key, versions := range want { //order-free: each key is looked at alone
		found, err := v.Versions([]byte(key), 1<<20)
		if err != nil || len(found) < len(versions) {
			t.Errorf("shard %d: %d versions of %q are left of %d: %v", id, len(found), key, len(versions), err)
			continue
		}
		for i, w := range versions {
			if got := found[len(found)-len(versions)+i]; got.Revision != w.revision || got.Bytes != len(w.value) {
				t.Errorf("shard %d: %q has %+v, want %+v", id, key, got, w.revision)
			}
		}
	}
}
