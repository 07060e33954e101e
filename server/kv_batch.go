package server

import (
	"context"
	"fmt"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

func (s *kvService) Cas(ctx context.Context, q *pb.CasRequest) (*pb.CasResponse, error) {
	condition, err := casCondition(q)
	if err != nil {
		return nil, api.Status(err)
	}
	swap, err := s.client.CompareAndSwap(ctx, q.Key, condition, q.Value)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.CasResponse{Held: swap.Swapped, Revision: uint64(swap.Revision)}
	if !swap.Swapped {
		r.Current = found(swap.Current)
	}
	return r, nil
}

func casCondition(q *pb.CasRequest) (none client.Condition, err error) {
	switch c := q.Condition.(type) {
	case *pb.CasRequest_IfValue:
		return client.IfValue(c.IfValue), nil
	case *pb.CasRequest_IfRevision:
		return client.IfRevision(shard.Revision(c.IfRevision)), nil
	case *pb.CasRequest_IfAbsent:
		if c.IfAbsent {
			return client.IfAbsent(), nil
		}
		return none, &shard.InvalidError{Field: "if_absent", Reason: "is false, which asks for nothing; it is true or left out"}
	}
	return none, &shard.InvalidError{Field: "condition", Reason: "is missing: if_value, if_revision or if_absent"}
}

func (s *kvService) Batch(ctx context.Context, q *pb.BatchRequest) (*pb.BatchResponse, error) {
	b, err := batchOf(q)
	if err != nil {
		return nil, api.Status(err)
	}
	done, err := s.client.Batch(ctx, b)
	if err != nil {
		return nil, api.Status(err)
	}
	ran := b.Then
	if !done.Held {
		ran = b.Else
	}
	r := &pb.BatchResponse{Held: done.Held, Revision: uint64(done.Revision)}
	for i, kv := range done.Results {
		if ran[i].Kind == shard.KindGet {
			r.Results = append(r.Results, found(kv))
			continue
		}
		r.Results = append(r.Results, &pb.GetResponse{Revision: uint64(kv.Revision)})
	}
	return r, nil
}

// batchOf reads a batch. What it leaves unchecked the client library checks.
func batchOf(q *pb.BatchRequest) (b client.BatchRequest, err error) {
	if n := len(q.Compares) + len(q.Then) + len(q.Otherwise); n > shard.BatchOpsMax {
		return b, &shard.InvalidError{Field: "batch", Reason: fmt.Sprintf("has %d compares and operations, the limit is %d", n, shard.BatchOpsMax)}
	}
	for i, c := range q.Compares {
		compare := client.Compare{Key: c.GetKey()}
		switch condition := c.GetCondition().(type) {
		case *pb.Compare_Value:
			compare.If = client.IfValue(condition.Value)
		case *pb.Compare_Revision:
			compare.If = client.IfRevision(shard.Revision(condition.Revision))
		case *pb.Compare_Present:
			compare.If = client.IfAbsent()
			if condition.Present {
				compare.If = client.IfPresent()
			}
		default:
			return b, &shard.InvalidError{Field: fmt.Sprintf("compares[%d]", i), Reason: "has no condition: value, revision or present"}
		}
		b.Compares = append(b.Compares, compare)
	}
	if b.Then, err = batchOps("then", q.Then); err != nil {
		return b, err
	}
	b.Else, err = batchOps("otherwise", q.Otherwise)
	return b, err
}

func batchOps(list string, operations []*pb.BatchOperation) ([]client.BatchOp, error) {
	var ops []client.BatchOp
	for i, o := range operations {
		switch o := o.GetOperation().(type) {
		case *pb.BatchOperation_Put:
			ops = append(ops, client.PutOp(o.Put.GetKey(), o.Put.GetValue()))
		case *pb.BatchOperation_Delete:
			ops = append(ops, client.DeleteOp(o.Delete))
		case *pb.BatchOperation_Get:
			ops = append(ops, client.GetOp(o.Get))
		default:
			return nil, &shard.InvalidError{Field: fmt.Sprintf("%s[%d]", list, i), Reason: "is no operation: put, delete or get"}
		}
	}
	return ops, nil
}

func (s *kvService) DeleteRange(ctx context.Context, q *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	done, err := s.client.DeleteRange(ctx, q.Start, q.End)
	if err != nil && done.Deleted > 0 {
		err = fmt.Errorf("%w; %d keys are deleted, those from \"%s\" on are left; call again", err, done.Deleted, shard.FormatUserKey(done.Next))
	}
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.DeleteRangeResponse{Deleted: done.Deleted, Revision: uint64(done.Revision)}, nil
}
