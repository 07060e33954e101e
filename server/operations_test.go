package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// A cluster of one node, over gRPC: what can be done there, and what cannot.
func TestOperationsOverGRPC(t *testing.T) {
	conn := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	admin, cluster := pb.NewAdminClient(conn), pb.NewClusterClient(conn)
	registered := func() bool {
		r, err := cluster.ListNodes(ctx, &pb.ListNodesRequest{})
		return err == nil && len(r.Nodes) == 1 && r.Nodes[0].State == "serving"
	}
	for !registered() {
		if ctx.Err() != nil {
			t.Fatal("the node has not registered")
		}
	}
	_, err := admin.ChangeReplicas(ctx, &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1, ToNode: 2})
	refused(t, "an unknown target", err, codes.InvalidArgument, nil)
	_, err = admin.ChangeReplicas(ctx, &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1})
	refused(t, "the only voter", err, codes.InvalidArgument, nil)
	_, err = admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 1})
	refused(t, "the only node", err, codes.InvalidArgument, nil)
	_, err = admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 5, Undo: true})
	refused(t, "an unknown node", err, codes.InvalidArgument, nil)
	_, err = admin.DecommissionNode(ctx, &pb.DecommissionNodeRequest{Node: 1})
	refused(t, "the only node", err, codes.InvalidArgument, nil)
	_, err = admin.CancelOperation(ctx, &pb.CancelOperationRequest{Id: 1})
	refused(t, "an unknown operation", err, codes.InvalidArgument, nil)
	// In thought all that is refused alike.
	for what, try := range map[string]func(dry bool) error{
		"an unknown target": func(dry bool) error {
			_, err := admin.ChangeReplicas(ctx, &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1, ToNode: 2, DryRun: dry})
			return err
		},
		"the only voter": func(dry bool) error {
			_, err := admin.ChangeReplicas(ctx, &pb.ChangeReplicasRequest{Shard: 2, FromNode: 1, DryRun: dry})
			return err
		},
		"the only node drained": func(dry bool) error {
			_, err := admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 1, DryRun: dry})
			return err
		},
		"an unknown node": func(dry bool) error {
			_, err := admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 5, Undo: true, DryRun: dry})
			return err
		},
		"the only node decommissioned": func(dry bool) error {
			_, err := admin.DecommissionNode(ctx, &pb.DecommissionNodeRequest{Node: 1, DryRun: dry})
			return err
		},
		"an unknown leader": func(dry bool) error {
			_, err := admin.TransferLeader(ctx, &pb.TransferLeaderRequest{Shard: 2, ToNode: 7, DryRun: dry})
			return err
		},
	} {
		dry, earnest := try(true), try(false)
		refused(t, what, dry, codes.InvalidArgument, nil)
		if dry == nil || earnest == nil || dry.Error() != earnest.Error() {
			t.Errorf("%s: in thought %v, in earnest %v", what, dry, earnest)
		}
	}
	if r, err := admin.TransferLeader(ctx, &pb.TransferLeaderRequest{Shard: 2, ToNode: 1, DryRun: true}); err != nil || r.Forecast == nil || len(r.Forecast.Changes) != 0 {
		t.Errorf("a leader that is where it is to go: %v, %v", r, err)
	}
	if r, err := admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 1, Undo: true, DryRun: true}); err != nil || r.Forecast == nil || r.Operation != nil {
		t.Errorf("undoing what was not done, in thought: %v, %v", r, err)
	}
	if r, err := cluster.ListOperations(ctx, &pb.ListOperationsRequest{}); err != nil || len(r.Operations) != 0 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := admin.DrainNode(ctx, &pb.DrainNodeRequest{Node: 1, Undo: true}); err != nil || r.Operation.State != "cancelled" {
		t.Errorf("undoing what was not done: %v, %v", r, err)
	}
	explained := func(q *pb.ExplainPlacementRequest, says string) bool {
		r, err := cluster.ExplainPlacement(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(strings.Join(r.Lines, "\n"), says)
	}
	for !explained(&pb.ExplainPlacementRequest{Shard: 2}, "has 1 of 3 voters: no other node") {
		if ctx.Err() != nil {
			t.Fatal("placement does not say what the shard needs")
		}
	}
	if !explained(&pb.ExplainPlacementRequest{Node: 1}, "serving, with 2 replicas, of which it leads 2") || !explained(&pb.ExplainPlacementRequest{}, "shard 1: has 1 of 3") {
		t.Error("no explanation of the node, or of all")
	}
	_, err = cluster.ExplainPlacement(ctx, &pb.ExplainPlacementRequest{Node: 9})
	refused(t, "an unknown node", err, codes.InvalidArgument, nil)
	_, err = pb.NewPeerClient(conn).Join(ctx, &pb.JoinRequest{Address: "127.0.0.1:1"})
	refused(t, "a join without a proof", err, codes.InvalidArgument, nil)
}
