package machine

import (
	"bytes"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// A check changes nothing of the state, on every kind of shard; the place of a digest
// is the state as of it, with what the same turn has applied before it and not after.
func TestChecksChangeNothing(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(versioned(5, 1, put("k", "v")))
	before := *b.m.State()
	res := b.must(operation(0, 2, shard.Command{Kind: shard.KindDigest}))
	index, ok := res.Detail.(uint64)
	if !ok || index == 0 || res.Err != nil {
		t.Fatalf("%+v", res)
	}
	b.must(versioned(9, 2, put("k", "w")))
	b.must(operation(0, 2, shard.Command{Kind: shard.KindVerify, Digested: index, Applied: 77, Value: []byte("digest")}))
	checks := b.m.TakeChecks()
	if len(checks) != 2 || checks[0].At.Index != index || checks[0].State.LastRevision != 5 || checks[0].State.Versions != before.Versions ||
		checks[1].State != nil || checks[1].Digested != index || checks[1].Applied != 77 || !bytes.Equal(checks[1].Digest, []byte("digest")) {
		t.Errorf("%+v", checks)
	}
	if again := b.m.TakeChecks(); len(again) != 0 {
		t.Errorf("taken twice: %+v", again)
	}
	if s := b.m.State(); s.LastRevision != 9 || s.Versions != before.Versions+1 || s.Floor != before.Floor {
		t.Errorf("%+v, before %+v", s, before)
	}
	if got := told(b.must(operation(0, 1, shard.Command{Kind: shard.KindDigest}))); got != "*shard.WrongShardError: "+wrongShard {
		t.Errorf("in an earlier epoch: %s", got)
	}
	if checks := b.m.TakeChecks(); len(checks) != 0 {
		t.Errorf("a refused one was taken: %+v", checks)
	}
}

// An entry names a check, so it has one: two commands that ask for one in the same entry,
// with a write in between, are told of the same, and one digest is computed.
func TestAnEntryHasOneCheck(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	at := raftgroup.Position{Index: b.m.Applied().Index + 1, Term: 5}
	batch := b.engine.NewBatch()
	var indexes []any
	for _, op := range [][]byte{operation(0, 2, shard.Command{Kind: shard.KindDigest}), versioned(5, 1, put("k", "v")), operation(0, 2, shard.Command{Kind: shard.KindDigest})} {
		res, err := b.m.Apply(batch, at, op)
		if err != nil || res.Err != nil {
			t.Fatal(res, err)
		}
		indexes = append(indexes, res.Detail)
	}
	if indexes[0] != indexes[2] || indexes[0] != any(at.Index) {
		t.Errorf("they are told %v", indexes)
	}
	if checks := b.m.TakeChecks(); len(checks) != 1 || checks[0].State.LastRevision == 5 {
		t.Errorf("%+v", checks)
	}
}
