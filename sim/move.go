package sim

import (
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// mover moves a shard's replica from one node to another, as whoever drives a move
// does: it looks at what the leader's descriptor says, and asks for what comes next. It
// remembers nothing but where from and where to, so that it goes on after whatever
// crash or refusal.
type mover struct {
	nemesis  *Nemesis
	shard    shard.ID
	from, to *Node
	ended    func()
}

// moveLookEvery is the pause between two looks of a mover.
const moveLookEvery = 30 * time.Millisecond

func (m *mover) start() {
	m.nemesis.cluster.loop.After(moveLookEvery, "move", func() {
		if !m.nemesis.stopped {
			m.look()
		}
	})
}

func (m *mover) look() {
	leader, state := m.nemesis.cluster.leads(m.shard)
	if leader == nil {
		m.start()
		return
	}
	changes, done := m.next(&state.Descriptor)
	if done {
		m.nemesis.moves++
		m.nemesis.event("shard %d has moved from %s to %s", m.shard, m.from.Name, m.to.Name)
		m.ended()
		return
	}
	if m.nemesis.cluster.loop.chance(20) {
		// Some do not know the rules. A voter is not removed just like that.
		changes = []shard.Change{{Kind: shard.RemoveLearner, Replica: state.Descriptor.Replicas[0].ID}}
	}
	epoch := state.Descriptor.Epoch
	if m.nemesis.cluster.loop.chance(50) {
		epoch.ConfVersion-- // others have not heard the news
	}
	if len(changes) > 0 {
		leader.node.ChangeMembership(shard.MembershipChange{Shard: m.shard, Epoch: epoch, Changes: changes}, func(_ shard.Descriptor, err error) {
			m.nemesis.event("shard %d: %+v: %v", m.shard, changes, err)
		})
	}
	m.start()
}

// next is what is to be changed; nothing: wait. Who leaves the joint configuration is the
// group's own affair.
func (m *mover) next(d *shard.Descriptor) (changes []shard.Change, done bool) {
	from, old := d.ReplicaOn(m.from.ID)
	to, added := d.ReplicaOn(m.to.ID)
	switch {
	case d.Joint():
		return nil, false
	case !added:
		return []shard.Change{{Kind: shard.AddLearner, Replica: d.NextReplica, Node: m.to.ID}}, false
	case to.Role == shard.Learner && old && from.Role == shard.Voter:
		return []shard.Change{{Kind: shard.Promote, Replica: to.ID}, {Kind: shard.Demote, Replica: from.ID}}, false
	case to.Role == shard.Learner && enoughVoters(d):
		return nil, true // placement has replaced the one that was to leave; it removes the learner
	case to.Role == shard.Learner:
		return []shard.Change{{Kind: shard.Promote, Replica: to.ID}}, false
	case old && from.Role == shard.Learner:
		return []shard.Change{{Kind: shard.RemoveLearner, Replica: from.ID}}, false
	case old:
		return []shard.Change{{Kind: shard.Demote, Replica: from.ID}}, false
	}
	return nil, true
}

// leads is the node whose replica believes to lead a shard, in the highest term, and its
// state; nil: none does.
func (c *Cluster) leads(id shard.ID) (best *Node, state storage.ReplicaState) {
	var l raftgroup.Leadership
	for _, n := range c.nodes {
		if !n.Serving() {
			continue
		}
		if r, here := n.store().Replica(id); here && r.Leadership().Leading && r.Leadership().Term > l.Term {
			best, l = n, r.Leadership()
			state, _ = r.State()
		}
	}
	return best, state
}

// move begins to move a drawn replica of a shard to a drawn node that has none, and
// tells whether it could: the shard must have all its voters, and a node to spare.
func (n *Nemesis) move(id shard.ID, ended func()) bool {
	leader, state := n.cluster.leads(id)
	if leader == nil || state.Descriptor.Joint() {
		return false
	}
	var from, to []*Node
	for _, node := range n.cluster.nodes {
		if r, here := state.Descriptor.ReplicaOn(node.ID); !here {
			to = append(to, node)
		} else if r.Role == shard.Voter {
			from = append(from, node)
		}
	}
	if len(to) == 0 || len(from) < replicationFactor {
		return false
	}
	l := n.cluster.loop
	m := &mover{nemesis: n, shard: id, from: from[l.rand.IntN(len(from))], to: to[l.rand.IntN(len(to))], ended: ended}
	n.event("move shard %d from %s to %s", id, m.from.Name, m.to.Name)
	m.start()
	return true
}

// moveOne begins a move of a drawn shard, unless one of it is under way.
func (n *Nemesis) moveOne() bool {
	id := n.cluster.anyShard().ID
	if n.moving[id] {
		return false
	}
	n.moving[id] = n.move(id, func() { delete(n.moving, id) })
	return n.moving[id]
}

// enoughVoters tells whether another voter would be one too many.
func enoughVoters(d *shard.Descriptor) bool {
	voters := 0
	for _, r := range d.Replicas {
		if r.Role == shard.Voter {
			voters++
		}
	}
	return voters >= replicationFactor
}
