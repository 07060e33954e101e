package replica

import (
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Inspection is what a replica holds of a key, and how far the replica is.
type Inspection struct {
	Shard   shard.ID
	Replica shard.ReplicaID
	Leading bool

	Floor, LastRevision shard.Revision
	Applied             uint64
	// Versions of the key that are stored, newest first; below the floor they differ
	// from replica to replica.
	Versions []storage.Version
}

// inspectedMax bounds the versions of an inspection, and inspectionsMax the views
// that one takes while the replica is changing.
const (
	inspectedMax   = 10_000
	inspectionsMax = 3
)

// InspectKey tells what this node's replica has of a full key in the user keyspace,
// whoever leads. It reads the disk before it returns. A WrongShardError: no replica
// here covers the key; ErrUnavailable: it is changing just now; an InternalError: the
// disk.
func (s *Store) InspectKey(key []byte) (Inspection, error) {
	c := shard.Command{Kind: shard.KindGet, Key: key}
	if err := c.Check(); err != nil {
		return Inspection{}, err
	}
	if c.System() {
		return Inspection{}, &shard.InvalidError{Field: "key", Reason: "is in the system keyspace, which has no versions"}
	}
	for range inspectionsMax {
		r := s.replicas.covering(&c)
		if r == nil {
			return Inspection{}, &shard.WrongShardError{}
		}
		found, fits, err := r.inspect(&c)
		if fits {
			return found, err
		}
	}
	return Inspection{}, shard.ErrUnavailable
}

// inspect reads once; fits is false if the descriptor or the data changed meanwhile.
func (r *Replica) inspect(c *shard.Command) (i Inspection, fits bool, err error) {
	generation := r.generation.Load()
	d := r.descriptor.Load()
	if generation%2 == 1 || d == nil || !begins(c, d.Span) {
		return i, false, nil
	}
	v := r.store.openView()
	versions, err := v.Versions(c.Key, inspectedMax)
	_ = v.Close()
	if r.generation.Load() != generation {
		return i, false, nil
	}
	if err != nil {
		return i, true, &shard.InternalError{Reason: "reading the store: " + err.Error()}
	}
	s, _ := r.State()
	return Inspection{Shard: r.id, Replica: r.self, Leading: r.leadership.Load().Leading,
		Floor: s.Floor, LastRevision: s.LastRevision, Applied: s.Applied, Versions: versions}, true, nil
}
