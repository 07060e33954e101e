package replica

import (
	"sync/atomic"

	"github.com/kiloraft/kiloraft/shard"
)

// load counts what is asked of one replica. Requests touch nothing but these few
// words; all else is the store's loads', which look at them every second while there are
// any, so that an idle replica costs nothing, and no request reads the clock.
type load struct {
	r *Replica

	// Since the start.
	reads, writes, bytesWritten atomic.Uint64

	awake   atomic.Bool             // loads looks at it
	sampler atomic.Pointer[sampler] // nil: no keys are sampled
	seen    atomic.Pointer[seen]    // nil: nothing lately
	asleep  counts                  // when it fell asleep; of the upkeep's queue
}

// Load is what was asked of a replica lately, with a weight that falls with time.
type Load struct {
	Reads, Writes float64 // per second; a batch and a page of a scan are one each
	BytesWritten  float64 // per second, of the writes' commands
	// Hot are the keys that were asked for most, not counting scans and batches of several
	// keys, the first one most often; at most HotKeysMax. Of a follower there are none.
	Hot []HotKey
}

func (l *Load) requests() float64 { return l.Reads + l.Writes }

// Load is what is asked of the replica. What Hot holds is shared: do not modify it.
func (r *Replica) Load() Load {
	s := r.load.seen.Load()
	if s == nil {
		return Load{}
	}
	return s.load
}

// read counts a read that was served; resume is where the next page of a scan begins.
func (l *load) read(c *shard.Command, resume []byte) {
	l.reads.Add(1)
	l.noted(c, resume)
}

// write counts a write that was accepted, with the bytes of its command.
func (l *load) write(c *shard.Command, bytes int) {
	l.writes.Add(1)
	l.bytesWritten.Add(uint64(bytes))
	l.noted(c, nil)
}

func (l *load) noted(c *shard.Command, resume []byte) {
	if s := l.sampler.Load(); s != nil && s.due() {
		s.draw(extent(c, resume))
	}
	if !l.awake.Load() && l.awake.CompareAndSwap(false, true) {
		l.r.store.upkeep.loads.wake(l.r)
	}
}

// counts are a load's, at one time.
type counts struct{ reads, writes, bytesWritten uint64 }

func (l *load) counts() counts {
	return counts{reads: l.reads.Load(), writes: l.writes.Load(), bytesWritten: l.bytesWritten.Load()}
}

func (c counts) requests() uint64 { return c.reads + c.writes }
