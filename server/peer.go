package server

import (
	"context"
	"fmt"
	"net"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// peerService answers what nodes ask of each other.
type peerService struct {
	pb.UnimplementedPeerServer
	node *node.Node
}

// await runs start, which reports by its callback, and waits for that or ctx.
func await[T any](ctx context.Context, start func(done func(T, error))) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ch := make(chan outcome, 1)
	start(func(v T, err error) { ch <- outcome{v, err} })
	select {
	case o := <-ch:
		return o.value, o.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func (s *peerService) Join(ctx context.Context, q *pb.JoinRequest) (*pb.JoinResponse, error) {
	if q.Address == "" {
		return nil, api.Status(&shard.InvalidError{Field: "address", Reason: "is empty; a joining node says where it can be reached"})
	}
	if err := coversAddress(ctx, q.Address); err != nil {
		return nil, api.Status(err)
	}
	if err := leadsBack(ctx, q.Address, q.Proof); err != nil {
		return nil, api.Status(err)
	}
	id, err := await(ctx, s.node.AllocateNode)
	if err != nil {
		return nil, api.Status(err)
	}
	self := s.node.Identity()
	r := &pb.JoinResponse{ClusterId: self.Cluster[:], NodeId: uint64(id), Nodes: nodeAddresses(s.node.Addresses())}
	if meta, _, ok := s.node.Meta(); ok {
		r.Meta = api.FromDescriptor(&meta)
	}
	return r, nil
}

// coversAddress refuses an address at which nobody would accept the certificate of
// the node that gives it as its own.
func coversAddress(ctx context.Context, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return &shard.InvalidError{Field: "address", Reason: fmt.Sprintf("%q is not HOST:PORT", address)}
	}
	if caller, ok := certs.CallerOf(ctx); ok {
		return caller.Covers(host)
	}
	return nil
}

func (s *peerService) NodeReport(ctx context.Context, q *pb.NodeReportRequest) (*pb.NodeReportResponse, error) {
	query := node.ReportQuery{Replicas: q.Replicas, Placement: q.Placement, ExplainShard: shard.ID(q.ExplainShard), ExplainNode: shard.NodeID(q.ExplainNode), Leading: q.Leading}
	for _, id := range q.Shards {
		query.Shards = append(query.Shards, shard.ID(id))
	}
	r, err := explained(ctx, s.node, query)
	if err != nil {
		return nil, api.Status(err)
	}
	return r, nil
}

// explained is a node's report, with what its driver of placement explains.
func explained(ctx context.Context, n *node.Node, q node.ReportQuery) (*pb.NodeReportResponse, error) {
	return await(ctx, func(done func(*pb.NodeReportResponse, error)) {
		n.Explain(q, n.Report(q), func(r *pb.NodeReportResponse) { done(r, nil) })
	})
}

func (s *peerService) ChangeMembership(ctx context.Context, q *pb.ChangeMembershipRequest) (*pb.ChangeMembershipResponse, error) {
	m, err := shard.DecodeMembershipChange(q.Change)
	if err != nil {
		return nil, api.Status(err)
	}
	d, err := await(ctx, func(done func(shard.Descriptor, error)) { s.node.ChangeMembership(m, done) })
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.ChangeMembershipResponse{Descriptor_: api.FromDescriptor(&d)}, nil
}

func (s *peerService) SplitShard(ctx context.Context, q *pb.PeerSplitShardRequest) (*pb.PeerSplitShardResponse, error) {
	split := shard.Split{Shard: shard.ID(q.Shard), Key: q.Key, Right: shard.ID(q.Right),
		Epoch: shard.Epoch{Version: q.Epoch.GetVersion(), ConfVersion: q.Epoch.GetConfVersion()}}
	r, err := await(ctx, func(done func(*pb.PeerSplitShardResponse, error)) {
		s.node.SplitShard(split, func(left, right shard.Descriptor, err error) {
			done(&pb.PeerSplitShardResponse{Left: api.FromDescriptor(&left), Right: api.FromDescriptor(&right)}, err)
		})
	})
	if err != nil {
		return nil, api.Status(err)
	}
	return r, nil
}

func (s *peerService) TransferShard(ctx context.Context, q *pb.TransferShardRequest) (*pb.TransferShardResponse, error) {
	_, err := await(ctx, func(done func(struct{}, error)) {
		s.node.TransferShard(shard.ID(q.Shard), shard.ReplicaID(q.ToReplica), func(err error) { done(struct{}{}, err) })
	})
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.TransferShardResponse{}, nil
}
