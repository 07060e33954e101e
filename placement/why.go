package placement

import (
	"fmt"
	"strings"

	"github.com/kiloraft/kiloraft/shard"
)

// ExplainShard says of every checker, in the order in which they decide, what it does about
// the shard, or why nothing. busy: some shard needs something else than to be evened out,
// which comes first.
func (p *Plan) ExplainShard(s *Shard, busy bool) (lines []string) {
	d := &s.Descriptor
	need := p.need(d)
	if text := p.Explain(s); text != "" {
		lines = append(lines, text)
	}
	if p.paused {
		lines = append(lines, "placement is paused: it does only what it is asked for")
	}
	say := func(checker, format string, args ...any) {
		lines = append(lines, checker+": "+fmt.Sprintf(format, args...))
	}
	if d.Joint() {
		say("configuration", "is joint, and is left next")
	} else {
		say("configuration", "is not joint: there is nothing to leave")
	}
	say("voters", "has %d of %d%s", voters(d), need.factor, p.silentText(d))
	say("dead and leaving nodes", "%s", p.goneText(d))
	say("places", "%s", p.placesText(s, busy))
	say("bytes", "%s", p.bytesText(s, busy))
	say("leader", "%s", p.leaderText(s))
	if len(s.SplitAt) > 0 {
		say("split", "its leader wishes it at %s, by %s%s", shard.FormatKey(s.SplitAt), s.SplitReason, p.splitWaits(s, &need))
	} else {
		say("split", "its leader wishes none")
	}
	return lines
}

// silentText names the voters' nodes that do not answer.
func (p *Plan) silentText(d *shard.Descriptor) string {
	var silent []shard.Replica
	for _, r := range d.Replicas {
		if votes(r) && !p.isLive(r.Node) {
			silent = append(silent, r)
		}
	}
	if len(silent) == 0 {
		return ", and all their nodes answer"
	}
	return ", and " + nodesText(silent) + " with one does not answer"
}

