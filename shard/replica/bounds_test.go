package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// What the gets of batches have read waits in memory for the reply, and is bounded
// by a budget as everything else that waits.
func TestWhatBatchesReadIsBounded(t *testing.T) {
	h := newHome(t, func(cfg *Config) { cfg.WriteBytesMax = 16 << 20 })
	_, g := h.shard(7, "\x02b", "\x02m")
	w := h.send(target(7), shard.Command{Kind: shard.KindPut, Key: []byte("\x02k"), Value: bytes.Repeat([]byte("x"), 1<<20)})
	g.turn(t)
	if p := w.once(t); p.Err != nil {
		t.Fatal(p.Err)
	}
	swap := shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{{Kind: shard.CompareAbsent, Key: []byte("\x02k")}},
		Then: []shard.BatchOp{{Kind: shard.KindPut, Key: []byte("\x02k")}}, Else: []shard.BatchOp{{Kind: shard.KindGet, Key: []byte("\x02k")}}}
	var sent []*answer
	h.together(g, func() {
		for range 200 {
			sent = append(sent, h.send(target(7), swap))
		}
	})
	g.turn(t) // all results exist before the first reply
	held, busy := 0, 0
	for _, a := range sent {
		switch p := a.once(t); {
		case errors.Is(p.Err, shard.ErrBusy):
			busy++
		case p.Err != nil:
			t.Fatal(p.Err)
		default:
			held += len(p.Result.Rows[0].Value)
		}
	}
	if held > readBytesMax || busy == 0 {
		t.Errorf("one turn held %d MiB of results; %d were told to wait", held>>20, busy)
	}
}

// A delete-range takes of the budget what it becomes in the batch.
func TestDeleteRangeOfLongKeysIsBounded(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	long := bytes.Repeat([]byte("x"), 8000)
	for i := range shard.DeleteRangeMax {
		h.send(target(7), shard.Command{Kind: shard.KindPut, Key: append([]byte("\x02c"), fmt.Sprintf("%04d%s", i, long)...)})
	}
	g.turn(t)
	c := deleteRange("\x02b", "\x02m", shard.DeleteRangeMax)
	q := shard.Request{Command: shard.AppendCommand(nil, &c)}
	taken := writeBytes(&q, &c)
	b := h.engine.NewBatch()
	defer b.Close()
	at := raftgroup.Position{Index: g.index + 1, Term: g.term}
	op := append(machine.AppendHeader(nil, machine.Header{Revision: 5000, Version: 2}), q.Command...)
	if _, err := g.machine.Apply(b, at, op); err != nil {
		t.Fatal(err)
	}
	g.machine.EndApply(b, at) // the batch is not committed; nothing follows it
	if b.Bytes() > taken {
		t.Errorf("a delete-range that took %d B of the budget is %d B in the batch, a full budget %d MiB in one batch of at most 4096 MiB",
			taken, b.Bytes(), b.Bytes()/taken*128)
	}
}
