package raftgroup

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// facts is what must survive a crash: what each replica has told others that it
// holds, and what is committed. Whoever states a fact does so after the disk
// operation that it rests on, so that the facts of a moment are all on the disks of
// that moment. Safe for concurrent use.
type facts struct {
	mu  sync.Mutex // guards what follows
	now moment
	// dead are the transports of incarnations whose power was cut.
	dead map[*tellingTransport]bool
	// logs are the operations that were applied, by shard and revision. It grows
	// only; a moment refers to it by the last position that was committed.
	logs map[shard.ID][]applied
	// births are the splits that were applied, by the new shard. They grow as logs do.
	births map[shard.ID]parting
	// forgone: the new shard has removed its replica on a node, and the node knows of it
	// before it applies the split.
	forgone map[forgoneKey]bool
}

// parting is the split that a shard comes from, and what it begins with.
type parting struct {
	parent shard.ID
	at     Position // in the parent's log
	span   shard.Span
	last   shard.Revision
}

type forgoneKey struct {
	node  shard.NodeID
	shard shard.ID
}

// moment is the facts at one moment.
type moment struct {
	// started: the first replica of the shard here is durable.
	started map[replicaKey]bool
	told    map[replicaKey]promises
	// tombstones are durable and forbid IDs below.
	tombstones map[tombstoneKey]shard.ReplicaID
	committed  map[shard.ID]Position
	// parted: the replica here has begun to apply the split that a shard comes from, since
	// its node was started.
	parted map[partedKey]shard.ReplicaID
}

type partedKey struct {
	node  shard.NodeID
	shard shard.ID // the new one
}

type replicaKey struct {
	node    shard.NodeID
	shard   shard.ID
	replica shard.ReplicaID
}

type tombstoneKey struct {
	node  shard.NodeID
	shard shard.ID
}

// promises of one replica.
type promises struct {
	term    uint64 // it has acknowledged it
	voted   uint64 // the last term in which it gave its vote to another
	vote    shard.ReplicaID
	acked   Position // it has the log of this term's leader up to here
	applied uint64   // its state is durable up to here
}

// applied is an operation in the log, and the revision that it got.
type applied struct {
	at         Position
	revision   shard.Revision
	key, value string
}

func newFacts() *facts {
	return &facts{
		dead: map[*tellingTransport]bool{},
		logs: map[shard.ID][]applied{}, births: map[shard.ID]parting{}, forgone: map[forgoneKey]bool{},
		now: moment{started: map[replicaKey]bool{}, told: map[replicaKey]promises{}, tombstones: map[tombstoneKey]shard.ReplicaID{},
			committed: map[shard.ID]Position{}, parted: map[partedKey]shard.ReplicaID{}},
	}
}

// at copies the facts of this moment.
func (f *facts) at() moment {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.now
	m.started, m.told, m.tombstones, m.committed = maps.Clone(m.started), maps.Clone(m.told), maps.Clone(m.tombstones), maps.Clone(m.committed)
	m.parted = maps.Clone(m.parted)
	return m
}

func (f *facts) tell(k replicaKey, change func(*promises)) {
	p := f.now.told[k]
	change(&p)
	f.now.told[k] = p
}

// state notes a fact that the test has established.
func (f *facts) state(note func(*moment)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	note(&f.now)
}

// hear notes what a message says that must not leave before it is durable. false:
// its sender has lost its power.
func (f *facts) hear(t *tellingTransport, e *envelope) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead[t] {
		return false
	}
	m := e.msg
	if !e.raft() || m.Type != raftpb.MsgAppResp && m.Type != raftpb.MsgVoteResp {
		return true
	}
	f.tell(replicaKey{t.n.id, e.shard, e.from}, func(p *promises) {
		p.term = max(p.term, m.Term)
		switch {
		case m.Reject:
		case m.Type == raftpb.MsgVoteResp && m.Term >= p.voted:
			p.voted, p.vote = m.Term, e.to
		case m.Type == raftpb.MsgAppResp && (m.Term > p.acked.Term || m.Term == p.acked.Term && m.Index > p.acked.Index):
			p.acked = Position{Term: m.Term, Index: m.Index}
		}
	})
	return true
}

// apply notes an operation that a replica is about to apply: it is committed, and
// the same on all of them.
func (f *facts) apply(t testing.TB, id shard.ID, a applied) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.at.Index > f.now.committed[id].Index {
		f.now.committed[id] = a.at
	}
	log := f.logs[id]
	at, seen := slices.BinarySearchFunc(log, a, func(x, y applied) int { return int(x.revision) - int(y.revision) })
	switch {
	case !seen && at == len(log):
		f.logs[id] = append(log, a)
	case !seen || log[at] != a:
		t.Errorf("shard %d: %+v is applied where another replica had something else", id, a)
	}
}

