package server

import (
	"context"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// reportTimeout is how long a node may take to report and still count as live.
const reportTimeout = 2 * time.Second

// clusterService answers questions about the cluster, from any node.
type clusterService struct {
	pb.UnimplementedClusterServer
	node  *node.Node
	peers node.Peers
}

func (s *clusterService) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	id := s.node.Identity()
	r := &pb.InfoResponse{ClusterId: id.Cluster[:], NodeId: uint64(id.Node), Incarnation: id.Incarnation, Nodes: nodeAddresses(s.node.Addresses())}
	if meta, leader, ok := s.node.Meta(); ok {
		r.Meta = api.FromDescriptor(&meta)
		r.MetaLeaderNode = uint64(leader)
	}
	return r, nil
}

func nodeAddresses(m map[shard.NodeID]string) []*pb.NodeAddress {
	var out []*pb.NodeAddress
	for id, address := range m {
		out = append(out, &pb.NodeAddress{NodeId: uint64(id), Address: address})
	}
	return out
}

func (s *clusterService) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	v, err := s.look(ctx, everything)
	if err != nil {
		return nil, api.Status(err)
	}
	return v.status(), nil
}

func (s *clusterService) ListNodes(ctx context.Context, _ *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	v, err := s.look(ctx, node.ReportQuery{Placement: true})
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.ListNodesResponse{Nodes: v.nodeInfos()}, nil
}

func (s *clusterService) ListShards(ctx context.Context, q *pb.ListShardsRequest) (*pb.ListShardsResponse, error) {
	v, err := s.look(ctx, everything)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.ListShardsResponse{}
	for _, sh := range v.shards() {
		if q.Id != 0 && sh.Descriptor_.Id != q.Id {
			continue
		}
		span := shard.Span{Start: sh.Descriptor_.Start, End: sh.Descriptor_.End}
		if len(q.Key) > 0 && !span.Contains(shard.UserKey(q.Key)) {
			continue
		}
		r.Shards = append(r.Shards, sh)
	}
	return r, nil
}

// everything is what nodes have to report for a look at all shards.
var everything = node.ReportQuery{Replicas: true, Placement: true}

// replicasOf is what they have to report for a look at some shards, perhaps none.
func replicasOf(ids ...shard.ID) node.ReportQuery {
	return node.ReportQuery{Replicas: len(ids) > 0, Shards: ids, Placement: true}
}

// look asks every known node for its report, at the same time. Nodes that the
// meta shard knows and this node does not are asked too, if the meta shard answers.
func (s *clusterService) look(ctx context.Context, query node.ReportQuery) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*reportTimeout)
	defer cancel()
	v := &view{cluster: s.node.Identity().Cluster, nodes: make(map[uint64]*pb.NodeAddress), states: make(map[uint64]shard.NodeState), reports: make(map[uint64]*pb.NodeReportResponse)}
	known, directory := s.catalog(ctx)
	for id, address := range s.node.Addresses() {
		v.nodes[uint64(id)] = &pb.NodeAddress{NodeId: uint64(id), Address: address}
	}
	for i := range known {
		v.know(&known[i])
	}
	v.directory = directory
	for _, r := range s.reports(ctx, v.nodes, query) {
		v.reports[r.Node.Id] = r
	}
	return v, ctx.Err()
}

// reports gathers what the nodes answer within reportTimeout, this one included.
func (s *clusterService) reports(ctx context.Context, nodes map[uint64]*pb.NodeAddress, query node.ReportQuery) []*pb.NodeReportResponse {
	self := s.node.Identity()
	var mu sync.Mutex
	var out []*pb.NodeReportResponse
	if r, err := explained(ctx, s.node, query); err == nil {
		out = append(out, r)
	}
	var waiting sync.WaitGroup
	for id, n := range nodes {
		if id == uint64(self.Node) || n.Address == "" {
			continue
		}
		waiting.Add(1)
		s.peers.Report(n.Address, query, reportTimeout, func(r *pb.NodeReportResponse, err error) {
			defer waiting.Done()
			if err != nil || r.GetNode().GetId() != id || string(r.ClusterId) != string(self.Cluster[:]) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, r)
		})
	}
	waiting.Wait()
	return out
}

// adminService changes the cluster.
type adminService struct {
	pb.UnimplementedAdminServer
	cluster *clusterService
}

// TransferLeader hands a shard over to the replica on a node, and returns when
// that replica leads.
func (s *adminService) TransferLeader(ctx context.Context, q *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	r, err := s.transfer(ctx, q)
	if err != nil {
		return nil, api.Status(err)
	}
	return r, nil
}

func (s *adminService) transfer(ctx context.Context, q *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	for first := true; ; first = false {
		v, err := s.cluster.look(ctx, everything)
		if err != nil {
			return nil, err
		}
		sh, to, err := v.checkTransfer(q, first)
		switch {
		case err != nil:
			return nil, err
		case q.DryRun:
			return &pb.TransferLeaderResponse{Forecast: forecastTransfer(sh, q.ToNode)}, nil
		case sh.LeaderNode == q.ToNode:
			return &pb.TransferLeaderResponse{LeaderNode: q.ToNode, Term: sh.Term}, nil
		case sh.LeaderNode != 0:
			s.handOver(ctx, sh, to)
		}
		select {
		case <-ctx.Done():
			return nil, &shard.InternalError{Reason: "node " + shard.NodeID(q.ToNode).String() + " did not take over in time; shard show tells who leads"}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// transferTarget is the replica that can lead on the given node.
func transferTarget(sh *pb.ShardInfo, toNode uint64) (shard.ReplicaID, error) {
	for _, r := range sh.Descriptor_.Replicas {
		if r.Node != toNode {
			continue
		}
		if shard.Role(r.Role) != shard.Voter {
			return 0, &shard.InvalidError{Field: "--to", Reason: "node " + shard.NodeID(toNode).String() + " has a replica that does not vote (" + shard.Role(r.Role).String() + ")"}
		}
		return shard.ReplicaID(r.Id), nil
	}
	return 0, &shard.InvalidError{Field: "--to", Reason: "node " + shard.NodeID(toNode).String() + " has no replica of the shard; shard show lists them"}
}

// handOver asks the leader once; whether it worked shows in the next look.
func (s *adminService) handOver(ctx context.Context, sh *pb.ShardInfo, to shard.ReplicaID) {
	asked := make(chan struct{})
	address := s.cluster.node.Address(shard.NodeID(sh.LeaderNode))
	s.cluster.peers.TransferShard(address, shard.ID(sh.Descriptor_.Id), to, reportTimeout, func(error) { close(asked) })
	select {
	case <-asked:
	case <-ctx.Done():
	}
}
