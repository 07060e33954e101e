package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// peerClient asks other nodes: node.Peers over gRPC. Each question runs on a
// goroutine of its own; the node bounds how many it asks at once. Connections
// are kept, one per address.
type peerClient struct {
	ctx     context.Context // ends with the server
	options []grpc.DialOption

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func newPeerClient(ctx context.Context, options ...grpc.DialOption) *peerClient {
	return &peerClient{ctx: ctx, options: options, conns: make(map[string]*grpc.ClientConn)}
}

func (p *peerClient) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *peerClient) conn(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		return nil, err
	}
	if c := p.conns[address]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+address, p.options...)
	if err != nil {
		return nil, err
	}
	p.conns[address] = c
	return c, nil
}

// ask runs call with a stub for the node at address.
func ask[T any](p *peerClient, address string, timeout time.Duration, call func(context.Context, pb.PeerClient) (T, error), done func(T, error)) {
	go func() {
		var answer T
		conn, err := p.conn(address)
		if err == nil {
			ctx, cancel := context.WithTimeout(p.ctx, timeout)
			defer cancel()
			answer, err = call(ctx, pb.NewPeerClient(conn))
			err = api.Error(err)
		}
		done(answer, err)
	}()
}

func (p *peerClient) Report(address string, q node.ReportQuery, timeout time.Duration, done func(*pb.NodeReportResponse, error)) {
	ask(p, address, timeout, func(ctx context.Context, c pb.PeerClient) (*pb.NodeReportResponse, error) {
		request := &pb.NodeReportRequest{Replicas: q.Replicas, Placement: q.Placement, ExplainShard: uint64(q.ExplainShard), ExplainNode: uint64(q.ExplainNode), Leading: q.Leading}
		for _, id := range q.Shards {
			request.Shards = append(request.Shards, uint64(id))
		}
		return c.NodeReport(ctx, request)
	}, done)
}

func (p *peerClient) ChangeMembership(address string, m shard.MembershipChange, timeout time.Duration, done func(shard.Descriptor, error)) {
	ask(p, address, timeout, func(ctx context.Context, c pb.PeerClient) (*pb.ChangeMembershipResponse, error) {
		return c.ChangeMembership(ctx, &pb.ChangeMembershipRequest{Shard: uint64(m.Shard), Change: shard.AppendMembershipChange(nil, &m)})
	}, func(r *pb.ChangeMembershipResponse, err error) {
		if err != nil {
			done(shard.Descriptor{}, err)
			return
		}
		done(api.ToDescriptor(r.Descriptor_))
	})
}

func (p *peerClient) SplitShard(address string, s shard.Split, timeout time.Duration, done func(left, right shard.Descriptor, err error)) {
	ask(p, address, timeout, func(ctx context.Context, c pb.PeerClient) (*pb.PeerSplitShardResponse, error) {
		return c.SplitShard(ctx, &pb.PeerSplitShardRequest{Shard: uint64(s.Shard), Key: s.Key, Right: uint64(s.Right),
			Epoch: &pb.Epoch{Version: s.Epoch.Version, ConfVersion: s.Epoch.ConfVersion}})
	}, func(r *pb.PeerSplitShardResponse, err error) {
		var left, right shard.Descriptor
		if err == nil {
			left, err = api.ToDescriptor(r.Left)
		}
		if err == nil {
			right, err = api.ToDescriptor(r.Right)
		}
		done(left, right, err)
	})
}

func (p *peerClient) TransferShard(address string, id shard.ID, to shard.ReplicaID, timeout time.Duration, done func(error)) {
	ask(p, address, timeout, func(ctx context.Context, c pb.PeerClient) (*pb.TransferShardResponse, error) {
		return c.TransferShard(ctx, &pb.TransferShardRequest{Shard: uint64(id), ToReplica: uint64(to)})
	}, func(_ *pb.TransferShardResponse, err error) { done(err) })
}
