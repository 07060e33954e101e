package storage

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// A replica has three small records, apart from each other because different
// events write them: {term, vote} and {commit} are its own and no split, ingest
// or other replica ever touches them; the replicated state belongs to the shard
// and is written with the data it describes. Were they one record, applying a
// split could take a vote back that was given already.
//
// {term, vote} and {commit} name the replica: one that comes back under a higher
// ID is another voter, and must not inherit what its predecessor promised.

// Every log starts here: an append can match no empty log, so that a replica
// without state is never initialized by entries alone.
const (
	firstIndex uint64 = 10
	firstTerm  uint64 = 1
)

// ReplicaState is the replicated state of a replica: equal on all replicas at
// the same applied index.
type ReplicaState struct {
	Applied      uint64 // index of the last applied entry
	AppliedTerm  uint64
	LastRevision shard.Revision
	Floor        shard.Revision
	Descriptor   shard.Descriptor
	Versions     uint64 // versions ever written: an estimate of the keys
	Bytes        uint64 // bytes of keys and values ever written
}

// ReplicaRecord names one replica found on disk. Initialized: it has a ReplicaState.
type ReplicaRecord struct {
	Shard       shard.ID
	Replica     shard.ReplicaID
	Initialized bool
}

// Tombstone remembers that a shard's replica was removed from this node: stale
// messages must not bring it back.
type Tombstone struct {
	// NextReplica is the lowest ID that a replica of the shard may have here.
	NextReplica shard.ReplicaID
}

// voteState is the {term, vote} record.
type voteState struct {
	Replica shard.ReplicaID
	Term    uint64
	Vote    shard.ReplicaID // 0: none
}

// commitState is the {commit} record.
type commitState struct {
	Replica shard.ReplicaID
	Commit  uint64
}

// Replicas lists all replicas with records in the store, in order of shard,
// those without state included: they may have voted. A tombstone alone is no replica.
func (e *Engine) Replicas() ([]ReplicaRecord, error) {
	lower, upper := replicaBounds()
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	found, err := collectReplicas(it)
	return found, errors.Join(err, it.Close())
}

