package storage

import (
	"errors"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// A shard that splits off another one begins with data that is there already: all that a
// node has to write is a replicated state and the anchor of an empty log. It does so in
// the batch of the other shard's apply, which is not the new replica's own turn. So
// {term, vote} and {commit} are not touched: the new replica may have been created by a
// message and have voted, and a vote that is forgotten is a vote given twice. In their
// place a record of its own says whose the state is, until the replica votes itself.

// PutBornReplica writes what a replica of a new shard starts from, whose data is in the
// store: s, with Applied and AppliedTerm set to 10 and 1 whatever they are, and an empty
// log that begins there.
func (b *Batch) PutBornReplica(replica shard.ReplicaID, s *ReplicaState) {
	born := *s
	born.Applied, born.AppliedTerm = firstIndex, firstTerm
	id := s.Descriptor.ID
	b.PutReplicaState(id, &born)
	b.putAnchor(id, firstIndex, firstTerm)
	b.set(recordKey(id, birthRecord), appendBirth(nil, replica))
	if planted.On(planted.SplitOverwritesVote) {
		b.putVote(id, voteState{Replica: replica, Term: firstTerm})
	}
}

// DeleteSpan deletes all data of a span that no replica here covers any more.
func (b *Batch) DeleteSpan(span shard.Span) {
	lower, upper := spanBounds(span)
	b.deleteRange(lower, upper)
}

// Claims says what the store has of a shard that another one is about to split off: the
// lowest ID that a replica of it may have here, and whether a replica has its state.
func (e *Engine) Claims(id shard.ID) (lowest shard.ReplicaID, initialized bool, err error) {
	tombstone, _, err := e.Tombstone(id)
	vote, _, voteErr := readRecord(e.db, recordKey(id, voteRecord), decodeVote)
	_, initialized, stateErr := e.ReplicaState(id)
	return max(tombstone.NextReplica, vote.Replica), initialized, errors.Join(err, voteErr, stateErr)
}

func appendBirth(b []byte, replica shard.ReplicaID) []byte {
	return appendUvarints(append(b, recordFormat), uint64(replica))
}

func decodeBirth(b []byte) (shard.ReplicaID, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	replica := shard.ReplicaID(d.uvarint())
	if d.err == nil && replica == 0 {
		d.fail("a birth of no replica")
	}
	return replica, d.done()
}