func (p *Plan) goneText(d *shard.Descriptor) string {
	var gone []shard.Replica
	for _, r := range d.Replicas {
		if p.isGone(r.Node) {
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return "it has no replica on one"
	}
	return "it has replicas on " + nodesText(gone)
}

// placesText says why no replica of the shard moves to another place.
func (p *Plan) placesText(s *Shard, busy bool) string {
	switch {
	case !p.located():
		return "all nodes are in one place, as far as they say (start --locality)"
	case !p.couldSpread(&s.Descriptor):
		return "no node is farther from its replicas than they are from each other"
	}
	from, to, _ := p.widest(s)
	if to == nil {
		return "no node without a replica of it is farther from the others"
	}
	return fmt.Sprintf("the replica on node %d would be farther from the others on node %d (%s)%s", from.id, to.id, p.places.names[to.place], p.holdUp(s, from, to, busy))
}

// widest is the move that spreads the shard the most, whether or not it may begin now.
func (p *Plan) widest(s *Shard) (from, to *nodeCount, gain int) {
	for _, r := range s.Descriptor.Replicas {
		source := p.node(r.Node)
		for i := range p.nodes {
			target := &p.nodes[i]
			if _, member := s.Descriptor.ReplicaOn(target.id); source == nil || member || !target.host() {
				continue
			}
			if g := p.gain(&s.Descriptor, source, target); g > gain {
				from, to, gain = source, target, g
			}
		}
	}
	return from, to, gain
}

// bytesText says why no replica of the shard moves to even out what nodes hold.
func (p *Plan) bytesText(s *Shard, busy bool) string {
	text := fmt.Sprintf("a replica counts as %s", sizeText(s.size()))
	var from, to *nodeCount
	for _, r := range s.Descriptor.Replicas {
		if n := p.node(r.Node); n != nil && (from == nil || n.score() > from.score()) {
			from = n
		}
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		if _, member := s.Descriptor.ReplicaOn(n.id); !member && n.host() && (to == nil || n.score() < to.score()) {
			to = n
		}
	}
	if from == nil || to == nil {
		return text + "; every node that serves has one"
	}
	text += fmt.Sprintf("; node %d holds %s, node %d %s", from.id, p.shareText(from), to.id, p.shareText(to))
	switch {
	case from.score() > to.score() && !p.admits(from, to, s.size()):
		return text + ": " + p.spaceText(to)
	case !p.moves(from, to, s.size()):
		return text + ": too little more for it to move"
	case s.Descriptor.ID == shard.MetaID:
		return text + ": the meta shard stays, as placement itself might move with it"
	case p.gain(&s.Descriptor, from, to) < 0:
		return text + ": it stays, as its replicas would be nearer to each other"
	}
	return text + p.holdUp(s, from, to, busy)
}

// shareText says what a node holds, and how much of its fair share that is.
func (p *Plan) shareText(n *nodeCount) string {
	return fmt.Sprintf("%s (%.0f %% of its share)", sizeText(n.size), 100*n.score()/float64(max(p.meanSize, 1)))
}

// holdUp says why a move that would be good does not begin.
func (p *Plan) holdUp(s *Shard, from, to *nodeCount, busy bool) string {
	switch {
	case s.Task != nil || s.InFlight != nil:
		return ": what is under way for it comes first"
	case p.paused:
		return ": not while placement is paused"
	case !p.even:
		return ": not while the setting placement.rebalance is false"
	case busy:
		return ": waits until no shard needs anything else"
	case !p.admits(from, to, s.size()):
		return ": " + p.spaceText(to)
	case !p.mayMove(s):
		return ": waits until all its members are voters that answer"
	case from.moving >= p.limits.MovesMax:
		return fmt.Sprintf(": waits, as node %d takes part in %d moves (placement.moves_max)", from.id, from.moving)
	case to.moving >= p.limits.MovesMax || to.learners >= p.limits.LearnersMax:
		return fmt.Sprintf(": waits, as node %d takes part in %d moves (placement.moves_max)", to.id, to.moving)
	}
	return ": others move first"
}

// spaceText says how much space is left on a node, and what that means.
func (p *Plan) spaceText(n *nodeCount) string {
	switch {
	case n.capacity == 0:
		return fmt.Sprintf("how large the disk of node %d is is not known", n.id)
	case p.low(n):
		return fmt.Sprintf("node %d has %s; moves to it resume at %d %%", n.id, SpaceText(n.capacity, n.available), 100-p.limits.LowSpace)
	case p.full(n, 0):
		return fmt.Sprintf("node %d has %s, less than what is on its way there needs", n.id, SpaceText(n.capacity, n.available))
	}
	return fmt.Sprintf("node %d has %s", n.id, SpaceText(n.capacity, n.available))
}

// leaderText says why the shard's leader stays where it is.
func (p *Plan) leaderText(s *Shard) string {
	from := p.node(s.Leader)
	if from == nil {
		return "none is known"
	}
	text := fmt.Sprintf("on node %d it serves %.0f reads and %.0f writes per second", from.id, s.Load.Reads, s.Load.Writes)
	to, _ := p.heir(s, nil)
	if to == nil {
		return text + "; no other voter has caught up on a node that serves"
	}
	text += fmt.Sprintf("; leaders on node %d count as %d per second, on node %d as %d", from.id, from.load, to.id, to.load)
	switch {
	case !p.hands(from, to, s.load()):
		return text + ": too little less for it to move"
	case p.paused:
		return text + ": not while placement is paused"
	case s.Descriptor.ID == shard.MetaID:
		return text + ": the meta shard's moves when nothing else is to be done"
	}
	return text + ": others move first"
}

// splitWaits says what a split waits for.
func (p *Plan) splitWaits(s *Shard, need *need) string {
	switch {
	case p.paused:
		return ": not while placement is paused"
	case s.Task != nil || !need.none() || voters(&s.Descriptor) != len(s.Descriptor.Replicas):
		return ": waits until its members are as they are to be"
	}
	return ""
}

// ExplainNode says what the node has, against the others, and why nothing more moves to it.
func (p *Plan) ExplainNode(id shard.NodeID) (lines []string) {
	n := p.node(id)
	if n == nil {
		return nil
	}
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	say("%s", p.spaceText(n))
	if name := p.places.names[n.place]; name != "" {
		say("it is at %s", name)
	}
	say("its replicas count as %s, its leaders as %d operations per second; on average nodes have %s and %d", p.shareText(n), n.load, sizeText(p.meanSize), p.meanLoad)
	say("it takes part in %d moves that even out, at most %d at once", n.moving, p.limits.MovesMax)
	if !n.host() {
		return lines
	}
	var fullest *nodeCount
	for i := range p.nodes {
		if o := &p.nodes[i]; o != n && o.host() && (fullest == nil || o.score() > fullest.score()) {
			fullest = o
		}
	}
	switch {
	case fullest == nil:
		say("no other node serves that replicas could come from")
	case p.moves(fullest, n, replicaBytes):
		text := "replicas could come from node " + fullest.id.String()
		if !p.admits(fullest, n, replicaBytes) {
			text += ", and do not: " + p.spaceText(n)
		} else if p.paused || !p.even {
			text += ", and do not while placement is paused or placement.rebalance is false"
		}
		say("%s", text)
	default:
		say("no node holds so much more for its room that replicas come here: node %d has the most, %s", fullest.id, p.shareText(fullest))
	}
	return lines
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	const units = "KMGT"
	v, unit := float64(n), ""
	for i := 0; v >= 1024 && i < len(units); i++ {
		v, unit = v/1024, units[i:i+1]+"i"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit + "B"
}
