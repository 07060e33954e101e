package storage

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// recentEntries are the newest entries of one log, kept in memory because
// followers and the state machine read what was just written.
//
// Slices handed out alias entries. Therefore an element is never changed once it
// is there: dropping from the front re-slices, an append writes behind all that
// was handed out, and an overwrite moves to a new array.
//
// Invariants: entries are without a gap and end at the log's last entry, or are
// none. Those from pinned on (if not 0) may not be on the disk yet and are not
// dropped to save memory.
type recentEntries struct {
	mu      sync.Mutex // the group's turn against drops in favour of other logs
	entries []raftpb.Entry
	dropped int // elements of entries' array before its first
	pinned  uint64
}

// entryOverhead is what an entry takes in memory beside its data.
const entryOverhead = 64

// append adds entries that the log was given, replaces those that they
// overwrite, and pins them. It returns their size in memory.
func (r *recentEntries) append(entries []raftpb.Entry) (bytes int64) {
	first := entries[0].Index
	r.mu.Lock()
	defer r.mu.Unlock()
	switch n := len(r.entries); {
	case n == 0 || first <= r.entries[0].Index:
		r.entries, r.dropped = append([]raftpb.Entry(nil), entries...), 0
	case first == r.entries[n-1].Index+1:
		if n+len(entries) > cap(r.entries) {
			r.dropped = 0 // append moves to a new array
		}
		r.entries = append(r.entries, entries...)
	default:
		keep := first - r.entries[0].Index
		r.entries, r.dropped = append(r.entries[:keep:keep], entries...), 0
	}
	if r.pinned == 0 || first < r.pinned {
		r.pinned = first
	}
	for i := range entries {
		bytes += int64(len(entries[i].Data)) + entryOverhead
	}
	return bytes
}

func (r *recentEntries) unpin() {
	r.mu.Lock()
	r.pinned = 0
	r.mu.Unlock()
}

func (r *recentEntries) term(i uint64) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) == 0 || i < r.entries[0].Index || i > r.entries[len(r.entries)-1].Index {
		return 0, false
	}
	return r.entries[i-r.entries[0].Index].Term, true
}

// slice gives those of the entries in [lo, hi) that are here, which are the last
// ones if not all, and the index of the first of them.
func (r *recentEntries) slice(lo, hi uint64) (entries []raftpb.Entry, from uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) == 0 {
		return nil, hi
	}
	first := r.entries[0].Index
	if from = max(lo, first); from >= hi {
		return nil, hi
	}
	i, j := from-first, hi-first
	return r.entries[i:j:j], from
}

// dropTo drops the entries up to index; the log does not need them any more.
func (r *recentEntries) dropTo(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(index)
}

// evictTo drops the entries up to index to save memory.
func (r *recentEntries) evictTo(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pinned > 0 && index >= r.pinned {
		index = r.pinned - 1
	}
	r.dropLocked(index)
}

func (r *recentEntries) dropLocked(index uint64) {
	if len(r.entries) == 0 || index < r.entries[0].Index {
		return
	}
	n := int(min(index-r.entries[0].Index+1, uint64(len(r.entries))))
	r.entries = r.entries[n:]
	r.dropped += n
	switch {
	case len(r.entries) == 0:
		r.entries, r.dropped = nil, 0
	case r.dropped > len(r.entries):
		// The dropped ones live as long as their array: move out of it once they
		// are the larger part.
		r.entries, r.dropped = append([]raftpb.Entry(nil), r.entries...), 0
	}
}

func (r *recentEntries) drop() {
	r.mu.Lock()
	r.entries, r.dropped, r.pinned = nil, 0, 0
	r.mu.Unlock()
}

// entryCache bounds the recent entries of all logs of a node together: it keeps
// the runs in the order in which they were committed and drops the oldest. Runs
// whose entries are gone already (truncated, overwritten) count until their turn
// comes, so the budget is an upper bound.
//
// Lock order: mu is not held while a log's lock is taken.
type entryCache struct {
	budget int64

	mu    sync.Mutex
	runs  []cachedRun // from head on, oldest first
	head  int
	bytes int64
}

// cachedRun is what one append added to a log's recent entries.
type cachedRun struct {
	log   *Log
	upTo  uint64
	bytes int64
}

// runsPerPass bounds how many runs one admission drops at a time.
const runsPerPass = 16

// admit unpins a run, whose entries are in Pebble now, and makes room for it.
func (c *entryCache) admit(run cachedRun) {
	run.log.recent.unpin()
	c.mu.Lock()
	c.runs = append(c.runs, run)
	c.bytes += run.bytes
	over := c.bytes > c.budget
	c.mu.Unlock()
	for over {
		var victims [runsPerPass]cachedRun
		var n int
		n, over = c.takeOldest(victims[:])
		for _, v := range victims[:n] {
			v.log.recent.evictTo(v.upTo)
		}
	}
}

// takeOldest takes runs until the rest is within the budget or victims is full,
// and tells whether it must go on.
func (c *entryCache) takeOldest(victims []cachedRun) (n int, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(victims) && c.bytes > c.budget && c.head < len(c.runs) {
		victims[n] = c.runs[c.head]
		c.bytes -= c.runs[c.head].bytes
		c.runs[c.head] = cachedRun{}
		c.head++
		n++
	}
	if c.head > len(c.runs)/2 {
		rest := copy(c.runs, c.runs[c.head:])
		clear(c.runs[rest:])
		c.runs, c.head = c.runs[:rest], 0
	}
	return n, c.bytes > c.budget && c.head < len(c.runs)
}
