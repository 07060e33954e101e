package storage

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A replica that a split has made is found after a restart though it has never voted, and
// what it has voted before the split is as it was.
func TestBornReplica(t *testing.T) {
	for _, voted := range []bool{false, true} {
		e := open(t, Config{})
		if voted {
			commit(t, e, func(b *Batch) { b.putVote(9, voteState{Replica: 4, Term: 7, Vote: 2}) })
		}
		if lowest, initialized, err := e.Claims(9); err != nil || initialized || (lowest == 4) != voted {
			t.Errorf("before: lowest %d, initialized %v, %v", lowest, initialized, err)
		}
		state := testState(9, userSpan("m", "z"))
		state.Applied, state.AppliedTerm = 77, 9
		commit(t, e, func(b *Batch) { b.PutBornReplica(4, state) })
		records, err := e.Replicas()
		if err != nil || len(records) != 1 || records[0] != (ReplicaRecord{Shard: 9, Replica: 4, Initialized: true}) {
			t.Errorf("%+v, %v", records, err)
		}
		l, err := e.OpenLog(9, 4)
		if err != nil {
			t.Fatal(err)
		}
		hs, _ := l.InitialState()
		last, _ := l.LastIndex()
		term, _ := l.Term(last)
		want := voteState{Term: firstTerm}
		if voted {
			want = voteState{Term: 7, Vote: 2}
		}
		if hs.Term != want.Term || hs.Vote != uint64(want.Vote) || hs.Commit != firstIndex || last != firstIndex || term != firstTerm {
			t.Errorf("voted %v: %+v, log ends at (%d, %d)", voted, hs, last, term)
		}
		if s, ok, err := e.ReplicaState(9); err != nil || !ok || s.Applied != firstIndex || s.AppliedTerm != firstTerm || s.LastRevision != state.LastRevision {
			t.Errorf("%+v, %v, %v", s, ok, err)
		}
		commit(t, e, func(b *Batch) {
			if err := e.StageRemoval(b, 9, 5); err != nil {
				t.Fatal(err)
			}
		})
		if records, err := e.Replicas(); err != nil || len(records) != 0 {
			t.Errorf("removed, and there is %+v, %v", records, err)
		}
		if lowest, initialized, err := e.Claims(9); err != nil || initialized || lowest != 5 {
			t.Errorf("removed: lowest %d, initialized %v, %v", lowest, initialized, err)
		}
	}
}

func TestDeleteSpan(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		for _, k := range []string{"a", "m", "n", "z"} {
			b.PutVersion(userKey(k), 3, VersionHeader{}, []byte("v"))
		}
	})
	commit(t, e, func(b *Batch) { b.DeleteSpan(userSpan("m", "z")) })
	v := e.NewView()
	defer v.Close()
	rows, _, err := v.Scan(ScanOptions{Span: shard.UserSpan(), At: shard.MaxRevision, RowsMax: 10})
	if err != nil || len(rows) != 2 || string(rows[0].Key) != "\x02a" || string(rows[1].Key) != "\x02z" {
		t.Errorf("%+v, %v", rows, err)
	}
}
