package storage

import (
	"fmt"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// StageRemoval stages the end of a shard's replica on this node: its records, its
// log and its data are deleted, and the tombstone takes their place, which forbids
// every replica below next. All of it in one batch: a crash leaves the whole
// replica, which is then told of its removal again, or nothing but the tombstone.
// Were the data to go first, a replica would come back that has forgotten what it
// has voted for and acknowledged; were the tombstone to come first, nobody would
// look for the data again.
//
// It is for the group's own turn, and not for a time at which a snapshot of the
// shard is being ingested: that would come back. A shard without any records gets
// its tombstone all the same. An existing tombstone is never lowered.
func (e *Engine) StageRemoval(b *Batch, id shard.ID, next shard.ReplicaID) error {
	state, initialized, err := e.ReplicaState(id)
	if err != nil {
		return err
	}
	old, _, err := e.Tombstone(id)
	if err != nil {
		return err
	}
	vote, _, err := readRecord(e.db, recordKey(id, voteRecord), decodeVote)
	if err != nil {
		return err
	}
	if vote.Replica >= next {
		return fmt.Errorf("shard %d: replica %d is to be removed by a tombstone below %d", id, vote.Replica, next)
	}
	b.delete(recordKey(id, stateRecord))
	b.delete(recordKey(id, voteRecord))
	b.delete(recordKey(id, commitRecord))
	b.delete(recordKey(id, birthRecord))
	b.deleteRange(recordKey(id, logRecords), recordKey(id, afterLogRecords))
	if initialized {
		lower, upper := spanBounds(state.Descriptor.Span)
		b.deleteRange(lower, upper)
	}
	if !planted.On(planted.TombstoneNotWritten) {
		b.PutTombstone(id, Tombstone{NextReplica: max(next, old.NextReplica)})
	}
	return nil
}
