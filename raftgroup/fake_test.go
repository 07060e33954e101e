package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// register is a Machine over the real engine: an operation "key=value" writes a
// version, "corrupt" is corruption, "version" changes the epoch. It checks how it is called.
type register struct {
	expecting  bool
	t          testing.TB
	engine     *storage.Engine
	g          *Group
	state      *storage.ReplicaState
	leadership Leadership
	staged     bool // EndApply was called and Published was not
	installing bool
	installs   int
	stopped    error
	removed    bool
	applies    int  // operations
	corrupt    bool // every operation is corruption here
}

// readRequest is a Read of the tests.
type readRequest struct {
	done func(m *register, err error)
}

var errCorrupt = errors.New("corrupt operation")

func newRegister(t testing.TB, e *storage.Engine, g *Group, state *storage.ReplicaState) *register {
	m := &register{t: t, engine: e, g: g}
	if state != nil {
		s := *state
		m.state = &s
	}
	return m
}

func (m *register) Descriptor() *shard.Descriptor {
	if m.state == nil {
		return nil
	}
	return &m.state.Descriptor
}

func (m *register) Applied() Position {
	if m.state == nil {
		return Position{}
	}
	return Position{Index: m.state.Applied, Term: m.state.AppliedTerm}
}

func (m *register) Apply(b *storage.Batch, at Position, op []byte) (Result, error) {
	if m.staged || m.installing || m.stopped != nil {
		m.t.Errorf("shard %d: Apply at a time when it must not be", m.g.Shard())
	}
	switch {
	case m.corrupt, string(op) == "corrupt":
		return Result{}, errCorrupt
	case string(op) == "version":
		m.state.Descriptor.Epoch.Version++ // as a split does
		return Result{}, nil
	}
	if text, split := bytes.CutPrefix(op, []byte("split ")); split {
		return m.split(text)
	}
	key, value, ok := bytes.Cut(op, []byte("="))
	if !ok {
		return Result{}, fmt.Errorf("operation %q", op)
	}
	at2 := m.g.Shard()
	if n, rest, ok := bytes.Cut(key, []byte(":")); ok {
		i, err := strconv.ParseUint(string(n), 10, 64)
		if err != nil {
			return Result{}, err
		}
		at2, key = shard.ID(i), rest
		if !m.state.Descriptor.Span.Contains(registerKey(at2, string(key))) {
			return Result{Err: &shard.WrongShardError{Shard: m.g.Shard()}}, nil
		}
	}
	m.applies++
	m.state.LastRevision++
	b.PutVersion(registerKey(at2, string(key)), m.state.LastRevision, storage.VersionHeader{}, value)
	return Result{Revision: m.state.LastRevision}, nil
}

// split parts a shard where the span of the one that is named begins, which is then the
// right side.
func (m *register) split(text []byte) (Result, error) {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return Result{}, err
	}
	d := &m.state.Descriptor
	s := shard.Split{Shard: d.ID, Epoch: d.Epoch, Key: registerSpan(shard.ID(n)).Start, Right: shard.ID(n)}
	left, right, refusal := s.Apply(d)
	if refusal != nil {
		return Result{Err: refusal}, nil
	}
	m.state.Descriptor = left
	return Result{Born: &storage.ReplicaState{LastRevision: m.state.LastRevision, Descriptor: right}}, nil
}

func (m *register) ApplyMembership(_ *storage.Batch, _ Position, change []byte) (bool, Result, error) {
	c, err := shard.DecodeMembershipChange(change)
	if err != nil {
		return false, Result{}, err
	}
	d, err := c.Apply(&m.state.Descriptor)
	if err != nil {
		return false, Result{Err: err}, nil
	}
	m.state.Descriptor = d
	return true, Result{}, nil
}

func (m *register) EndApply(b *storage.Batch, at Position) {
	m.state.Applied, m.state.AppliedTerm = at.Index, at.Term
	b.PutReplicaState(m.g.Shard(), m.state)
	m.staged = true
}

