//go:build planted

package machine

import (
	"testing"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// The planted bugs of this package do what their names say.
func TestPlantedBugs(t *testing.T) {
	defer planted.Choose("")
	for _, c := range []struct {
		bug  planted.Bug
		op   []byte
		want string
	}{
		{planted.RetryWithoutLookUp, versioned(6, 1, again(put("k", "one"), 4)), "at 6"},
		{planted.NoTraceOfNothing, versioned(8, 3, again(batch("k=two", "k=three", "?k"), 4)), "at 8 holds [ @8]"},
		{planted.StaleRevisionApplied, versioned(4, 2, put("k", "below")), "at 4"},
	} {
		for _, on := range []bool{false, true} {
			b := newBench(t, userState())
			b.must(versioned(5, 1, put("k", "one")))
			planted.Choose("")
			if on {
				planted.Choose(c.bug)
			}
			if c.bug == planted.NoTraceOfNothing {
				b.must(versioned(6, 3, again(batch("k=two", "k=three", "?k"), 4)))
				b.must(versioned(7, 4, put("k", "two")))
			}
			res := b.must(c.op)
			if got := told(res); (got == c.want) != on {
				t.Errorf("%s, on %t: %s", c.bug, on, got)
			}
			b.end()
			b.close()
		}
	}
	// A revision of 0 is none, whatever is switched on.
	planted.Choose(planted.StaleRevisionApplied)
	b := newBench(t, userState())
	defer b.close()
	if res := b.must(operation(0, 2, shard.Command{Kind: shard.KindPut, Key: key("k")})); res.Err != ErrStaleRevision {
		t.Errorf("%+v", res)
	}
	b.end()
}
