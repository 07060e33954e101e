package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// script builds a history from lines of one operation each.
func script(ops ...Op) *History {
	h := &History{}
	for i := range ops {
		o := ops[i]
		o.Shard = 2
		h.ops = append(h.ops, &o)
	}
	return h
}

func put(key, value string, rev shard.Revision, call, ret int64) Op {
	return Op{Kind: shard.KindPut, Key: key, Value: value, Rev: rev, Call: call, Return: ret, Outcome: done}
}

func del(key string, rev shard.Revision, call, ret int64) Op {
	return Op{Kind: shard.KindDelete, Key: key, Rev: rev, Call: call, Return: ret, Outcome: done}
}

func get(key, value string, rev shard.Revision, call, ret int64) Op {
	return Op{Kind: shard.KindGet, Key: key, Value: value, Found: rev != 0, Rev: rev, Call: call, Return: ret, Outcome: done}
}

func with(o Op, how outcome) Op {
	o.Outcome = how
	if how != done {
		o.Rev = 0
	}
	return o
}

func TestHistoryVerdicts(t *testing.T) {
	for _, c := range []struct {
		name string
		h    *History
		want string // part of the error; empty: holds
	}{
		{"sequential", script(put("a", "1", 1, 1, 2), get("a", "1", 1, 3, 4), del("a", 2, 5, 6), get("a", "", 0, 7, 8)), ""},
		{"lost write", script(put("a", "1", 1, 1, 2), get("a", "", 0, 3, 4)), "not linearizable"},
		{"stale read", script(put("a", "1", 1, 1, 2), put("a", "2", 2, 3, 4), get("a", "1", 1, 5, 6)), "not linearizable"},
		{"concurrent read may see either", script(put("a", "1", 1, 1, 2), put("a", "2", 2, 3, 6), get("a", "1", 1, 4, 5)), ""},
		{"read goes back", script(put("a", "1", 1, 1, 2), put("a", "2", 2, 3, 8), get("a", "2", 2, 4, 5), get("a", "1", 1, 6, 7)), "not linearizable"},
		{"deleted comes back", script(put("a", "1", 1, 1, 2), del("a", 2, 3, 4), get("a", "1", 1, 5, 6)), "not linearizable"},
		{"undetermined write takes effect late", script(with(put("a", "1", 0, 1, 2), undetermined), get("a", "", 0, 3, 4), get("a", "1", 5, 5, 6)), ""},
		{"undetermined write takes effect never", script(with(put("a", "1", 0, 1, 2), undetermined), get("a", "", 0, 3, 4)), ""},
		{"undetermined write comes and goes", script(with(put("a", "1", 0, 1, 2), undetermined), get("a", "1", 5, 3, 4), get("a", "", 0, 5, 6)), "not linearizable"},
		{"undetermined delete takes effect", script(put("a", "1", 1, 1, 2), with(del("a", 0, 3, 4), undetermined), get("a", "1", 1, 5, 6), get("a", "", 0, 7, 8)), ""},
		{"refused write is seen", script(with(put("a", "1", 0, 1, 2), refused), get("a", "1", 5, 3, 4)), "refused"},
		{"invented value", script(get("a", "1", 5, 3, 4)), "nobody wrote"},
		{"failed read says nothing", script(put("a", "1", 1, 1, 2), with(get("a", "", 0, 3, 4), refused)), ""},
		{"pending read says nothing", script(put("a", "1", 1, 1, 2), with(get("a", "", 0, 3, 0), pending)), ""},
		{"write took effect twice", script(put("a", "1", 1, 1, 2), get("a", "1", 4, 3, 4)), "two revisions"},
		{"revisions against real time", script(put("a", "1", 5, 1, 2), put("b", "2", 4, 3, 4)), "real time"},
		{"equal revisions", script(put("a", "1", 5, 1, 2), put("b", "2", 5, 3, 4)), "real time"},
		{"concurrent writes in any order", script(put("a", "1", 5, 1, 4), put("b", "2", 4, 2, 3)), ""},
	} {
		t.Run(c.name, func(t *testing.T) { verdict(t, c.h.Check(time.Minute), c.want) })
	}
}

// TestManyWritesAtOnce: what waited while a process was stopped takes effect
// between two events.
func TestManyWritesAtOnce(t *testing.T) {
	h := script(get("a", "", 0, 50, 51))
	for i := int64(0); i < 40; i++ {
		h.ops = append(h.ops, script(put("a", fmt.Sprint(i), shard.Revision(100-i), 1+i, 53+i)).ops...)
	}
	verdict(t, h.Check(time.Minute), "")
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		want outcome
	}{
		{nil, done},
		{shard.ErrBusy, refused},
		{shard.ErrDropped, refused},
		{&shard.NotLeaderError{}, refused},
		{shard.ErrNoRevision, refused},
		{shard.ErrSpansShards, refused},
		{shard.ErrRangeTooWide, refused},
		{shard.ErrUndetermined, undetermined},
		{fmt.Errorf("%w: %w", shard.ErrUndetermined, shard.ErrSpansShards), undetermined},
		{&shard.InternalError{}, undetermined},
	} {
		if got := classify(c.err); got != c.want {
			t.Errorf("classify(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}
