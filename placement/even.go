package placement

import (
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// evenDiffMin is how many replicas more than another a node has when one of them
// moves there: also after the move it has more. It leaves alone what a person's
// move makes of an even spread, and makes moves come to an end: each of them makes
// two nodes' counts more equal.
const evenDiffMin = 3

// evenOut decides and takes moves of replicas from the node that has the most to
// the one that has the fewest, as many as may be under way. Moves under way count
// as done.
func (p *Plan) evenOut(settled []*Shard) (steps []Step) {
	for p.moves < p.limits.MovesMax && !p.Full() {
		from, to := p.widest()
		if from == nil || from.replicas-to.replicas < evenDiffMin || to.learners >= p.limits.LearnersMax {
			return steps
		}
		s := p.movable(settled, from.id, to.id, steps)
		if s == nil {
			return steps
		}
		st := p.addLearner(s, to.id)
		st.Task = &Task{From: from.id, To: to.id, Auto: true}
		p.Take(&st)
		steps = append(steps, st)
	}
	return steps
}

// widest are the hosts with the most and with the fewest replicas, the smaller IDs first.
func (p *Plan) widest() (most, least *load) {
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.host() {
			continue
		}
		if most == nil || n.replicas > most.replicas {
			most = n
		}
		if least == nil || n.replicas < least.replicas {
			least = n
		}
	}
	return most, least
}

// movable is the shard whose voter on from best moves to to: one that from does not
// lead, so that no leader has to move. The meta shard stays: placement itself would
// move with it.
func (p *Plan) movable(settled []*Shard, from, to shard.NodeID, taken []Step) (best *Shard) {
next:
	for i := len(settled) - 1; i >= 0; i-- {
		s := settled[i]
		d := &s.Descriptor
		if r, ok := d.ReplicaOn(from); !ok || r.Role != shard.Voter {
			continue
		}
		if _, ok := d.ReplicaOn(to); ok || voters(d) != len(d.Replicas) || !p.allAnswer(s) {
			continue
		}
		for k := range taken {
			if taken[k].Shard == d.ID {
				continue next
			}
		}
		if s.Leader != from {
			return s
		}
		if best == nil {
			best = s
		}
	}
	return best
}

// allAnswer tells whether all members do: a move would wait for those that do not.
func (p *Plan) allAnswer(s *Shard) bool {
	return !slices.ContainsFunc(s.Descriptor.Replicas, func(r shard.Replica) bool { return !p.answers(s, r) })
}
