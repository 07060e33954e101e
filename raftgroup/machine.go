package raftgroup

import (
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Position is an entry's place in a log.
type Position struct {
	Index uint64
	Term  uint64
}

// Result is what applying one operation gave. It is handed to the proposer if
// it is on this node, and means nothing to the group itself.
type Result struct {
	Revision shard.Revision
	Found    bool
	Data     []byte
	Detail   any   // more, opaque to the group
	Err      error // a deterministic refusal, alike on every replica

	// Born is the state in which a shard begins that splits off this one, whose
	// descriptor ends where that one's span begins; nil: none does. See split.go.
	Born *storage.ReplicaState
}

// Member is a replica as the group sees it.
type Member = shard.Replica

// Machine is the replicated state machine of one replica. The group calls it on
// its own turn only, never concurrently; it must not block, and must not call
// back into the group but for the methods of Group that say so.
type Machine interface {
	// Descriptor is that of the applied state, with the changes of this turn; nil for
	// a replica that is not initialized. The group does not modify it, and does
	// not keep it.
	Descriptor() *shard.Descriptor

	// Applied is the position of the last applied entry; zero if not initialized.
	Applied() Position

	// Apply applies one operation of a normal entry and stages its writes in b.
	// op aliases the entry, which is not modified and may be kept until Published.
	// An error is corruption: the replica stops.
	Apply(b *storage.Batch, at Position, op []byte) (Result, error)

	// ApplyMembership applies a membership change (see shard.MembershipChange).
	// accepted tells whether the descriptor changed; Members then is the new one.
	ApplyMembership(b *storage.Batch, at Position, change []byte) (accepted bool, res Result, err error)

	// EndApply stages the replicated state, applied position included, after
	// the last entry of this turn's share; at covers entries without operations too.
	EndApply(b *storage.Batch, at Position)

	// Published is called when the batch of EndApply is committed and visible.
	Published()

	// InstallBegin and InstallEnd enclose the installation of a snapshot
	// (InstallEnd with nil when it was abandoned). Reads that straddle it retry.
	InstallBegin()
	InstallEnd(state *storage.ReplicaState)

	// Confirmed hands over reads whose point of linearization has been reached:
	// the applied state is at least as new as when each of them was submitted.
	// Or err, alike for all: a NotLeaderError or ErrUnavailable. The machine serves
	// them elsewhere; it must not read the disk in this call. The slice is the
	// machine's from here on.
	Confirmed(reads []Read, err error)

	// Expecting tells whether proposals are about to be handed in. Then a leader
	// leaves it to the next entry's message to tell followers of a commit.
	Expecting() bool

	// LeaderChanged reports what this replica believes of its group's
	// leadership, on every change of it.
	LeaderChanged(l Leadership)

	// Stopped reports that the replica takes no further part, and why. If err is
	// ErrRemoved its data is about to go: whoever reads it must find out.
	Stopped(err error)

	// Removed follows Stopped once nothing of the replica is left in the store. No
	// other method is called after it.
	Removed()
}

// Leadership is what a replica believes of its group.
type Leadership struct {
	Term    uint64
	Leader  shard.ReplicaID // 0: unknown
	Node    shard.NodeID    // the leader's node; 0: unknown
	Leading bool            // this replica leads in Term and has applied an entry of Term
}
