package driver

import (
	"math"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

const (
	// loadTime is how long a change of a shard's load takes to count for the most part:
	// leaders do not move after every gust.
	loadTime = 20 * time.Second
	// loadFresh is for how long the figures of a new leader do not count: it has not yet
	// served for as long as they are of.
	loadFresh = 10 * time.Second
)

// measure takes in what the shard holds and bears, and where it is to be split, as its
// leader says.
func (e *entry) measure(node shard.NodeID, r *ReplicaReport, now time.Duration) {
	e.Bytes, e.SplitAt, e.SplitReason = r.Bytes, r.SplitAt, r.SplitReason
	if node != e.teller && e.measured != 0 {
		e.led = max(now, 1)
	}
	e.teller = node
	switch {
	case e.measured == 0:
		e.Load = r.Load
	case e.led != 0 && now < e.led+loadFresh:
		return
	default:
		part := 1 - math.Exp(-float64(now-e.measured)/float64(loadTime))
		e.Load.Reads += part * (r.Load.Reads - e.Load.Reads)
		e.Load.Writes += part * (r.Load.Writes - e.Load.Writes)
	}
	e.measured = max(now, 1)
}
