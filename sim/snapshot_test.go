package sim

import (
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// at adds a read at a revision to a history.
func at(h *History, rev shard.Revision, key, value string, found shard.Revision, call, ret int64) *History {
	h.snapshots = append(h.snapshots, &Snapshot{At: rev, Shard: 2, Key: key, Found: found != 0, Value: value, Rev: found, Call: call, Return: ret})
	return h
}

func TestSnapshotVerdicts(t *testing.T) {
	three := func() *History { return script(put("a", "1", 1, 1, 2), put("a", "2", 3, 3, 4), del("a", 5, 5, 6)) }
	for _, c := range []struct {
		name string
		h    *History
		want string
	}{
		{"each state", at(at(at(at(at(three(), 1, "a", "1", 1, 7, 8), 2, "a", "1", 1, 9, 10), 4, "a", "2", 3, 11, 12), 5, "a", "", 0, 13, 14), 3, "a", "2", 3, 15, 16), ""},
		{"before the first write", at(script(put("a", "1", 7, 1, 2)), 6, "a", "", 0, 3, 4), ""},
		{"the answer changes", at(at(script(with(put("a", "1", 0, 1, 2), undetermined)), 4, "a", "", 0, 3, 4), 4, "a", "1", 2, 5, 6), "gave something else"},
		{"an acknowledged write is missing", at(three(), 4, "a", "1", 1, 7, 8), "missed a write"},
		{"everything is missing", at(three(), 4, "a", "", 0, 7, 8), "missed a write"},
		{"a deleted value is back", at(three(), 6, "a", "2", 3, 7, 8), "missed a write"},
		{"newer than asked for", at(three(), 2, "a", "2", 3, 7, 8), "found a newer one"},
		{"a delete that nobody knows may explain absence", at(script(put("a", "1", 1, 1, 2), with(del("a", 0, 3, 4), undetermined)), 4, "a", "", 0, 5, 6), ""},
		{"invented", at(three(), 6, "a", "9", 6, 7, 8), "nobody wrote"},
		{"of a write that was refused", at(script(with(put("a", "1", 0, 1, 2), refused)), 6, "a", "1", 6, 7, 8), "refused"},
		{"with another revision", at(three(), 3, "a", "2", 2, 7, 8), "two revisions"},
		{"a write called after a read is above it", at(script(put("a", "1", 6, 9, 10)), 6, "a", "", 0, 7, 8), "real time"},
	} {
		t.Run(c.name, func(t *testing.T) { verdict(t, c.h.Check(time.Minute), c.want) })
	}
}

func draw(rev, count shard.Revision, call, ret int64) Op {
	return Op{Kind: shard.KindDraw, Rev: rev, Count: count, Call: call, Return: ret, Outcome: done}
}

// in places the last operation of a history in another shard.
func in(h *History, id shard.ID) *History {
	h.ops[len(h.ops)-1].Shard = id
	return h
}

func TestOneOrderOverAllShards(t *testing.T) {
	for _, c := range []struct {
		name string
		h    *History
		want string
	}{
		{"in order", in(script(put("a", "1", 1, 1, 2), put("b", "1", 2, 3, 4)), 3), ""},
		{"against real time", in(script(put("a", "1", 2, 1, 2), put("b", "1", 1, 3, 4)), 3), "real time"},
		{"at the same time", in(script(put("a", "1", 2, 1, 4), put("b", "1", 1, 3, 5)), 3), ""},
		{"one revision twice", in(script(put("a", "1", 2, 1, 4), put("b", "1", 2, 3, 5)), 3), "given out twice"},
		{"a draw below a write", in(script(put("a", "1", 2, 1, 2), draw(1, 1, 3, 4)), 1), "real time"},
		{"a write within a draw", in(script(draw(1, 5, 1, 4), put("a", "1", 3, 2, 5)), 3), "given out twice"},
		{"a write below a draw's last", in(script(draw(1, 5, 1, 2), put("a", "1", 6, 3, 4), draw(6, 1, 5, 6)), 1), "real time"},
		{"a write after a read of a newer one", in(script(with(put("a", "1", 0, 1, 9), undetermined), get("a", "1", 5, 2, 3), put("b", "1", 4, 4, 5)), 3), "real time"},
	} {
		t.Run(c.name, func(t *testing.T) { verdict(t, c.h.Check(time.Minute), c.want) })
	}
}
