package shard

import (
	"encoding/hex"
	"fmt"
	"strconv"
)

// ID identifies a shard, for ever: an ID is never given to another shard.
type ID uint64

// MetaID is the shard that covers the system keyspace.
const MetaID ID = 1

// NodeID identifies a node (one process with one store) within its cluster.
// 0 is no node.
type NodeID uint64

// ReplicaID identifies a replica within its shard. It is also the replica's
// raft peer ID, and is never reused within the shard. 0 is no replica.
type ReplicaID uint64

// Revision is the place of a write in the order of writes. 0 is no revision.
// Revisions stay below 1<<63, so that they fit a signed integer everywhere.
type Revision uint64

// MaxRevision is the largest revision that can ever be handed out. As a read
// revision it means the latest state.
const MaxRevision Revision = 1<<63 - 1

// Session identifies one client library instance: a random number, never 0.
type Session uint64

func (id ID) String() string        { return strconv.FormatUint(uint64(id), 10) }
func (id NodeID) String() string    { return strconv.FormatUint(uint64(id), 10) }
func (id ReplicaID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ClusterID identifies a cluster: 16 random bytes, checked on every connection.
type ClusterID [16]byte

// IsZero tells whether id was never set.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// String is the UUID notation of id.
func (id ClusterID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseClusterID reads the notation that String writes.
func ParseClusterID(s string) (ClusterID, error) {
	var id ClusterID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("cluster ID %q is not a UUID", s)
	}
	h := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	b, err := hex.DecodeString(h)
	if err != nil {
		return id, fmt.Errorf("cluster ID %q is not a UUID", s)
	}
	copy(id[:], b)
	return id, nil
}

// Epoch versions a descriptor. Version grows when the span changes (a split
// gives both sides the parent's version plus one), ConfVersion when the
// membership does. Both start at 1 (FirstVersion).
type Epoch struct {
	Version     uint64
	ConfVersion uint64
}

// FirstVersion is the version of a shard that has the span that the cluster gave
// it when it was made: it was never split nor merged, nor is it a part of one that was.
const FirstVersion = 1

func (e Epoch) String() string {
	return strconv.FormatUint(e.Version, 10) + "." + strconv.FormatUint(e.ConfVersion, 10)
}

// Newer tells whether e supersedes o. Epochs of one shard are totally ordered:
// neither half ever decreases.
func (e Epoch) Newer(o Epoch) bool {
	return e.Version > o.Version || e.Version == o.Version && e.ConfVersion > o.ConfVersion
}
