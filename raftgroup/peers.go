package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// peer is another replica of the shard, or this one.
type peer struct {
	replica shard.ReplicaID
	node    shard.NodeID
	role    role
	heard   uint64 // the group's clock at its last message; 0: never
}

// role is the peer's part in the configuration; 0: it is not a member, but has
// sent messages. An uninitialized replica knows its peers only so.
type role shard.Role

func (r role) votes() bool {
	return r == role(shard.Voter) || r == role(shard.Incoming) || r == role(shard.Outgoing)
}

// stays tells whether the peer votes when a joint configuration has been left.
func (r role) stays() bool { return r == role(shard.Voter) || r == role(shard.Incoming) }

type peerNode struct {
	replica shard.ReplicaID
	node    shard.NodeID
}

func (g *Group) peer(id shard.ReplicaID) *peer {
	for i := range g.peers {
		if g.peers[i].replica == id {
			return &g.peers[i]
		}
	}
	return nil
}

// loadPeers takes over the machine's members and keeps what was learned of others.
func (g *Group) loadPeers() {
	old := g.peers
	g.peers = nil
	was := g.joint
	g.joint = false
	for _, m := range g.members() {
		g.joint = g.joint || m.Role == shard.Incoming || m.Role == shard.Outgoing
		p := peer{replica: m.ID, node: m.Node, role: role(m.Role), heard: g.clock}
		g.peers = append(g.peers, p)
	}
	if g.joint && !was {
		g.jointSince, g.handover = g.clock, handover{}
	}
	removed := g.publishProof()
	for _, o := range old {
		if p := g.peer(o.replica); p != nil {
			p.heard = o.heard
		} else if !removed.covers(o.replica) {
			o.role = 0
			g.peers = append(g.peers, o)
		}
	}
	g.forgetStrangers()
	g.publishPeers()
}

// heardFrom notes a message, and where its sender is if the configuration does
// not say. false: the message is not to be stepped, because its sender was removed.
// Whatever it says was overtaken: it has no part in any configuration since.
func (g *Group) heardFrom(id shard.ReplicaID, node shard.NodeID) bool {
	p := g.peer(id)
	switch {
	case p == nil && g.tellRemoved(id, node):
		return false
	case p == nil:
		g.peers = append(g.peers, peer{replica: id, node: node, heard: g.clock})
		g.forgetStrangers()
		g.publishPeers()
	case p.role == 0 && p.node != node:
		p.node, p.heard = node, g.clock
		g.publishPeers()
	default:
		p.heard = g.clock
	}
	return true
}

// members are those of the applied descriptor; none if the replica is not initialized.
func (g *Group) members() []Member {
	if d := g.machine.Descriptor(); d != nil {
		return d.Replicas
	}
	return nil
}

// forgetStrangers keeps the learnedPeersMax non-members that came last.
func (g *Group) forgetStrangers() {
	strangers := 0
	for i := len(g.peers) - 1; i >= 0; i-- {
		if g.peers[i].role != 0 {
			continue
		}
		if strangers++; strangers > learnedPeersMax {
			g.peers = slices.Delete(g.peers, i, i+1)
		}
	}
}

func (g *Group) publishPeers() {
	nodes := make([]peerNode, 0, len(g.peers))
	for _, p := range g.peers {
		nodes = append(nodes, peerNode{p.replica, p.node})
	}
	g.nodes.Store(&nodes)
}

// nodeOf finds a peer's node; 0: unknown. Safe outside the turn.
func (g *Group) nodeOf(id shard.ReplicaID) shard.NodeID {
	for _, p := range *g.nodes.Load() {
		if p.replica == id {
			return p.node
		}
	}
	return 0
}

// confState is the raft configuration that the members' roles describe.
func confState(members []Member) raftpb.ConfState {
	var cs raftpb.ConfState
	joint := false
	for _, m := range members {
		joint = joint || m.Role == shard.Incoming || m.Role == shard.Outgoing
	}
	for _, m := range members {
		id := uint64(m.ID)
		switch m.Role {
		case shard.Voter:
			cs.Voters = append(cs.Voters, id)
			if joint {
				cs.VotersOutgoing = append(cs.VotersOutgoing, id)
			}
		case shard.Incoming:
			cs.Voters = append(cs.Voters, id)
		case shard.Outgoing:
			cs.VotersOutgoing = append(cs.VotersOutgoing, id)
			cs.LearnersNext = append(cs.LearnersNext, id)
		case shard.Learner:
			cs.Learners = append(cs.Learners, id)
		}
	}
	return cs
}
