package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// What a batch may ask and do, in short.

func ifValue(key, value string) shard.Compare {
	return shard.Compare{Kind: shard.CompareValue, Key: []byte(key), Value: []byte(value)}
}

func ifRevision(key string, rev shard.Revision) shard.Compare {
	return shard.Compare{Kind: shard.CompareRevision, Key: []byte(key), Revision: rev}
}

func ifAbsent(key string) shard.Compare {
	return shard.Compare{Kind: shard.CompareAbsent, Key: []byte(key)}
}

func toPut(key, value string) shard.BatchOp {
	return shard.BatchOp{Kind: shard.KindPut, Key: []byte(key), Value: []byte(value)}
}
func toDelete(key string) shard.BatchOp {
	return shard.BatchOp{Kind: shard.KindDelete, Key: []byte(key)}
}
func toGet(key string) shard.BatchOp { return shard.BatchOp{Kind: shard.KindGet, Key: []byte(key)} }

func batch(compares []shard.Compare, then, otherwise []shard.BatchOp) shard.Command {
	return shard.Command{Kind: shard.KindBatch, Compares: compares, Then: then, Else: otherwise}
}

func compares(cs ...shard.Compare) []shard.Compare { return cs }
func ops(os ...shard.BatchOp) []shard.BatchOp      { return os }

// saw is the row of a get in a batch.
func saw(value string, rev shard.Revision) shard.Row {
	return shard.Row{Value: []byte(value), Revision: rev}
}

// wrote is the row of a put or a delete in a batch.
func wrote(rev shard.Revision) shard.Row { return shard.Row{Revision: rev} }

func held(rev shard.Revision, rows ...shard.Row) shard.Result {
	return shard.Result{Revision: rev, Found: true, Rows: rows}
}

func notHeld(rev shard.Revision, rows ...shard.Row) shard.Result {
	return shard.Result{Revision: rev, Rows: rows}
}

// calling adds a call to a history.
func calling(h *History, cmd shard.Command, res shard.Result, call, ret int64, how outcome) *History {
	h.calls = append(h.calls, &Call{Name: callName(&cmd), Shard: 2, Command: cmd, Result: res, Call: call, Return: ret, Outcome: how})
	return h
}

// logged adds what the logs say of the last call.
func logged(h *History, res shard.Result, removed ...string) *History {
	if h.effects == nil {
		h.effects = make(map[string]*effect)
	}
	c := h.calls[len(h.calls)-1]
	h.effects[c.Name] = &effect{op: shard.OpID{Sequence: uint64(len(h.calls))}, shard: 2, rev: res.Revision, kind: c.Command.Kind, result: &logResult{Result: res}, removed: removed}
	return h
}

// tookEffect adds what the logs say of a put.
func tookEffect(h *History, w written, rev shard.Revision) *History {
	h.puts = map[written]*effect{w: {shard: 2, rev: rev, kind: shard.KindPut}}
	return h
}

func swap(key, from, to string) shard.Command {
	return batch(compares(ifValue(key, from)), ops(toPut(key, to)), ops(toGet(key)))
}

