package raftgroup

import (
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// CONTRACT: signatures that other rooms build on; bodies follow.

// Config of a host. Zero fields that have a default take it.
type Config struct {
	Node        shard.NodeID
	Incarnation uint64
	Env         env.Env
	Engine      *storage.Engine
	Transport   Transport
	Logger      *slog.Logger

	// NewMachine makes the machine of a replica that is loaded or that a
	// message has created; state is nil for one that is not initialized. The
	// machine may keep g.
	NewMachine func(g *Group, state *storage.ReplicaState) (Machine, error)

	Workers        int           // default 1 for up to 4 cores, else cores/4
	Tick           time.Duration // default 100 ms
	ElectionTicks  int           // default 15
	HeartbeatTicks int           // default 3
	LogBytesMax    int64         // per group: truncation starts above it; default 4 MiB
	// Byte budgets of the node; past them ErrBusy.
	ProposalBytesMax, IncomingBytesMax, ApplyBytesMax int64
}

// Host drives all groups of a node.
type Host struct{}

func NewHost(cfg Config) (*Host, error) { panic("contract") }

// Load starts every replica that the store has records of.
func (h *Host) Load() error { panic("contract") }

// Close stops all groups. Waiting proposals fail with ErrUndetermined, reads with ErrUnavailable.
func (h *Host) Close() { panic("contract") }

// Group finds the group of a shard on this node.
func (h *Host) Group(id shard.ID) (*Group, bool) { panic("contract") }

// Groups lists all groups in order of shard.
func (h *Host) Groups() []*Group { panic("contract") }

// Stats of the host for metrics: rounds, groups per round, ready count, fsync waits, proposals, entries, ops per entry, messages, drops, budgets in use.
type HostStats struct {
	Rounds, GroupsInRounds, SyncedRounds, Entries, Operations, Messages, MessagesDropped, ReadIndexes, Reads uint64
	ProposalBytes, IncomingBytes                                                                             int64
}

func (h *Host) Stats() HostStats { panic("contract") }

// Group is one raft group on this node. Methods are safe for concurrent use and never block.
type Group struct{}

func (g *Group) Shard() shard.ID          { panic("contract") }
func (g *Group) Replica() shard.ReplicaID { panic("contract") }

// Proposal is one operation on its way into the log.
type Proposal struct {
	// Header and Body together are the operation's bytes. They are not modified and
	// are kept until Done.
	Header, Body []byte
	// Term in which it may be proposed; in any other it is dropped.
	Term uint64
	// Done is called exactly once, on the group's turn. err is nil (see Result),
	// ErrDropped, a NotLeaderError (both: provably never in effect) or
	// ErrUndetermined. Must not block.
	Done func(res Result, err error)
}

// Propose hands p to the group. An error (ErrBusy, ErrUnavailable, ErrStopped) means that
// nothing was done and Done will not be called. The order of calls is the order in the log.
func (g *Group) Propose(p *Proposal) error { panic("contract") }

// ProposeMembership proposes a change that m must accept; see shard.MembershipChange.
// done: nil once applied; the refusal otherwise.
func (g *Group) ProposeMembership(term uint64, m shard.MembershipChange, done func(error)) {
	panic("contract")
}

// Read submits a read; it comes back in Machine.Confirmed. An error as in Propose.
func (g *Group) Read(r Read) error { panic("contract") }

// TransferLeader asks the leader to hand over. done is called when this replica
// no longer leads (nil), or after an election timeout with an error.
func (g *Group) TransferLeader(to shard.ReplicaID, done func(error)) { panic("contract") }

// Campaign makes the replica stand for election at once.
func (g *Group) Campaign() { panic("contract") }

// Status is a copy of what the group last published, refreshed at least once a tick interval when it changes.
func (g *Group) Status() Status { panic("contract") }

// Status of a replica.
type Status struct {
	Shard                 shard.ID
	Replica               shard.ReplicaID
	Term                  uint64
	Leader                shard.ReplicaID
	LeaderNode            shard.NodeID
	Leading               bool
	Last, Commit, Applied uint64
	First                 uint64
	LogBytes              int64
	Progress              []Progress // of a leader, in order of replica
	Err                   error      // why it stopped
}

// Progress is what a leader knows of one member.
type Progress struct {
	Replica  shard.ReplicaID
	Match    uint64
	Active   bool // heard from within the last election timeout
	Snapshot bool // is being sent a snapshot
}
