package replica

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// Execute carries out one request that comes on no stream: no later attempt of the
// same operation may be made while it is under way. reply is called exactly
// once, from any step, perhaps before Execute returns; the response's slices are
// valid only during reply. Execute keeps q.Command until then. It never blocks.
// Writes to the system keyspace are refused with an InvalidError.
func (s *Store) Execute(q shard.Request, reply func(shard.Response)) {
	s.execute(&q, false, nil, reply)
}

// ExecuteTrusted is Execute for a node, which may write to the system keyspace.
func (s *Store) ExecuteTrusted(q shard.Request, reply func(shard.Response)) {
	s.execute(&q, true, nil, reply)
}

func (s *Store) execute(q *shard.Request, trusted bool, st *Stream, reply func(shard.Response)) {
	var c shard.Command
	err := decode(q.Command, trusted, &c)
	var r *Replica
	if err == nil {
		r, err = s.admit(&q.Target, &c)
	}
	if err != nil {
		s.refuse(q.ID, err, reply)
		return
	}
	switch {
	case c.Kind.Write():
		s.write(r, q, &c, st, reply)
		return
	case c.Kind == shard.KindDraw:
		s.draw(r, q.ID, &c, reply)
		return
	}
	s.read(r, q, &c, reply)
}

func decode(b []byte, trusted bool, c *shard.Command) error {
	if len(b) > shard.RequestBytesMax {
		return &shard.InvalidError{Field: "request", Reason: fmt.Sprintf("has %d bytes, the limit is %d", len(b), shard.RequestBytesMax)}
	}
	if err := shard.DecodeCommand(b, c); err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	switch system := c.System(); {
	case system && c.Kind.Write() && !trusted:
		return &shard.InvalidError{Field: "key", Reason: "is in the system keyspace, which only nodes write"}
	case c.Kind == shard.KindDraw && c.Limit > 1 && !trusted:
		return &shard.InvalidError{Field: "draw", Reason: "is of more than one revision, which only nodes ask for"}
	case system && c.Revision != 0:
		return &shard.InvalidError{Field: "revision", Reason: "is set for the system keyspace, which has no versions"}
	}
	return nil
}

// admit finds the replica that an attempt is meant for, or says where else to
// try. All of the target must be as it is now: an attempt that was delayed until
// the shard, its leader or its term are others might follow a later attempt of
// the same operation that was already carried out.
func (s *Store) admit(t *shard.Target, c *shard.Command) (*Replica, error) {
	r, ok := s.replicas.get(t.Shard)
	if !ok {
		return nil, s.wrongShard(t.Shard, nil, c)
	}
	d, l := r.descriptor.Load(), r.leadership.Load()
	if d == nil {
		return nil, r.notLeader()
	}
	// A follower that lags behind the client's epoch knows nothing worth telling;
	// the leader does.
	fits := t.Version == d.Epoch.Version && begins(c, d.Span)
	if !fits {
		if l.Leading || t.Version <= d.Epoch.Version {
			return nil, s.wrongShard(t.Shard, r, c)
		}
	}
	if fits && c.AnyReplica {
		// Whoever has the revision reads the same at it, whatever it knows of leaders.
		return r, nil
	}
	if !l.Leading || t.Replica != r.self || c.Kind.Write() && t.Term != l.Term {
		return nil, r.notLeader()
	}
	if !c.Within(d.Span) {
		if err := s.parted(r, d, c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// parted refuses a write that begins in a shard's span and does not lie in it.
// The caller of a batch must make it smaller, that of a delete-range cut it off at
// the span's end. A later attempt can do neither. A scan ends at the span's end of
// itself.
func (s *Store) parted(r *Replica, d *shard.Descriptor, c *shard.Command) error {
	switch {
	case !c.Kind.Write():
		return nil
	case c.Retry:
		return d.Parted()
	case c.Kind == shard.KindBatch:
		return shard.ErrSpansShards
	}
	return s.wrongShard(r.id, r, c)
}

// wrongShard carries what this node knows of the command's surroundings: the named
// shard's descriptor, that of the shard that covers the place, and who leads them. r is
// the named shard's replica; nil: there is none.
func (s *Store) wrongShard(id shard.ID, r *Replica, c *shard.Command) error {
	e := &shard.WrongShardError{Shard: id}
	known := [...]*Replica{r, s.replicas.covering(c)}
	for i, r := range known {
		if r == nil || i > 0 && r == known[0] {
			continue
		}
		if d := r.descriptor.Load(); d != nil {
			e.Descriptors = append(e.Descriptors, *d)
			e.Leaders = append(e.Leaders, r.leaderHint())
		}
	}
	return e
}

// notLeader carries what the replica knows of its leader, which may be itself in
// another term than the attempt's.
func (r *Replica) notLeader() error {
	return &shard.NotLeaderError{Shard: r.id, Leader: r.leaderHint()}
}

// leaderHint is what the replica knows of its leader; zero if that would bring the caller
// back at once: it was elected and is not ready.
func (r *Replica) leaderHint() shard.LeaderHint {
	l := r.leadership.Load()
	if l.Node == 0 || l.Leader == r.self && !l.Leading {
		return shard.LeaderHint{}
	}
	return shard.LeaderHint{Replica: l.Leader, Node: l.Node, Term: l.Term, Address: r.store.cfg.Address(l.Node)}
}

// hinted adds to a group's NotLeaderError the address, which groups do not know.
func (r *Replica) hinted(err error) error {
	e, ok := err.(*shard.NotLeaderError)
	if !ok {
		return err
	}
	if e.Leader.Node == 0 {
		return r.notLeader()
	}
	with := *e
	with.Leader.Address = r.store.cfg.Address(e.Leader.Node)
	return &with
}

func (s *Store) refuse(id uint64, err error, reply func(shard.Response)) {
	s.stats.failed(err)
	reply(shard.Response{ID: id, Err: err})
}
