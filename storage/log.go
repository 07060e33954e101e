package storage

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// Log is the raft log and hard state of one replica. It implements raft.Storage
// but for Snapshot. It is used by one goroutine at a time (the group's turn).
//
// On disk a log is an anchor, which is a record with a term and nothing else at
// the index up to which entries were removed, followed by entries without a gap.
// The log of a replica without state has neither: it counts as anchored at (0, 0),
// so that its first index is 1 and its last 0.
//
// Invariants: anchor ≤ last. Entries above anchor and up to last are in the
// recent entries, or readable from the disk, or both. sizes covers (anchor, last].
type Log struct {
	e       *Engine
	shard   shard.ID
	replica shard.ReplicaID

	hs       raftpb.HardState // as last staged; Commit also counts what was applied
	recorded uint64           // commit of the {commit} record

	anchor, anchorTerm uint64
	last, lastTerm     uint64
	sizes              logSizes
	recent             recentEntries // the only part that other goroutines touch
}

// OpenLog opens the log of a replica; an empty one if the store has no records
// of it. Records of an older replica of the shard do not count; those of a newer
// one are an error. It reads a few records, however long the log is.
func (e *Engine) OpenLog(id shard.ID, replica shard.ReplicaID) (*Log, error) {
	l := &Log{e: e, shard: id, replica: replica}
	state, _, err := e.ReplicaState(id)
	if err != nil {
		return nil, err
	}
	if l.hs, err = e.readHardState(id, replica, state.Applied, state.AppliedTerm); err != nil {
		return nil, err
	}
	// What is not known to be recorded is written again with the next hard state.
	if l.hs.Commit > state.Applied {
		l.recorded = l.hs.Commit
	}
	if err := l.readBounds(); err != nil {
		return nil, fmt.Errorf("log of shard %d: %w", id, err)
	}
	if state.Applied < l.anchor || state.Applied > l.last {
		return nil, fmt.Errorf("log of shard %d: %w", id,
			malformed("it holds (%d, %d], applied is %d", l.anchor, l.last, state.Applied))
	}
	return l, nil
}

// sampledEntries at the end of a log tell the size of one that is opened: their
// mean stands for all, so that a restart does not read every log.
const sampledEntries = 64

// readBounds finds anchor, last entry and size.
func (l *Log) readBounds() error {
	it, err := l.iterate(0)
	if err != nil {
		return err
	}
	return errors.Join(l.readBoundsFrom(it), it.Close())
}

func (l *Log) readBoundsFrom(it *pebble.Iterator) error {
	if !it.First() {
		return it.Error()
	}
	index, record, err := readEntry(it)
	if err != nil {
		return err
	}
	if record.kind != entryAnchor {
		return malformed("it begins at %d without an anchor", index)
	}
	l.anchor, l.anchorTerm = index, record.term
	l.last, l.lastTerm = index, record.term

	var sampled int64
	var n uint64
	for ok := it.Last(); ok && n < sampledEntries; ok = it.Prev() {
		index, record, err := readEntry(it)
		if err != nil {
			return err
		}
		if record.kind == entryAnchor {
			if index != l.anchor {
				return malformed("a second anchor at %d", index)
			}
			break
		}
		if n == 0 {
			l.last, l.lastTerm = index, record.term
		}
		n++
		sampled += entrySize(len(record.data))
	}
	l.sizes.reset(l.anchor)
	if n > 0 {
		l.sizes.add(l.last, sampled*int64(l.last-l.anchor)/int64(n))
	}
	return it.Error()
}

// iterate makes an iterator over the log's records from index on.
func (l *Log) iterate(index uint64) (*pebble.Iterator, error) {
	return l.e.db.NewIter(&pebble.IterOptions{
		LowerBound: logKey(l.shard, index),
		UpperBound: recordKey(l.shard, afterLogRecords),
	})
}

// InitialState is the hard state as recorded; its commit is the larger one of
// the record and of what was applied.
func (l *Log) InitialState() (raftpb.HardState, error) { return l.hs, nil }

// FirstIndex is the index of the first entry that is or will be in the log.
func (l *Log) FirstIndex() (uint64, error) { return l.anchor + 1, nil }

