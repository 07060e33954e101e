package sim

import (
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// Stage is what a directed run is played on: one that brings about an interleaving
// which drawn faults reach too rarely. What is arranged happens until the clients
// have worked for their time; then all is healed, and checked, as in any run.
type Stage struct{ run *run }

// lookEvery is how often a stage looks whether something has come about.
const lookEvery = time.Millisecond

// Every carries out a step at drawn intervals of up to twice d.
func (s *Stage) Every(d time.Duration, step func()) {
	s.After(s.run.loop.between(d/10, 2*d), func() {
		step()
		s.Every(d, step)
	})
}

// After carries out a step after d.
func (s *Stage) After(d time.Duration, step func()) {
	s.run.loop.After(d, "stage", func() {
		if !s.run.nemesis.stopped {
			step()
		}
	})
}

// When carries out a step as soon as something has come about.
func (s *Stage) When(about func() bool, step func()) {
	s.After(lookEvery, func() {
		if about() {
			step()
			return
		}
		s.When(about, step)
	})
}

// Leader is the node that leads a shard and is known to by a majority; nil: none is.
func (s *Stage) Leader(id shard.ID) *Node {
	believers := make(map[shard.ReplicaID]int)
	for _, n := range s.run.cluster.nodes {
		if r, here := s.replica(n, id); here {
			believers[r.Leadership().Leader]++
		}
	}
	for _, n := range s.run.cluster.nodes {
		if r, here := s.replica(n, id); here && r.Leadership().Leading && 2*believers[r.Self()] > len(s.run.cluster.nodes) {
			return n
		}
	}
	return nil
}

func (s *Stage) replica(n *Node, id shard.ID) (*replica.Replica, bool) {
	if !n.Serving() {
		return nil, false
	}
	r, here := n.store().Replica(id)
	return r, here
}

// Transfer hands the leadership of a shard to a node.
func (s *Stage) Transfer(id shard.ID, to *Node) {
	from := s.Leader(id)
	if from == nil || from == to {
		return
	}
	a, _ := s.replica(from, id)
	if b, here := s.replica(to, id); here {
		s.note("transfer shard %d from %s to %s", id, from.Name, to.Name)
		a.Group().TransferLeader(b.Self(), func(error) {})
	}
}

// Cut closes the ways between two names, both of them, for d.
func (s *Stage) Cut(a, b string, d time.Duration) {
	s.run.nemesis.cutFor([]cut{{a, b}, {b, a}}, d)
}

// Pause stops a node's process for d.
func (s *Stage) Pause(n *Node, d time.Duration) {
	if n.Up() {
		s.note("pause %s for %v", n.Name, d)
		n.env.Pause(s.run.loop.now + d)
	}
}

// holdSlice is how far ahead a process is held at a time: a step that was put off
// for longer would not come back earlier.
const holdSlice = 2 * time.Millisecond

// Hold stops a node's process, and closes its ways to and from all others, until
// release is called. From then on scouts reach it. A moment later it goes on, and
// another moment later it hears from the rest.
func (s *Stage) Hold(n *Node) (release func()) {
	s.note("hold %s", n.Name)
	env, net, held := n.env, s.run.cluster.net, true
	const scout = "scout"
	others := []string{scout}
	for _, o := range s.run.cluster.nodes {
		if o != n {
			others = append(others, o.Name)
		}
	}
	for _, k := range s.run.load.clients {
		others = append(others, k.env.name)
	}
	for _, o := range others {
		net.Block(o, n.Name)
		net.Block(n.Name, o)
	}
	open := func(o string) {
		net.Open(o, n.Name)
		net.Open(n.Name, o)
	}
	var on func()
	on = func() {
		if held {
			env.Pause(s.run.loop.now + holdSlice)
			s.After(holdSlice/2, on)
		}
	}
	on()
	return func() {
		s.note("release %s", n.Name)
		held = false
		env.Pause(s.run.loop.now + holdSlice)
		open(scout)
		s.After(2*holdSlice, func() {
			for _, o := range others {
				open(o)
			}
		})
	}
}

// Stall holds what is on its way on a client's stream for d, and ends the stream for
// the client. It tells whether there was anything.
func (s *Stage) Stall(d time.Duration) bool {
	net := s.run.cluster.net
	for _, c := range net.live() {
		if c.trusted || c.door == nil || len(c.up.frames) == 0 {
			continue
		}
		s.note("stall what %s sends to %s for %v", c.client, c.door.node.Name, d)
		c.up.held = s.run.loop.now + d
		net.in(c.env, 0, "break", func() { c.lose(errReset) })
		return true
	}
	return false
}

func (s *Stage) note(format string, args ...any) {
	s.run.trace.Event(s.run.loop.now, "stage", format, args...)
}

// other draws a node that is none of those given.
func (s *Stage) other(not ...*Node) *Node {
	var others []*Node
	for _, n := range s.run.cluster.nodes {
		if !slices.Contains(not, n) {
			others = append(others, n)
		}
	}
	return others[s.run.loop.rand.IntN(len(others))]
}
