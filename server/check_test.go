package server

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// viewOf is a cluster of nodes, of which those in silent do not answer, with one
// shard that has voters on some of them and is led by the first of these.
func viewOf(nodes int, states map[shard.NodeID]shard.NodeState, silent []uint64, voters ...uint64) *view {
	v := &view{nodes: map[uint64]*pb.NodeAddress{}, states: map[uint64]shard.NodeState{}, reports: map[uint64]*pb.NodeReportResponse{}}
	d := &pb.Descriptor{Id: 2, Start: shard.UserSpan().Start, End: shard.UserSpan().End, Epoch: &pb.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 10}
	leader := &pb.ReplicaInfo{Shard: 2, Replica: 1, Node: voters[0], Leading: true, Term: 3, Commit: 20, Descriptor_: d}
	for i, n := range voters {
		d.Replicas = append(d.Replicas, &pb.Replica{Id: uint64(i + 1), Node: n, Role: uint32(shard.Voter)})
		leader.Progress = append(leader.Progress, &pb.MemberProgress{Replica: uint64(i + 1), Match: 20, Active: true})
	}
	for id := shard.NodeID(1); id <= shard.NodeID(nodes); id++ {
		v.know(&router.Node{ID: id, Address: "a:1", State: states[id]})
		v.reports[uint64(id)] = &pb.NodeReportResponse{Node: &pb.NodeInfo{Id: uint64(id), Live: true}}
	}
	v.reports[voters[0]].Replicas = []*pb.ReplicaInfo{leader}
	for _, id := range silent {
		delete(v.reports, id)
	}
	v.directory = []*pb.Descriptor{d}
	return v
}

// withLearner gives the shard of v a learner on a node, and returns v.
func withLearner(v *view, node uint64) *view {
	d := v.directory[0]
	d.Replicas = append(d.Replicas, &pb.Replica{Id: d.NextReplica, Node: node, Role: uint32(shard.Learner)})
	d.NextReplica++
	return v
}

// withDisk gives a node of v a disk of which some percent are free, and returns v.
func withDisk(v *view, node, free uint64) *view {
	n := v.reports[node].Node
	n.CapacityBytes, n.AvailableBytes = 100<<20, free<<20
	v.reports[1].Placement = &pb.PlacementReport{Term: 1, LowSpace: 80, FullSpace: 95}
	return v
}

// What a scatter draws is admissible, and what is there already needs no operation.
func TestScatterDrawsPlaces(t *testing.T) {
	v := viewOf(5, map[shard.NodeID]shard.NodeState{4: shard.Draining}, []uint64{5}, 1, 2, 3)
	second := func(int) int { return 1 }
	r, spots, err := v.scatter(0, second)
	if err != nil || len(r.Refused) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(spots) != 1 {
		t.Fatalf("%+v", spots)
	}
	for _, spot := range spots {
		if slices.Contains(spot.Nodes, 4) || slices.Contains(spot.Nodes, 5) || len(spot.Nodes) != 3 || spot.Nodes[0] == 1 {
			t.Fatalf("%+v", spot)
		}
	}
	if _, _, err := v.scatter(9, second); err == nil || !strings.Contains(err.Error(), "shard 9 does not exist") {
		t.Fatalf("%v", err)
	}
	v = viewOf(5, nil, []uint64{3}, 1, 2, 3)
	if _, _, err := v.scatter(2, second); err == nil || !strings.Contains(err.Error(), "shard 2 cannot be scattered now: node 3 with a voter of it does not answer") {
		t.Fatalf("%v", err)
	}
	if r, spots, err := v.scatter(0, second); err != nil || len(spots) != 0 || len(r.Refused) != 1 {
		t.Fatalf("%+v, %+v, %v", r, spots, err)
	}
}