func (m *register) Published() {
	if !m.staged {
		m.t.Errorf("shard %d: Published without EndApply", m.g.Shard())
	}
	m.staged = false
	if s, ok, err := m.engine.ReplicaState(m.g.Shard()); err != nil || !ok || s.Applied != m.state.Applied {
		m.t.Errorf("shard %d: published at %d, the engine shows %d (%v, %v)", m.g.Shard(), m.state.Applied, s.Applied, ok, err)
	}
}

func (m *register) InstallBegin() {
	if m.installing || m.staged {
		m.t.Errorf("shard %d: InstallBegin at a time when it must not be", m.g.Shard())
	}
	m.installing = true
}

func (m *register) InstallEnd(state *storage.ReplicaState) {
	if !m.installing {
		m.t.Errorf("shard %d: InstallEnd without InstallBegin", m.g.Shard())
	}
	m.installing = false
	if state != nil {
		s := *state
		m.state = &s
		m.installs++
	}
}

func (m *register) Confirmed(reads []Read, err error) {
	for _, r := range reads {
		r.(*readRequest).done(m, err)
	}
}

// Expecting is what the test says.
func (m *register) Expecting() bool { return m.expecting }

func (m *register) LeaderChanged(l Leadership) {
	if l == m.leadership {
		m.t.Errorf("shard %d: leadership %+v reported twice", m.g.Shard(), l)
	}
	if l.Term < m.leadership.Term {
		m.t.Errorf("shard %d: term %d after %d", m.g.Shard(), l.Term, m.leadership.Term)
	}
	if l.Leading && m.Applied().Term != l.Term {
		m.t.Errorf("shard %d: leading in term %d with an entry of term %d applied", m.g.Shard(), l.Term, m.Applied().Term)
	}
	m.leadership = l
}

func (m *register) Stopped(err error) {
	if m.stopped != nil {
		m.t.Errorf("shard %d: stopped twice", m.g.Shard())
	}
	m.stopped = err
}

func (m *register) Removed() {
	if m.stopped == nil || m.removed {
		m.t.Errorf("shard %d: removed at a time when it must not be", m.g.Shard())
	}
	m.removed = true
	if _, ok, err := m.engine.ReplicaState(m.g.Shard()); ok || err != nil {
		m.t.Errorf("shard %d: removed, and the engine has a state: %v, %v", m.g.Shard(), ok, err)
	}
}

// get reads the newest value of a key from the engine.
func (m *register) get(key string) string {
	v := m.engine.NewView()
	defer v.Close()
	value, _, _, err := v.Get(registerKey(m.g.Shard(), key), shard.MaxRevision)
	if err != nil {
		m.t.Errorf("get %s: %v", key, err)
	}
	return string(value)
}

// hash is over every key's newest version.
func (m *register) hash() uint64 {
	v := m.engine.NewView()
	defer v.Close()
	h := fnv.New64a()
	span := registerSpan(m.g.Shard())
	if m.state != nil {
		span = m.state.Descriptor.Span
	}
	o := storage.ScanOptions{Span: span, At: shard.MaxRevision, RowsMax: 1000, BytesMax: 1 << 20}
	for {
		rows, resume, err := v.Scan(o)
		if err != nil {
			m.t.Fatalf("scan: %v", err)
		}
		for _, r := range rows {
			fmt.Fprintf(h, "%q=%q@%d;", r.Key, r.Value, r.Revision)
		}
		if resume == nil {
			return h.Sum64()
		}
		o.Span.Start = append([]byte(nil), resume...)
	}
}

func registerSpan(id shard.ID) shard.Span {
	at := func(i uint64) []byte { return []byte{shard.UserKeyspace, byte(i >> 16), byte(i >> 8), byte(i)} }
	return shard.Span{Start: at(uint64(id)), End: at(uint64(id) + 1)}
}

func registerKey(id shard.ID, key string) []byte { return append(registerSpan(id).Start, key...) }
