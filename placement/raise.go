package placement

import (
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// need is what a shard's voters call for.
type need struct {
	// voters that are to be added, each on a node that may host one: never more
	// than there are such nodes.
	voters int
	// demoted are voters whose nodes are dead or leave, as far as the shard has
	// the replication factor without them once voters were added: those that are
	// not replaced stay, because a smaller shard tolerates less.
	demoted []shard.Replica
	// kept is how many voters stay.
	kept int
}

func (n *need) none() bool { return n.voters == 0 && len(n.demoted) == 0 }

// need compares the shard's voters with the replication factor. A voter on a node
// that does not answer counts until that node is dead.
func (p *Plan) need(d *shard.Descriptor) need {
	var n need
	var gone []shard.Replica
	hosts := p.hosts
	for _, r := range d.Replicas {
		if !votes(r) {
			continue
		}
		if p.isHost(r.Node) {
			hosts--
		}
		if p.isGone(r.Node) {
			gone = append(gone, r)
		} else {
			n.kept++
		}
	}
	rf := p.limits.ReplicationFactor
	n.voters = max(0, min(rf-n.kept, hosts))
	if surplus := n.kept + n.voters + len(gone) - rf; surplus > 0 {
		n.demoted = p.deadFirst(gone)[:min(surplus, len(gone))]
	}
	return n
}

// deadFirst orders voters that are to go: a dead one helps nobody any more.
func (p *Plan) deadFirst(gone []shard.Replica) []shard.Replica {
	var dead, leaving []shard.Replica
	for _, r := range gone {
		if p.node(r.Node).dead {
			dead = append(dead, r)
		} else {
			leaving = append(leaving, r)
		}
	}
	return append(dead, leaving...)
}

// Needs tells whether the shard lacks voters, or has some that are to be replaced.
func (p *Plan) Needs(s *Shard) bool {
	n := p.need(&s.Descriptor)
	return !n.none()
}

// Waits tells whether the shard has the learners that it needs, so that nothing
// is to be done until they have caught up.
func (p *Plan) Waits(s *Shard) bool {
	d := &s.Descriptor
	if s.InFlight != nil || d.Joint() {
		return false
	}
	if s.Task != nil {
		r, ok := d.ReplicaOn(s.Task.To)
		return ok && r.Role == shard.Learner && p.isLive(r.Node)
	}
	missing := p.need(d).voters
	return missing > 0 && p.usableLearners(d) >= missing
}

// usableLearners counts the learners that may become voters.
func (p *Plan) usableLearners(d *shard.Descriptor) (n int) {
	for _, r := range d.Replicas {
		if r.Role == shard.Learner && p.isHost(r.Node) {
			n++
		}
	}
	return n
}

// votes tells whether r is a voter once a joint configuration has been left.
func votes(r shard.Replica) bool { return r.Role == shard.Voter || r.Role == shard.Incoming }

func voters(d *shard.Descriptor) (n int) {
	for _, r := range d.Replicas {
		if votes(r) {
			n++
		}
	}
	return n
}

// raise decides the next step towards the voters that the shard needs. Between
// one voter and three there is no configuration of two that lasts, in which a
// single failure would stop the shard: learners become voters together, and in the
// place of those that are gone.
func (p *Plan) raise(s *Shard, n *need) (Step, bool) {
	d := &s.Descriptor
	var ready []shard.Replica
	for _, r := range d.Replicas {
		// A learner that is behind, or not there, would be a voter that no
		// majority can count on.
		if r.Role == shard.Learner && p.isHost(r.Node) && s.caughtUp(r.ID) && len(ready) < n.voters {
			ready = append(ready, r)
		}
	}
	if len(ready) == n.voters {
		if p.settling && n.voters < p.limits.ReplicationFactor-n.kept {
			return Step{}, false // wait for the nodes that would make it complete
		}
		return p.joint(s, ready, n.demoted)
	}
	learners := p.usableLearners(d)
	if learners >= n.voters {
		return Step{}, false // they have yet to catch up
	}
	// The bound on learners holds where a raise begins. If it held for the second
	// learner too, shards that wait for their second one could fill each other's
	// nodes for ever.
	to := p.roomiest(d, learners == 0)
	if to == nil {
		return Step{}, false
	}
	return p.addLearner(s, to.id), true
}

func (p *Plan) addLearner(s *Shard, to shard.NodeID) Step {
	d := &s.Descriptor
	return Step{Kind: AddLearner, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Node: to, Replica: d.NextReplica}
}

// joint decides a joint change. A leader that ceases to vote by it hands over
// first, so that the shard never waits for an election. If all who could take over
// are yet to be promoted, they are, and the leader goes in a later change. One that
// is the only voter there is hands over within the joint configuration, by itself.
func (p *Plan) joint(s *Shard, promoted, demoted []shard.Replica) (Step, bool) {
	d := &s.Descriptor
	if i := slices.IndexFunc(demoted, func(r shard.Replica) bool { return r.Node == s.Leader }); i >= 0 && voters(d) > 1 {
		if p.mayInherit(s, demoted) {
			return p.handOver(s, demoted)
		}
		demoted = slices.Delete(slices.Clone(demoted), i, i+1)
		if len(promoted) == 0 {
			return Step{}, false
		}
	}
	if _, waits := p.waits(s, len(promoted), demoted); waits {
		return Step{}, false
	}
	return Step{Kind: Joint, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Promoted: promoted, Demoted: demoted}, true
}

// waits tells whether a joint change that promotes some has to wait, and for whom: a
// voter that stays and does not answer, one that is gone rather than others. A promoted replica that is lost in that moment is
// a majority lost for the new configuration if the others there are too few without it;
// then the joint one can never be left, although the old one could do without it.
// Where all that stay answer, nothing is better for waiting.
func (p *Plan) waits(s *Shard, promoted int, demoted []shard.Replica) (silent shard.Replica, waits bool) {
	stay, answer := 0, 0
	for _, r := range s.Descriptor.Replicas {
		switch {
		case !votes(r) || slices.Contains(demoted, r):
			continue
		case p.answers(s, r):
			answer++
		case silent.ID == 0 || p.isGone(r.Node):
			silent = r
		}
		stay++
	}
	majority := (stay+promoted)/2 + 1
	return silent, promoted > 0 && answer < stay && answer+promoted-1 < majority
}

// answers tells whether a member is heard, by its leader and by placement.
func (p *Plan) answers(s *Shard, r shard.Replica) bool {
	if !p.isLive(r.Node) {
		return false
	}
	m := s.progress(r.ID)
	return r.Node == s.Leader || m != nil && m.Active
}

// mayInherit tells whether there is a voter, other than the leader and those in not,
// that may lead, now or once it has caught up.
func (p *Plan) mayInherit(s *Shard, not []shard.Replica) bool {
	return slices.ContainsFunc(s.Descriptor.Replicas, func(r shard.Replica) bool {
		return r.Role == shard.Voter && r.Node != s.Leader && p.isHost(r.Node) && !slices.Contains(not, r)
	})
}

// tidy removes a learner that nobody needs: one on a node that is dead or leaves
// at once, any other only if the shard has had all it needs for a while.
func (p *Plan) tidy(s *Shard, n *need) (Step, bool) {
	d := &s.Descriptor
	for _, r := range d.Replicas {
		if r.Role != shard.Learner {
			continue
		}
		if p.isGone(r.Node) || s.Spare && !p.paused && n.kept >= p.limits.ReplicationFactor {
			return p.removeLearner(s, r), true
		}
	}
	return Step{}, false
}

func (p *Plan) removeLearner(s *Shard, r shard.Replica) Step {
	d := &s.Descriptor
	return Step{Kind: RemoveLearner, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Node: r.Node, Replica: r.ID}
}

// roomiest is the host without a replica of d that has the fewest replicas, the
// smaller ID first; nil if there is none. If bounded, nodes that wait for as many
// learners as they may are left out.
func (p *Plan) roomiest(d *shard.Descriptor, bounded bool) *load {
	var best *load
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.host() || bounded && n.learners >= p.limits.LearnersMax || best != nil && n.replicas >= best.replicas {
			continue
		}
		if _, member := d.ReplicaOn(n.id); !member {
			best = n
		}
	}
	return best
}
