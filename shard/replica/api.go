package replica

import (
	"log/slog"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// CONTRACT: signatures that other rooms build on; bodies follow.

// Revisions numbers writes.
type Revisions interface {
	// Draw hands out n revisions, first to first+n-1, each larger than every
	// revision that was handed out for the shard before the call. done is called
	// once, perhaps before Draw returns. floor is the shard's last applied revision.
	Draw(id shard.ID, floor shard.Revision, n int, done func(first shard.Revision, err error))
}

// Config of a node's replicas.
type Config struct {
	Node      shard.NodeID
	Env       env.Env
	Engine    *storage.Engine
	Revisions Revisions
	Reads     env.Queue // a pool on which reads touch the disk
	// Address is where clients reach a node, "" if unknown. Safe for concurrent use.
	Address func(shard.NodeID) string
	// DescriptorChanged is told of each applied descriptor, and of each gain of
	// leadership (leading), so that directories can be fed. Must not block.
	DescriptorChanged func(d shard.Descriptor, leading bool, term uint64)
	Logger            *slog.Logger
}

// Store is all replicas of a node.
type Store struct{}

func NewStore(cfg Config) *Store { panic("contract") }

// NewMachine is the host's Config.NewMachine.
func (s *Store) NewMachine(g *raftgroup.Group, state *storage.ReplicaState) (raftgroup.Machine, error) {
	panic("contract")
}

// Execute carries out one request from a client stream. reply is called exactly
// once, from any step, perhaps before Execute returns; the response's slices are valid only
// during reply. Execute keeps q.Command until then. It never blocks.
func (s *Store) Execute(q shard.Request, reply func(shard.Response)) { panic("contract") }

// Replica finds the replica of a shard on this node.
func (s *Store) Replica(id shard.ID) (*Replica, bool) { panic("contract") }

// Replicas lists all in order of shard.
func (s *Store) Replicas() []*Replica { panic("contract") }

// Replica is a shard's copy on this node.
type Replica struct{}

func (r *Replica) Group() *raftgroup.Group { panic("contract") }

// State is the last published replicated state; ok is false while not initialized.
func (r *Replica) State() (s storage.ReplicaState, ok bool) { panic("contract") }

// Leadership is what the replica believes now.
func (r *Replica) Leadership() raftgroup.Leadership { panic("contract") }

// ChangeMembership proposes m if this replica leads.
func (r *Replica) ChangeMembership(m shard.MembershipChange, done func(error)) { panic("contract") }
