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
}

// moment is the facts at one moment.
type moment struct {
	// started: the first replica of the shard here is durable.
	started map[replicaKey]bool
	told    map[replicaKey]promises
	// tombstones are durable and forbid IDs below.
	tombstones map[tombstoneKey]shard.ReplicaID
	committed  map[shard.ID]Position
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
		logs: map[shard.ID][]applied{},
		now: moment{started: map[replicaKey]bool{}, told: map[replicaKey]promises{}, tombstones: map[tombstoneKey]shard.ReplicaID{},
			committed: map[shard.ID]Position{}},
	}
}

// at copies the facts of this moment.
func (f *facts) at() moment {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.now
	m.started, m.told, m.tombstones, m.committed = maps.Clone(m.started), maps.Clone(m.told), maps.Clone(m.tombstones), maps.Clone(m.committed)
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

// content is what a replica of a shard holds that has applied so much: the versions
// of each key, newest first.
func (f *facts) content(id shard.ID, index uint64) (content map[string][]applied, last shard.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content = map[string][]applied{}
	for _, a := range f.logs[id] {
		if a.at.Index <= index {
			content[a.key] = slices.Insert(content[a.key], 0, a)
			last = a.revision
		}
	}
	return content, last
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
	if key, value, ok := bytes.Cut(op, []byte("=")); ok && err == nil {
		m.f.apply(m.n.c.t, m.g.Shard(), applied{at: at, revision: res.Revision, key: string(key), value: string(value)})
	}
	return res, err
}
