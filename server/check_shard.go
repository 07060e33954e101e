package server

import (
	"context"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// CheckShard begins a check of a shard that this node leads.
func (s *adminService) CheckShard(ctx context.Context, q *pb.CheckShardRequest) (*pb.CheckShardResponse, error) {
	index, err := await(ctx, func(done func(uint64, error)) { s.cluster.node.Store().Check(shard.ID(q.Shard), done) })
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.CheckShardResponse{Index: index}, nil
}
