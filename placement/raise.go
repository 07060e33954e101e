package placement

import "github.com/kiloraft/kiloraft/shard"

// missing is how many voters the shard lacks: it shall have as many voters on
// live nodes as the replication factor says and live nodes allow, and never more
// voters than the replication factor, dead ones included.
func (p *Plan) missing(d *shard.Descriptor) int {
	onLive := 0
	for _, r := range d.Replicas {
		if votes(r) && p.isLive(r.Node) {
			onLive++
		}
	}
	rf := p.limits.ReplicationFactor
	return min(min(rf, p.live)-onLive, rf-voters(d))
}

// Waits tells whether the shard lacks voters and has the learners to become
// them, so that nothing is to be done until these have caught up.
func (p *Plan) Waits(s *Shard) bool {
	missing := p.missing(&s.Descriptor)
	if missing <= 0 || s.InFlight != nil || s.Descriptor.Joint() {
		return false
	}
	learners := 0
	for _, r := range s.Descriptor.Replicas {
		if r.Role == shard.Learner && p.isLive(r.Node) {
			learners++
		}
	}
	return learners >= missing
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

// raise decides the next step towards the voters that the shard lacks. Between
// one voter and three there is no configuration of two that lasts, in which a
// single failure would stop the shard: learners become voters together.
func (p *Plan) raise(s *Shard, missing int) (Step, bool) {
	d := &s.Descriptor
	var ready []shard.Replica
	learners := 0
	for _, r := range d.Replicas {
		if r.Role != shard.Learner || !p.isLive(r.Node) {
			continue
		}
		learners++
		// A learner that is behind, or not there, would be a voter that no
		// majority can count on.
		if s.caughtUp(r.ID) && len(ready) < missing {
			ready = append(ready, r)
		}
	}
	if len(ready) == missing {
		if p.settling && missing < p.limits.ReplicationFactor-voters(d) {
			return Step{}, false // wait for the nodes that would make it complete
		}
		return Step{Kind: Promote, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Promoted: ready}, true
	}
	if learners >= missing {
		return Step{}, false // they have yet to catch up
	}
	// The bound on learners holds where a raise begins. If it held for the second
	// learner too, shards that wait for their second one could fill each other's
	// nodes for ever.
	to := p.roomiest(d, learners == 0)
	if to == nil {
		return Step{}, false
	}
	return Step{Kind: AddLearner, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, Node: to.id, Replica: d.NextReplica}, true
}

// roomiest is the live node without a replica of d that has the fewest replicas,
// the smaller ID first; nil if there is none. If bounded, nodes that wait for as
// many learners as they may are left out.
func (p *Plan) roomiest(d *shard.Descriptor, bounded bool) *load {
	var best *load
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.live || bounded && n.learners >= p.limits.LearnersMax || best != nil && n.replicas >= best.replicas {
			continue
		}
		if _, member := d.ReplicaOn(n.id); !member {
			best = n
		}
	}
	return best
}
