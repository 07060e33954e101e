package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// Kinds of operations, as they cross the wire.
const (
	kindAdd          = "add-replica"
	kindRemove       = "remove-replica"
	kindMove         = "move"
	kindScatter      = "scatter"
	kindDrain        = "drain"
	kindDecommission = "decommission"
	kindTransfer     = "transfer-leader" // of a forecast
)

// ListOperations lists what was asked of placement, from the records, with what
// the driver says of those under way.
func (s *clusterService) ListOperations(ctx context.Context, q *pb.ListOperationsRequest) (*pb.ListOperationsResponse, error) {
	ops, err := s.operations(ctx)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.ListOperationsResponse{}
	for _, op := range ops {
		if q.Id == 0 || op.Id == q.Id {
			r.Operations = append(r.Operations, op)
		}
	}
	return r, nil
}

func (s *clusterService) operations(ctx context.Context) ([]*pb.Operation, error) {
	records, err := await(ctx, s.node.Catalog().ListOperations)
	if err != nil {
		return nil, err
	}
	nodes, err := await(ctx, s.node.Catalog().ListNodes)
	if err != nil {
		return nil, err
	}
	v, err := s.look(ctx, replicasOf(running(records)...))
	if err != nil {
		return nil, err
	}
	driver := v.placement()
	shards := v.shards()
	var ops []*pb.Operation
	for i := range records {
		op := shardOperation(&records[i], driver)
		if k := slices.IndexFunc(shards, func(sh *pb.ShardInfo) bool { return sh.Descriptor_.Id == op.Shard }); k >= 0 && op.State == catalog.OperationRunning.String() {
			op.BytesDone, op.BytesTotal = copied(shards[k], op.ToNode)
		}
		ops = append(ops, op)
	}
	for i := range nodes {
		if nodes[i].Operation != 0 {
			ops = append(ops, nodeOperation(&nodes[i], driver))
		}
	}
	slices.SortFunc(ops, func(a, b *pb.Operation) int { return cmp.Compare(a.Id, b.Id) })
	return ops, nil
}

// running are the shards of the operations that run.
func running(records []catalog.Operation) (ids []shard.ID) {
	for i := range records {
		if records[i].State == catalog.OperationRunning {
			ids = append(ids, records[i].Shard)
		}
	}
	return ids
}

// copied is how many bytes of a shard's data a node has that is to get a replica, and
// how many there are, an estimate; both 0 if none is to be copied.
func copied(sh *pb.ShardInfo, to uint64) (done, total uint64) {
	leader := leading(sh)
	if to == 0 || leader == nil {
		return 0, 0
	}
	m := memberOn(sh, to)
	total = max(sh.Bytes, 1)
	switch {
	case m == nil:
		return 0, total
	case shard.Role(m.Role) != shard.Learner:
		return total, total
	}
	for _, p := range leader.Progress {
		switch {
		case p.Replica != m.Id:
		case p.Snapshot:
			return min(p.SnapshotBytes, total), total
		case p.Match > 0:
			return total, total
		}
	}
	return 0, total
}

func shardOperation(record *catalog.Operation, driver *pb.PlacementReport) *pb.Operation {
	op := &pb.Operation{
		Id: record.ID, Kind: kindMove, Shard: uint64(record.Shard), FromNode: uint64(record.From), ToNode: uint64(record.To),
		State: record.State.String(), Reason: record.Reason, BeganUnix: record.Began, EndedUnix: record.Ended,
	}
	for _, n := range record.Nodes {
		op.Nodes = append(op.Nodes, uint64(n))
	}
	switch {
	case len(op.Nodes) > 0:
		op.Kind = kindScatter
	case record.From == 0:
		op.Kind = kindAdd
	case record.To == 0:
		op.Kind = kindRemove
	}
	if record.State == catalog.OperationRunning {
		op.Progress = "waits for placement to begin"
		for _, note := range driver.GetOperations() {
			if note.Id == op.Id && note.Text != "" {
				op.Progress = note.Text
			}
		}
	}
	return op
}

