package sim

import (
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Scout is a client without a memory of who leads: it asks every node for the same key
// at the same time, and hands a write to whoever believes to lead. Whoever answers
// must be right. So it notices a leader that was deposed and does not know,
// which a client that goes where it was sent last rarely does.
type Scout struct {
	load     *Workload
	env      *Env
	session  shard.Session
	sequence uint64
	every    time.Duration
}

// NewScout makes a scout that acts every so often, on average.
func NewScout(w *Workload, every time.Duration) *Scout {
	l := w.cluster.loop
	return &Scout{load: w, env: l.NewEnv("scout", clockExact), session: shard.Session(l.rand.Uint64() | 1), every: every}
}

// Start lets the scout act until the workload stops.
func (s *Scout) Start() {
	l := s.load.cluster.loop
	s.load.cluster.net.in(s.env, l.between(0, 2*s.every), "scout", func() {
		if s.load.stopped {
			return
		}
		key := s.load.keys[l.rand.IntN(len(s.load.keys))]
		switch kind := l.rand.IntN(9); {
		case s.load.cfg.Plain && kind < 3, kind < 2:
			s.put(key)
		case s.load.cfg.Plain, kind < 5:
			s.get(key)
		case kind == 5:
			s.putOften(key)
		case kind == 6:
			s.draw()
		default:
			s.getAt(key)
		}
		s.Start()
	})
}

func (s *Scout) get(key []byte) {
	for _, n := range s.load.cluster.nodes {
		o := s.begin(shard.KindGet, key, "")
		s.send(n, shard.Command{Kind: shard.KindGet, Key: key}, func(p shard.Response) {
			how := refused
			if p.Err == nil {
				how = done
				o.Found = p.Result.Found
				if o.Found {
					o.Value, o.Rev = string(p.Result.Value), p.Result.Revision
				}
			}
			s.end(n, o, how, p.Err)
		})
	}
}

// put hands a write of its own to each node that believes to lead.
func (s *Scout) put(key []byte) {
	for _, n := range s.leaders(key) {
		o := s.begin(shard.KindPut, key, s.load.value(0))
		s.send(n, shard.Command{Kind: shard.KindPut, Key: key, Value: []byte(o.Value)}, func(p shard.Response) {
			how := classify(p.Err)
			if how == done {
				s.load.Acked++
				o.Rev = p.Result.Revision
				s.load.memory.revision(o.Rev)
			}
			s.end(n, o, how, p.Err)
		})
	}
}

// leaders are the nodes that believe to lead the shard that covers a key: for some that is
// one which was split there.
func (s *Scout) leaders(key []byte) (believers []*Node) {
	for _, n := range s.load.cluster.nodes {
		if !n.Serving() {
			continue
		}
		if r := n.covering(key); r != nil && r.Leadership().Leading {
			believers = append(believers, n)
		}
	}
	return believers
}

// putOften hands several attempts of one write to whoever believes to lead, at
// once and later: late ones of all kinds, after the write was answered. All are
// marked, as those of a caller are who brings its own operation.
func (s *Scout) putOften(key []byte) {
	c := s.load.cluster
	o := s.begin(shard.KindPut, key, s.load.value(0))
	s.sequence++
	cmd := shard.Command{Kind: shard.KindPut, Key: key, Value: []byte(o.Value), Retry: true,
		Op: shard.OpID{Session: s.session, Sequence: s.sequence}, Birth: s.load.memory.newest()}
	waiting, how := 0, refused
	attempt := func(n *Node) {
		s.send(n, cmd, func(p shard.Response) {
			waiting--
			switch classify(p.Err) {
			case done:
				if how == done && o.Rev != p.Result.Revision {
					c.witness.Fail("two attempts of one write were answered with revisions %d and %d: %v", o.Rev, p.Result.Revision, o)
				}
				if how != done {
					how, o.Rev = done, p.Result.Revision
					s.load.Acked++
					s.load.memory.revision(o.Rev)
					s.end(n, o, done, nil)
				}
			case undetermined:
				how = max(how, undetermined)
			}
			if waiting == 0 && o.Outcome == pending {
				s.end(n, o, how, p.Err)
			}
		})
	}
	for range 2 + c.loop.rand.IntN(2) {
		waiting++
		c.net.in(s.env, c.loop.between(0, 400*time.Millisecond), "attempt", func() {
			believers := s.leaders(key)
			if len(believers) == 0 {
				waiting--
			}
			for i, n := range believers {
				if i > 0 {
					waiting++
				}
				attempt(n)
			}
		})
	}
}

// draw asks every node for a revision, whether it leads the meta shard or not.
func (s *Scout) draw() {
	for _, n := range s.load.cluster.nodes {
		s.drawAt(n)
	}
}

// drawAt asks a node for a revision.
func (s *Scout) drawAt(n *Node) *Op {
	o := s.load.history.Begin(&Op{Kind: shard.KindDraw, Shard: shard.MetaID, Count: 1, At: s.load.cluster.loop.now})
	s.send(n, shard.Command{Kind: shard.KindDraw, Limit: 1}, func(p shard.Response) {
		how := refused
		if p.Err == nil {
			how = done
			o.Rev = p.Result.Revision
			s.load.memory.revision(o.Rev)
		}
		s.end(n, o, how, p.Err)
	})
	return o
}

// getAt asks every node for what a key held at one revision.
func (s *Scout) getAt(key []byte) {
	rev := s.load.memory.asked()
	if rev == 0 {
		return
	}
	for _, n := range s.load.cluster.nodes {
		s.readAt(n, key, rev, func() {})
	}
}

// readAt asks a node for what a key held at a revision; then runs when it has
// answered.
func (s *Scout) readAt(n *Node, key []byte, rev shard.Revision, then func()) {
	c := s.load.cluster
	seen := &Snapshot{At: rev, Shard: c.shardOf(key), Key: string(key), Asked: true, Call: s.load.history.now(), Time: c.loop.now}
	s.send(n, shard.Command{Kind: shard.KindGet, Key: key, Revision: rev, AnyReplica: true}, func(p shard.Response) {
		s.load.Operations++
		if p.Err == nil {
			s.load.ReadsAt++
			if seen.Found = p.Result.Found; seen.Found {
				seen.Value, seen.Rev = string(p.Result.Value), p.Result.Revision
			}
			s.load.history.Saw(seen)
			c.trace.Detail(c.loop.now, "scout", "at %s: %v", n.Name, seen)
		}
		s.load.refusedAt(rev, p.Err)
		then()
	})
}

func (s *Scout) begin(kind shard.Kind, key []byte, value string) *Op {
	c := s.load.cluster
	return s.load.history.Begin(&Op{Kind: kind, Key: string(key), Value: value, Shard: c.shardOf(key), At: c.loop.now})
}

func (s *Scout) end(n *Node, o *Op, how outcome, err error) {
	s.load.Operations++
	s.load.history.End(o, how)
	if how != refused {
		c := s.load.cluster
		c.trace.Detail(c.loop.now, "scout", "at %s %v: %v", n.Name, o, err)
	}
}

// send carries a command to whatever replica of a node covers its key, as the node knows,
// and its answer back, unless either is lost; there is no answer then. A command that has
// no ID is given one.
func (s *Scout) send(n *Node, cmd shard.Command, answer func(shard.Response)) {
	net := s.load.cluster.net
	there := n.env
	if !n.Serving() || net.cut("scout", n.Name) {
		return
	}
	s.sequence++
	id := s.sequence
	if cmd.Op == (shard.OpID{}) {
		cmd.Op = shard.OpID{Session: s.session, Sequence: id}
	}
	net.in(there, net.latency(), "scouted", func() {
		r := n.covering(cmd.Anchor())
		if r == nil {
			answer(shard.Response{Err: shard.ErrUnavailable})
			return
		}
		state, _ := r.State()
		q := shard.Request{ID: id, Command: shard.AppendCommand(nil, &cmd),
			Target: shard.Target{Shard: state.Descriptor.ID, Version: state.Descriptor.Epoch.Version, Replica: r.Group().Replica(), Term: r.Leadership().Term}}
		n.store().Execute(q, func(p shard.Response) {
			// The response's slices are gone when this returns: it travels encoded.
			frame := shard.AppendResponse(shard.BeginResponses(nil, 0), &p)
			net.in(s.env, net.latency(), "scout's answer", func() {
				if _, err := shard.DecodeResponses(frame, answer); err != nil {
					n.fail("a response that does not decode", err)
				}
			})
		})
	})
}
