package client

import (
	"bytes"
	"time"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// directory is the questions that are out to the shard directory. Operations
// whose shard is not known wait in Core.missing; whatever answer comes, all of
// them look at the cache again. So a few lookups serve many callers: a hundred
// that start at once on a cluster of fifty shards need a handful.
type directory struct {
	lookups  []*lookup
	scanning bool // a page is being fetched ahead
	holes    []hole
}

// hole is a range of keys of which the directory knew nothing: for a while
// nobody asks again.
type hole struct {
	from, to []byte // both included
	until    time.Duration
}

// lookup asks for the shard that covers a key, or the keys just below it.
type lookup struct {
	key    []byte
	before bool
}

const (
	lookupsMax    = 4
	lookupTimeout = 5 * time.Second
	// aheadRows is how many of the following shards a lookup fetches too.
	aheadRows = 256
	// holeTime is how long a hole is believed, and holesMax how many are kept.
	holeTime = 100 * time.Millisecond
	holesMax = 16
)

// askDirectory starts lookups for operations that wait, as far as allowed.
func (c *Core) askDirectory() {
	for o := c.missing.head; o != nil && len(c.directory.lookups) < lookupsMax; o = o.next {
		if !c.directory.asks(o) {
			c.look(&lookup{key: o.key, before: o.before()})
		}
	}
}

// inHole tells whether the directory was asked in vain for an op's key just now.
func (c *Core) inHole(o *op) bool {
	for i := range c.directory.holes {
		h := &c.directory.holes[i]
		if c.now < h.until && bytes.Compare(h.from, o.key) <= 0 && bytes.Compare(o.key, h.to) <= 0 {
			return true
		}
	}
	return false
}

func (d *directory) hole(h hole) {
	if len(d.holes) == holesMax {
		d.holes = append(d.holes[:0], d.holes[1:]...)
	}
	d.holes = append(d.holes, h)
}

func (d *directory) asks(o *op) bool {
	for _, l := range d.lookups {
		if l.before == o.before() && bytes.Equal(l.key, o.key) {
			return true
		}
	}
	return false
}

func (c *Core) look(l *lookup) {
	l.key = bytes.Clone(l.key) // the op's own may be reused before the answer
	c.directory.lookups = append(c.directory.lookups, l)
	c.stats.directoryLookups.Add(1)
	span := router.DirectoryBefore(l.key, !l.before)
	c.inside(shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End, Reverse: true, Limit: 1}, func(res shard.Result, err error) {
		for i := range c.directory.lookups {
			if c.directory.lookups[i] == l {
				c.directory.lookups = append(c.directory.lookups[:i], c.directory.lookups[i+1:]...)
				break
			}
		}
		c.found(l, res.Rows, err)
	})
}

// inside carries out a scan of the core's own. done is called within a turn, and
// may be called at once.
func (c *Core) inside(cmd shard.Command, done func(shard.Result, error)) {
	o := &op{inside: done}
	c.prepare(o, &cmd, &DoOptions{})
	o.size = 0
	o.deadline.at = c.now + lookupTimeout
	c.admit(o)
}

// found takes in the answer to a lookup: operations whose shard is known now go
// on. Those that it was asked for in vain, because the directory lags, take a
// detour by the shard that it named: that shard's node may know more. Others in
// the same hole rest.
func (c *Core) found(l *lookup, rows []shard.Row, err error) {
	var e router.Entry
	if err == nil && len(rows) > 0 {
		e, err = c.entry(&rows[0])
	}
	named := err == nil && len(rows) > 0
	// From the end of the shard below the key up to the key nothing is known.
	unknown := hole{from: e.Descriptor.Span.End, to: l.key, until: c.now + holeTime}
	var known, detours, rest opList
	for o := c.missing.head; o != nil; {
		next := o.next
		to := (*opList)(nil)
		if _, ok := c.lookup(o); ok {
			to = &known
		} else if o.before() == l.before && bytes.Equal(o.key, l.key) {
			to = &rest
			if named && !o.system && o.rests%2 == 0 {
				to = &detours
			}
			o.last = err
		} else if err == nil && bytes.Compare(unknown.from, o.key) <= 0 && bytes.Compare(o.key, unknown.to) <= 0 {
			to = &rest
		}
		if to != nil {
			c.missing.remove(o)
			o.place = placeNone
			to.push(o)
		}
		o = next
	}
	if rest.len+detours.len > 0 && err == nil {
		c.directory.hole(unknown)
	}
	for o := rest.pop(); o != nil; o = rest.pop() {
		c.restFor(o, routeBackoff)
	}
	for o := detours.pop(); o != nil; o = detours.pop() {
		c.detour(o, &e)
	}
	for o := known.pop(); o != nil; o = known.pop() {
		c.dispatch(o)
	}
	if named {
		c.lookAhead(e.Descriptor.Span.End)
	}
}

// detour sends an op to a shard that does not serve its key as far as the
// directory knows, or not in this epoch: to be refused, with what its node knows
// of the key's surroundings.
func (c *Core) detour(o *op, e *router.Entry) {
	r := &router.Route{Descriptor: e.Descriptor, Leader: router.Leader{Replica: e.Leader.Replica, Node: e.Leader.Node}, Term: e.Leader.Term}
	n, replica := c.choose(o, r)
	if n == nil || o.scan != nil {
		c.restFor(o, routeBackoff)
		return
	}
	o.aim(r, replica)
	o.detour = true
	c.enqueue(n, o)
}

// entry takes in one row of the directory.
func (c *Core) entry(row *shard.Row) (router.Entry, error) {
	e, err := router.DecodeEntry(row.Value)
	if err != nil {
		c.log.Error("a record of the shard directory does not decode", "key", shard.FormatKey(row.Key), "error", err)
		return e, err
	}
	id := e.Descriptor.ID
	if _, known := c.routes.Shard(id); known {
		c.insert(e.Descriptor)
	} else {
		c.routes.Insert(e.Descriptor)
	}
	if e.Leader.Node != 0 && e.Leader.Replica != 0 {
		c.setLeader(id, router.Leader{Replica: e.Leader.Replica, Node: e.Leader.Node}, e.Leader.Term)
	}
	return e, nil
}

// lookAhead fetches a page of the shards from a key on, unless one is on its way
// or the next shard is known.
func (c *Core) lookAhead(from []byte) {
	rows := min(aheadRows, c.cfg.CacheShards/4)
	if c.fatal != nil || c.directory.scanning || rows == 0 || bytes.Compare(from, shard.UserSpan().End) >= 0 {
		return
	}
	if _, known := c.routes.Lookup(from); known {
		return
	}
	c.directory.scanning = true
	c.stats.directoryScans.Add(1)
	span := router.DirectoryFrom(from)
	c.inside(shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End, Limit: uint64(rows)}, func(res shard.Result, err error) {
		c.directory.scanning = false
		if err != nil {
			return // those who need it look for themselves
		}
		for i := range res.Rows {
			if _, err := c.entry(&res.Rows[i]); err != nil {
				break
			}
		}
		var known opList
		for o := c.missing.head; o != nil; {
			next := o.next
			if _, ok := c.lookup(o); ok {
				c.missing.remove(o)
				o.place = placeNone
				known.push(o)
			}
			o = next
		}
		for o := known.pop(); o != nil; o = known.pop() {
			c.dispatch(o)
		}
	})
}
