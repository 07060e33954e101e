package replica

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// Writes hold the budget while they wait for a revision; the bound from which
// revisions are granted can be raised only by a write.
func TestTheBoundIsRaisedWhateverWaitsForIt(t *testing.T) {
	h := newHome(t, func(c *Config) { c.WriteBytesMax, c.ReadsMax = 4096, 1 })
	h.shard(7, "\x02b", "\x02m")
	_, meta := h.shard(shard.MetaID, "\x01", "\x02")
	h.numbers.held = true // as they are before the first raise of a term
	for {
		a := h.send(target(7), put("\x02c", string(make([]byte, 1000))))
		if a.times == 1 {
			break // ErrBusy
		}
	}
	raise := request(shard.Target{Shard: shard.MetaID, Version: 2, Replica: 1, Term: term}, shard.Command{Kind: shard.KindIncrement, Key: []byte("\x01rev/bound"), Delta: 10})
	raise.Command = append([]byte(nil), raise.Command...)
	for range 20 { // however short the rest of the budget is
		h.send(target(7), put("\x02c", ""))
	}
	a := &answer{}
	h.store.ExecuteTrusted(raise, a.take)
	h.steps.run()
	if a.times == 1 && errors.Is(a.Err, shard.ErrBusy) || len(meta.proposals) != 1 {
		t.Errorf("the raise is refused, and nothing that holds the budget can end before a raise: %v", a.Err)
	}
}