func collectReplicas(it *pebble.Iterator) ([]ReplicaRecord, error) {
	var found []ReplicaRecord
	var current ReplicaRecord
	finish := func() error {
		if current.Initialized && current.Replica == 0 {
			return malformed("shard %d has a replicated state and nothing that says whose it is", current.Shard)
		}
		if current.Replica != 0 {
			found = append(found, current)
		}
		return nil
	}
	for ok := it.First(); ok; {
		id, kind, err := parseRecordKey(it.Key())
		if err != nil {
			return nil, err
		}
		if id != current.Shard {
			if err := finish(); err != nil {
				return nil, err
			}
			current = ReplicaRecord{Shard: id}
		}
		switch kind {
		case stateRecord:
			current.Initialized = true
		case voteRecord:
			value, err := it.ValueAndErr()
			if err != nil {
				return nil, err
			}
			vote, err := decodeVote(value)
			if err != nil {
				return nil, fmt.Errorf("term and vote of shard %d: %w", id, err)
			}
			current.Replica = vote.Replica
		case birthRecord:
			value, err := it.ValueAndErr()
			if err != nil {
				return nil, err
			}
			born, err := decodeBirth(value)
			if err != nil {
				return nil, fmt.Errorf("birth of shard %d: %w", id, err)
			}
			current.Replica = max(current.Replica, born)
		case logRecords:
			ok = it.SeekGE(recordKey(id, afterLogRecords))
			continue
		}
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	return found, finish()
}

// ReplicaState reads the replicated state of a shard's replica; false if it has none.
func (e *Engine) ReplicaState(id shard.ID) (ReplicaState, bool, error) {
	return readRecord(e.db, recordKey(id, stateRecord), decodeReplicaState)
}

// PutReplicaState stages the replicated state. It belongs into the batch of the
// data that it describes.
func (b *Batch) PutReplicaState(id shard.ID, s *ReplicaState) {
	if s.Descriptor.ID != id {
		panic(fmt.Sprintf("storage: the state of shard %d has the descriptor of shard %d", id, s.Descriptor.ID))
	}
	b.set(recordKey(id, stateRecord), appendReplicaState(nil, s))
}

// PutInitialReplica writes everything that a shard's first replica starts from:
// s, with Applied and AppliedTerm set to 10 and 1 whatever they are, an empty log
// that begins there, and the hard state {term 1, commit 10}. It is for a shard
// that is new in the cluster and of which this store has no records.
func (b *Batch) PutInitialReplica(replica shard.ReplicaID, s *ReplicaState) {
	initial := *s
	index, term := firstIndex, firstTerm
	if planted.On(planted.EmptyLogAppends) {
		index, term = 0, 0
	}
	initial.Applied, initial.AppliedTerm = index, term
	id := s.Descriptor.ID
	b.PutReplicaState(id, &initial)
	b.putAnchor(id, index, term)
	b.putVote(id, voteState{Replica: replica, Term: firstTerm})
	b.putCommit(id, commitState{Replica: replica, Commit: index})
}

// PutTombstone stages a tombstone.
func (b *Batch) PutTombstone(id shard.ID, t Tombstone) {
	b.set(recordKey(id, tombstoneRecord), appendTombstone(nil, t))
}

// Tombstone reads the tombstone of a shard; false if there is none.
func (e *Engine) Tombstone(id shard.ID) (Tombstone, bool, error) {
	return readRecord(e.db, recordKey(id, tombstoneRecord), decodeTombstone)
}

func (b *Batch) putVote(id shard.ID, v voteState) {
	b.set(recordKey(id, voteRecord), appendVote(nil, v))
}

func (b *Batch) putCommit(id shard.ID, c commitState) {
	b.set(recordKey(id, commitRecord), appendCommit(nil, c))
}

func appendReplicaState(b []byte, s *ReplicaState) []byte {
	b = append(b, recordFormat)
	b = appendUvarints(b, s.Applied, s.AppliedTerm, uint64(s.LastRevision), uint64(s.Floor), s.Versions, s.Bytes)
	return shard.AppendDescriptor(b, &s.Descriptor)
}

func decodeReplicaState(b []byte) (ReplicaState, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	s := ReplicaState{Applied: d.uvarint(), AppliedTerm: d.uvarint(), LastRevision: d.revision(), Floor: d.revision(),
		Versions: d.uvarint(), Bytes: d.uvarint()}
	rest := d.rest()
	if d.err != nil {
		return ReplicaState{}, d.err
	}
	var err error
	s.Descriptor, err = shard.DecodeDescriptor(rest)
	return s, err
}

func (d *decoder) revision() shard.Revision {
	v := d.uvarint()
	if v > uint64(shard.MaxRevision) {
		d.fail("revision %d", v)
		return 0
	}
	return shard.Revision(v)
}

func appendVote(b []byte, v voteState) []byte {
	return appendUvarints(append(b, recordFormat), uint64(v.Replica), v.Term, uint64(v.Vote))
}

func decodeVote(b []byte) (voteState, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	v := voteState{Replica: shard.ReplicaID(d.uvarint()), Term: d.uvarint(), Vote: shard.ReplicaID(d.uvarint())}
	if d.err == nil && v.Replica == 0 {
		d.fail("a vote of no replica")
	}
	return v, d.done()
}

func appendCommit(b []byte, c commitState) []byte {
	return appendUvarints(append(b, recordFormat), uint64(c.Replica), c.Commit)
}

func decodeCommit(b []byte) (commitState, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	c := commitState{Replica: shard.ReplicaID(d.uvarint()), Commit: d.uvarint()}
	if d.err == nil && c.Replica == 0 {
		d.fail("a commit of no replica")
	}
	return c, d.done()
}

func appendTombstone(b []byte, t Tombstone) []byte {
	return appendUvarints(append(b, recordFormat), uint64(t.NextReplica))
}

func decodeTombstone(b []byte) (Tombstone, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	t := Tombstone{NextReplica: shard.ReplicaID(d.uvarint())}
	return t, d.done()
}

// readHardState is the hard state of a replica: what it wrote itself, with the
// commit and the term raised to those of what its state has applied.
func (e *Engine) readHardState(id shard.ID, replica shard.ReplicaID, applied, appliedTerm uint64) (raftpb.HardState, error) {
	hs := raftpb.HardState{Commit: applied}
	vote, found, err := readRecord(e.db, recordKey(id, voteRecord), decodeVote)
	if err != nil {
		return hs, err
	}
	if found {
		if vote.Replica > replica {
			return hs, fmt.Errorf("shard %d: the store has records of replica %d, newer than replica %d", id, vote.Replica, replica)
		}
		if vote.Replica == replica {
			hs.Term, hs.Vote = vote.Term, uint64(vote.Vote)
		}
	}
	if appliedTerm > hs.Term {
		hs.Term = appliedTerm // born by a split, and has never voted
	}
	commit, found, err := readRecord(e.db, recordKey(id, commitRecord), decodeCommit)
	if err != nil {
		return hs, err
	}
	if found && commit.Replica == replica {
		hs.Commit = max(hs.Commit, commit.Commit)
	}
	return hs, nil
}
