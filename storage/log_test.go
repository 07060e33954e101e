package storage

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

func entries(term, first, last uint64, size int) []raftpb.Entry {
	var all []raftpb.Entry
	for i := first; i <= last; i++ {
		e := raftpb.Entry{Index: i, Term: term}
		if size > 0 {
			e.Data = make([]byte, size)
			copy(e.Data, fmt.Sprintf("%d@%d", i, term))
		}
		all = append(all, e)
	}
	return all
}

func openLog(t testing.TB, e *Engine, id shard.ID, replica shard.ReplicaID) *Log {
	t.Helper()
	l, err := e.OpenLog(id, replica)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newLog is the log of a new shard's first replica.
func newLog(t testing.TB, e *Engine, id shard.ID) *Log {
	t.Helper()
	commit(t, e, func(b *Batch) { b.PutInitialReplica(1, testState(id, shard.UserSpan())) })
	return openLog(t, e, id, 1)
}

func TestLogOfAnUninitializedReplica(t *testing.T) {
	e := open(t, Config{})
	l := openLog(t, e, 3, 2)
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	term, err := l.Term(0)
	if first != 1 || last != 0 || term != 0 || err != nil || l.Bytes() != 0 {
		t.Errorf("first %d, last %d, term of 0 %d, %v, %d bytes", first, last, term, err, l.Bytes())
	}
	if _, err := l.Term(1); !errors.Is(err, raft.ErrUnavailable) {
		t.Errorf("term of 1: %v", err)
	}
	hs, err := l.InitialState()
	if !raft.IsEmptyHardState(hs) || err != nil {
		t.Errorf("hard state %+v, %v", hs, err)
	}
	// raft itself accepts it as a storage.
	if _, err := raft.NewRawNode(&raft.Config{ID: 2, ElectionTick: 10, HeartbeatTick: 1, Storage: raftStorage{l},
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16, Logger: raft.Logger(discardRaft)}); err != nil {
		t.Error(err)
	}
}

// raftStorage adds what a group adds: configuration and snapshots.
type raftStorage struct{ *Log }

func (s raftStorage) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	hs, err := s.Log.InitialState()
	return hs, raftpb.ConfState{}, err
}

func (s raftStorage) Snapshot() (raftpb.Snapshot, error) {
	return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
}

func TestLogOfTheFirstReplica(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	hs, _ := l.InitialState()
	if hs != (raftpb.HardState{Term: 1, Commit: 10}) {
		t.Errorf("hard state %+v", hs)
	}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	term, err := l.Term(10)
	if first != 11 || last != 10 || term != 1 || err != nil {
		t.Errorf("first %d, last %d, term of 10 %d, %v", first, last, term, err)
	}
	if _, err := l.Term(9); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("term of 9: %v", err)
	}
	if _, err := l.Entries(10, 11, math.MaxUint64); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("entry 10: %v", err)
	}
	if _, err := l.Entries(11, 12, math.MaxUint64); !errors.Is(err, raft.ErrUnavailable) {
		t.Errorf("entry 11: %v", err)
	}
}

// TestLogCommitIsAtLeastApplied: {commit} is not synced with every apply, so the
// replicated state may be ahead of it.
func TestLogCommitIsAtLeastApplied(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	commit(t, e, func(b *Batch) {
		l.Append(b, entries(2, 11, 20, 10))
		l.SetHardState(b, raftpb.HardState{Term: 2, Vote: 1, Commit: 12})
		s := testState(3, shard.UserSpan())
		s.Applied, s.AppliedTerm = 15, 2
		b.PutReplicaState(3, s)
	})
	l = openLog(t, e, 3, 1)
	if hs, _ := l.InitialState(); hs != (raftpb.HardState{Term: 2, Vote: 1, Commit: 15}) {
		t.Errorf("hard state %+v", hs)
	}
	commit(t, e, func(b *Batch) { l.SetHardState(b, raftpb.HardState{Term: 2, Vote: 1, Commit: 18}) })
	if hs, _ := openLog(t, e, 3, 1).InitialState(); hs.Commit != 18 {
		t.Errorf("hard state %+v", hs)
	}
}

