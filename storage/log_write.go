package storage

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// rangeDeleteEntries is the number of entries from which a removal writes one
// range tombstone instead of a tombstone for each. A range tombstone makes the
// entries vanish from the flush that would have written them, but each one makes
// the next iterator of the whole store sort the memtable's range tombstones
// anew. Truncations by size remove thousands at once: few range tombstones, and
// worth it. Conflicts and truncations of quiet logs remove a handful, and a
// thousand such groups must not leave a thousand range tombstones.
const rangeDeleteEntries = 256

// Append stages entries and deletes every entry above the last one: of what an
// older leader sent nothing may survive that a restart could take for the log's
// tail. The log's own view changes at once: commit b before the group's turn
// ends. The log keeps the entries' Data, which must not be modified.
func (l *Log) Append(b *Batch, entries []raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first, last := entries[0].Index, entries[len(entries)-1].Index
	if first <= l.anchor || first > l.last+1 || last-first != uint64(len(entries)-1) {
		panic(fmt.Sprintf("storage: shard %d: append of %d entries [%d, %d] to a log with anchor %d and last %d",
			l.shard, len(entries), first, last, l.anchor, l.last))
	}
	if first <= l.last {
		l.sizes.cutAbove(first - 1)
	}
	for i := range entries {
		b.setEntry(l.shard, &entries[i])
		l.sizes.add(entries[i].Index, entrySize(len(entries[i].Data)))
	}
	if last < l.last {
		b.deleteEntries(l.shard, last+1, l.last)
	}
	l.last, l.lastTerm = last, entries[len(entries)-1].Term
	b.appended = append(b.appended, cachedRun{log: l, upTo: last, bytes: l.recent.append(entries)})
}

// SetHardState stages what changed of {term, vote} and {commit}. An empty one
// changes nothing.
func (l *Log) SetHardState(b *Batch, hs raftpb.HardState) {
	if raft.IsEmptyHardState(hs) {
		return
	}
	if hs.Term < l.hs.Term {
		panic(fmt.Sprintf("storage: shard %d: term %d after term %d", l.shard, hs.Term, l.hs.Term))
	}
	if hs.Term != l.hs.Term || hs.Vote != l.hs.Vote {
		b.putVote(l.shard, voteState{Replica: l.replica, Term: hs.Term, Vote: shard.ReplicaID(hs.Vote)})
	}
	if hs.Commit > l.recorded {
		b.putCommit(l.shard, commitState{Replica: l.replica, Commit: hs.Commit})
		l.recorded = hs.Commit
	}
	l.hs = raftpb.HardState{Term: hs.Term, Vote: hs.Vote, Commit: max(hs.Commit, l.hs.Commit)}
}

// Truncate stages the removal of all entries up to and including index, which
// must be applied by a batch that was committed before b: the WAL then keeps
// their effect wherever it keeps their removal. An index that was removed before
// is no change.
func (l *Log) Truncate(b *Batch, index uint64) error {
	if index <= l.anchor {
		return nil
	}
	if index > l.last {
		return fmt.Errorf("log of shard %d: truncation up to %d, the last entry is %d", l.shard, index, l.last)
	}
	term, err := l.Term(index)
	if err != nil {
		return err
	}
	b.deleteEntries(l.shard, l.anchor, index-1)
	b.putAnchor(l.shard, index, term)
	l.anchor, l.anchorTerm = index, term
	l.sizes.cutBelow(index)
	l.recent.dropTo(index)
	return nil
}

// Reset makes the log's view that of a log emptied by an installed snapshot at
// (index, term). It stages nothing: the installation wrote the anchor.
func (l *Log) Reset(index, term uint64) {
	l.anchor, l.anchorTerm = index, term
	l.last, l.lastTerm = index, term
	l.hs.Commit = max(l.hs.Commit, index)
	l.sizes.reset(index)
	l.recent.drop()
}

func (b *Batch) putAnchor(id shard.ID, index, term uint64) {
	b.set(logKey(id, index), appendAnchor(nil, term))
}

func (b *Batch) setEntry(id shard.ID, entry *raftpb.Entry) {
	op := b.setDeferred(logKeyLen, entryLen(entry))
	putLogKey(op.Key, id, entry.Index)
	putEntry(op.Value, entry)
	must(op.Finish())
}

// deleteEntries deletes the records [first, last].
func (b *Batch) deleteEntries(id shard.ID, first, last uint64) {
	if last-first+1 >= rangeDeleteEntries {
		b.deleteRange(logKey(id, first), logKey(id, last+1))
		return
	}
	for i := first; i <= last; i++ {
		op := b.p.DeleteDeferred(logKeyLen)
		putLogKey(op.Key, id, i)
		must(op.Finish())
	}
}
