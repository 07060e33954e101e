package client

import (
	"bytes"
	"errors"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// answer is a response with the op that it belongs to.
type answer struct {
	op  *op
	res shard.Result
	err error
}

// received takes the answers out of a frame. Answers to what is not outstanding
// any more, because the caller gave up, are dropped.
func (c *Core) received(l *link, frame []byte) {
	n := l.node
	if n.link != l {
		return
	}
	l.heard, l.quiet = c.now, false
	answers := c.answers[:0]
	n.mu.Lock()
	newest, err := shard.DecodeResponses(frame, func(p shard.Response) {
		o := l.outstanding[p.ID]
		if o == nil {
			return
		}
		l.forget(o)
		o.place, o.node = placeNone, nil
		answers = append(answers, answer{o, p.Result, p.Err})
	})
	n.mu.Unlock()
	c.knows(newest)
	c.touch(n)
	for i := range answers {
		a := &answers[i]
		if a.err == nil {
			c.done(a.op, a.res, len(frame))
		} else {
			c.refused(a.op, a.err)
		}
	}
	c.answers = emptied(answers)
	if err != nil {
		c.log.Error("a node sent a frame that does not decode", "node", n.id, "address", n.address, "error", err)
		c.abandon(l, err)
	}
}

// done ends an op with its result.
func (c *Core) done(o *op, res shard.Result, frameBytes int) {
	o.resume(&res)
	detach(&res, frameBytes)
	c.finish(o, res, nil)
}

// detach copies a result that is a small part of its frame: whoever keeps a
// value must not keep the answers of a hundred others in memory.
func detach(res *shard.Result, frameBytes int) {
	size := len(res.Value)
	for i := range res.Rows {
		size += len(res.Rows[i].Key) + len(res.Rows[i].Value)
	}
	if size*2 >= frameBytes {
		return
	}
	res.Value = bytes.Clone(res.Value)
	res.Resume = bytes.Clone(res.Resume)
	if len(res.Rows) == 0 {
		return
	}
	arena := make([]byte, 0, size)
	move := func(b []byte) []byte {
		arena = append(arena, b...)
		return arena[len(arena)-len(b) : len(arena) : len(arena)]
	}
	for i := range res.Rows {
		res.Rows[i].Key = move(res.Rows[i].Key)
		res.Rows[i].Value = move(res.Rows[i].Value)
	}
}

// refused decides what an error means for an op. All but those at the end prove
// that the attempt did not and will not take effect, so that the op may be sent
// again as it is.
func (c *Core) refused(o *op, err error) {
	var notLeader *shard.NotLeaderError
	var wrongShard *shard.WrongShardError
	var lost *shard.OutcomeLostError
	o.last = err
	switch {
	case errors.As(err, &notLeader):
		c.stats.retriesNotLeader.Add(1)
		c.notLeader(o, notLeader)
	case errors.As(err, &wrongShard):
		c.stats.retriesWrongShard.Add(1)
		c.wrongShard(o, wrongShard)
	case errors.Is(err, shard.ErrBusy):
		c.stats.retriesBusy.Add(1)
		c.restFor(o, busyBackoff)
	case errors.Is(err, shard.ErrNoRevision):
		// Nothing is wrong with the shard or its leader: the same one is asked again.
		c.stats.retriesNoRevision.Add(1)
		c.restFor(o, revisionBackoff)
	case errors.Is(err, shard.ErrDropped):
		c.stats.retriesDropped.Add(1)
		c.again(o)
	case errors.Is(err, shard.ErrUnavailable):
		c.stats.retriesUnavailable.Add(1)
		c.elsewhere(o)
	case !o.write() && unknowing(err) && o.faults < faultsMax:
		c.stats.retriesFaults.Add(1)
		o.faults++
		c.elsewhere(o)
	case errors.As(err, &lost):
		c.finish(o, shard.Result{}, err) // no attempt will be told more
	case o.write() && errors.Is(err, shard.ErrUndetermined):
		// Whoever led when the attempt was made answers: the same one is asked again,
		// and says who does if it leads no more.
		if c.unanswered(o, err) {
			c.restFor(o, routeBackoff)
		}
	case o.write() && unknowing(err):
		if c.unanswered(o, err) {
			c.elsewhere(o)
		}
	default:
		c.finish(o, shard.Result{}, err)
	}
}

// faultsMax bounds how often a read is repeated that servers failed to do.
const faultsMax = 4

// notLeader follows a hint at once if it leads somewhere new, and looks
// elsewhere after a short rest otherwise.
func (c *Core) notLeader(o *op, e *shard.NotLeaderError) {
	o.anywhere = false // the replica lags; the leader does not
	hint := router.Leader{Replica: e.Leader.Replica, Node: e.Leader.Node}
	if r, ok := c.routes.Shard(o.target.Shard); ok && hint.Node != 0 && hint.Replica == 0 {
		m, _ := r.Descriptor.ReplicaOn(hint.Node)
		hint.Replica = m.ID
	}
	if hint.Node == 0 || hint.Replica == 0 {
		c.elsewhere(o)
		return
	}
	c.learn(hint.Node, e.Leader.Address)
	if hint.Replica != o.target.Replica {
		// It says itself that another one leads: whatever was known.
		c.routes.LeaderFailed(o.target.Shard, o.target.Replica, o.target.Term)
	}
	c.setLeader(o.target.Shard, hint, e.Leader.Term)
	if r, ok := c.lookup(o); ok && c.leadsOn(o, r) {
		c.again(o)
		return
	}
	c.restFor(o, routeBackoff)
}

// leadsOn tells whether a route names a leader that answers, and to whom the
// last attempt was not addressed.
func (c *Core) leadsOn(o *op, r *router.Route) bool {
	t := r.Target()
	if o.kindIgnoresTerm() {
		t.Term = o.target.Term
	}
	return r.Leader.Node != 0 && t != o.target && c.usable(r.Leader.Node) != nil
}

// kindIgnoresTerm: servers compare the term of writes only.
func (o *op) kindIgnoresTerm() bool { return !o.write() }

// wrongShard takes in what the server knows. If that does not lead anywhere
// else the route itself is doubted, and the directory asked.
func (c *Core) wrongShard(o *op, e *shard.WrongShardError) {
	c.insertAll(e)
	r, ok := c.lookup(o)
	if ok && (r.Descriptor.ID != o.target.Shard || r.Descriptor.Epoch.Version != o.target.Version) {
		c.again(o)
		return
	}
	if o.detour || o.doubted {
		c.restFor(o, routeBackoff)
		return
	}
	if o.system {
		// Where the meta shard is, only the nodes can tell.
		c.refresh()
		c.elsewhere(o)
		return
	}
	o.avoid, o.doubted = o.target.Replica, true
	c.routes.Remove(o.target.Shard, o.target.Version)
	c.again(o)
}

// elsewhere rests and then tries another replica.
func (c *Core) elsewhere(o *op) {
	c.routes.LeaderFailed(o.target.Shard, o.target.Replica, o.target.Term)
	o.avoid = o.target.Replica
	c.restFor(o, routeBackoff)
}
