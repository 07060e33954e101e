package client

import (
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// dispatch finds an op, which is in no place, a way: to a node's queue, or to
// where it waits for one.
func (c *Core) dispatch(o *op) {
	if c.fatal != nil {
		c.finish(o, shard.Result{}, c.fatal)
		return
	}
	if !c.ready {
		c.await(&c.unrouted, o)
		return
	}
	r, ok := c.lookup(o)
	if !ok {
		c.unknown(o)
		return
	}
	if !c.fits(o, r) {
		return
	}
	n, replica := c.choose(o, r)
	if n == nil {
		// Every replica's node is unknown or does not answer. If that lasts the shard
		// may have left them all, and only the directory knows where it is.
		c.refresh()
		if o.rests > 0 && !o.system {
			c.routes.Remove(r.Descriptor.ID, r.Descriptor.Epoch.Version)
		}
		c.restFor(o, routeBackoff)
		return
	}
	o.aim(r, replica)
	o.detour = false
	c.enqueue(n, o)
}

func (c *Core) await(l *opList, o *op) {
	o.place = placeAwaiting
	l.push(o)
}

func (c *Core) lookup(o *op) (*router.Route, bool) {
	if o.before() {
		return c.routes.LookupBefore(o.key)
	}
	return c.routes.Lookup(o.key)
}

// unknown parks an op whose shard is not known: the directory tells it, and the
// nodes tell where the directory's own shard is.
func (c *Core) unknown(o *op) {
	if o.system {
		c.refresh()
		c.restFor(o, routeBackoff)
		return
	}
	if c.inHole(o) {
		c.restFor(o, routeBackoff)
		return
	}
	c.await(&c.missing, o)
}

// choose picks the replica that an attempt goes to: the leader, unless it is not
// known, its node does not answer, or it has just refused this op; then the
// voters in turn, one more at each rest. Learners never lead. A read that any
// replica may serve goes to the voters in turn from the start.
func (c *Core) choose(o *op, r *router.Route) (*node, shard.ReplicaID) {
	avoid := o.avoid
	o.avoid = 0
	if o.anywhere {
		c.rotation++
		if n, replica := c.next(r, c.rotation, func(m shard.Replica) bool { return m.ID != avoid }); n != nil {
			return n, replica
		}
	}
	if l := r.Leader; l.Node != 0 && l.Replica != avoid {
		if n := c.usable(l.Node); n != nil {
			return n, l.Replica
		}
	}
	if n, replica := c.next(r, o.rests, func(m shard.Replica) bool { return m.ID != r.Leader.Replica && m.ID != avoid }); n != nil {
		return n, replica
	}
	if m, ok := r.Descriptor.Replica(avoid); ok {
		if n := c.usable(m.Node); n != nil {
			return n, m.ID
		}
	}
	return nil, 0
}

// next is the first voter from a place on that is wanted and whose node is usable.
func (c *Core) next(r *router.Route, from int, wanted func(shard.Replica) bool) (*node, shard.ReplicaID) {
	members := r.Descriptor.Replicas
	for k := range members {
		m := members[(from+k)%len(members)]
		if m.Role == shard.Learner || !wanted(m) {
			continue
		}
		if n := c.usable(m.Node); n != nil {
			return n, m.ID
		}
	}
	return nil, 0
}

// setLeader takes in news of a leader, and follows them.
func (c *Core) setLeader(id shard.ID, l router.Leader, term uint64) {
	if before, ok := c.routes.Shard(id); ok && c.routes.SetLeader(id, l, term) {
		c.follow(before)
	}
}

// insert takes in a descriptor, and follows it.
func (c *Core) insert(d shard.Descriptor) {
	before, known := c.routes.Shard(d.ID)
	if !c.routes.Insert(d) {
		return
	}
	if !known {
		before, _ = c.routes.Shard(d.ID)
	}
	c.follow(before)
}

// insertAll takes in what a node knows of the surroundings of a key, and follows it once
// all of it is known: the two sides of a split come together, and what waits for one may
// have been meant for the other.
func (c *Core) insertAll(e *shard.WrongShardError) {
	var news []*router.Route
	for i, d := range e.Descriptors {
		before, known := c.routes.Shard(d.ID)
		changed := c.routes.Insert(d)
		if l := e.Leader(i); l.Node != 0 {
			c.learn(l.Node, l.Address)
			changed = c.routes.SetLeader(d.ID, router.Leader{Replica: l.Replica, Node: l.Node}, l.Term) || changed
		}
		if !changed {
			continue
		}
		if !known {
			before, _ = c.routes.Shard(d.ID)
		}
		news = append(news, before)
	}
	for _, before := range news {
		c.follow(before)
	}
}

// follow sends those on their way again whom news of a route concern: what is
// still queued at the old leader's node, and what rests because the old route
// did not serve. It looks at every such op, which is bearable because news are
// as rare as elections and splits.
func (c *Core) follow(before *router.Route) {
	d := &before.Descriptor
	if d.ID == shard.MetaID {
		c.publishMeta()
	}
	var again []*op
	if n := c.nodes[before.Leader.Node]; n != nil {
		n.mu.Lock()
		for o := n.out.head; o != nil; {
			next := o.next
			if o.target.Shard == d.ID {
				n.out.remove(o)
				o.place, o.node = placeNone, nil
				again = append(again, o)
			}
			o = next
		}
		n.mu.Unlock()
	}
	for o := c.resting.head; o != nil; {
		next := o.next
		if !o.patient && o.within(d.Span) {
			c.resting.remove(o)
			c.alarms.clear(&o.rest)
			o.place = placeNone
			again = append(again, o)
		}
		o = next
	}
	for _, o := range again {
		c.again(o)
	}
}
