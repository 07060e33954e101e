package replica

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A replica that lags applies a check and a split behind it in one batch, and the right
// side is nobody's here: its data goes in that very batch. That is no difference.
func TestCheckAndSplitInOneBatch(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.do(g, put("\x02c", "1"))
	h.do(g, put("\x02k", "2"))
	h.store.Check(7, func(_ uint64, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	split := shard.Split{Shard: 7, Epoch: r.descriptor.Load().Epoch, Key: []byte("\x02h"), Right: 8}
	r.Split(split, func(_, _ shard.Descriptor, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	g.turn(t)
	if c := r.Checked(); c.State != CheckNotCompared || c.Index != g.index {
		t.Errorf("%+v", c)
	}
	h.steps.run()
	if n := h.store.Stats().Digests; n != 0 {
		t.Errorf("%d digests", n)
	}
	h.store.Check(7, func(uint64, error) {})
	g.turn(t)
	if c := r.Checked(); c.State != CheckComputing {
		t.Errorf("the next one: %+v", c)
	}
	h.steps.run()
}
