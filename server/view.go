package server

import (
	"cmp"
	"maps"
	"slices"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// caughtUpEntries is how far behind the leader's commit index a voter may be
// and still count as caught up: under load followers are always a little behind.
const caughtUpEntries = 512

// view is the cluster as its nodes report it, at about one moment.
type view struct {
	cluster shard.ClusterID
	// nodes that the cluster knows, whether they answer or not
	nodes map[uint64]*pb.NodeAddress
	// states of the nodes whose records were read
	states map[uint64]shard.NodeState
	// reports of the nodes that answered
	reports map[uint64]*pb.NodeReportResponse
	// directory holds what the meta shard knows of shards; empty if it did not answer
	directory []*pb.Descriptor
}

// shards merges reports and directory into one record per shard, in key order.
func (v *view) shards() []*pb.ShardInfo {
	byID := make(map[uint64]*pb.ShardInfo)
	at := func(d *pb.Descriptor) *pb.ShardInfo {
		s := byID[d.Id]
		if s == nil {
			s = &pb.ShardInfo{Descriptor_: d}
			byID[d.Id] = s
		}
		if newer(d.Epoch, s.Descriptor_.Epoch) {
			s.Descriptor_ = d
		}
		return s
	}
	for _, d := range v.directory {
		at(d)
	}
	for _, node := range slices.Sorted(maps.Keys(v.reports)) {
		for _, r := range v.reports[node].Replicas {
			if r.Descriptor_ == nil {
				continue
			}
			s := at(r.Descriptor_)
			s.Replicas = append(s.Replicas, r)
			s.Keys = max(s.Keys, r.Keys)
			s.Bytes = max(s.Bytes, r.Bytes)
			s.Revision = max(s.Revision, r.Revision)
			if r.Leading && r.Term > s.Term {
				s.Term, s.LeaderNode = r.Term, r.Node
			}
		}
	}
	out := slices.Collect(maps.Values(byID))
	slices.SortFunc(out, func(a, b *pb.ShardInfo) int {
		return cmp.Or(slices.Compare(a.Descriptor_.Start, b.Descriptor_.Start), cmp.Compare(a.Descriptor_.Id, b.Descriptor_.Id))
	})
	return out
}

func newer(a, b *pb.Epoch) bool {
	ea := shard.Epoch{Version: a.GetVersion(), ConfVersion: a.GetConfVersion()}
	return ea.Newer(shard.Epoch{Version: b.GetVersion(), ConfVersion: b.GetConfVersion()})
}

// caughtUpVoters counts the voters that the shard's leader hears from and that
// hold nearly all of its log, itself included.
func caughtUpVoters(s *pb.ShardInfo) int {
	leader := leading(s)
	if leader == nil {
		return 0
	}
	match := map[uint64]*pb.MemberProgress{}
	for _, p := range leader.Progress {
		match[p.Replica] = p
	}
	n := 0
	for _, m := range s.Descriptor_.Replicas {
		role := shard.Role(m.Role)
		if role != shard.Voter {
			continue
		}
		p := match[m.Id]
		if m.Id == leader.Replica || p != nil && p.Active && !p.Snapshot && p.Match+caughtUpEntries >= leader.Commit {
			n++
		}
	}
	return n
}

// leading is what the shard's leader reports; nil if there is none.
func leading(sh *pb.ShardInfo) *pb.ReplicaInfo {
	for _, r := range sh.Replicas {
		if r.Leading && r.Term == sh.Term && r.Node == sh.LeaderNode {
			return r
		}
	}
	return nil
}

// nodeInfos lists all known nodes in order of ID.
func (v *view) nodeInfos() []*pb.NodeInfo {
	var out []*pb.NodeInfo
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		known := v.nodes[id]
		info := &pb.NodeInfo{Id: id, Address: known.Address, HttpAddress: known.HttpAddress}
		if r := v.reports[id]; r != nil {
			info = r.Node
		}
		info.State = v.state(id)
		for _, n := range v.placement().GetNodes() {
			if n.Id == id && !info.Live {
				info.SilentSeconds, info.Dead = uint64(n.SilentSeconds), n.Dead
			}
		}
		out = append(out, info)
	}
	return out
}

// know takes in a node's record. One that was decommissioned is no node any more.
func (v *view) know(n *router.Node) {
	id := uint64(n.ID)
	if n.State == shard.Removed {
		delete(v.nodes, id)
		return
	}
	v.states[id] = n.State
	v.nodes[id] = &pb.NodeAddress{NodeId: id, Address: n.Address, HttpAddress: n.HTTPAddress}
}

// state is a node's state in words, "" if its record was not read.
func (v *view) state(id uint64) string {
	if s, ok := v.states[id]; ok {
		return s.String()
	}
	return ""
}

// placement is what the driver of placement says; nil if nobody drives it. Of two
// that believe to, the later one counts.
func (v *view) placement() (p *pb.PlacementReport) {
	for _, r := range v.reports {
		if r.Placement != nil && (p == nil || r.Placement.Term > p.Term) {
			p = r.Placement
		}
	}
	return p
}