// nodeOperation is a node's state as the operation that brought it about.
func nodeOperation(n *router.Node, driver *pb.PlacementReport) *pb.Operation {
	op := &pb.Operation{Id: n.Operation, Kind: kindDecommission, Node: uint64(n.ID), State: catalog.OperationRunning.String(), BeganUnix: n.Since, EndedUnix: n.Ended,
		Progress: "waits for placement to begin"}
	switch n.State {
	case shard.Draining:
		op.Kind = kindDrain
	case shard.Serving:
		op.State, op.Progress = catalog.OperationCancelled.String(), ""
		return op
	}
	for _, known := range driver.GetNodes() {
		if known.Id != op.Node || known.State != n.State.String() {
			continue
		}
		op.Progress = fmt.Sprintf("left on it: %d replicas, %d of them lead", known.Replicas, known.Leaders)
		op.ReplicasLeft, op.LeadersLeft = known.Replicas, known.Leaders
		if known.Homeless > 0 && n.State == shard.Leaving {
			op.Progress += fmt.Sprintf("; no other node can take %d of them now: start another node", known.Homeless)
		}
		if n.State == shard.Draining && known.Leaders == 0 {
			op.State, op.Progress = catalog.OperationDone.String(), ""
		}
	}
	if n.State == shard.Removed {
		op.State, op.Progress = catalog.OperationDone.String(), ""
	}
	return op
}

// ChangeReplicas records an operation after it has been checked against what the
// nodes report. Whoever drives placement checks again, at every step.
func (s *adminService) ChangeReplicas(ctx context.Context, q *pb.ChangeReplicasRequest) (*pb.OperationResponse, error) {
	v, err := s.cluster.look(ctx, everything)
	if err != nil {
		return nil, api.Status(err)
	}
	if err := v.checkChange(q); err != nil {
		return nil, api.Status(err)
	}
	if q.DryRun {
		if err := s.mayBegin(ctx, shard.ID(q.Shard)); err != nil {
			return nil, api.Status(err)
		}
		return &pb.OperationResponse{Forecast: v.forecastChange(q)}, nil
	}
	op, err := await(ctx, func(done func(catalog.Operation, error)) {
		s.cluster.node.Catalog().BeginOperation(catalog.Operation{
			Shard: shard.ID(q.Shard), From: shard.NodeID(q.FromNode), To: shard.NodeID(q.ToNode), Began: unixNow(),
		}, done)
	})
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.OperationResponse{Operation: shardOperation(&op, nil)}, nil
}

// mayBegin says why no operation on a shard can begin.
func (s *adminService) mayBegin(ctx context.Context, id shard.ID) error {
	_, err := await(ctx, func(done func(struct{}, error)) {
		s.cluster.node.Catalog().MayBeginOperation(id, func(err error) { done(struct{}{}, err) })
	})
	return err
}

// DrainNode changes the node's record; leaders follow.
func (s *adminService) DrainNode(ctx context.Context, q *pb.DrainNodeRequest) (*pb.OperationResponse, error) {
	if q.Undo {
		if err := s.refuseUndo(ctx, q.Node); err != nil {
			return nil, api.Status(err)
		}
		return s.setState(ctx, nil, q.Node, shard.Serving, q.DryRun)
	}
	v, err := s.cluster.look(ctx, everything)
	if err == nil {
		err = v.checkDrain(q.Node)
	}
	if err != nil {
		return nil, api.Status(err)
	}
	return s.setState(ctx, v, q.Node, shard.Draining, q.DryRun)
}

// refuseUndo: what was asked for by another word is ended by another word.
func (s *adminService) refuseUndo(ctx context.Context, id uint64) error {
	nodes, err := await(ctx, s.cluster.node.Catalog().ListNodes)
	if err != nil {
		return err
	}
	for i := range nodes {
		if n := &nodes[i]; uint64(n.ID) == id && n.State == shard.Leaving {
			return &shard.InvalidError{Field: "node", Reason: fmt.Sprintf("%d is being decommissioned, not drained; `ops cancel %d` ends that", id, n.Operation)}
		}
	}
	return nil
}

