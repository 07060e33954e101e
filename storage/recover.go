package storage

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// StageRecovery gives the replica of a shard that is here another ID and another
// descriptor, and keeps its log, its data and how far it has applied. It is for a
// store that no node runs on, after the shard has lost its majority.
//
// The log is kept whole. What is in it and not known to be committed may have been
// acknowledged by those who are lost, so it is not to be dropped.
//
// The ID is a new one for the reason that a replica added again gets one: what the
// old one has voted for and acknowledged belongs to the configuration that is given up.
// The tombstone keeps messages to the old ID from being anybody's.
func (e *Engine) StageRecovery(b *Batch, old shard.ReplicaID, replica shard.ReplicaID, d shard.Descriptor) error {
	state, ok, err := e.ReplicaState(d.ID)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("shard %d has no replicated state here", d.ID)
	}
	if _, listed := d.Replica(replica); !listed || replica <= old || replica >= d.NextReplica {
		panic(fmt.Sprintf("storage: replica %d of shard %d is recovered as %d of %+v", old, d.ID, replica, d))
	}
	hs, err := e.readHardState(d.ID, old, state.Applied, state.AppliedTerm)
	if err != nil {
		return err
	}
	state.Descriptor = d
	b.PutReplicaState(d.ID, &state)
	b.putVote(d.ID, voteState{Replica: replica, Term: hs.Term})
	b.putCommit(d.ID, commitState{Replica: replica, Commit: hs.Commit})
	b.PutTombstone(d.ID, Tombstone{NextReplica: replica})
	return nil
}
