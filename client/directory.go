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
)

// askDirectory starts lookups for operations that wait, as far as allowed.
func (c *Core) askDirectory() {
	for o := c.missing.head; o != nil && len(c.directory.lookups) < lookupsMax; o = o.next {
		if !c.directory.asks(o) {
			c.look(&lookup{key: o.key, before: o.before()})
		}
	}
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
	c.prepare(o, &cmd)
	o.size = 0
	o.deadline.at = c.now + lookupTimeout
	c.admit(o)
}

// found takes in the answer to a lookup: operations whose shard is known now go
// on, those that it was asked for in vain rest.
func (c *Core) found(l *lookup, rows []shard.Row, err error) {
	var end []byte // of the last shard below the key: from there to the key nothing is known
	if err == nil {
		for i := range rows {
			var e router.Entry
			if e, err = c.entry(&rows[i]); err == nil {
				end = e.Descriptor.Span.End
			}
		}
	}
	var retry opList
	for o := c.missing.head; o != nil; {
		next := o.next
		_, known := c.lookup(o)
		asked := o.before() == l.before && bytes.Equal(o.key, l.key)
		between := err == nil && bytes.Compare(end, o.key) <= 0 && bytes.Compare(o.key, l.key) <= 0
		inVain := !known && (asked || between)
		if known || inVain {
			c.missing.remove(o)
			o.place = placeNone
			if inVain {
				if err != nil {
					o.last = err
				}
				c.restFor(o, routeBackoff)
			} else {
				retry.push(o)
			}
		}
		o = next
	}
	c.redispatch(&retry)
	if end != nil {
		c.lookAhead(end)
	}
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
		var retry opList
		for o := c.missing.head; o != nil; {
			next := o.next
			if _, known := c.lookup(o); known {
				c.missing.remove(o)
				o.place = placeNone
				retry.push(o)
			}
			o = next
		}
		c.redispatch(&retry)
	})
}

func (c *Core) redispatch(l *opList) {
	for l.head != nil {
		o := l.head
		l.remove(o)
		c.dispatch(o)
	}
}
