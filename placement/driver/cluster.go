package driver

import (
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// Cluster is what a driver asks of the nodes. Every done is called exactly once,
// from any step, perhaps before the call returns, after a bounded time.
type Cluster interface {
	// Reports asks all nodes for a report and passes on those of the nodes that
	// answered, which are the live ones. only names the shards that are of
	// interest; nil: all. Replicas of other shards may be left out, and so may those that
	// follow a leader.
	Reports(only []shard.ID, done func([]Report))

	// ChangeMembership asks the replica on node, which leads, to change its
	// shard's membership. It answers with the shard's descriptor after the
	// change; a descriptor without an ID means that it is not known.
	ChangeMembership(node shard.NodeID, m shard.MembershipChange, done func(shard.Descriptor, error))

	// SplitShard asks the replica on node, which leads, to split its shard. It answers with
	// what is left of the shard, and what became of the rest.
	SplitShard(node shard.NodeID, s shard.Split, done func(left, right shard.Descriptor, err error))

	// TransferShard asks the replica of the shard on node, which leads, to hand
	// over to another replica, and answers when it no longer leads.
	TransferShard(node shard.NodeID, id shard.ID, to shard.ReplicaID, done func(error))
}

// Records are the meta shard's records that say what people want: a
// catalog.Catalog.
type Records interface {
	ListNodes(done func([]router.Node, error))
	SetNodeState(id shard.NodeID, to shard.NodeState, now uint64, done func(router.Node, error))
	ListOperations(done func([]catalog.Operation, error))
	EndOperation(id shard.ID, op uint64, state catalog.OperationState, reason string, ended uint64, done func(catalog.Operation, error))
	ForgetOperation(op catalog.Operation, done func(error))
	ListDirectory(done func([]catalog.DirectoryRow, error))
	AllocateShard(done func(shard.ID, error))
}

// Report is a live node's view of its replicas. Those that do not lead may be
// left out; they help while a shard has no leader.
type Report struct {
	Node shard.NodeID
	// Held is how many replicas the node has, those that are left out included.
	Held     int
	Replicas []ReplicaReport
	// Capacity and Available are the bytes of its disk, and those that are free; both 0:
	// not known. DiskBytes are those that its store takes up.
	Capacity, Available, DiskBytes uint64
}

// ReplicaReport is a replica's view of its shard.
type ReplicaReport struct {
	Descriptor shard.Descriptor // of an initialized replica
	Term       uint64
	Leading    bool
	Commit     uint64
	Bytes      uint64 // an estimate of its data

	// Of a leader:
	Progress    []placement.Progress
	Load        placement.Load
	SplitAt     []byte // where it wishes its shard split; nil: nowhere
	SplitReason string
}
