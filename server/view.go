package server

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
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
	i := slices.IndexFunc(s.Replicas, func(r *pb.ReplicaInfo) bool {
		return r.Leading && r.Term == s.Term && r.Node == s.LeaderNode
	})
	if i < 0 {
		return 0
	}
	leader := s.Replicas[i]
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

// nodeInfos lists all known nodes in order of ID.
func (v *view) nodeInfos() []*pb.NodeInfo {
	var out []*pb.NodeInfo
	for _, id := range slices.Sorted(maps.Keys(v.nodes)) {
		known := v.nodes[id]
		if r := v.reports[id]; r != nil {
			out = append(out, r.Node)
			continue
		}
		out = append(out, &pb.NodeInfo{Id: id, Address: known.Address, HttpAddress: known.HttpAddress})
	}
	return out
}

// status judges the view.
func (v *view) status() *pb.StatusResponse {
	s := &pb.StatusResponse{ClusterId: v.cluster[:], NodeInfos: v.nodeInfos(), Nodes: uint64(len(v.nodes)), NodesLive: uint64(len(v.reports))}
	want := min(placement.ReplicationFactor, len(v.reports))
	lacking, meta := 0, false
	for _, sh := range v.shards() {
		s.Shards++
		s.Keys += sh.Keys
		s.Bytes += sh.Bytes
		s.Revision = max(s.Revision, sh.Revision)
		meta = meta || sh.Descriptor_.Id == uint64(shard.MetaID)
		voters := caughtUpVoters(sh)
		switch {
		case sh.LeaderNode == 0:
			s.Leaderless++
			s.UnderReplicated++
		case voters < want:
			s.UnderReplicated++
		}
		if voters < placement.ReplicationFactor {
			lacking++
		}
	}
	if !meta || len(v.directory) == 0 && s.NodesLive < s.Nodes {
		// Without the directory, shards that no live node has are not seen.
		s.Leaderless++
		s.UnderReplicated++
		s.Problems = append(s.Problems, "the meta shard does not answer: not all shards may be listed here; it answers again once a majority of its replicas is up")
	}
	different := differences(v.shards())
	s.Problems = append(s.Problems, different...)
	for _, n := range s.NodeInfos {
		if !n.Live {
			s.Problems = append(s.Problems, fmt.Sprintf("node %d (%s) is not answering; start it again with its store", n.Id, n.Address))
		}
	}
	if s.NodesLive < s.Nodes && lacking > 0 && s.Leaderless == 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d shards have fewer than %d caught-up voters; all serve", lacking, placement.ReplicationFactor))
	}
	if s.Leaderless > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d shards have no leader and do not serve; they elect one once a majority of their replicas is up", s.Leaderless))
	}
	if n := s.UnderReplicated - s.Leaderless; n > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d shards have fewer than %d caught-up voters; replicas are being added or are catching up", n, want))
	}
	s.Healthy = len(different) == 0 && s.Nodes > 0 && s.NodesLive == s.Nodes && s.UnderReplicated == 0 && s.Leaderless == 0
	return s
}

// differences says which shards have replicas that differ.
func differences(shards []*pb.ShardInfo) (problems []string) {
	for _, sh := range shards {
		var nodes []string
		for _, r := range sh.Replicas {
			if r.GetCheck().GetDiffers() {
				nodes = append(nodes, fmt.Sprint(r.Node))
			}
		}
		if len(nodes) > 0 {
			problems = append(problems, fmt.Sprintf("shard %d: the replica on node %s differs from the leader's on node %d: one of them has lost or changed data; debug check %d shows all digests; stop the node with the odd one, and give it an empty store",
				sh.Descriptor_.Id, strings.Join(nodes, ", "), sh.LeaderNode, sh.Descriptor_.Id))
		}
	}
	return problems
}
