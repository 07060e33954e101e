package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// register is a Machine over the real engine: an operation "key=value" writes a
// version, "corrupt" is corruption, "version" changes the epoch, and what splitOp makes
// splits. It checks how it is called.
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
	applies    int             // operations
	corrupt    bool            // every operation is corruption here
	ended      func(*register) // is called by EndApply; nil: nothing is
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
	if bytes.HasPrefix(op, []byte("split ")) {
		return m.split(string(op)), nil
	}
	key, value, ok := bytes.Cut(op, []byte("="))
	if !ok {
		return Result{}, fmt.Errorf("operation %q", op)
	}
	full := registerKey(m.base(), string(key))
	if !m.state.Descriptor.Span.Contains(full) {
		return Result{Err: &shard.WrongShardError{Shard: m.g.Shard()}}, nil
	}
	m.applies++
	m.state.LastRevision++
	b.PutVersion(full, m.state.LastRevision, storage.VersionHeader{}, value)
	return Result{Revision: m.state.LastRevision}, nil
}

// splitOp is the operation that splits the shard with descriptor d at a key.
func splitOp(d *shard.Descriptor, key string, right shard.ID) string {
	return fmt.Sprintf("split %s %d %d %d", key, right, d.Epoch.Version, d.Epoch.ConfVersion)
}

func (m *register) split(op string) Result {
	var key string
	s := shard.Split{Shard: m.g.Shard()}
	if _, err := fmt.Sscanf(op, "split %s %d %d %d", &key, &s.Right, &s.Epoch.Version, &s.Epoch.ConfVersion); err != nil {
		m.t.Errorf("%q: %v", op, err)
	}
	s.Key = registerKey(m.base(), key)
	left, right, err := s.Apply(&m.state.Descriptor)
	if err != nil {
		return Result{Err: err}
	}
	m.state.Descriptor = left
	return Result{Born: &storage.ReplicaState{LastRevision: m.state.LastRevision, Floor: m.state.Floor, Descriptor: right}}
}

// base is the shard that the test has made, of which this one is a part.
func (m *register) base() shard.ID {
	start := m.state.Descriptor.Span.Start
	return shard.ID(start[1])<<16 | shard.ID(start[2])<<8 | shard.ID(start[3])
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
	if m.ended != nil {
		m.ended(m)
	}
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
	value, _, _, err := v.Get(registerKey(m.base(), key), shard.MaxRevision)
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
	o := storage.ScanOptions{Span: m.state.Descriptor.Span, At: shard.MaxRevision, RowsMax: 1000, BytesMax: 1 << 20}
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
