package server

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// complete makes a view's descriptors and reports such that placement decides by them.
func complete(v *view, bytes uint64) *view {
	for _, d := range v.directory {
		d.Start, d.End = []byte{shard.UserKeyspace}, []byte{shard.UserKeyspace + 1}
	}
	for _, r := range v.reports {
		for _, rep := range r.Replicas {
			rep.Bytes = bytes
		}
	}
	return v
}

// changesText is a forecast in one line.
func changesText(f *pb.Forecast) string {
	var texts []string
	for _, c := range f.Changes {
		texts = append(texts, fmt.Sprintf("%s %d: %d to %d, %d B", c.Kind, c.Shard, c.FromNode, c.ToNode, c.Bytes))
	}
	return strings.Join(append(texts, f.Waits...), "; ")
}

func TestWhatWouldBeDone(t *testing.T) {
	healthy := func() *view { return complete(viewOf(4, nil, nil, 1, 2, 3), 700) }
	for _, c := range []struct {
		name string
		f    *pb.Forecast
		want string
	}{
		{"a move", healthy().forecastChange(&pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}), "move 2: 3 to 4, 700 B"},
		{"a move of the leader", healthy().forecastChange(&pb.ChangeReplicasRequest{Shard: 2, FromNode: 1, ToNode: 4}), "transfer-leader 2: 1 to 2, 0 B; move 2: 1 to 4, 700 B"},
		{"a replica more", healthy().forecastChange(&pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}), "add-replica 2: 0 to 4, 700 B"},
		{"a replica less", complete(viewOf(4, nil, nil, 1, 2, 3, 4), 9).forecastChange(&pb.ChangeReplicasRequest{Shard: 2, FromNode: 4}), "remove-replica 2: 4 to 0, 0 B"},
		{"a drain", healthy().forecastState(1, shard.Draining), "transfer-leader 2: 1 to 2, 0 B"},
		{"a drain of a node that leads nothing", healthy().forecastState(3, shard.Draining), ""},
		{"the end of a drain", healthy().forecastState(1, shard.Serving), ""},
		{"a decommission", healthy().forecastState(1, shard.Leaving), "transfer-leader 2: 1 to 2, 0 B; move 2: 1 to 4, 700 B"},
		{"a decommission of a node without replicas", healthy().forecastState(4, shard.Leaving), ""},
		{"nobody takes it", complete(viewOf(3, nil, nil, 1, 2, 3), 9).forecastState(3, shard.Leaving), "shard 2: its voters on node 3 stay: no other node that serves is without a replica of it; start another node"},
		{"a transfer", forecastTransfer(healthy().shards()[0], 3), "transfer-leader 2: 1 to 3, 0 B"},
		{"a transfer to the leader", forecastTransfer(healthy().shards()[0], 1), ""},
	} {
		if got := changesText(c.f); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A forecast chooses nodes by all that placement chooses them by.
func TestAForecastKnowsPlacesAndDisks(t *testing.T) {
	v := complete(viewOf(5, nil, nil, 1, 2, 3), 700)
	for id, zone := range map[uint64]string{1: "zone=a", 2: "zone=b", 3: "zone=c", 4: "zone=a", 5: "zone=c"} {
		v.reports[id].Node.Locality = zone
	}
	if got := changesText(v.forecastState(3, shard.Leaving)); got != "move 2: 3 to 5, 700 B" {
		t.Errorf("the only other node in the same zone: %q", got)
	}
	v = withDisk(complete(viewOf(5, nil, nil, 1, 2, 3), 700), 4, 1)
	if got := changesText(v.forecastState(3, shard.Leaving)); got != "move 2: 3 to 5, 700 B" {
		t.Errorf("beside a node with a full disk: %q", got)
	}
}

// A forecast changes nothing of what it is made from.
func TestAForecastLeavesTheViewAlone(t *testing.T) {
	v := complete(viewOf(4, nil, nil, 1, 2, 3), 9)
	before := v.directory[0].String()
	v.forecastState(1, shard.Leaving)
	if after := v.directory[0].String(); after != before || v.states[1] != shard.Serving {
		t.Errorf("%s became %s, and node 1 is %v", before, after, v.states[1])
	}
}

// inRoles is viewOf's shard with other roles, in order of replica.
func inRoles(v *view, roles ...shard.Role) *pb.ShardInfo {
	for i, role := range roles {
		v.directory[0].Replicas[i].Role = uint32(role)
	}
	return v.shards()[0]
}

func TestWhichOperationsMayBeCancelled(t *testing.T) {
	const voter, learner, incoming, outgoing = shard.Voter, shard.Learner, shard.Incoming, shard.Outgoing
	move, add, remove := &pb.Operation{Id: 7, FromNode: 3, ToNode: 4}, &pb.Operation{Id: 7, ToNode: 4}, &pb.Operation{Id: 7, FromNode: 4}
	for _, c := range []struct {
		name string
		sh   *pb.ShardInfo
		op   *pb.Operation
		says string // "": it may be
	}{
		{"a move that has not begun", viewOf(4, nil, nil, 1, 2, 3).shards()[0], move, ""},
		{"a move whose learner catches up", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, voter, learner), move, ""},
		{"a move in its joint configuration", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, outgoing, incoming), move, "operation 7 is past its joint change"},
		{"a move that has a learner to remove", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, learner, voter), move, "the replica on node 4 votes"},
		{"a replica that is being added", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, voter, learner), add, ""},
		{"a replica that was added", viewOf(4, nil, nil, 1, 2, 3, 4).shards()[0], add, "past its joint change"},
		{"a removal that has not begun", viewOf(4, nil, nil, 1, 2, 3, 4).shards()[0], remove, ""},
		{"a removal in its joint configuration", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, voter, outgoing), remove, "the replica on node 4 votes no more"},
		{"a removal that is done", viewOf(4, nil, nil, 1, 2, 3).shards()[0], remove, "votes no more"},
		{"a removal of a learner", inRoles(viewOf(4, nil, nil, 1, 2, 3, 4), voter, voter, voter, learner), remove, ""},
	} {
		err := checkCancel(c.sh, c.op)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHowMuchWasCopied(t *testing.T) {
	at := func(p *pb.MemberProgress, role shard.Role) *pb.ShardInfo {
		v := complete(viewOf(4, nil, nil, 1, 2, 3, 4), 1000)
		progress := v.reports[1].Replicas[0].Progress
		p.Replica = 4
		progress[3] = p
		return inRoles(v, shard.Voter, shard.Voter, shard.Voter, role)
	}
	for _, c := range []struct {
		name        string
		sh          *pb.ShardInfo
		to          uint64
		done, total uint64
	}{
		{"before the learner is there", complete(viewOf(4, nil, nil, 1, 2, 3), 1000).shards()[0], 4, 0, 1000},
		{"in line", at(&pb.MemberProgress{Snapshot: true}, shard.Learner), 4, 0, 1000},
		{"half-way", at(&pb.MemberProgress{Snapshot: true, SnapshotBytes: 500}, shard.Learner), 4, 500, 1000},
		{"more than was thought", at(&pb.MemberProgress{Snapshot: true, SnapshotBytes: 1500}, shard.Learner), 4, 1000, 1000},
		{"landed", at(&pb.MemberProgress{Match: 15}, shard.Learner), 4, 1000, 1000},
		{"votes", at(&pb.MemberProgress{Match: 20}, shard.Voter), 4, 1000, 1000},
		{"nothing is copied", at(&pb.MemberProgress{}, shard.Voter), 0, 0, 0},
		{"no leader", complete(viewOf(4, nil, []uint64{1}, 1, 2, 3), 1000).shards()[0], 4, 0, 0},
	} {
		if done, total := copied(c.sh, c.to); done != c.done || total != c.total {
			t.Errorf("%s: %d of %d, want %d of %d", c.name, done, total, c.done, c.total)
		}
	}
}

func TestWhereALeaderMayGo(t *testing.T) {
	draining := map[shard.NodeID]shard.NodeState{2: shard.Draining}
	for _, c := range []struct {
		name  string
		v     *view
		q     *pb.TransferLeaderRequest
		first bool
		says  string
	}{
		{"to a voter", viewOf(4, nil, nil, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 2}, true, ""},
		{"to the leader", viewOf(4, nil, nil, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 1}, true, ""},
		{"of an unknown shard", viewOf(4, nil, nil, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 9, ToNode: 1}, true, "shard 9 does not exist"},
		{"to a node without a replica", viewOf(4, nil, nil, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 4}, true, "node 4 has no replica"},
		{"to a learner", withLearner(viewOf(4, nil, nil, 1, 2, 3), 4), &pb.TransferLeaderRequest{Shard: 2, ToNode: 4}, true, "does not vote"},
		{"to a node that drains", viewOf(4, draining, nil, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 2}, true, "node 2 is draining"},
		{"to a silent node", viewOf(4, nil, []uint64{2}, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 2}, true, "node 2 is not answering"},
		{"to a node that fell silent since", viewOf(4, nil, []uint64{2}, 1, 2, 3), &pb.TransferLeaderRequest{Shard: 2, ToNode: 2}, false, ""},
	} {
		_, _, err := c.v.checkTransfer(c.q, c.first)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