// LastIndex is the index of the last entry, or of the anchor.
func (l *Log) LastIndex() (uint64, error) { return l.last, nil }

// Term is the term of the entry, or anchor, at i. raft.ErrCompacted below the
// anchor, raft.ErrUnavailable above the last entry.
func (l *Log) Term(i uint64) (uint64, error) {
	switch {
	case i < l.anchor:
		return 0, raft.ErrCompacted
	case i > l.last:
		return 0, raft.ErrUnavailable
	case i == l.last:
		return l.lastTerm, nil
	case i == l.anchor:
		return l.anchorTerm, nil
	}
	if term, ok := l.recent.term(i); ok {
		return term, nil
	}
	record, _, err := readRecord(l.e.db, logKey(l.shard, i), decodeEntryHead)
	if err == nil && record.kind == 0 {
		err = malformed("entry %d is missing", i)
	}
	if err != nil {
		return 0, fmt.Errorf("log of shard %d: %w", l.shard, err)
	}
	return record.term, nil
}

// Entries returns the entries in [lo, hi), at least one and then as many as have
// maxSize bytes together (raftpb's sizes). raft.ErrCompacted if lo is not above
// the anchor, raft.ErrUnavailable if hi is beyond the last entry. Neither the
// slice nor its entries may be modified; they stay valid.
func (l *Log) Entries(lo, hi, maxSize uint64) ([]raftpb.Entry, error) {
	switch {
	case lo <= l.anchor:
		return nil, raft.ErrCompacted
	case hi > l.last+1:
		return nil, raft.ErrUnavailable
	case lo >= hi:
		return nil, nil
	}
	cached, from := l.recent.slice(lo, hi)
	if len(cached) > 0 && from == lo {
		return limitSize(cached, maxSize), nil
	}
	if len(cached) == 0 {
		from = hi
	}
	entries, size, err := l.readEntries(lo, from, maxSize)
	if err != nil {
		return nil, fmt.Errorf("log of shard %d: %w", l.shard, err)
	}
	if uint64(len(entries)) < from-lo {
		return entries, nil // maxSize was reached
	}
	for i := range cached {
		if size += uint64(cached[i].Size()); size > maxSize {
			break
		}
		entries = append(entries, cached[i])
	}
	return entries, nil
}

// readEntries reads [lo, hi) from the disk, at least one entry and at most maxSize bytes.
func (l *Log) readEntries(lo, hi, maxSize uint64) (entries []raftpb.Entry, size uint64, err error) {
	it, err := l.iterate(lo)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	entries = make([]raftpb.Entry, 0, min(hi-lo, 1024))
	ok := it.First()
	for i := lo; i < hi; i++ {
		if !ok {
			return nil, 0, errors.Join(it.Error(), malformed("entry %d is missing", i))
		}
		index, record, err := readEntry(it)
		if err != nil {
			return nil, 0, err
		}
		if index != i || record.kind == entryAnchor {
			return nil, 0, malformed("entry %d is missing, found is %d", i, index)
		}
		entry := record.entry(index)
		if size += uint64(entry.Size()); size > maxSize && i > lo {
			return entries, size, nil
		}
		if len(entry.Data) > 0 {
			entry.Data = append([]byte(nil), entry.Data...) // the iterator's buffer moves on
		}
		entries = append(entries, entry)
		ok = it.Next()
	}
	return entries, size, nil
}

func readEntry(it *pebble.Iterator) (uint64, entryRecord, error) {
	index, err := logIndex(it.Key())
	if err != nil {
		return 0, entryRecord{}, err
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, entryRecord{}, err
	}
	record, err := decodeEntry(value)
	return index, record, err
}

// limitSize is raft's rule: at least one entry, then as many as fit.
func limitSize(entries []raftpb.Entry, maxSize uint64) []raftpb.Entry {
	var size uint64
	for i := range entries {
		if size += uint64(entries[i].Size()); size > maxSize && i > 0 {
			return entries[:i:i]
		}
	}
	return entries
}

// Bytes is the size of the entries in the log. After a start and after a
// truncation it is an estimate, which further appends and truncations correct.
func (l *Log) Bytes() int64 { return l.sizes.bytes() }

// Release frees what the log holds in shared caches. The log is not used after.
func (l *Log) Release() { l.recent.drop() }
