package server

import (
	"fmt"
	"strings"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// status judges the view.
func (v *view) status() *pb.StatusResponse {
	s := &pb.StatusResponse{ClusterId: v.cluster[:], NodeInfos: v.nodeInfos(), Nodes: uint64(len(v.nodes))}
	for id := range v.reports {
		if v.nodes[id] != nil { // it may have been decommissioned and not have ended yet
			s.NodesLive++
		}
	}
	lacking, meta := v.count(s)
	if !meta || len(v.directory) == 0 && s.NodesLive < s.Nodes {
		// Without the directory, shards that no live node has are not seen.
		s.Leaderless++
		s.UnderReplicated++
		s.Problems = append(s.Problems, "the meta shard does not answer: not all shards may be listed here; it answers again once a majority of its replicas is up")
	}
	different := differences(v.shards())
	s.Problems = append(s.Problems, different...)
	p := v.placement()
	for _, n := range s.NodeInfos {
		s.Problems = append(s.Problems, nodeProblems(n, p)...)
	}
	if s.NodesLive < s.Nodes && lacking > 0 && s.Leaderless == 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%s fewer than %d caught-up voters; all serve", shardsText(uint64(lacking), "has", "have"), placement.ReplicationFactor))
	}
	if s.Leaderless > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%s no leader and cannot serve; one is elected once a majority of the replicas is up", shardsText(s.Leaderless, "has", "have")))
	}
	if n := s.UnderReplicated - s.Leaderless; n > 0 {
		doing := "replicas are being added or are catching up"
		if p.GetPaused() {
			doing = "placement is paused and adds none; `placement resume` ends that"
		}
		s.Problems = append(s.Problems, fmt.Sprintf("%s fewer than %d caught-up voters; %s", shardsText(n, "has", "have"), v.wantedVoters(), doing))
	}
	s.Healthy = len(different) == 0 && s.Nodes > 0 && s.NodesLive == s.Nodes && s.UnderReplicated == 0 && s.Leaderless == 0
	if s.Healthy && p.GetPaused() {
		s.Problems = append(s.Problems, "placement is paused: dead nodes are not replaced and nothing is evened out; `placement resume` ends that")
	}
	return s
}

func shardsText(n uint64, one, many string) string {
	if n == 1 {
		return "1 shard " + one
	}
	return fmt.Sprintf("%d shards %s", n, many)
}

// wantedVoters is how many caught-up voters every shard can have.
func (v *view) wantedVoters() int {
	live := 0
	for id := range v.reports {
		if v.nodes[id] != nil {
			live++
		}
	}
	return min(placement.ReplicationFactor, live)
}

// wantedMetaVoters is the same of the meta shard, which has more where more nodes serve.
func (v *view) wantedMetaVoters() int {
	serve := 0
	for id := range v.reports {
		if v.nodes[id] != nil && v.states[id] == shard.Serving {
			serve++
		}
	}
	return max(v.wantedVoters(), placement.VotersWanted(shard.MetaID, serve))
}

// count counts shards, and those that lack something.
func (v *view) count(s *pb.StatusResponse) (lacking int, meta bool) {
	for _, sh := range v.shards() {
		s.Shards++
		s.Keys += sh.Keys
		s.Bytes += sh.Bytes
		s.Revision = max(s.Revision, sh.Revision)
		meta = meta || sh.Descriptor_.Id == uint64(shard.MetaID)
		voters := caughtUpVoters(sh)
		want := v.wantedVoters()
		if sh.Descriptor_.Id == uint64(shard.MetaID) {
			want = v.wantedMetaVoters()
		}
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
	return lacking, meta
}

// nodeProblems says what is to be known of a node: that it does not answer, since
// when and what is done about it, or that it is on its way out.
func nodeProblems(n *pb.NodeInfo, p *pb.PlacementReport) (problems []string) {
	var driven *pb.PlacementNode
	for _, known := range p.GetNodes() {
		if known.Id == n.Id {
			driven = known
		}
	}
	if !n.Live {
		text := fmt.Sprintf("node %d (%s) is not answering", n.Id, n.Address)
		if driven != nil && !driven.Live {
			text += silentText(driven, p)
		} else {
			text += "; start it again with its store"
		}
		problems = append(problems, text)
	}
	switch n.State {
	case shard.Draining.String():
		problems = append(problems, fmt.Sprintf("node %d is draining: it leads nothing; its next start or `node drain %d --undo` ends that", n.Id, n.Id))
	case shard.Leaving.String():
		text := fmt.Sprintf("node %d is being decommissioned", n.Id)
		if driven != nil && driven.State == n.State {
			text += fmt.Sprintf(": %d replicas are left on it", driven.Replicas)
		}
		problems = append(problems, text)
	}
	return problems
}

// silentText says since when a node has been silent, and what becomes of its replicas.
func silentText(n *pb.PlacementNode, p *pb.PlacementReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, " since %s: ", seconds(n.SilentSeconds))
	left := p.DeadAfterSeconds - n.SilentSeconds
	switch {
	case n.Replicas == 0:
		fmt.Fprintf(&b, "nothing is left on it; `node decommission %d` takes it off the list", n.Id)
	case p.Paused:
		fmt.Fprintf(&b, "its %d replicas are not rebuilt, because placement is paused; `placement resume` ends that", n.Replicas)
	case p.DeadAfterSeconds == 0:
		fmt.Fprintf(&b, "%d replicas are on it", n.Replicas)
	case n.Homeless == n.Replicas:
		when := "its %d replicas are to be rebuilt elsewhere"
		if left > 0 {
			when = "its %d replicas are to be rebuilt elsewhere in " + seconds(left)
		}
		fmt.Fprintf(&b, when+", but no other node can take them: start another node, or bring node %d back", n.Replicas, n.Id)
	case left > 0:
		fmt.Fprintf(&b, "its %d replicas are rebuilt elsewhere in %s, unless it is back", n.Replicas, seconds(left))
	default:
		fmt.Fprintf(&b, "its replicas are being rebuilt elsewhere, %d are left", n.Replicas)
	}
	return b.String()
}

func seconds(s float64) string {
	return (time.Duration(max(s, 0)) * time.Second).String()
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
