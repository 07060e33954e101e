package replica

import (
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Store is all replicas of a node. Its methods are safe for concurrent use.
type Store struct {
	cfg      Config
	replicas registry
	reserved reservations
	newest   atomic.Uint64 // revision that a replica has applied
	sessions sessions
	reads    readQueue
	stats    counters

	readBudget  budget
	writeBudget budget
	readPool    sync.Pool
	writePool   sync.Pool

	openView func() view

	upkeep upkeep
	checks checker
}

// NewStore makes an empty store; replicas come through NewMachine.
func NewStore(cfg Config) *Store {
	cfg.setDefaults()
	s := &Store{cfg: cfg}
	s.readBudget = budget{countMax: cfg.ReadsMax, bytesMax: cfg.ReadBytesMax}
	s.writeBudget = budget{countMax: cfg.WritesMax, bytesMax: cfg.WriteBytesMax}
	s.readPool.New = func() any { return new(read) }
	s.writePool.New = newWrite
	s.reads.init(s)
	s.openView = func() view { return cfg.Engine.NewView() }
	s.checks.store = s
	s.checks.interval.Store(int64(max(cfg.CheckInterval, 0)))
	s.upkeep.init(s)
	return s
}

// Close ends the store's work in the background. Requests are not its concern:
// their groups end them.
func (s *Store) Close() {
	s.upkeep.close()
	s.checks.close()
}

// NewMachine is the host's Config.NewMachine. A replica that was here under the
// same shard before is forgotten.
func (s *Store) NewMachine(g *raftgroup.Group, state *storage.ReplicaState) (raftgroup.Machine, error) {
	r := s.newReplica(g, g.Shard(), g.Replica(), state)
	r.raft = g
	s.replicas.put(r)
	return turn{r}, nil
}

// Replica finds the replica of a shard on this node.
func (s *Store) Replica(id shard.ID) (*Replica, bool) { return s.replicas.get(id) }

// Replicas lists all in order of shard.
func (s *Store) Replicas() []*Replica { return s.replicas.all() }
