package server

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/shard"
)

// scatterAtOnce is how many operations are begun at the same time.
const scatterAtOnce = 16

// ScatterShards draws places for shards and records an operation for each that is to move.
func (s *adminService) ScatterShards(ctx context.Context, q *pb.ScatterShardsRequest) (*pb.ScatterShardsResponse, error) {
	v, err := s.cluster.look(ctx, everything)
	if err != nil {
		return nil, api.Status(err)
	}
	r, spots, err := v.scatter(q.Shard, rand.IntN)
	if err != nil {
		return nil, api.Status(err)
	}
	if q.DryRun {
		for _, spot := range spots {
			r.Operations = append(r.Operations, shardOperation(&catalog.Operation{Shard: spot.Shard, Nodes: spot.Nodes}, nil))
		}
		return r, nil
	}
	s.beginScatter(ctx, spots, r)
	if q.Shard != 0 && len(r.Refused) > 0 {
		return nil, api.Status(refuse("shard", "%s", r.Refused[0].Text))
	}
	return r, nil
}

// scatter is where shards are to go that are not there already, and those that cannot.
// id 0: all shards of users.
func (v *view) scatter(id uint64, draw func(int) int) (*pb.ScatterShardsResponse, []placement.Spot, error) {
	whole := v.placementView()
	p := placement.NewPlan(whole, v.limits())
	r := &pb.ScatterShardsResponse{}
	byID := map[shard.ID]*placement.Shard{}
	var chosen []*placement.Shard
	for _, sh := range whole.Shards {
		if uint64(sh.Descriptor.ID) != id && (id != 0 || sh.Descriptor.ID == shard.MetaID) {
			continue
		}
		chosen = append(chosen, sh)
		byID[sh.Descriptor.ID] = sh
		if why := p.Unscattered(sh); why != "" {
			r.Refused = append(r.Refused, &pb.PlacementNote{Id: uint64(sh.Descriptor.ID), Text: why})
		}
	}
	switch {
	case len(chosen) == 0 && id != 0:
		if _, err := v.shard(id); err != nil {
			return nil, nil, err
		}
		return nil, nil, refuse("shard", "%d cannot be scattered now: what is known of it makes no sense", id)
	case len(r.Refused) > 0 && id != 0:
		return nil, nil, refuse("shard", "%d cannot be scattered now: %s", id, r.Refused[0].Text)
	}
	spots := p.Scatter(chosen, draw)
	return r, slices.DeleteFunc(spots, func(spot placement.Spot) bool { return spot.At(byID[spot.Shard]) }), nil
}

// placementView is the view as placement decides from it. Shards whose descriptor does not
// decode are left out.
func (v *view) placementView() placement.View {
	out := placement.View{Paused: v.placement().GetPaused()}
	dead := make(map[uint64]bool)
	for _, n := range v.placement().GetNodes() {
		dead[n.Id] = n.Dead
	}
	for id := range v.nodes {
		n := v.reports[id].GetNode()
		out.Nodes = append(out.Nodes, placement.Node{ID: shard.NodeID(id), Live: n != nil, Dead: n == nil && dead[id], State: v.states[id],
			Locality: shard.Locality(n.GetLocality()), Capacity: n.GetCapacityBytes(), Available: n.GetAvailableBytes(), Held: n.GetBytes()})
	}
	for _, sh := range v.shards() {
		d, err := api.ToDescriptor(sh.Descriptor_)
		if err != nil {
			continue
		}
		s := &placement.Shard{Descriptor: d, Leader: shard.NodeID(sh.LeaderNode), Bytes: sh.Bytes}
		if leader := leading(sh); leader != nil {
			s.Load = placement.Load{Reads: leader.ReadsPerSecond, Writes: leader.WritesPerSecond}
			s.Commit = leader.Commit
			for _, p := range leader.Progress {
				s.Progress = append(s.Progress, placement.Progress{Replica: shard.ReplicaID(p.Replica), Match: p.Match, Active: p.Active, Snapshot: p.Snapshot})
			}
		}
		out.Shards = append(out.Shards, s)
	}
	return out
}

// limits are those that placement decides within.
func (v *view) limits() placement.Limits {
	return placement.Limits{FullSpace: int(v.placement().GetFullSpace()), LowSpace: int(v.placement().GetLowSpace())}
}

// beginScatter records the operations, several at a time.
func (s *adminService) beginScatter(ctx context.Context, spots []placement.Spot, r *pb.ScatterShardsResponse) {
	var mu sync.Mutex
	var under sync.WaitGroup
	places := make(chan struct{}, scatterAtOnce)
	for _, spot := range spots {
		places <- struct{}{}
		under.Go(func() {
			defer func() { <-places }()
			op, err := await(ctx, func(done func(catalog.Operation, error)) {
				s.cluster.node.Catalog().BeginOperation(catalog.Operation{Shard: spot.Shard, Nodes: spot.Nodes, Began: unixNow()}, done)
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Refused = append(r.Refused, &pb.PlacementNote{Id: uint64(spot.Shard), Text: err.Error()})
				return
			}
			r.Operations = append(r.Operations, shardOperation(&op, nil))
		})
	}
	under.Wait()
	slices.SortFunc(r.Operations, func(a, b *pb.Operation) int { return cmp.Compare(a.Shard, b.Shard) })
	slices.SortFunc(r.Refused, func(a, b *pb.PlacementNote) int { return cmp.Compare(a.Id, b.Id) })
}
