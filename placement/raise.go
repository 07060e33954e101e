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
	// kept is how many voters stay, factor how many there are to be.
	kept, factor int
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
	n.factor = p.factor(d.ID, n.kept+hosts)
	n.voters = max(0, min(n.factor-n.kept, hosts))
	if surplus := n.kept + n.voters + len(gone) - n.factor; surplus > 0 {
		n.demoted = p.deadFirst(gone)[:min(surplus, len(gone))]
	}
	p.needOdd(d, &n)
	return n
}

// needOdd has the meta shard that loses one of five voters, for which there is no other
// node, lose another one with it.
func (p *Plan) needOdd(d *shard.Descriptor, n *need) {
	if d.ID != shard.MetaID || len(n.demoted) == 0 || n.kept <= n.factor || (n.kept-n.factor)%2 == 0 {
		return
	}
	var least *shard.Replica
	stay := p.staying(d)
	for i := range stay {
		if r := &stay[i]; votes(*r) && (least == nil || p.missedLess(stay, r, least)) {
			least = r
		}
	}
	n.demoted = append(n.demoted, *least)
	n.kept--
}

// missedLess tells whether a voter is missed less than another of those that stay: its node
// does not answer, or is to lead nothing, or is nearer to the others, or else it is the
// later one.
func (p *Plan) missedLess(stay []shard.Replica, r, than *shard.Replica) bool {
	a, b := p.node(r.Node), p.node(than.Node)
	if a == nil || b == nil {
		return a == nil
	}
	if a.host() != b.host() {
		return !a.host()
	}
	if near, nearer := p.apartFrom(a, stay, a.id), p.apartFrom(b, stay, b.id); near != nearer {
		return near < nearer
	}
	return r.ID > than.ID
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
		if p.settling && n.voters < n.factor-n.kept {
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
	to := p.roomiest(s, learners == 0)
	if to == nil {
		return Step{}, false
	}
	return p.addLearner(s, to.id), true
}

func (p *Plan) addLearner(s *Shard, to shard.NodeID) Step {
	st := s.step(AddLearner)
	st.Node, st.Replica = to, s.Descriptor.NextReplica
	return st
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
	st := s.step(Joint)
	st.Promoted, st.Demoted = promoted, demoted
	return st, true
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
		if p.isGone(r.Node) || s.Spare && !p.paused && n.kept >= n.factor {
			return p.removeLearner(s, r), true
		}
	}
	return Step{}, false
}

func (p *Plan) removeLearner(s *Shard, r shard.Replica) Step {
	st := s.step(RemoveLearner)
	st.Node, st.Replica = r.Node, r.ID
	return st
}

// roomiest is the host without a replica of the shard that is to have the next one: the
// farthest from those that stay, of these one that is not low on space, of these the one
// that holds the least for its room, the smaller ID first; nil if there is none. If
// bounded, nodes that wait for as many learners as they may are left out.
func (p *Plan) roomiest(s *Shard, bounded bool) *nodeCount {
	d := &s.Descriptor
	var stay []shard.Replica
	if p.located() {
		stay = p.staying(d)
	}
	var best *nodeCount
	var bestApart int
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.host() || bounded && n.learners >= p.limits.LearnersMax || p.full(n, s.size()) {
			continue
		}
		if _, member := d.ReplicaOn(n.id); member {
			continue
		}
		apart := p.apartFrom(n, stay, 0)
		if best == nil || p.roomier(n, best, apart-bestApart) {
			best, bestApart = n, apart
		}
	}
	return best
}

// roomier tells whether a replica had rather go to n, which is farther from the others by
// so much, than to than.
func (p *Plan) roomier(n, than *nodeCount, farther int) bool {
	if farther != 0 {
		return farther > 0
	}
	if low := p.low(n); low != p.low(than) {
		return !low
	}
	return n.score() < than.score()
}

// staying are the members of d whose nodes keep them.
func (p *Plan) staying(d *shard.Descriptor) (stay []shard.Replica) {
	for _, r := range d.Replicas {
		if !p.isGone(r.Node) {
			stay = append(stay, r)
		}
	}
	return stay
}
