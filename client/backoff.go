package client

import "time"

// backoff is a range of waits: the first about min, each next one up to twice as
// long, none above max.
type backoff struct{ min, max time.Duration }

var (
	routeBackoff    = backoff{2 * time.Millisecond, 500 * time.Millisecond}
	busyBackoff     = backoff{10 * time.Millisecond, time.Second}
	revisionBackoff = backoff{routeBackoff.min, busyBackoff.max}
	connectBackoff  = backoff{100 * time.Millisecond, 2 * time.Second}
	contactBackoff  = backoff{100 * time.Millisecond, 2 * time.Second}
)

// hopsMax bounds the attempts that follow each other at once: a hint may lead to
// a better one, but hints that lead in circles end in a rest.
const hopsMax = 4

// jitter is the wait before the n-th repetition, n from 0: uniform between half
// of its bound and the bound, so that those who failed together do not return
// together.
func (c *Core) jitter(b backoff, n int) time.Duration {
	d := b.max
	if n < 20 {
		d = min(b.min<<n, b.max)
	}
	return d/2 + time.Duration(c.cfg.Env.Uint64()%uint64(d/2+1))
}

// again dispatches an op at once, or after a rest if it has hopped enough.
func (c *Core) again(o *op) {
	o.hops++
	if o.hops > hopsMax {
		c.restFor(o, routeBackoff)
		return
	}
	c.dispatch(o)
}

// restFor parks an op for a while.
func (c *Core) restFor(o *op, b backoff) {
	if c.fatal != nil {
		c.dispatch(o)
		return
	}
	c.alarms.put(&o.rest, c.now+c.jitter(b, o.rests))
	o.rests++
	o.hops, o.doubted = 0, false
	o.patient = b == busyBackoff || b == revisionBackoff
	o.place = placeResting
	c.resting.push(o)
}

// rested sends an op on its way whose rest is over.
func (c *Core) rested(o *op) {
	if o.node != nil || o.place != placeResting {
		return // news sent it on its way in this very turn
	}
	c.resting.remove(o)
	o.place = placeNone
	c.dispatch(o)
}