// DecommissionNode changes the node's record; placement empties it and ends its
// membership.
func (s *adminService) DecommissionNode(ctx context.Context, q *pb.DecommissionNodeRequest) (*pb.OperationResponse, error) {
	v, err := s.cluster.look(ctx, everything)
	if err == nil {
		err = v.checkDecommission(q.Node)
	}
	if err != nil {
		return nil, api.Status(err)
	}
	return s.setState(ctx, v, q.Node, shard.Leaving, q.DryRun)
}

// setState changes a node's record, or foretells what that would bring about in v.
func (s *adminService) setState(ctx context.Context, v *view, id uint64, to shard.NodeState, dry bool) (*pb.OperationResponse, error) {
	if dry {
		_, err := await(ctx, func(done func(router.Node, error)) {
			s.cluster.node.Catalog().MaySetNodeState(shard.NodeID(id), to, done)
		})
		if err != nil {
			return nil, api.Status(err)
		}
		return &pb.OperationResponse{Forecast: v.forecastState(id, to)}, nil
	}
	n, err := await(ctx, func(done func(router.Node, error)) {
		s.cluster.node.Catalog().SetNodeState(shard.NodeID(id), to, unixNow(), done)
	})
	if err != nil {
		return nil, api.Status(err)
	}
	if n.State == shard.Serving {
		return &pb.OperationResponse{Operation: &pb.Operation{Kind: kindDrain, Node: id, State: catalog.OperationCancelled.String()}}, nil
	}
	return &pb.OperationResponse{Operation: nodeOperation(&n, nil)}, nil
}

// CancelOperation ends what is under way; what has ended cannot be cancelled.
func (s *adminService) CancelOperation(ctx context.Context, q *pb.CancelOperationRequest) (*pb.OperationResponse, error) {
	ops, err := s.cluster.operations(ctx)
	if err != nil {
		return nil, api.Status(err)
	}
	i := slices.IndexFunc(ops, func(op *pb.Operation) bool { return op.Id == q.Id })
	if i < 0 || q.Id == 0 {
		return nil, api.Status(&shard.InvalidError{Field: "operation", Reason: fmt.Sprintf("%d does not exist; ops list shows the last one of each shard and node", q.Id)})
	}
	op := ops[i]
	over := op.State != catalog.OperationRunning.String()
	switch {
	case over && op.Kind == kindDrain:
		err = &shard.InvalidError{Field: "operation", Reason: fmt.Sprintf("%d is done; `node drain %d --undo` has the node lead again", q.Id, op.Node)}
	case over:
		err = &shard.InvalidError{Field: "operation", Reason: fmt.Sprintf("%d is %s already", q.Id, op.State)}
	case op.Node != 0:
		_, err = s.setState(ctx, nil, op.Node, shard.Serving, false)
	default:
		if err = s.mayCancel(ctx, op); err != nil {
			break
		}
		var record catalog.Operation
		record, err = await(ctx, func(done func(catalog.Operation, error)) {
			s.cluster.node.Catalog().EndOperation(shard.ID(op.Shard), op.Id, catalog.OperationCancelled, "", unixNow(), done)
		})
		if err == nil && (record.ID != op.Id || record.State != catalog.OperationCancelled) {
			err = &shard.InvalidError{Field: "operation", Reason: fmt.Sprintf("%d has ended meanwhile", q.Id)}
		}
	}
	if err != nil {
		return nil, api.Status(err)
	}
	op.State, op.Progress = catalog.OperationCancelled.String(), ""
	op.BytesDone, op.BytesTotal, op.ReplicasLeft, op.LeadersLeft = 0, 0, 0, 0
	op.EndedUnix = unixNow()
	return &pb.OperationResponse{Operation: op}, nil
}

// mayCancel says why an operation on a shard cannot be cancelled any more: past its
// joint change the shard is what was asked for, and what is left of it is done whoever
// wants it or not.
func (s *adminService) mayCancel(ctx context.Context, op *pb.Operation) error {
	v, err := s.cluster.look(ctx, replicasOf(shard.ID(op.Shard)))
	if err != nil {
		return err
	}
	sh, err := v.shard(op.Shard)
	if err != nil {
		return nil // of a shard that nobody reports nothing is under way
	}
	return checkCancel(sh, op)
}

// unixNow is this node's clock, for people to read.
func unixNow() uint64 { return uint64(max(0, time.Now().Unix())) }
