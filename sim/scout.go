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
		if l.rand.IntN(3) == 0 {
			s.put(key)
		} else {
			s.get(key)
		}
		s.Start()
	})
}

func (s *Scout) get(key []byte) {
	for _, n := range s.load.cluster.nodes {
		o := s.begin(shard.KindGet, key, "")
		s.send(n, o, shard.Command{Kind: shard.KindGet, Key: key}, func(p shard.Response) {
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
	c := s.load.cluster
	for _, n := range c.nodes {
		if !n.Serving() {
			continue
		}
		r, here := n.store().Replica(c.shardOf(key))
		if !here || !r.Leadership().Leading {
			continue
		}
		o := s.begin(shard.KindPut, key, s.load.value(0))
		s.send(n, o, shard.Command{Kind: shard.KindPut, Key: key, Value: []byte(o.Value)}, func(p shard.Response) {
			how := classify(p.Err)
			if how == done {
				s.load.Acked++
				o.Rev = p.Result.Revision
			}
			s.end(n, o, how, p.Err)
		})
	}
}

func (s *Scout) begin(kind shard.Kind, key []byte, value string) *Op {
	c := s.load.cluster
	return s.load.history.Begin(&Op{Kind: kind, Key: string(key), Value: value, Shard: c.shardOf(key), At: c.loop.now})
}

func (s *Scout) end(n *Node, o *Op, how outcome, err error) {
	s.load.history.End(o, how)
	if how != refused {
		c := s.load.cluster
		c.trace.Event(c.loop.now, "scout", "at %s kind %d of %s: revision %d, called at %v: %v", n.Name, o.Kind, shard.FormatKey([]byte(o.Key)), o.Rev, o.At, err)
	}
}

// send carries a command to a node and its answer back, unless either is lost;
// the operation then never returns.
func (s *Scout) send(n *Node, o *Op, cmd shard.Command, answer func(shard.Response)) {
	net := s.load.cluster.net
	there := n.env
	if !n.Serving() || net.cut("scout", n.Name) {
		return
	}
	s.sequence++
	cmd.Op = shard.OpID{Session: s.session, Sequence: s.sequence}
	id := s.sequence
	net.in(there, net.latency(), "scouted", func() {
		r, here := n.store().Replica(o.Shard)
		if !here {
			answer(shard.Response{Err: shard.ErrUnavailable})
			return
		}
		state, _ := r.State()
		q := shard.Request{ID: id, Command: shard.AppendCommand(nil, &cmd),
			Target: shard.Target{Shard: o.Shard, Version: state.Descriptor.Epoch.Version, Replica: r.Group().Replica(), Term: r.Leadership().Term}}
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