func TestHardStateWritesWhatChanged(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	stage := func(hs raftpb.HardState) int {
		b := e.NewBatch()
		l.SetHardState(b, hs)
		n := int(b.p.Count())
		if err := e.Commit(b); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, test := range []struct {
		hs      raftpb.HardState
		records int
	}{
		{raftpb.HardState{}, 0},
		{raftpb.HardState{Term: 2, Vote: 1, Commit: 11}, 2},
		{raftpb.HardState{Term: 2, Vote: 1, Commit: 11}, 0},
		{raftpb.HardState{Term: 2, Vote: 1, Commit: 12}, 1},
		{raftpb.HardState{Term: 3, Vote: 0, Commit: 12}, 1},
	} {
		if n := stage(test.hs); n != test.records {
			t.Errorf("%d: %+v wrote %d records, want %d", i, test.hs, n, test.records)
		}
	}
}

// TestReaddedReplicaForgetsTheOldVote: a replica that comes back under a higher
// ID is another voter.
func TestReaddedReplicaForgetsTheOldVote(t *testing.T) {
	e := open(t, Config{})
	old := openLog(t, e, 3, 2)
	commit(t, e, func(b *Batch) { old.SetHardState(b, raftpb.HardState{Term: 9, Vote: 5, Commit: 1}) })
	l := openLog(t, e, 3, 7)
	if hs, _ := l.InitialState(); !raft.IsEmptyHardState(hs) {
		t.Errorf("replica 7 begins with the hard state %+v of replica 2", hs)
	}
	commit(t, e, func(b *Batch) { l.SetHardState(b, raftpb.HardState{Term: 4, Vote: 7}) })
	if hs, _ := openLog(t, e, 3, 7).InitialState(); hs != (raftpb.HardState{Term: 4, Vote: 7}) {
		t.Errorf("replica 7 comes back with %+v", hs)
	}
	if _, err := e.OpenLog(3, 2); err == nil {
		t.Error("replica 2 was opened over the records of replica 7")
	}
}

func TestAppendDeletesEverythingAboveItsLast(t *testing.T) {
	for _, old := range []uint64{30, 2000} { // point tombstones, a range tombstone
		e := open(t, Config{})
		l := newLog(t, e, 3)
		commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, old, 50)) })
		commit(t, e, func(b *Batch) { l.Append(b, entries(3, 15, 16, 50)) })
		for name, l := range map[string]*Log{"kept": l, "opened again": openLog(t, e, 3, 1)} {
			last, _ := l.LastIndex()
			term, err := l.Term(16)
			if last != 16 || term != 3 || err != nil {
				t.Errorf("%s: last %d, term %d, %v", name, last, term, err)
			}
			all, err := l.Entries(11, 17, math.MaxUint64)
			if err != nil || len(all) != 6 || all[3].Term != 2 || all[4].Term != 3 {
				t.Errorf("%s: entries %v, %v", name, all, err)
			}
		}
		// What lay above must not come back behind a later append either.
		commit(t, e, func(b *Batch) { l.Append(b, entries(4, 17, 17, 50)) })
		if last, _ := openLog(t, e, 3, 1).LastIndex(); last != 17 {
			t.Errorf("after one more append the last index is %d", last)
		}
	}
}

func TestAppendRefusesGaps(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	for name, bad := range map[string][]raftpb.Entry{
		"at the anchor": entries(2, 10, 11, 0), "behind a gap": entries(2, 12, 12, 0),
		"with a gap": {{Index: 11, Term: 2}, {Index: 13, Term: 2}},
	} {
		func() {
			b := e.NewBatch()
			defer b.Close()
			defer func() {
				if recover() == nil {
					t.Errorf("an append %s was accepted", name)
				}
			}()
			l.Append(b, bad)
		}()
	}
}

func TestTruncate(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, 2000, 100)) })
	full := l.Bytes()
	truncate := func(index uint64) {
		t.Helper()
		commit(t, e, func(b *Batch) {
			if err := l.Truncate(b, index); err != nil {
				t.Fatal(err)
			}
		})
	}
	commit(t, e, func(b *Batch) {
		s := testState(3, shard.UserSpan())
		s.Applied, s.AppliedTerm = 2000, 2
		b.PutReplicaState(3, s)
	})
	truncate(20)
	truncate(1500)
	truncate(1400) // was removed already
	if b := l.Bytes(); b < full/5 || b > full/3 {
		t.Errorf("a quarter of %d bytes is left, Bytes says %d", full, b)
	}
	for name, l := range map[string]*Log{"kept": l, "opened again": openLog(t, e, 3, 1)} {
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		term, err := l.Term(1500)
		if first != 1501 || last != 2000 || term != 2 || err != nil {
			t.Errorf("%s: first %d, last %d, term of the anchor %d, %v", name, first, last, term, err)
		}
		if _, err := l.Term(1499); !errors.Is(err, raft.ErrCompacted) {
			t.Errorf("%s: term below the anchor: %v", name, err)
		}
		if all, err := l.Entries(1501, 2001, math.MaxUint64); err != nil || len(all) != 500 {
			t.Errorf("%s: %d entries, %v", name, len(all), err)
		}
	}
	b := e.NewBatch()
	defer b.Close()
	if err := l.Truncate(b, 2001); err == nil {
		t.Error("a truncation beyond the last entry was accepted")
	}
	truncate(2000)
	if l.Bytes() != 0 {
		t.Errorf("an empty log has %d bytes", l.Bytes())
	}
	if term, err := openLog(t, e, 3, 1).Term(2000); term != 2 || err != nil {
		t.Errorf("term of the last anchor %d, %v", term, err)
	}
}