func TestWhatCannotBeIsRefusedAtOnce(t *testing.T) {
	none := map[shard.NodeID]shard.NodeState{}
	for _, c := range []struct {
		name string
		v    *view
		q    *pb.ChangeReplicasRequest
		says string // "": it is allowed
	}{
		{"a move", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}, ""},
		{"an added replica", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}, ""},
		{"a replica too many", viewOf(4, none, nil, 1, 2, 3, 4), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 4}, ""},
		{"no such shard", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 9, FromNode: 3, ToNode: 4}, "shard 9 does not exist"},
		{"a full target", withDisk(viewOf(4, none, nil, 1, 2, 3), 4, 2), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}, "node 4 has 2 % of its disk free and takes no replicas"},
		{"a target with little space", withDisk(viewOf(4, none, nil, 1, 2, 3), 4, 10), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}, ""},
		{"no such target", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 9}, "--to node 9 does not exist"},
		{"no such source", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 9, ToNode: 4}, "--from node 9 does not exist"},
		{"a source without a replica", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 4, ToNode: 3}, "--from node 4 has no replica of shard 2; it has replicas on nodes 1, 2, 3"},
		{"a target that has one", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1, ToNode: 3}, "--to node 3 has a replica of shard 2 already, a voter"},
		{"the same node", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 3}, "is node 3, which is --from too"},
		{"no node", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2}, "names no node"},
		{"a draining target", viewOf(4, map[shard.NodeID]shard.NodeState{4: shard.Draining}, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}, "--to node 4 is draining"},
		{"a leaving target", viewOf(4, map[shard.NodeID]shard.NodeState{4: shard.Leaving}, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}, "--to node 4 is leaving"},
		{"a removed target", viewOf(4, map[shard.NodeID]shard.NodeState{4: shard.Removed}, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}, "--to node 4 does not exist"},
		{"a silent target", viewOf(4, none, []uint64{4}, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}, "--to node 4 is not answering"},
		{"too few voters", viewOf(4, none, nil, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3}, "removing the replica on node 3 would leave shard 2 with 2 voters"},
		{"a lost majority", viewOf(4, none, []uint64{2}, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3}, "with 2 voters of which 1 answer, which is no majority"},
		{"a move beside a silent voter", viewOf(4, none, []uint64{2}, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 4}, "shard 2 has a voter on node 2, which is not answering; start it, or move that replica first"},
		{"a replica beside a silent voter", viewOf(4, none, []uint64{2}, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, ToNode: 4}, "shard 2 has a voter on node 2, which is not answering"},
		{"a silent voter that moves", viewOf(4, none, []uint64{2}, 1, 2, 3), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 2, ToNode: 4}, ""},
		{"a move beside one silent voter of five", viewOf(6, none, []uint64{2}, 1, 2, 3, 4, 5), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 3, ToNode: 6}, ""},
		{"a learner that is to move", withLearner(viewOf(5, none, nil, 1, 2, 3), 4), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 4, ToNode: 5}, "node 4 has a learner of shard 2, and only voters move"},
		{"a learner that is to go", withLearner(viewOf(5, none, nil, 1, 2, 3), 4), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 4}, ""},
		{"the only voter", viewOf(4, none, nil, 1), &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1}, "would leave shard 2 without a voter"},
	} {
		err := c.v.checkChange(c.q)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestWhichNodesMayLeave(t *testing.T) {
	for _, c := range []struct {
		name                string
		v                   *view
		drain, decommission string
	}{
		{"one of four", viewOf(4, nil, nil, 1, 2, 3), "", ""},
		{"one of three", viewOf(3, nil, nil, 1, 2, 3), "", "shard 2 needs 3 other nodes that serve, and there are 2"},
		{"the fourth does not serve", viewOf(4, map[shard.NodeID]shard.NodeState{4: shard.Draining}, nil, 1, 2, 3), "", "and there are 2"},
		{"the fourth is silent", viewOf(4, nil, []uint64{4}, 1, 2, 3), "", "and there are 2"},
		{"one that has nothing", viewOf(3, nil, nil, 2, 3), "", ""},
		{"the only one", viewOf(1, nil, nil, 1), "no other node serves", "shard 2 needs 1 other nodes"},
		{"unknown", viewOf(4, map[shard.NodeID]shard.NodeState{1: shard.Removed}, nil, 1, 2, 3), "node 1 does not exist", "node 1 does not exist"},
	} {
		for _, e := range []struct {
			err  error
			says string
		}{{c.v.checkDrain(1), c.drain}, {c.v.checkDecommission(1), c.decommission}} {
			if (e.err == nil) != (e.says == "") || e.err != nil && !strings.Contains(e.err.Error(), e.says) {
				t.Errorf("%s: %v, want %q", c.name, e.err, e.says)
			}
		}
	}
}

// withPlacement has the driver say this of a node.
func (v *view) withPlacement(p *pb.PlacementReport) *view {
	for _, r := range v.reports {
		r.Placement = p
		break
	}
	return v
}

func TestStatusSaysWhatIsWrongSinceWhenAndWhatIsDone(t *testing.T) {
	silent := func(change func(*pb.PlacementReport, *pb.PlacementNode)) *pb.PlacementReport {
		n := &pb.PlacementNode{Id: 3, State: "serving", SilentSeconds: 130, Replicas: 9}
		p := &pb.PlacementReport{Term: 2, DeadAfterSeconds: 300, Nodes: []*pb.PlacementNode{{Id: 1, Live: true}, n}}
		change(p, n)
		return p
	}
	for _, c := range []struct {
		name string
		p    *pb.PlacementReport
		says string
	}{
		{"not long", silent(func(*pb.PlacementReport, *pb.PlacementNode) {}), "node 3 (a:1) is not answering since 2m10s: its 9 replicas are rebuilt elsewhere in 2m50s, unless it is back"},
		{"no elsewhere", silent(func(_ *pb.PlacementReport, n *pb.PlacementNode) { n.Homeless = 9 }),
			"since 2m10s: its 9 replicas are to be rebuilt elsewhere in 2m50s, but no other node can take them: start another node, or bring node 3 back"},
		{"dead without elsewhere", silent(func(_ *pb.PlacementReport, n *pb.PlacementNode) { n.Homeless, n.SilentSeconds = 9, 400 }), "are to be rebuilt elsewhere, but no other node"},
		{"dead", silent(func(_ *pb.PlacementReport, n *pb.PlacementNode) { n.SilentSeconds = 301 }), "since 5m1s: its replicas are being rebuilt elsewhere, 9 are left"},
		{"replaced", silent(func(_ *pb.PlacementReport, n *pb.PlacementNode) { n.Replicas = 0 }), "nothing is left on it; `node decommission 3` takes it off the list"},
		{"paused", silent(func(p *pb.PlacementReport, _ *pb.PlacementNode) { p.Paused = true }), "not rebuilt, because placement is paused"},
		{"nobody drives", nil, "node 3 (a:1) is not answering; start it again with its store"},
	} {
		s := viewOf(3, nil, []uint64{3}, 1, 2, 3).withPlacement(c.p).status()
		if s.Healthy || s.NodesLive != 2 || !strings.Contains(strings.Join(s.Problems, "\n"), c.says) {
			t.Errorf("%s: %q", c.name, s.Problems)
		}
	}
	s := viewOf(3, map[shard.NodeID]shard.NodeState{3: shard.Removed}, nil, 1, 2).status()
	if s.Nodes != 2 || s.NodesLive != 2 {
		t.Errorf("a removed node that has not ended yet counts: %+v", s)
	}
}

// Of two drivers the later one is believed.
func TestTheLaterDriverIsBelieved(t *testing.T) {
	v := viewOf(3, nil, nil, 1, 2, 3)
	v.reports[1].Placement, v.reports[2].Placement = &pb.PlacementReport{Term: 5}, &pb.PlacementReport{Term: 7}
	if p := v.placement(); p.GetTerm() != 7 {
		t.Errorf("%v", p)
	}
}

func TestAnAddressLeadsBackOrNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	proof, end, err := prove(l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 { // several nodes may be asked
		if err := leadsBack(ctx, l.Addr().String(), proof); err != nil {
			t.Fatal(err)
		}
	}
	other := append([]byte{proof[0] + 1}, proof[1:]...)
	if err := leadsBack(ctx, l.Addr().String(), other); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("another one's proof: %v", err)
	}
	if err := leadsBack(ctx, l.Addr().String(), nil); err == nil {
		t.Error("no proof")
	}
	end()
	// The listener is as it was.
	accepted := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_ = conn.Close()
		}
		accepted <- err
	}()
	if err := leadsBack(ctx, l.Addr().String(), proof); err == nil {
		t.Error("it still answers with the proof")
	}
	if err := <-accepted; err != nil {
		t.Errorf("the listener does not listen any more: %v", err)
	}
	address := l.Addr().String()
	_ = l.Close()
	if err := leadsBack(ctx, address, proof); err == nil || !strings.Contains(err.Error(), "does not lead back") {
		t.Errorf("nobody listens: %v", err)
	}
}
