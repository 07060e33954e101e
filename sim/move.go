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
	stage    *Stage
	shard    shard.ID
	from, to *Node
	ended    func()
}

// moveLookEvery is the pause between two looks of a mover.
const moveLookEvery = 30 * time.Millisecond

func (m *mover) start() { m.stage.After(moveLookEvery, m.look) }

func (m *mover) look() {
	leader, state := m.stage.leads(m.shard)
	if leader == nil {
		m.start()
		return
	}
	changes := m.next(&state.Descriptor)
	if changes == nil {
		m.stage.note("shard %d has moved from %s to %s", m.shard, m.from.Name, m.to.Name)
		m.ended()
		return
	}
	if len(changes) > 0 {
		leader.node.ChangeMembership(shard.MembershipChange{Shard: m.shard, Epoch: state.Descriptor.Epoch, Changes: changes}, func(_ shard.Descriptor, err error) {
			m.stage.note("shard %d: %+v: %v", m.shard, changes, err)
		})
	}
	m.start()
}

// next is what is to be changed; nothing at all: the move is done, an empty list: wait.
// Who leaves the joint configuration is the group's own affair.
func (m *mover) next(d *shard.Descriptor) []shard.Change {
	from, old := d.ReplicaOn(m.from.ID)
	to, added := d.ReplicaOn(m.to.ID)
	switch {
	case d.Joint():
		return []shard.Change{}
	case !added:
		return []shard.Change{{Kind: shard.AddLearner, Replica: d.NextReplica, Node: m.to.ID}}
	case to.Role == shard.Learner && old && from.Role == shard.Voter:
		return []shard.Change{{Kind: shard.Promote, Replica: to.ID}, {Kind: shard.Demote, Replica: from.ID}}
	case to.Role == shard.Learner:
		return []shard.Change{{Kind: shard.Promote, Replica: to.ID}}
	case old && from.Role == shard.Learner:
		return []shard.Change{{Kind: shard.RemoveLearner, Replica: from.ID}}
	case old:
		return []shard.Change{{Kind: shard.Demote, Replica: from.ID}}
	}
	return nil
}

// leads is the node whose replica believes to lead a shard in the highest term, and its
// state; nil: none does.
func (s *Stage) leads(id shard.ID) (best *Node, state storage.ReplicaState) {
	var l raftgroup.Leadership
	for _, n := range s.run.cluster.nodes {
		if r, here := s.replica(n, id); here && r.Leadership().Leading && r.Leadership().Term > l.Term {
			best, l = n, r.Leadership()
			state, _ = r.State()
		}
	}
	return best, state
}
