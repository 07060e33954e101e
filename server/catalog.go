package server

import (
	"context"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
)

// catalogPatience is how long a look at the cluster waits for the meta shard.
// Without it the look goes on with what the nodes themselves report.
const catalogPatience = time.Second

// catalog reads the nodes' records and the directory; both empty if the meta
// shard does not answer in time.
func (s *clusterService) catalog(ctx context.Context) (nodes []router.Node, directory []*pb.Descriptor) {
	ctx, cancel := context.WithTimeout(ctx, catalogPatience)
	defer cancel()
	records, err := await(ctx, s.node.Catalog().ListNodes)
	if err != nil {
		return nil, nil
	}
	rows, err := await(ctx, s.node.Catalog().ListDirectory)
	if err != nil {
		return records, nil
	}
	return records, descriptors(rows)
}

func descriptors(rows []catalog.DirectoryRow) []*pb.Descriptor {
	out := make([]*pb.Descriptor, 0, len(rows))
	for i := range rows {
		out = append(out, api.FromDescriptor(&rows[i].Descriptor))
	}
	return out
}