func TestLogDetectsMissingEntries(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, 30, 10)) })
	commit(t, e, func(b *Batch) { b.deleteEntries(3, 15, 15) })
	l = openLog(t, e, 3, 1)
	if _, err := l.Entries(11, 31, math.MaxUint64); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a log with a hole: %v", err)
	}
	if _, err := l.Term(15); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("the term of a missing entry: %v", err)
	}
	commit(t, e, func(b *Batch) { b.deleteEntries(3, 10, 10) })
	if _, err := e.OpenLog(3, 1); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a log without an anchor: %v", err)
	}
}

// TestLogIsLikeRaftsMemoryStorage compares every answer with raft's own storage,
// through appends, conflicts, truncations, evictions and restarts.
func TestLogIsLikeRaftsMemoryStorage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Dir: "store", FS: vfs.NewMem()}
		cfg.setDefaults()
		e, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { e.Close() }()
		e.recent.budget = rapid.SampledFrom([]int64{0, 500, 1 << 20}).Draw(t, "cache")
		put := func(stage func(b *Batch)) {
			b := e.NewBatch()
			stage(b)
			if err := e.Commit(b); err != nil {
				t.Fatal(err)
			}
		}
		put(func(b *Batch) { b.PutInitialReplica(1, testState(3, shard.UserSpan())) })
		l, err := e.OpenLog(3, 1)
		if err != nil {
			t.Fatal(err)
		}
		model := raft.NewMemoryStorage()
		model.ApplySnapshot(raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: 10, Term: 1}})
		term := uint64(1)
		compare := func() {
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			wantFirst, _ := model.FirstIndex()
			wantLast, _ := model.LastIndex()
			if first != wantFirst || last != wantLast {
				t.Fatalf("the log is [%d, %d], want [%d, %d]", first, last, wantFirst, wantLast)
			}
			for i := first - 2; i <= last+1; i++ {
				got, err := l.Term(i)
				want, wantErr := model.Term(i)
				if got != want || err != wantErr {
					t.Fatalf("term of %d is %d, %v, want %d, %v", i, got, err, want, wantErr)
				}
			}
			if first > last {
				return
			}
			lo := rapid.Uint64Range(first, last).Draw(t, "lo")
			hi := rapid.Uint64Range(lo+1, last+1).Draw(t, "hi")
			maxSize := rapid.SampledFrom([]uint64{0, 1, 40, 100, 300, math.MaxUint64}).Draw(t, "size")
			got, err := l.Entries(lo, hi, maxSize)
			want, _ := model.Entries(lo, hi, maxSize)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("entries [%d, %d) of %d bytes are %v, %v, want %v", lo, hi, maxSize, got, err, want)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			first, _ := model.FirstIndex()
			last, _ := model.LastIndex()
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0: // conflict
				term++
				from := rapid.Uint64Range(first, last+1).Draw(t, "from")
				add := entries(term, from, from+rapid.Uint64Range(0, 5).Draw(t, "n"), 20)
				put(func(b *Batch) {
					l.Append(b, add)
					if err := model.Append(add); err != nil {
						t.Fatal(err)
					}
					compare() // before the commit: from what is not on the disk yet
				})
			case 1:
				if first <= last {
					index := rapid.Uint64Range(first, last).Draw(t, "truncate")
					put(func(b *Batch) {
						if err := l.Truncate(b, index); err != nil {
							t.Fatal(err)
						}
						s := testState(3, shard.UserSpan())
						s.Applied, s.AppliedTerm = index, term
						b.PutReplicaState(3, s)
					})
					if err := model.Compact(index); err != nil {
						t.Fatal(err)
					}
				}
			case 2: // restart
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				budget := e.recent.budget
				if e, err = Open(cfg); err != nil {
					t.Fatal(err)
				}
				e.recent.budget = budget
				if l, err = e.OpenLog(3, 1); err != nil {
					t.Fatal(err)
				}
			default:
				add := entries(term, last+1, last+1+rapid.Uint64Range(0, 8).Draw(t, "n"), rapid.IntRange(0, 60).Draw(t, "size"))
				put(func(b *Batch) {
					l.Append(b, add)
					if err := model.Append(add); err != nil {
						t.Fatal(err)
					}
					compare()
				})
			}
			compare()
		}
	})
}

