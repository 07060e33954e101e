package placement

import (
	"fmt"
	"strings"

	"github.com/kiloraft/kiloraft/shard"
)

// Explain says in words what the shard needs, what is being done about it, or why
// nothing is; "" if it needs nothing.
func (p *Plan) Explain(s *Shard) string {
	d := &s.Descriptor
	need := p.need(d)
	switch {
	case s.Leader == 0:
		return "no leader is known: a majority of " + voterNodes(d) + " has to be up before anything can change"
	case !p.isLive(s.Leader):
		return fmt.Sprintf("its leader's node %d does not answer", s.Leader)
	case s.InFlight != nil:
		return s.InFlight.What()
	case d.Joint():
		return "leaves its joint configuration"
	case s.Task != nil:
		return p.explainTask(s)
	}
	if n := p.node(s.Leader); n != nil && n.state != shard.Serving {
		if to, _ := p.heir(s, nil); to == nil {
			return fmt.Sprintf("its leader cannot leave node %d, which is %v: no other voter is caught up on a node that serves", n.id, n.state)
		}
	}
	if text := p.explainNeed(s, &need); text != "" {
		return text
	}
	for _, r := range d.Replicas {
		if r.Role == shard.Learner {
			text := fmt.Sprintf("the learner on node %d is needed by nobody", r.Node)
			if p.paused && !p.isGone(r.Node) {
				return text + " and stays while placement is paused"
			}
			return text + " and will be removed"
		}
	}
	return ""
}

func (p *Plan) explainTask(s *Shard) string {
	d, t := &s.Descriptor, s.Task
	what := ""
	switch {
	case t.From == 0 && t.To == 0:
		what = fmt.Sprintf("is to be led by node %d", t.Lead)
	case t.From == 0:
		what = fmt.Sprintf("gets a replica on node %d", t.To)
	case t.To == 0:
		what = fmt.Sprintf("loses its replica on node %d", t.From)
	default:
		what = fmt.Sprintf("moves from node %d to node %d", t.From, t.To)
	}
	if t.Auto {
		what += ", " + t.Why
	}
	if r, ok := d.ReplicaOn(t.To); ok && r.Role == shard.Learner && !s.caughtUp(r.ID) {
		return what + ": " + s.lag(r)
	}
	if t.To != 0 && !p.isLive(t.To) {
		return what + fmt.Sprintf(": node %d does not answer", t.To)
	}
	if p.InLine(s) {
		return what + fmt.Sprintf(": waits, as %d other replicas are on their way there (placement.moves_max)", p.node(t.To).learners)
	}
	if silent, waits := p.taskWaits(s); waits && t.To != 0 {
		return what + ": " + waitsText(silent)
	}
	if s.Leader == t.From && voters(d) > 1 {
		return what + ": its leader goes first, to another caught-up voter"
	}
	return what
}

// waitsText is for a voter that a joint change waits for.
func waitsText(silent shard.Replica) string {
	return fmt.Sprintf("waits until node %d with a voter of it answers or is given up", silent.Node)
}

// explainNeed says what the voters need, "" if nothing.
func (p *Plan) explainNeed(s *Shard, need *need) string {
	d := &s.Descriptor
	if need.none() {
		return p.explainShort(d, need)
	}
	var lags []string
	for _, r := range d.Replicas {
		if r.Role == shard.Learner && p.isHost(r.Node) && !s.caughtUp(r.ID) {
			lags = append(lags, s.lag(r))
		}
	}
	silent, waits := p.waits(s, need.voters, need.demoted)
	text := fmt.Sprintf("needs %d more of %d voters", need.voters, need.factor)
	if len(need.demoted) > 0 {
		text += ", in the place of those on " + nodesText(need.demoted)
	}
	switch {
	case p.paused && !p.leaves(d):
		return text + ": placement is paused"
	case len(lags) > 0:
		return text + ": " + strings.Join(lags, "; ")
	case p.roomless(s, need):
		return text + ": no other node that serves has room on its disk (setting placement.full_space); make room, or start another node"
	case need.voters > p.usableLearners(d) && p.roomiest(s, true) == nil:
		return text + ": waits until other shards' learners have caught up"
	case need.voters > 0 && waits:
		return text + ": " + waitsText(silent)
	case p.settling:
		return text + ": waits a moment for more nodes to join"
	}
	return text
}

// explainShort says why a shard that has fewer voters than it should needs none.
func (p *Plan) explainShort(d *shard.Descriptor, need *need) string {
	var gone, silent []shard.Replica
	for _, r := range d.Replicas {
		switch {
		case !votes(r):
		case p.isGone(r.Node):
			gone = append(gone, r)
		case !p.isLive(r.Node):
			silent = append(silent, r)
		}
	}
	switch {
	case len(gone) > 0:
		return "its voters on " + nodesText(gone) + " stay: no other node that serves is without a replica of it; start another node"
	case len(silent) > 0 && p.paused:
		return nodesText(silent) + " with a voter of it does not answer, and placement is paused"
	case len(silent) > 0:
		return nodesText(silent) + " with a voter of it does not answer; it is not yet given up"
	case need.kept < need.factor:
		return fmt.Sprintf("has %d of %d voters: no other node that serves is without a replica of it; start another node", need.kept, need.factor)
	}
	return ""
}

// Homeless tells whether no node could take the place of a voter of d.
func (p *Plan) Homeless(d *shard.Descriptor) bool {
	hosts := p.hosts
	for _, r := range d.Replicas {
		if votes(r) && p.isHost(r.Node) {
			hosts--
		}
	}
	return hosts <= 0
}

// lag says how far a member is behind.
func (s *Shard) lag(r shard.Replica) string {
	progress := s.progress(r.ID)
	switch {
	case progress == nil || !progress.Active:
		return fmt.Sprintf("the learner on node %d has not been heard from", r.Node)
	case progress.Snapshot || progress.Match == 0:
		return fmt.Sprintf("the learner on node %d is being sent a snapshot", r.Node)
	}
	return fmt.Sprintf("the learner on node %d is %d entries behind", r.Node, s.Commit-min(s.Commit, progress.Match))
}

func voterNodes(d *shard.Descriptor) string {
	var vs []shard.Replica
	for _, r := range d.Replicas {
		if votes(r) {
			vs = append(vs, r)
		}
	}
	return nodesText(vs)
}

// nodesText is "node 3" or "nodes 3, 4".
func nodesText(rs []shard.Replica) string {
	var ids []string
	for _, r := range rs {
		ids = append(ids, r.Node.String())
	}
	if len(ids) == 1 {
		return "node " + ids[0]
	}
	return "nodes " + strings.Join(ids, ", ")
}
