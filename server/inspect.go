package server

import (
	"context"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// inspectedVersionsMax is how many versions of a key an answer lists.
const inspectedVersionsMax = 1000

// InspectKey asks this node's own replica, and nobody else.
func (s *clusterService) InspectKey(_ context.Context, q *pb.InspectKeyRequest) (*pb.InspectKeyResponse, error) {
	seen, err := s.node.Store().InspectKey(shard.UserKey(q.Key))
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.InspectKeyResponse{
		Node: uint64(s.node.Identity().Node), Shard: uint64(seen.Shard), Replica: uint64(seen.Replica), Leading: seen.Leading,
		Floor: uint64(seen.Floor), LastRevision: uint64(seen.LastRevision), Applied: seen.Applied,
		More: len(seen.Versions) > inspectedVersionsMax,
	}
	for _, v := range seen.Versions[:min(len(seen.Versions), inspectedVersionsMax)] {
		r.Versions = append(r.Versions, &pb.KeyVersion{
			Revision: uint64(v.Revision), Tombstone: v.Header.Tombstone, Trace: v.Header.Trace, Bytes: uint64(v.Bytes),
			Session: uint64(v.Header.Op.Session), Sequence: v.Header.Op.Sequence,
		})
	}
	return r, nil
}
