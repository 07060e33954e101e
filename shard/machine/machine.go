package machine

import (
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Reader is a consistent view of the committed data. *storage.View is one.
type Reader interface {
	// Get finds the newest version of key; value is valid until the next call.
	Get(key []byte, at shard.Revision) (value []byte, rev shard.Revision, found bool, err error)
	// VersionAt is Get of a key with versions that finds tombstones too.
	VersionAt(key []byte, at shard.Revision) (h storage.VersionHeader, value []byte, rev shard.Revision, found bool, err error)
	// Scan reads a page of rows, which are the caller's to keep.
	Scan(o storage.ScanOptions) (rows []shard.Row, resume []byte, err error)
	// FindOp finds the newest version of key that op wrote above a revision.
	FindOp(key []byte, op shard.OpID, above shard.Revision) (rev shard.Revision, found bool, err error)
	// FindOpInSpan finds the newest revision above another at which op wrote keys
	// of span, and how many.
	FindOpInSpan(span shard.Span, op shard.OpID, above shard.Revision) (rev shard.Revision, keys int, err error)
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
	before before

	staged staged
	checks []Check // of this turn
}

// before is the part of the replicated state that operations change.
type before struct {
	lastRevision, floor shard.Revision
	versions, bytes     uint64
	descriptor          shard.Descriptor
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
	m.checks = nil
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
// writes in b, which is the same for all of a turn and which nobody else writes to
// in between. op is not kept. After an error the state is that before the entry,
// and the caller rolls b back to there.
func (m *Machine) Apply(b *storage.Batch, at raftgroup.Position, op []byte) (raftgroup.Result, error) {
	if err := m.advance(at); err != nil {
		return raftgroup.Result{}, err
	}
	m.staged.versions.begin(b)
	res, err := m.apply(b, op)
	if err != nil {
		m.rollBack()
		return raftgroup.Result{}, fmt.Errorf("entry %d: %w", at.Index, err)
	}
	return res, nil
}

// rollBack makes the current entry count as not applied. A later version of this
// code that can read it must not find its first operations refused for their
// revisions.
func (m *Machine) rollBack() {
	m.state.LastRevision, m.state.Floor = m.before.lastRevision, m.before.floor
	m.state.Versions, m.state.Bytes = m.before.versions, m.before.bytes
	m.state.Descriptor = m.before.descriptor
	m.staged.rollBack()
	m.checks = slices.DeleteFunc(m.checks, func(c Check) bool { return c.At == m.at })
}

func (m *Machine) apply(b *storage.Batch, op []byte) (raftgroup.Result, error) {
	var h Header
	var c shard.Command
	if err := DecodeOperation(op, &h, &c); err != nil {
		return raftgroup.Result{}, err
	}
	if !c.Kind.Write() || !c.Kind.Upkeep() && len(c.Anchor()) == 0 {
		return raftgroup.Result{}, fmt.Errorf("%w: a command of kind %d in the log", shard.ErrMalformed, c.Kind)
	}
	if err := m.refuse(&h, &c); err != nil {
		return raftgroup.Result{Err: err}, nil
	}
	switch {
	case c.Kind == shard.KindDigest || c.Kind == shard.KindVerify:
		return m.check(&c), nil
	case c.Kind == shard.KindSplit:
		return m.split(&h, &c), nil
	case c.Kind.Upkeep():
		m.raise(&h, &c)
		return raftgroup.Result{}, nil
	case c.System():
		return m.applyUnversioned(b, &c)
	}
	return m.applyVersions(b, &h, &c)
}

// refuse gives the reason why an operation has no effect, of those that are found
// without a look at the data. All read nothing but the replicated state and the
// operation: every replica decides alike.
func (m *Machine) refuse(h *Header, c *shard.Command) error {
	d := &m.state.Descriptor
	within := c.Within(d.Span)
	if !within && c.Retry && d.Span.Contains(c.Anchor()) {
		// An earlier attempt may have been before the split that parted its keys.
		return d.Parted()
	}
	// The leader compared the epoch when it proposed, but a change of the span may
	// have got into the log before the operation: applied here, it would write a
	// key that another shard serves by now.
	if h.Version != d.Epoch.Version && !planted.On(planted.EpochNotChecked) || !within {
		return &shard.WrongShardError{Shard: d.ID, Descriptors: []shard.Descriptor{*d}}
	}
	if c.Kind == shard.KindDigest || c.Kind == shard.KindVerify || c.Kind == shard.KindSplit {
		return nil
	}
	if d.Span.Start[0] == shard.SystemKeyspace {
		return refuseUnversioned(h, c)
	}
	switch c.Kind {
	case shard.KindRaise, shard.KindFloor:
		return nil
	case shard.KindPut, shard.KindDelete, shard.KindBatch, shard.KindDeleteRange:
	default:
		return &shard.InvalidError{Field: "command", Reason: "is for keys without versions"}
	}
	if h.Revision == 0 || h.Revision <= m.state.LastRevision && !planted.On(planted.StaleRevisionApplied) {
		return ErrStaleRevision
	}
	return nil
}

func refuseUnversioned(h *Header, c *shard.Command) error {
	switch {
	case !c.System() || c.Kind == shard.KindDeleteRange || c.Kind == shard.KindBatch:
		return &shard.InvalidError{Field: "command", Reason: "is for keys with versions"}
	case h.Revision != 0:
		return &shard.InvalidError{Field: "revision", Reason: "is set for a key without versions"}
	case c.Retry:
		return &shard.OutcomeLostError{Reason: "records of the system keyspace name no operation"}
	}
	return nil
}

// raise raises the last revision, so that a read at the operation's revision may
// be served, or the floor. Neither ever falls, and one that comes too late is no
// mistake: the leader proposes them for whoever waits, not for an answer.
func (m *Machine) raise(h *Header, c *shard.Command) {
	if c.Kind == shard.KindRaise {
		m.state.LastRevision = max(m.state.LastRevision, h.Revision)
		return
	}
	// A floor above the last revision would forbid reads of the latest state.
	m.state.Floor = max(m.state.Floor, min(c.Revision, m.state.LastRevision))
}

// applyVersions carries out a command on keys with versions. Afterwards the last
// revision is the command's, even if it wrote nothing: what it was told must stay
// true at its revision. A refusal leaves it as it was.
func (m *Machine) applyVersions(b *storage.Batch, h *Header, c *shard.Command) (raftgroup.Result, error) {
	if c.Retry {
		if res, decided, err := m.earlier(h, c); err != nil || decided {
			return res, err
		}
	}
	var res raftgroup.Result
	switch c.Kind {
	case shard.KindPut, shard.KindDelete:
		// What most commands are depends on no state and makes no effect.
		m.write(b, h.Revision, c.Op, c.Key, c.Value, c.Kind == shard.KindDelete)
		res.Revision = h.Revision
	default:
		e, err := m.evaluate(c, shard.MaxRevision)
		if err != nil || e.refusal != nil {
			return raftgroup.Result{Err: e.refusal}, err
		}
		m.carryOut(b, h.Revision, c.Op, &e)
		if c.Retry && len(e.writes) == 0 {
			if err := m.leaveTrace(b, h.Revision, c); err != nil {
				return raftgroup.Result{}, err
			}
		}
		res = e.result(h.Revision)
	}
	m.state.LastRevision = h.Revision
	return res, nil
}

// write writes a version or a tombstone. The header names the operation, so that
// a later attempt of it can be told from another write.
func (m *Machine) write(b *storage.Batch, rev shard.Revision, op shard.OpID, key, value []byte, tombstone bool) {
	m.put(b, rev, key, storage.VersionHeader{Op: op, Tombstone: tombstone}, value)
}

func (m *Machine) put(b *storage.Batch, rev shard.Revision, key []byte, h storage.VersionHeader, value []byte) {
	b.PutVersion(key, rev, h, value)
	m.counted(key, value)
}

func (m *Machine) counted(key, value []byte) {
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
		m.before = before{m.state.LastRevision, m.state.Floor, m.state.Versions, m.state.Bytes, m.state.Descriptor}
		m.staged.begin()
	}
	m.at = at
	return nil
}