// TestEntriesStayValid: what was handed out does not change when the log does.
func TestEntriesStayValid(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, 30, 10)) })
	kept, err := l.Entries(11, 31, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	want := entries(2, 11, 30, 10)
	commit(t, e, func(b *Batch) { l.Append(b, entries(3, 15, 16, 10)) }) // in place there would be room for it
	commit(t, e, func(b *Batch) { l.Append(b, entries(3, 17, 90, 10)) })
	commit(t, e, func(b *Batch) {
		if err := l.Truncate(b, 25); err != nil {
			t.Fatal(err)
		}
	})
	l.Release()
	if !reflect.DeepEqual(kept, want) {
		t.Errorf("entries that were handed out changed to %v", kept)
	}
}

// TestUncommittedEntriesAreNotEvicted: another log's commit makes room by
// dropping what this one committed, at indexes that were overwritten since.
func TestUncommittedEntriesAreNotEvicted(t *testing.T) {
	e := open(t, Config{})
	e.recent.budget = 10_000
	l, other := newLog(t, e, 3), newLog(t, e, 4)
	commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, 20, 100)) })
	b := e.NewBatch()
	l.Append(b, entries(3, 15, 16, 100))
	commit(t, e, func(b *Batch) { other.Append(b, entries(2, 11, 11, 20_000)) })
	got, err := l.Entries(11, 17, math.MaxUint64)
	if err != nil || len(got) != 6 || got[4].Term != 3 || got[5].Term != 3 {
		t.Errorf("before the commit the log holds %v, %v", got, err)
	}
	if err := e.Commit(b); err != nil {
		t.Fatal(err)
	}
	commit(t, e, func(b *Batch) { other.Append(b, entries(2, 12, 12, 20_000)) })
	if n := len(l.recent.entries); n > 0 {
		t.Errorf("%d entries stay in memory after the commit", n)
	}
	if got, err := l.Entries(11, 17, math.MaxUint64); err != nil || len(got) != 6 {
		t.Errorf("from the disk: %v, %v", got, err)
	}
}

// TestEntryCacheKeepsToItsBudget appends to many logs from several goroutines.
func TestEntryCacheKeepsToItsBudget(t *testing.T) {
	e := open(t, Config{})
	e.recent.budget = 64 << 10
	const logs, rounds = 8, 200
	var all [logs]*Log
	for i := range all {
		all[i] = newLog(t, e, shard.ID(i+1))
	}
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			l := all[i]
			for n := range uint64(rounds) {
				b := e.NewBatch()
				l.Append(b, entries(2, 11+n, 11+n, 500))
				if got, err := l.Entries(11+n, 12+n, math.MaxUint64); err != nil || len(got) != 1 {
					t.Errorf("log %d: what was just appended is %v, %v", i, got, err)
				}
				if err := e.Commit(b); err != nil {
					t.Error(err)
				}
				lo := 11 + n/2
				if got, err := l.Entries(lo, 12+n, math.MaxUint64); err != nil || uint64(len(got)) != 12+n-lo {
					t.Errorf("log %d: %d entries from %d, %v", i, len(got), lo, err)
				}
			}
		})
	}
	wg.Wait()
	var cached int64
	for _, l := range all {
		for _, entry := range l.recent.entries {
			cached += int64(len(entry.Data)) + entryOverhead
		}
		if c := cap(l.recent.entries); c > 600 {
			t.Errorf("a log's cache holds an array of %d entries", c)
		}
	}
	if cached > e.recent.budget || cached == 0 {
		t.Errorf("%d bytes are cached, the budget is %d", cached, e.recent.budget)
	}
	if n := len(e.recent.runs); n > 1000 {
		t.Errorf("the cache remembers %d runs", n)
	}
}

func TestLogSizes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s logSizes
		s.reset(10)
		const each = 3000
		first, last := uint64(11), uint64(10)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 20).Draw(t, "what") {
			case 0:
				if first <= last {
					last = rapid.Uint64Range(first-1, last).Draw(t, "cut above")
					s.cutAbove(last)
				}
			case 1:
				if first <= last {
					first = rapid.Uint64Range(first, last).Draw(t, "cut below") + 1
					s.cutBelow(first - 1)
				}
			default:
				last++
				s.add(last, each)
			}
			// Entries of one size leave nothing to estimate but rounding.
			want := int64(last+1-first) * each
			if got := s.bytes(); got < want-100 || got > want+100 {
				t.Fatalf("[%d, %d] has %d bytes, want %d (%v)", first, last, got, want, s.points)
			}
			if len(s.points) > 3+int(want/sizePointBytes)*2 {
				t.Fatalf("%d points for %d bytes", len(s.points), want)
			}
		}
	})
}

func TestOpenedLogEstimatesItsSize(t *testing.T) {
	e := open(t, Config{})
	l := newLog(t, e, 3)
	commit(t, e, func(b *Batch) { l.Append(b, entries(2, 11, 1010, 256)) })
	want := l.Bytes()
	if got := openLog(t, e, 3, 1).Bytes(); got < want*9/10 || got > want*11/10 {
		t.Errorf("the log has %d bytes, opened again %d", want, got)
	}
}
