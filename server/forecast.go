package server

import (
	"fmt"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// forecastWaitsMax bounds the shards of which a forecast says what they wait for.
const forecastWaitsMax = 20

// foresight is the cluster as placement would see it after a request.
type foresight struct {
	placement.View
	limits placement.Limits
	byID   map[uint64]*pb.ShardInfo
}

// foresee makes of what the nodes report what placement decides from.
func (v *view) foresee() *foresight {
	f := &foresight{View: v.placementView(), limits: v.limits(), byID: make(map[uint64]*pb.ShardInfo)}
	for _, sh := range v.shards() {
		f.byID[sh.Descriptor_.Id] = sh
	}
	return f
}

// shard finds one by its ID.
func (f *foresight) shard(id uint64) *placement.Shard {
	for _, s := range f.Shards {
		if uint64(s.Descriptor.ID) == id {
			return s
		}
	}
	return nil
}

// forecast is what becomes of some of the shards, and what they wait for.
func (f *foresight) forecast(shards []*placement.Shard) *pb.Forecast {
	before := make([]placement.Shard, len(shards))
	for i, s := range shards {
		before[i] = *s
	}
	p := placement.NewPlan(f.View, f.limits)
	p.Forecast(shards)
	out := &pb.Forecast{}
	for i, s := range shards {
		out.Changes = append(out.Changes, changes(&before[i], s, f.byID[uint64(s.Descriptor.ID)].GetBytes())...)
		if len(out.Waits) == forecastWaitsMax {
			continue
		}
		if text := remains(p, s); text != "" {
			out.Waits = append(out.Waits, "shard "+s.Descriptor.ID.String()+": "+text)
		}
	}
	return out
}

// remains says what a shard needs and cannot have now, "" if nothing.
func remains(p *placement.Plan, s *placement.Shard) string {
	if s.Task != nil {
		switch state, why := p.Judge(s); state {
		case placement.TaskDone:
			return ""
		case placement.TaskImpossible:
			return why
		}
	}
	return p.Explain(s)
}

// changes compares a shard with what is to become of it: a replica that comes and one
// that goes are a move. bytes is the size of a replica.
func changes(was, is *placement.Shard, bytes uint64) (out []*pb.ForecastChange) {
	id := uint64(is.Descriptor.ID)
	if was.Leader != is.Leader {
		out = append(out, &pb.ForecastChange{Kind: kindTransfer, Shard: id, FromNode: uint64(was.Leader), ToNode: uint64(is.Leader)})
	}
	come, gone := missing(&is.Descriptor, &was.Descriptor), missing(&was.Descriptor, &is.Descriptor)
	for i := range max(len(come), len(gone)) {
		c := &pb.ForecastChange{Kind: kindMove, Shard: id}
		if i < len(come) {
			c.ToNode, c.Bytes = uint64(come[i]), bytes
		} else {
			c.Kind = kindRemove
		}
		if i < len(gone) {
			c.FromNode = uint64(gone[i])
		} else {
			c.Kind = kindAdd
		}
		out = append(out, c)
	}
	return out
}

// missing are the nodes on which d has a replica and other has none.
func missing(d, other *shard.Descriptor) (nodes []shard.NodeID) {
	for _, r := range d.Replicas {
		if _, there := other.ReplicaOn(r.Node); !there {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// forecastChange foretells ChangeReplicas.
func (v *view) forecastChange(q *pb.ChangeReplicasRequest) *pb.Forecast {
	f := v.foresee()
	s := f.shard(q.Shard)
	if s == nil {
		return &pb.Forecast{}
	}
	s.Task = &placement.Task{From: shard.NodeID(q.FromNode), To: shard.NodeID(q.ToNode)}
	return f.forecast([]*placement.Shard{s})
}

// forecastTransfer foretells TransferLeader.
func forecastTransfer(sh *pb.ShardInfo, to uint64) *pb.Forecast {
	switch sh.LeaderNode {
	case to:
		return &pb.Forecast{}
	case 0:
		return &pb.Forecast{Waits: []string{fmt.Sprintf("shard %d: no leader is known that could hand over", sh.Descriptor_.Id)}}
	}
	return &pb.Forecast{Changes: []*pb.ForecastChange{{Kind: kindTransfer, Shard: sh.Descriptor_.Id, FromNode: sh.LeaderNode, ToNode: to}}}
}

// forecastState foretells what becomes of a node's replicas, or its leaders, when it
// comes into a state.
func (v *view) forecastState(id uint64, to shard.NodeState) *pb.Forecast {
	if to == shard.Serving {
		return &pb.Forecast{} // leaders come back by and by, whichever
	}
	f := v.foresee()
	for i := range f.Nodes {
		if n := &f.Nodes[i]; uint64(n.ID) == id {
			n.State = to
		}
	}
	var concerned []*placement.Shard
	for _, s := range f.Shards {
		if _, there := s.Descriptor.ReplicaOn(shard.NodeID(id)); there && (to == shard.Leaving || uint64(s.Leader) == id) {
			concerned = append(concerned, s)
		}
	}
	return f.forecast(concerned)
}
