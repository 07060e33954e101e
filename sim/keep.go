package sim

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
)

// Keep is what a cluster keeps of what was overwritten: its settings.
type Keep struct {
	Retention time.Duration // 0: the default, which is longer than a run
	Later     time.Duration // the retention from the middle of the run on; 0: as before
	DropRate  int64         // versions per second that each node drops
}

func (k Keep) String() string {
	if k.Retention == 0 {
		return "everything is kept"
	}
	s := fmt.Sprintf("kept for %v", k.Retention)
	if k.Later != 0 {
		s += fmt.Sprintf(" and then %v", k.Later)
	}
	return s + fmt.Sprintf(", %d dropped per second", k.DropRate)
}

// drawKeep draws what is kept. In half of the seeds versions are dropped, while
// clients still ask for them.
func drawKeep(l *Loop) Keep {
	return Keep{Retention: []time.Duration{0, 0, 0, time.Second, 2 * time.Second, 5 * time.Second}[l.rand.IntN(6)],
		Later:    []time.Duration{0, 0, time.Second, 3 * time.Second}[l.rand.IntN(4)],
		DropRate: []int64{20, 1000, 50_000}[l.rand.IntN(3)]}
}

// administer gives a cluster the settings that say what is kept.
func (c *Cluster) administer(work time.Duration) {
	k := c.keep
	if k.Retention == 0 {
		return
	}
	c.set(catalog.KVDropRate, strconv.FormatInt(k.DropRate, 10))
	c.set(catalog.KVRetention, k.Retention.String())
	if k.Later != 0 {
		c.loop.After(work/2, "administer", func() { c.set(catalog.KVRetention, k.Later.String()) })
	}
}

// setPause is how long an administrator waits for a node that was asked to
// write a setting, before another one is asked.
const setPause = 500 * time.Millisecond

// set asks one node after the other to write a setting, until one has.
func (c *Cluster) set(name, value string) {
	written := false
	if n := c.nodes[c.loop.rand.IntN(len(c.nodes))]; n.Serving() {
		n.node.Catalog().SetSetting(name, value, func(_ catalog.SettingValue, err error) { written = written || err == nil })
	}
	c.loop.After(setPause, "set", func() {
		if !written {
			c.set(name, value)
		}
	})
}
