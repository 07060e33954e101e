package server

import (
	"fmt"
	"slices"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// The checks here are for people: they say at once what placement and the shard's
// leader would find out. Safety does not rest on them.

func refuse(field, format string, args ...any) error {
	return &shard.InvalidError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// checkChange says why replicas of a shard cannot be changed as asked.
func (v *view) checkChange(q *pb.ChangeReplicasRequest) error {
	if q.FromNode == 0 && q.ToNode == 0 {
		return refuse("request", "names no node: --to gets a replica, --from loses one")
	}
	sh, err := v.shard(q.Shard)
	if err != nil {
		return err
	}
	if q.FromNode != 0 && q.FromNode == q.ToNode {
		return refuse("--to", "is node %d, which is --from too; a replica moves to another node", q.ToNode)
	}
	from, to := memberOn(sh, q.FromNode), memberOn(sh, q.ToNode)
	if q.FromNode != 0 {
		if v.nodes[q.FromNode] == nil {
			return unknownNode("--from", q.FromNode)
		}
		if from == nil {
			return refuse("--from", "node %d has no replica of shard %d; it has replicas on %s", q.FromNode, q.Shard, memberNodes(sh))
		}
	}
	if q.ToNode != 0 {
		if err := v.checkHost("--to", q.ToNode); err != nil {
			return err
		}
		if err := v.checkSpace("--to", q.ToNode, sh.Bytes); err != nil {
			return err
		}
		if to != nil {
			return refuse("--to", "node %d has a replica of shard %d already, a %v", q.ToNode, q.Shard, shard.Role(to.Role))
		}
		if from != nil && shard.Role(from.Role) == shard.Learner {
			return refuse("--from", "node %d has a learner of shard %d, and only voters move; `shard remove-replica` removes a learner", q.FromNode, q.Shard)
		}
		return v.checkAnswers(sh, q.FromNode)
	}
	return v.checkRemoval(sh, q.FromNode)
}

// checkAnswers says for which voter a shard has to wait before another replica may
// vote: placement promotes none that a majority would need while others are silent.
func (v *view) checkAnswers(sh *pb.ShardInfo, from uint64) error {
	stay, answer, silent := v.staying(sh, from)
	if answer < stay && answer <= (stay+1)/2 {
		return refuse("shard", "%d has a voter on node %d, which is not answering; start it, or move that replica first", sh.Descriptor_.Id, silent)
	}
	return nil
}

// staying counts the voters that a shard keeps without the one on a node, and those of
// them that answer. silent is the node of one that does not.
func (v *view) staying(sh *pb.ShardInfo, from uint64) (stay, answer int, silent uint64) {
	for _, m := range sh.Descriptor_.Replicas {
		role := shard.Role(m.Role)
		if m.Node == from || role != shard.Voter && role != shard.Incoming {
			continue
		}
		stay++
		if v.reports[m.Node] != nil {
			answer++
		} else {
			silent = m.Node
		}
	}
	return stay, answer, silent
}

// checkRemoval says why a shard cannot do without the replica on a node.
func (v *view) checkRemoval(sh *pb.ShardInfo, from uint64) error {
	id := sh.Descriptor_.Id
	removing := fmt.Sprintf("removing the replica on node %d", from)
	if shard.Role(memberOn(sh, from).Role) == shard.Learner {
		return nil
	}
	stay, live, _ := v.staying(sh, from)
	hosts := 0
	for id := range v.nodes {
		if v.checkHost("", id) == nil {
			hosts++
		}
	}
	switch {
	case stay == 0:
		return refuse(removing, "would leave shard %d without a voter; `shard move` takes it elsewhere", id)
	case 2*live <= stay:
		return refuse(removing, "would leave shard %d with %d voters of which %d answer, which is no majority: it would stop", id, stay, live)
	case stay < placement.VotersWanted(shard.ID(id), hosts) && !v.placement().GetPaused():
		return refuse(removing, "would leave shard %d with %d voters, and placement would add one at once; use `shard move`, or first `placement pause`", id, stay)
	}
	return nil
}

// checkCancel says why an operation on a shard cannot be cancelled.
func checkCancel(sh *pb.ShardInfo, op *pb.Operation) error {
	past := func(what string) error {
		return refuse("operation", "%d is past its joint change and ends by itself in a moment: %s; the way back is another operation", op.Id, what)
	}
	if to := memberOn(sh, op.ToNode); op.ToNode != 0 && to != nil && shard.Role(to.Role) != shard.Learner {
		return past(fmt.Sprintf("the replica on node %d votes", op.ToNode))
	}
	if from := memberOn(sh, op.FromNode); op.FromNode != 0 && op.ToNode == 0 && (from == nil || shard.Role(from.Role) == shard.Outgoing) {
		return past(fmt.Sprintf("the replica on node %d votes no more", op.FromNode))
	}
	return nil
}

// checkTransfer says why a shard's leader cannot go to a node, and returns the shard,
// and the replica there unless it leads already. Once the leader was asked, a node that
// is late with its report may be busy taking over.
func (v *view) checkTransfer(q *pb.TransferLeaderRequest, first bool) (*pb.ShardInfo, shard.ReplicaID, error) {
	sh, err := v.shard(q.Shard)
	if err != nil || sh.LeaderNode == q.ToNode && q.ToNode != 0 {
		return sh, 0, err
	}
	if state := v.states[q.ToNode]; state != shard.Serving {
		return nil, 0, refuse("--to", "node %d is %v and leads nothing", q.ToNode, state)
	}
	to, err := transferTarget(sh, q.ToNode)
	if err == nil && first && v.reports[q.ToNode] == nil {
		err = refuse("--to", "node %d is not answering; start it, or choose another node", q.ToNode)
	}
	return sh, to, err
}

// checkHost says why a node cannot be given replicas or leaders.
func (v *view) checkHost(field string, id uint64) error {
	switch {
	case v.nodes[id] == nil:
		return unknownNode(field, id)
	case v.state(id) != shard.Serving.String() && v.state(id) != "":
		return refuse(field, "node %d is %s and takes no replicas", id, v.state(id))
	case v.reports[id] == nil:
		return refuse(field, "node %d is not answering; start it, or choose another node", id)
	}
	return nil
}

// checkSpace says why a node has no room for a replica of so many bytes.
func (v *view) checkSpace(field string, id, size uint64) error {
	n, full := v.reports[id].GetNode(), v.placement().GetFullSpace()
	if full == 0 || !placement.Full(n.GetCapacityBytes(), n.GetAvailableBytes(), size, int(full)) {
		return nil
	}
	return refuse(field, "node %d has %s and takes no replicas; make room on its disk, or choose another node", id,
		placement.SpaceText(n.GetCapacityBytes(), n.GetAvailableBytes()))
}

// checkDrain says why leaders cannot leave a node: there has to be another one.
func (v *view) checkDrain(id uint64) error {
	if v.nodes[id] == nil {
		return unknownNode("", id)
	}
	for other := range v.nodes {
		if other != id && v.checkHost("", other) == nil {
			return nil
		}
	}
	return refuse("node", "%d cannot be drained: no other node serves that could lead in its place", id)
}

// checkDecommission says why a node's replicas cannot go elsewhere.
func (v *view) checkDecommission(id uint64) error {
	if v.nodes[id] == nil {
		return unknownNode("", id)
	}
	hosts := 0
	for other := range v.nodes {
		if other != id && v.checkHost("", other) == nil {
			hosts++
		}
	}
	for _, sh := range v.shards() {
		if memberOn(sh, id) == nil {
			continue
		}
		others := 0
		for _, m := range sh.Descriptor_.Replicas {
			if m.Node != id && shard.Role(m.Role) != shard.Learner {
				others++
			}
		}
		if need := min(others+1, placement.ReplicationFactor); hosts < need {
			return refuse("node", "%d cannot be decommissioned: shard %d needs %d other nodes that serve, and there are %d; start another node first", id, sh.Descriptor_.Id, need, hosts)
		}
	}
	return nil
}

func unknownNode(field string, id uint64) error {
	if field == "" {
		return refuse("node", "%d does not exist; node list shows those that do", id)
	}
	return refuse(field, "node %d does not exist; node list shows those that do", id)
}

func (v *view) shard(id uint64) (*pb.ShardInfo, error) {
	for _, sh := range v.shards() {
		if sh.Descriptor_.Id == id {
			return sh, nil
		}
	}
	return nil, refuse("shard", "%d does not exist; shard list shows those that do", id)
}

// memberOn is the shard's replica on a node; nil if it has none.
func memberOn(sh *pb.ShardInfo, node uint64) *pb.Replica {
	i := slices.IndexFunc(sh.Descriptor_.Replicas, func(m *pb.Replica) bool { return m.Node == node })
	if i < 0 {
		return nil
	}
	return sh.Descriptor_.Replicas[i]
}

func memberNodes(sh *pb.ShardInfo) string {
	text := "nodes"
	for i, m := range sh.Descriptor_.Replicas {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %d", m.Node)
	}
	return text
}