func TestCallVerdicts(t *testing.T) {
	one := func() *History { return script(put("a", "1", 1, 1, 2)) }
	two := func() *History { return script(put("a", "1", 1, 1, 2), put("b", "1", 2, 3, 4)) }
	ranged := shard.Command{Kind: shard.KindDeleteRange, Start: []byte("a"), End: []byte("c"), Limit: 10}
	for _, c := range []struct {
		name string
		h    *History
		want string
	}{
		{"swap holds", calling(one(), swap("a", "1", "2"), held(2, wrote(2)), 3, 4, done), ""},
		{"swap holds and is read", calling(script(put("a", "1", 1, 1, 2), get("a", "2", 2, 5, 6)), swap("a", "1", "2"), held(2, wrote(2)), 3, 4, done), ""},
		{"swap is lost", calling(script(put("a", "1", 1, 1, 2), get("a", "1", 1, 5, 6)), swap("a", "1", "2"), held(2, wrote(2)), 3, 4, done), "not linearizable"},
		{"swap on another value", calling(script(put("a", "1", 1, 1, 2), put("a", "3", 2, 3, 4)), swap("a", "1", "2"), held(3, wrote(3)), 5, 6, done), "not linearizable"},
		{"swap on another revision", calling(two(), batch(compares(ifRevision("a", 2)), ops(toPut("a", "2")), nil), held(3, wrote(3)), 5, 6, done), "not linearizable"},
		{"swap on absence, though present", calling(one(), batch(compares(ifAbsent("a")), ops(toPut("a", "2")), nil), held(2, wrote(2)), 3, 4, done), "not linearizable"},
		{"two swaps of one value", calling(calling(one(), swap("a", "1", "2"), held(2, wrote(2)), 3, 8, done), swap("a", "1", "3"), held(3, wrote(3)), 4, 9, done), "not linearizable"},
		{"swap refuses", calling(one(), swap("a", "9", "2"), notHeld(0, saw("1", 1)), 3, 4, done), ""},
		{"swap refuses, and says what was not there", calling(one(), swap("a", "9", "2"), notHeld(0, saw("", 0)), 3, 4, done), "not linearizable"},
		{"swap refuses without a reason", calling(one(), swap("a", "1", "2"), notHeld(0, saw("1", 1)), 3, 4, done), "did not go on"},
		{"swap refuses silently without a reason", calling(one(), batch(compares(ifValue("a", "1")), ops(toPut("a", "2")), ops(toPut("b", "2"))), notHeld(2, wrote(2)), 3, 4, done), "not linearizable"},
		{"swap goes on against its own get", calling(one(), batch(compares(ifValue("a", "1")), ops(toGet("a"), toPut("b", "2")), nil), held(2, saw("3", 1), wrote(2)), 3, 4, done), "although a compare"},
		{"swap of unknown outcome took effect", logged(calling(script(put("a", "1", 1, 1, 2), get("a", "2", 2, 5, 6)), swap("a", "1", "2"), shard.Result{}, 3, 4, undetermined), held(2, wrote(2))), ""},
		{"swap of unknown outcome could not", logged(calling(script(put("a", "9", 1, 1, 2), get("a", "2", 2, 5, 6)), swap("a", "1", "2"), shard.Result{}, 3, 4, undetermined), held(2, wrote(2))), "not linearizable"},
		{"a compare met a write of unknown outcome that nobody read", tookEffect(calling(script(with(put("a", "1", 0, 1, 2), undetermined), get("a", "2", 5, 5, 6)),
			batch(compares(shard.Compare{Kind: shard.ComparePresent, Key: []byte("a")}), ops(toPut("a", "2")), nil), held(5, wrote(5)), 3, 4, done), written{"a", "1"}, 4), ""},
		{"a compare met nothing", calling(script(with(put("a", "1", 0, 1, 2), undetermined), get("a", "2", 5, 5, 6)),
			batch(compares(shard.Compare{Kind: shard.ComparePresent, Key: []byte("a")}), ops(toPut("a", "2")), nil), held(5, wrote(5)), 3, 4, done), "not linearizable"},
		{"swap of unknown outcome did nothing", calling(script(put("a", "1", 1, 1, 2), get("a", "1", 1, 5, 6)), swap("a", "1", "2"), shard.Result{}, 3, 4, undetermined), ""},
		{"swap was refused and is seen", calling(script(put("a", "1", 1, 1, 2), get("a", "2", 2, 5, 6)), swap("a", "1", "2"), shard.Result{}, 3, 4, refused), "refused"},
		{"the other list is seen", calling(script(put("a", "1", 1, 1, 2), get("b", "y", 2, 5, 6)),
			batch(compares(ifValue("a", "1")), ops(toPut("a", "x")), ops(toPut("b", "y"))), held(2, wrote(2)), 3, 4, done), "refused"},
		{"batch writes one key of two", calling(script(put("a", "1", 1, 1, 2), get("a", "2", 2, 5, 6), get("b", "", 0, 7, 8)),
			batch(nil, ops(toPut("a", "2"), toPut("b", "3")), nil), held(2, wrote(2), wrote(2)), 3, 4, done), "not linearizable"},
		{"batch with two revisions", calling(script(put("a", "1", 1, 1, 2), get("b", "3", 3, 5, 6)),
			batch(nil, ops(toPut("a", "2"), toPut("b", "3")), nil), held(2, wrote(2), wrote(2)), 3, 4, done), "two revisions"},
		{"batch deletes", calling(script(put("a", "1", 1, 1, 2), get("a", "1", 1, 5, 6)),
			batch(nil, ops(toDelete("a"), toPut("b", "3")), nil), held(2, wrote(2), wrote(2)), 3, 4, done), "not linearizable"},
		{"batch has the revision of another write", calling(script(put("a", "1", 1, 1, 4)), batch(nil, ops(toPut("b", "3")), nil), held(1, wrote(1)), 2, 3, done), "given out twice"},
		{"batch goes back", calling(script(put("a", "1", 5, 1, 2)), batch(nil, ops(toPut("b", "3")), nil), held(4, wrote(4)), 3, 4, done), "real time"},
		{"batch with a row too few", calling(one(), batch(nil, ops(toPut("b", "3")), nil), held(4), 3, 4, done), "0 results"},
		{"range removes", logged(calling(two(), ranged, shard.Result{Revision: 3, Count: 2}, 5, 6, done), shard.Result{Revision: 3, Count: 2}, "a", "b"), ""},
		{"range removes and a key is still there", logged(calling(script(put("a", "1", 1, 1, 2), put("b", "1", 2, 3, 4), get("b", "1", 2, 7, 8)), ranged, shard.Result{Revision: 3, Count: 2}, 5, 6, done),
			shard.Result{Revision: 3, Count: 2}, "a", "b"), "not linearizable"},
		{"range passes over a key", logged(calling(two(), ranged, shard.Result{Revision: 3, Count: 1}, 5, 6, done), shard.Result{Revision: 3, Count: 1}, "a"), "not linearizable"},
		{"range stops before a key", logged(calling(two(), ranged, shard.Result{Revision: 3, Count: 1, Resume: []byte("a\x00")}, 5, 6, done), shard.Result{Revision: 3, Count: 1}, "a"), ""},
		{"range removes nothing though there is something", calling(two(), ranged, shard.Result{}, 5, 6, done), "not linearizable"},
		{"range of unknown outcome removes late", logged(calling(script(put("a", "1", 1, 1, 2), get("a", "1", 1, 5, 6), get("a", "", 0, 7, 8)), ranged, shard.Result{}, 3, 4, undetermined), shard.Result{Revision: 3, Count: 1}, "a"), ""},
	} {
		t.Run(c.name, func(t *testing.T) { verdict(t, c.h.Check(time.Minute), c.want) })
	}
}

// verdict compares a check's error with the part of it that is wanted; empty: none.
func verdict(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want != "" && err == nil:
		t.Fatal("accepted")
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("refused for another reason: %v", err)
	}
}
