package replica

import (
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

// Replica is a shard's copy on this node. Its methods are safe for concurrent use.
//
// Lock order: reservations.mu and registry.mu before the locks of the registry's parts. All others
// (draws.mu, raises.mu, publishedMu, deferredMu, readQueue.mu) are leaves. None is held while
// a callback runs.
type Replica struct {
	store *Store
	raft  *raftgroup.Group
	group group
	id    shard.ID
	self  shard.ReplicaID

	// Of the group's turn only.
	machine   *machine.Machine
	changing  bool                    // a batch that changes the descriptor is on its way
	born      []*storage.ReplicaState // states of the shards that split off in it
	unsteady  int                     // reasons for an odd generation
	readBytes int                     // of what this turn's batches have read and their replies will tell

	// generation is odd while the descriptor or the data below it change other
	// than by ordinary writes. descriptor is stored only while it is odd.
	// Invariant: whoever reads the same even generation before opening a view and
	// after reading from it has read data that belongs to the descriptor loaded in
	// between.
	generation atomic.Uint64
	descriptor atomic.Pointer[shard.Descriptor] // nil while not initialized
	leadership atomic.Pointer[raftgroup.Leadership]
	// lastRevision and floor are those of the last published state.
	lastRevision atomic.Uint64
	floor        atomic.Uint64

	publishedMu sync.Mutex
	published   storage.ReplicaState
	initialized bool

	deferredMu sync.Mutex
	deferred   []*read // wait for an even generation
	stopped    bool

	draws  draws
	raises raises

	history history
	sweep   sweepState
	check   checkState
	load    load
	size    atomic.Pointer[measured] // nil: it was not

	// membership tells that a change is on its way through the log.
	membership atomic.Bool
}

func (s *Store) newReplica(g group, id shard.ID, self shard.ReplicaID, state *storage.ReplicaState) *Replica {
	r := &Replica{store: s, group: g, id: id, self: self}
	r.machine = machine.New(state, func() machine.Reader { return s.cfg.Engine.NewView() })
	r.leadership.Store(&raftgroup.Leadership{})
	r.draws.init(r)
	r.raises.init(r)
	r.history.init(r)
	r.load.r = r
	if state != nil {
		d := state.Descriptor
		r.descriptor.Store(&d)
		r.publish()
	}
	return r
}

// Self is the replica's ID.
func (r *Replica) Self() shard.ReplicaID { return r.self }

// Term is the group's; see raftgroup.Group.Term.
func (r *Replica) Term() uint64 { return r.raft.Term() }

// Pair tells whether this replica and another one are a quorum of the applied
// configuration, and that is not a joint one.
func (r *Replica) Pair(other shard.ReplicaID) bool {
	d := r.descriptor.Load()
	if d == nil || other == r.self {
		return false
	}
	voters, both := 0, 0
	for _, m := range d.Replicas {
		switch m.Role {
		case shard.Voter:
			voters++
			if m.ID == r.self || m.ID == other {
				both++
			}
		case shard.Incoming, shard.Outgoing:
			return false
		}
	}
	return both == 2 && voters <= 3
}

// Partner is a voter that is a Pair with this replica, and its node: another one than
// avoid if there is one.
func (r *Replica) Partner(avoid shard.ReplicaID) (id shard.ReplicaID, node shard.NodeID, ok bool) {
	d := r.descriptor.Load()
	if d == nil {
		return 0, 0, false
	}
	for _, m := range d.Replicas {
		if (id == 0 || id == avoid) && r.Pair(m.ID) {
			id, node = m.ID, m.Node
		}
	}
	return id, node, id != 0
}

// Group is the replica's raft group.
func (r *Replica) Group() *raftgroup.Group { return r.raft }

// State is the last published replicated state; ok is false while not
// initialized. Its descriptor's slices are shared: do not modify them.
func (r *Replica) State() (s storage.ReplicaState, ok bool) {
	r.publishedMu.Lock()
	defer r.publishedMu.Unlock()
	return r.published, r.initialized
}

// Leadership is what the replica believes now.
func (r *Replica) Leadership() raftgroup.Leadership { return *r.leadership.Load() }
