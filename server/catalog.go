package server

import (
	"context"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/catalog"
)

// catalogPatience is how long a look at the cluster waits for the meta shard.
// Without it the look goes on with what the nodes themselves report.
const catalogPatience = time.Second

// catalog reads the nodes' records and the directory; both empty if the meta
// shard does not answer in time.
func (s *clusterService) catalog(ctx context.Context) (nodes []*pb.NodeAddress, directory []*pb.Descriptor) {
	ctx, cancel := context.WithTimeout(ctx, catalogPatience)
	defer cancel()
	records, err := await(ctx, s.node.Catalog().ListNodes)
	if err != nil {
		return nil, nil
	}
	for _, n := range records {
		nodes = append(nodes, &pb.NodeAddress{NodeId: uint64(n.ID), Address: n.Address, HttpAddress: n.HTTPAddress})
	}
	rows, err := await(ctx, s.node.Catalog().ListDirectory)
	if err != nil {
		return nodes, nil
	}
	return nodes, descriptors(rows)
}

func descriptors(rows []catalog.DirectoryRow) []*pb.Descriptor {
	out := make([]*pb.Descriptor, 0, len(rows))
	for i := range rows {
		out = append(out, api.FromDescriptor(&rows[i].Descriptor))
	}
	return out
}
