package replica

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// confirming grants what it is asked for once the meta shard's replica has
// confirmed that it leads, as package revision does, which lies to the right.
type confirming struct{ r *Replica }

func (c *confirming) Grant(n int, _ shard.ReplicaID, done func(shard.Revision, uint64, error)) {
	if err := c.r.Confirm(func(term uint64, err error) { done(shard.Revision(term), 0, err) }); err != nil {
		done(0, 0, err)
	}
}

// However many reads wait, in the store and in the group, a draw of revisions is
// taken: all writes of the cluster wait for it.
func TestConfirmationsAreNotBoundedWithReads(t *testing.T) {
	grants := new(confirming)
	h := newHome(t, func(c *Config) { c.ReadsMax, c.Grants = 1, grants })
	r, g := h.shard(shard.MetaID, "\x01", "\x02")
	grants.r = r
	waiting := h.send(target(shard.MetaID), get("\x01k"))
	if p := h.send(target(shard.MetaID), get("\x01k")).once(t); !errors.Is(p.Err, shard.ErrBusy) {
		t.Fatalf("the store takes another read: %+v", p)
	}
	g.full = true
	draw := h.send(target(shard.MetaID), shard.Command{Kind: shard.KindDraw, Limit: 3})
	draw.waits(t)
	g.confirm(nil)
	if p := draw.once(t); p.Err != nil || p.Result.Revision != term || p.Result.Count != 3 {
		t.Errorf("%+v", p)
	}
	h.steps.run()
	if p := waiting.once(t); p.Err != nil {
		t.Errorf("%+v", p)
	}
	h.idle()
}