// part notes a split that a replica is about to apply: it is committed, and the same on
// all of them.
func (f *facts) part(t testing.TB, node shard.NodeID, replica shard.ReplicaID, id shard.ID, p parting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.at.Index > f.now.committed[p.parent].Index {
		f.now.committed[p.parent] = p.at
	}
	was, seen := f.births[id]
	if seen && (was.parent != p.parent || was.at != p.at || was.last != p.last || !was.span.Equal(p.span)) {
		t.Errorf("shard %d: %+v is applied where another replica had %+v", id, p, was)
	}
	f.births[id] = p
	f.now.parted[partedKey{node, id}] = replica
}

// born tells whether a shard was there at a moment, and if so where it comes from; the
// zero value is for one that the test has made.
func (f *facts) born(m *moment, id shard.ID) (p parting, there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, seen := f.births[id]
	if seen {
		return p, m.committed[p.parent].Index >= p.at.Index
	}
	for k := range m.started {
		there = there || k.shard == id
	}
	return p, there
}

func (f *facts) isForgone(node shard.NodeID, id shard.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.forgone[forgoneKey{node, id}]
}

// forgo notes that a node knows of the removal of its replica of a shard that a split is
// still to make there.
func (f *facts) forgo(node shard.NodeID, id shard.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgone[forgoneKey{node, id}] = true
}

// span is what a shard covers whose log was applied up to an index.
func (f *facts) span(id shard.ID, index uint64) shard.Span {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.spanLocked(id, index)
}

func (f *facts) spanLocked(id shard.ID, index uint64) shard.Span {
	span := registerSpan(id)
	if p, seen := f.births[id]; seen {
		span = p.span
	}
	for _, p := range f.births {
		if p.parent == id && p.at.Index <= index && span.Contains(p.span.Start) {
			span.End = p.span.Start
		}
	}
	return span
}

// content is what a replica of a shard holds that has applied so much: the versions
// of each full key, newest first. A shard that another one was split into begins with
// that one's content.
func (f *facts) content(id shard.ID, index uint64) (content map[string][]applied, last shard.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	span := f.spanLocked(id, index)
	content = f.everLocked(id, index)
	maps.DeleteFunc(content, func(key string, _ []applied) bool { return !span.Contains([]byte(key)) })
	last = f.births[id].last
	for _, a := range f.logs[id] {
		if a.at.Index <= index {
			last = a.revision
		}
	}
	return content, last
}

// everLocked is the content together with what splits have taken away.
func (f *facts) everLocked(id shard.ID, index uint64) map[string][]applied {
	ever := map[string][]applied{}
	if p, seen := f.births[id]; seen {
		ever = f.everLocked(p.parent, p.at.Index)
		maps.DeleteFunc(ever, func(key string, _ []applied) bool { return !p.span.Contains([]byte(key)) })
	}
	for _, a := range f.logs[id] {
		if a.at.Index <= index {
			key := string(registerKey(f.baseLocked(id), a.key))
			ever[key] = slices.Insert(ever[key], 0, a)
		}
	}
	return ever
}

// baseLocked is the shard that the test has made, of which this one is a part.
func (f *facts) baseLocked(id shard.ID) shard.ID {
	for p, seen := f.births[id]; seen; p, seen = f.births[id] {
		id = p.parent
	}
	return id
}

// tellingTransport notes what a host tells others, on whatever goroutine that is,
// and hands it to the loop.
type tellingTransport struct {
	Transport
	n *testNode
	f *facts
}

func (t *tellingTransport) Send(to shard.NodeID, size int, encode func([]byte) []byte) bool {
	frame := encode(nil)
	e, _, err := nextMessage(frame)
	if err != nil {
		t.n.c.t.Errorf("an own message does not decode: %v", err)
		return false
	}
	if !t.f.hear(t, &e) {
		return false
	}
	t.n.c.env.NewQueue("").Submit(func() {
		t.f.mu.Lock()
		dead := t.f.dead[t]
		t.f.mu.Unlock()
		if !dead {
			t.Transport.Send(to, size, func(b []byte) []byte { return append(b, frame...) })
		}
	})
	return true
}

// tellingMachine notes what a replica applies and installs.
type tellingMachine struct {
	*register
	n *testNode
	f *facts
}

func (m *tellingMachine) Apply(b *storage.Batch, at Position, op []byte) (Result, error) {
	res, err := m.register.Apply(b, at, op)
	if born := res.Born; born != nil && err == nil {
		m.f.part(m.n.c.t, m.n.id, m.g.Replica(), born.Descriptor.ID, parting{parent: m.g.Shard(), at: at, span: born.Descriptor.Span, last: born.LastRevision})
	}
	if key, value, ok := bytes.Cut(op, []byte("=")); ok && err == nil && res.Err == nil {
		m.f.apply(m.n.c.t, m.g.Shard(), applied{at: at, revision: res.Revision, key: string(key), value: string(value)})
	}
	return res, err
}
