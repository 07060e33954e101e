package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// A replica that was removed while its node was away is told by nobody: its leader
// has forgotten it, and as a learner it sends nothing that a member would answer. So
// one that hears of no leader asks the nodes, one after the other, whether it was
// removed: first those of the members it knows, which have the news first, then all others,
// for every one of those may have left the shard too. Each round of all nodes takes
// twice the time of the one before, so that a shard without a majority costs next
// to nothing. A replica that has stopped asks, too.
const (
	askAfterTimeouts = 2  // election timeouts without a leader
	askPauseTimeouts = 32 // the longest pause between two questions
)

// asking is whom to ask next.
type asking struct {
	led   uint64 // the group's clock when it last heard a leader, or led
	at    uint64 // the clock at which to ask next
	pause uint64
	next  int // index of the node
}

// heardLeader notes what only a leader of the present term sends.
func (g *Group) heardLeader(m *raftpb.Message) {
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if m.Term >= g.term.Load() {
			g.asking = asking{led: g.clock}
		}
	}
}

// ask asks the next node, if it is time.
func (g *Group) ask() {
	a := &g.asking
	timeout := uint64(g.h.cfg.ElectionTicks)
	if g.clock-a.led < askAfterTimeouts*timeout || g.clock < a.at {
		return
	}
	if _, leads := g.leads(); leads && g.dead == nil {
		*a = asking{led: g.clock}
		return
	}
	nodes := g.askable()
	if a.next >= len(nodes) {
		a.next, a.pause = 0, min(2*a.pause, askPauseTimeouts*timeout)
	}
	a.pause = max(a.pause, timeout)
	a.at = g.clock + a.pause
	if len(nodes) == 0 {
		return
	}
	to := nodes[a.next]
	a.next++
	g.h.stats.questions.Add(1)
	g.h.transport.Send(to, removalBytesMax, func(frame []byte) []byte { return appendAsk(frame, g.shard, g.replica) })
}

// askable are the nodes of the peers, then the others that the host knows.
func (g *Group) askable() []shard.NodeID {
	var nodes []shard.NodeID
	add := func(n shard.NodeID) {
		if n != g.h.cfg.Node && n != 0 && !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	for _, p := range g.peers {
		add(p.node)
	}
	for _, n := range g.h.cfg.Nodes() {
		add(n)
	}
	return nodes
}
