package server

import (
	"context"
	"fmt"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// ExplainPlacement puts what the driver of placement says beside what the nodes report.
func (s *clusterService) ExplainPlacement(ctx context.Context, q *pb.ExplainPlacementRequest) (*pb.ExplainPlacementResponse, error) {
	query := everything
	query.ExplainShard, query.ExplainNode = shard.ID(q.Shard), shard.NodeID(q.Node)
	v, err := s.look(ctx, query)
	if err != nil {
		return nil, api.Status(err)
	}
	var lines []string
	switch {
	case q.Shard != 0:
		lines, err = v.explainShard(q.Shard)
	case q.Node != 0:
		lines, err = v.explainNode(q.Node)
	default:
		lines = v.explainAll()
	}
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.ExplainPlacementResponse{Lines: lines}, nil
}

const nobodyDrives = "placement is not at work: the meta shard has no leader that has looked yet; it goes on when it has one"

func (v *view) explainAll() []string {
	p := v.placement()
	if p == nil {
		return []string{nobodyDrives}
	}
	var lines []string
	if p.Paused {
		lines = append(lines, "placement is paused: it does only what is asked for; `placement resume` ends that")
	}
	for _, note := range p.Shards {
		lines = append(lines, fmt.Sprintf("shard %d: %s", note.Id, note.Text))
	}
	if len(p.Shards) == 0 {
		lines = append(lines, "every shard has what it needs")
	}
	return lines
}

func (v *view) explainShard(id uint64) ([]string, error) {
	sh, err := v.shard(id)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range sh.Descriptor_.Replicas {
		line := fmt.Sprintf("replica %d on node %d: %v", m.Id, m.Node, shard.Role(m.Role))
		if m.Node == sh.LeaderNode {
			line += ", leads"
		}
		if v.reports[m.Node] == nil {
			line += ", its node is not answering"
		} else if state := v.state(m.Node); state != "" && state != shard.Serving.String() {
			line += ", its node is " + state
		}
		lines = append(lines, line)
	}
	p := v.placement()
	if p == nil {
		return append(lines, nobodyDrives), nil
	}
	noted := false
	for _, note := range p.Shards {
		noted = noted || note.Id == id
		if note.Id == id && len(p.Explained) == 0 {
			lines = append(lines, note.Text)
		}
	}
	if !noted {
		lines = append(lines, "has what it needs")
	}
	return append(lines, p.Explained...), nil
}

func (v *view) explainNode(id uint64) ([]string, error) {
	if v.nodes[id] == nil {
		return nil, unknownNode("", id)
	}
	p := v.placement()
	if p == nil {
		return []string{nobodyDrives}, nil
	}
	for _, n := range p.Nodes {
		if n.Id != id {
			continue
		}
		lines := []string{fmt.Sprintf("%s, with %d replicas, of which it leads %d", n.State, n.Replicas, n.Leaders)}
		if !n.Live {
			lines = append(lines, "it is not answering"+silentText(n, p))
		}
		lines = append(lines, p.Explained...)
		for _, note := range p.Shards {
			if sh, err := v.shard(note.Id); err == nil && memberOn(sh, id) != nil {
				lines = append(lines, fmt.Sprintf("shard %d: %s", note.Id, note.Text))
			}
		}
		return lines, nil
	}
	return []string{"placement has not heard of it yet"}, nil
}
