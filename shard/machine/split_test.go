package machine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func splitAt(key string, right shard.ID) shard.Command {
	return shard.Command{Kind: shard.KindSplit, Key: []byte("\x02" + key), Right: right, ConfVersion: 1, RightKeys: 1, RightBytes: 1000}
}

// A split gives both sides the parent's floor and last revision and one version more, and
// the right side what it was said to hold.
func TestSplitPartsTheState(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(versioned(5, 1, put("k", "v")))
	b.must(versioned(9, 2, put("m", "v")))
	b.must(operation(0, 2, shard.Command{Kind: shard.KindFloor, Revision: 5}))
	before := *b.m.State()
	res := b.must(operation(0, 2, splitAt("m", 12)))
	if res.Err != nil || res.Born == nil {
		t.Fatalf("%+v", res)
	}
	left, right := &b.m.State().Descriptor, &res.Born.Descriptor
	switch {
	case left.ID != 7 || string(left.Span.Start) != "\x02b" || string(left.Span.End) != "\x02m",
		right.ID != 12 || string(right.Span.Start) != "\x02m" || string(right.Span.End) != "\x02y",
		left.Epoch != shard.Epoch{Version: 3, ConfVersion: 1} || right.Epoch != left.Epoch,
		len(right.Replicas) != 1 || right.Replicas[0] != left.Replicas[0] || right.NextReplica != left.NextReplica:
		t.Errorf("%+v and %+v", left, right)
	}
	if s := res.Born; s.LastRevision != 9 || s.Floor != 5 || s.Versions != 1 || s.Bytes != before.Bytes {
		t.Errorf("the right side begins as %+v of %+v", s, before)
	}
	if s := b.m.State(); s.LastRevision != 9 || s.Floor != 5 {
		t.Errorf("the left side is %+v", s)
	}
	b.end()
	b.restart()
	if end := b.m.State().Descriptor.Span.End; string(end) != "\x02m" {
		t.Errorf("after a restart it ends at %q", end)
	}
}

// What was proposed before a split and comes behind it in the log has no effect, on
// either side: another shard serves its key by now, or may have since.
func TestOldEpochProposalAppliesAfterSplit(t *testing.T) {
	for _, sameEntry := range []bool{true, false} {
		b := newBench(t, userState())
		b.must(versioned(5, 1, put("k", "v")))
		b.must(operation(0, 2, splitAt("m", 12)))
		state := *b.m.State()
		late := [][]byte{operation(0, 2, splitAt("p", 13)), operation(0, 2, splitAt("d", 13)), operation(0, 2, shard.Command{Kind: shard.KindRaise})}
		for i, c := range []shard.Command{put("n", "w"), put("k", "w"), deleteRange("k", "z", 10), batch("", "k=w", "")} {
			late = append(late, operation(shard.Revision(20+i), 2, c))
		}
		for i, op := range late {
			apply := b.apply
			if sameEntry {
				apply = b.more
			}
			res, err := apply(op)
			var wrong *shard.WrongShardError
			if err != nil || !errors.As(res.Err, &wrong) || len(wrong.Descriptors) != 1 || wrong.Descriptors[0].Epoch.Version != 3 || res.Born != nil {
				t.Errorf("operation %d: %+v, %v", i, res, err)
			}
		}
		if now := *b.m.State(); now.LastRevision != state.LastRevision || now.Versions != state.Versions || now.Descriptor.Epoch != state.Descriptor.Epoch {
			t.Errorf("the state is %+v, was %+v", now, state)
		}
		b.end()
		v := b.engine.NewView()
		for _, key := range []string{"\x02n", "\x02k"} {
			if value, rev, _, err := v.Get([]byte(key), shard.MaxRevision); rev > 5 || err != nil {
				t.Errorf("%q is %q at %d, %v", key, value, rev, err)
			}
		}
		v.Close()
		b.close()
	}
}

// Refusals are alike on every replica and change nothing.
func TestSplitRefusals(t *testing.T) {
	joint := userState()
	joint.Descriptor.Replicas = []shard.Replica{{ID: 1, Node: 1, Role: shard.Outgoing}, {ID: 2, Node: 2, Role: shard.Incoming}}
	joint.Descriptor.NextReplica = 3
	otherConf := splitAt("m", 12)
	otherConf.ConfVersion = 2
	long := splitAt("m", 12)
	long.Key = append([]byte("\x02m"), bytes.Repeat([]byte("x"), shard.StartKeyBytesMax-1)...)
	for name, c := range map[string]struct {
		joint bool
		c     shard.Command
	}{
		"at the start": {c: splitAt("b", 12)}, "at the end": {c: splitAt("y", 12)}, "below": {c: splitAt("a", 12)}, "above": {c: splitAt("z", 12)},
		"own ID": {c: splitAt("m", 7)}, "no ID": {c: splitAt("m", 0)}, "the meta shard's": {c: splitAt("m", shard.MetaID)},
		"another configuration": {c: otherConf}, "long": {c: long}, "joint": {joint: true, c: splitAt("m", 12)},
	} {
		s := userState()
		if c.joint {
			s = joint
		}
		b := newBench(t, s)
		if res := b.must(operation(0, 2, c.c)); res.Err == nil || res.Born != nil || b.m.State().Descriptor.Epoch.Version != 2 {
			t.Errorf("%s: %+v, %+v", name, res, b.m.State())
		}
		b.close()
	}
	b := newBench(t, systemState())
	defer b.close()
	split := splitAt("m", 12)
	split.Key = []byte("\x01m")
	if res := b.must(operation(0, 2, split)); res.Err == nil || res.Born != nil {
		t.Errorf("the meta shard: %+v", res)
	}
}

// An entry that fails behind a split in it has no effect: the descriptor is as before.
func TestSplitIsRolledBack(t *testing.T) {
	b := newBench(t, userState())
	defer b.close()
	b.must(operation(0, 2, splitAt("m", 12)))
	if _, err := b.more([]byte("nonsense")); err == nil {
		t.Fatal("nonsense was applied")
	}
	if d := b.m.State().Descriptor; d.Epoch.Version != 2 || string(d.Span.End) != "\x02y" {
		t.Errorf("%+v", d)
	}
}
