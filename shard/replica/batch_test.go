package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func batchOf(keys ...string) shard.Command {
	c := shard.Command{Kind: shard.KindBatch}
	for _, k := range keys {
		c.Then = append(c.Then, shard.BatchOp{Kind: shard.KindPut, Key: []byte(k), Value: []byte("v")})
	}
	return c
}

func deleteRange(start, end string, limit uint64) shard.Command {
	return shard.Command{Kind: shard.KindDeleteRange, Start: []byte(start), End: []byte(end), Limit: limit}
}

// The whole outcome of a batch and of a delete-range reaches the caller.
func TestBatchAndDeleteRange(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	c := batchOf("\x02k", "\x02l")
	c.Compares = []shard.Compare{{Kind: shard.CompareAbsent, Key: []byte("\x02k")}}
	c.Else = []shard.BatchOp{{Kind: shard.KindGet, Key: []byte("\x02k")}, {Kind: shard.KindGet, Key: []byte("\x02c")}}
	var first, second, cut *answer
	h.together(g, func() {
		first, second = h.send(target(7), c), h.send(target(7), c)
		cut = h.send(target(7), deleteRange("\x02b", "\x02m", 1))
		h.steps.run()
	})
	g.turn(t)
	if p := first.once(t); p.Err != nil || p.Result.Revision != 2 || !p.Result.Found || len(p.Result.Rows) != 2 || p.Result.Rows[1].Revision != 2 {
		t.Errorf("%+v", p)
	}
	p := second.once(t)
	if rows := p.Result.Rows; p.Err != nil || p.Result.Revision != 0 || p.Result.Found || len(rows) != 2 ||
		string(rows[0].Value) != "v" || rows[0].Revision != 2 || rows[1].Revision != 0 {
		t.Errorf("%+v", p)
	}
	if p := cut.once(t); p.Err != nil || p.Result.Revision != 4 || p.Result.Count != 1 || string(p.Result.Resume) != "\x02k\x00" {
		t.Errorf("%+v", p)
	}
	if s := h.store.Stats(); s.Batches != 3 || s.RangeDeletes != 1 || s.Puts != 0 {
		t.Errorf("%+v", s)
	}
	h.idle()
}

// What begins in a shard and does not lie in it is refused before it is proposed.
func TestWritesThatAreParted(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	_, og := h.shard(8, "\x02m", "\x02q")
	again := func(c shard.Command) shard.Command { c.Retry = true; return c }
	compared := batchOf("\x02c")
	compared.Compares = []shard.Compare{{Kind: shard.CompareAbsent, Key: []byte("\x02c")}, {Kind: shard.CompareAbsent, Key: []byte("\x02n")}}
	otherwise := batchOf("\x02c")
	otherwise.Else = batchOf("\x02n").Then
	// Both have been split.
	parted := fmt.Sprint((&shard.Descriptor{Epoch: shard.Epoch{Version: 2}}).Parted())
	newer := target(7)
	newer.Version++
	ended := target(7)
	ended.Term--
	for _, c := range []struct {
		name string
		to   shard.Target
		c    shard.Command
		want string
	}{
		{"batch", target(7), batchOf("\x02c", "\x02n"), fmt.Sprint(shard.ErrSpansShards)},
		{"a key that is compared only", target(7), compared, fmt.Sprint(shard.ErrSpansShards)},
		{"a key of the other list", target(7), otherwise, fmt.Sprint(shard.ErrSpansShards)},
		{"batch, again", target(7), again(batchOf("\x02c", "\x02n")), parted},
		{"batch that begins elsewhere", target(7), batchOf("\x02n", "\x02c"), "wrong shard 7 [7 8]"},
		{"batch that begins elsewhere, again", target(7), again(batchOf("\x02n", "\x02c")), "wrong shard 7 [7 8]"},
		{"batch of another epoch", newer, batchOf("\x02c", "\x02n"), "wrong shard 7 [7]"},
		{"batch of another term", ended, again(batchOf("\x02c", "\x02n")), "not leader 7: replica 1 on node 1 (node1:7400) in term 5"},
		{"delete-range", target(7), deleteRange("\x02c", "\x02n", 9), "wrong shard 7 [7]"},
		{"delete-range, again", target(7), again(deleteRange("\x02c", "\x02n", 9)), parted},
		{"delete-range that begins elsewhere", target(7), again(deleteRange("\x02m", "\x02n", 9)), "wrong shard 7 [7 8]"},
		{"a limit of nothing", target(7), deleteRange("\x02c", "\x02d", 0), "invalid limit"},
		{"an empty batch", target(7), batchOf(), "invalid batch"},
		{"a key twice", target(7), batchOf("\x02c", "\x02c"), "invalid batch"},
		{"a raise", target(7), shard.Command{Kind: shard.KindRaise}, "invalid command"},
		{"a floor", target(7), shard.Command{Kind: shard.KindFloor, Revision: 3}, "invalid command"},
	} {
		if got := describe(h.send(c.to, c.c).once(t).Err); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if len(g.proposals)+len(og.proposals) != 0 {
		t.Error("something refused reached a group")
	}
	h.idle()
}

// A delete-range is a few bytes, and a thousand tombstones when it is applied.
func TestDeleteRangesTakeWhatTheyBecome(t *testing.T) {
	const pieces = 5
	h := newHome(t, func(cfg *Config) { cfg.WriteBytesMax = pieces * (shard.DeleteRangeMax*tombstoneBytes + 100) })
	_, g := h.shard(7, "\x02b", "\x02m")
	var sent []*answer
	for range pieces {
		sent = append(sent, h.send(target(7), deleteRange("\x02b", "\x02m", shard.DeleteRangeMax)))
	}
	if p := h.send(target(7), deleteRange("\x02b", "\x02m", shard.DeleteRangeMax)).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Errorf("%+v", p)
	}
	h.steps.run()
	for range 2 { // the first goes alone
		g.turn(t)
	}
	for _, a := range sent {
		if p := a.once(t); p.Err != nil {
			t.Error(p.Err)
		}
	}
	h.idle()
}
