package machine

import (
	"fmt"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Reader is a consistent view of the committed data. *storage.View is one.
type Reader interface {
	// Get finds the newest version of key; value is valid until the next call.
	Get(key []byte, at shard.Revision) (value []byte, rev shard.Revision, found bool, err error)
	Close() error
}

// Machine is the state machine of one replica. It is not safe for concurrent
// use: its group's turn is its only caller.
type Machine struct {
	view func() Reader

	initialized bool
	// state includes what this turn applied, and thus may be ahead of the disk
	// until Published.
	state storage.ReplicaState
	// at is the position of the entry that is being applied, or was applied last.
	// It never goes back. before is what that entry's operations change of the
	// state, as it was before the first of them.
	at     raftgroup.Position
	before counts

	staged staged
}

// counts is the part of the replicated state that operations change.
type counts struct {
	lastRevision    shard.Revision
	versions, bytes uint64
}

// New makes a machine in the given state, which it copies; nil for a replica
// that is not initialized. view opens a view of the data as of now.
func New(state *storage.ReplicaState, view func() Reader) *Machine {
	m := &Machine{view: view}
	m.Reset(state)
	return m
}

// Reset replaces the state by the one of an installed snapshot.
func (m *Machine) Reset(state *storage.ReplicaState) {
	m.staged.drop()
	m.initialized = state != nil
	m.state = storage.ReplicaState{}
	if state != nil {
		m.state = *state
	}
	m.at = raftgroup.Position{Index: m.state.Applied, Term: m.state.AppliedTerm}
}

// Initialized tells whether the machine has a state.
func (m *Machine) Initialized() bool { return m.initialized }

// State is the state with all that was applied so far, but for the position,
// which EndApply sets. It is the machine's own: read it before the next call.
func (m *Machine) State() *storage.ReplicaState { return &m.state }

// Applied is the position that the last EndApply staged.
func (m *Machine) Applied() raftgroup.Position {
	return raftgroup.Position{Index: m.state.Applied, Term: m.state.AppliedTerm}
}

// Apply applies one operation of the entry at the given position and stages its
// writes in b. op is not kept. After an error the state is that before the entry.
func (m *Machine) Apply(b *storage.Batch, at raftgroup.Position, op []byte) (raftgroup.Result, error) {
	if err := m.advance(at); err != nil {
		return raftgroup.Result{}, err
	}
	res, err := m.apply(b, at, op)
	if err != nil {
		// The entry counts as not applied. A later version of this code that can
		// read it must not find its first operations refused for their revisions.
		m.state.LastRevision, m.state.Versions, m.state.Bytes = m.before.lastRevision, m.before.versions, m.before.bytes
	}
	return res, err
}

func (m *Machine) apply(b *storage.Batch, at raftgroup.Position, op []byte) (raftgroup.Result, error) {
	var h Header
	var c shard.Command
	if err := DecodeOperation(op, &h, &c); err != nil {
		return raftgroup.Result{}, fmt.Errorf("entry %d: %w", at.Index, err)
	}
	if !c.Kind.Write() || len(c.Key) == 0 {
		return raftgroup.Result{}, fmt.Errorf("entry %d: %w: a command of kind %d in the log", at.Index, shard.ErrMalformed, c.Kind)
	}
	if err := m.refuse(&h, &c); err != nil {
		return raftgroup.Result{Err: err}, nil
	}
	if c.Key[0] == shard.SystemKeyspace {
		return m.applyUnversioned(b, &c)
	}
	return m.applyVersion(b, h.Revision, &c), nil
}

// refuse gives the reason why an operation has no effect. Its checks read nothing
// but the replicated state and the operation: every replica decides alike.
func (m *Machine) refuse(h *Header, c *shard.Command) error {
	d := &m.state.Descriptor
	// The leader compared the epoch when it proposed, but a change of the span may
	// have got into the log before the operation: applied here, it would write a
	// key that another shard serves by now.
	if h.Version != d.Epoch.Version || !d.Span.Contains(c.Key) {
		return &shard.WrongShardError{Shard: d.ID, Descriptors: []shard.Descriptor{*d}}
	}
	if c.Key[0] == shard.SystemKeyspace {
		if h.Revision != 0 {
			return &shard.InvalidError{Field: "revision", Reason: "is set for a key without versions"}
		}
		return nil
	}
	switch {
	case h.Revision <= m.state.LastRevision:
		return ErrStaleRevision
	case c.Kind != shard.KindPut && c.Kind != shard.KindDelete:
		return &shard.InvalidError{Field: "command", Reason: "is for keys without versions"}
	}
	return nil
}

// applyVersion writes a version or a tombstone. The header names the operation,
// so that a later attempt of it can be told from another write.
func (m *Machine) applyVersion(b *storage.Batch, rev shard.Revision, c *shard.Command) raftgroup.Result {
	h := storage.VersionHeader{Op: c.Op, Tombstone: c.Kind == shard.KindDelete}
	b.PutVersion(c.Key, rev, h, c.Value)
	m.state.LastRevision = rev
	m.wrote(c.Key, c.Value)
	return raftgroup.Result{Revision: rev}
}

func (m *Machine) wrote(key, value []byte) {
	m.state.Versions++
	m.state.Bytes += uint64(len(key) + len(value))
}

// ApplyMembership applies an encoded shard.MembershipChange. accepted tells
// whether the descriptor changed.
func (m *Machine) ApplyMembership(at raftgroup.Position, change []byte) (accepted bool, res raftgroup.Result, err error) {
	if err := m.advance(at); err != nil {
		return false, raftgroup.Result{}, err
	}
	c, err := shard.DecodeMembershipChange(change)
	if err != nil {
		return false, raftgroup.Result{}, fmt.Errorf("entry %d: %w", at.Index, err)
	}
	// Validated against the applied descriptor again: between the leader's check
	// and here another change may have been applied.
	next, refusal := c.Apply(&m.state.Descriptor)
	if refusal != nil {
		return false, raftgroup.Result{Err: refusal}, nil
	}
	m.state.Descriptor = next
	return true, raftgroup.Result{}, nil
}

// EndApply stages the replicated state, all of it in one record and in the batch
// of the data that it describes: applied twice, an operation would be refused or,
// worse, counted twice.
func (m *Machine) EndApply(b *storage.Batch, at raftgroup.Position) error {
	if !m.initialized || at.Index <= m.state.Applied || at.Term < m.state.AppliedTerm {
		return fmt.Errorf("a turn ends at entry %d of term %d, with entry %d of term %d applied", at.Index, at.Term, m.state.Applied, m.state.AppliedTerm)
	}
	m.state.Applied, m.state.AppliedTerm = at.Index, at.Term
	b.PutReplicaState(m.state.Descriptor.ID, &m.state)
	m.staged.endTurn()
	return nil
}

// Published tells the machine that its last turn's writes are visible to views
// opened from now on.
func (m *Machine) Published() { m.staged.drop() }

// advance checks that the log is walked forward and never twice.
func (m *Machine) advance(at raftgroup.Position) error {
	if !m.initialized {
		return fmt.Errorf("entry %d of term %d for a replica that is not initialized", at.Index, at.Term)
	}
	if at.Index < m.at.Index || at.Index <= m.state.Applied || at.Term < m.at.Term {
		return fmt.Errorf("entry %d of term %d after entry %d of term %d, with %d applied", at.Index, at.Term, m.at.Index, m.at.Term, m.state.Applied)
	}
	if at.Index != m.at.Index {
		m.before = counts{m.state.LastRevision, m.state.Versions, m.state.Bytes}
	}
	m.at = at
	return nil
}
