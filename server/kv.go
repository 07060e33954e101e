package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// multiKeysMax bounds the keys of one MultiGet or MultiPut call.
	multiKeysMax = 10_000
	// A MultiGet reads multiGetPart keys at a time, and answers no more than
	// multiGetBytesMax.
	multiGetPart     = 64
	multiGetBytesMax = 32 << 20
)

// kvService is the plain unary service for other languages: it routes on behalf
// of the caller with the node's own client.
type kvService struct {
	pb.UnimplementedKVServer
	client *client.Client
}

func newKVService(core *client.Core) *kvService { return &kvService{client: client.FromCore(core)} }

func (s *kvService) Get(ctx context.Context, q *pb.GetRequest) (*pb.GetResponse, error) {
	var options []client.CallOption
	if q.Revision != nil {
		options = append(options, client.AtRevision(shard.Revision(*q.Revision)))
	}
	if q.AnyReplica {
		options = append(options, client.AnyReplica())
	}
	kv, err := s.client.Get(ctx, q.Key, options...)
	if errors.Is(err, client.ErrNotFound) {
		return &pb.GetResponse{}, nil
	}
	if err != nil {
		return nil, api.Status(err)
	}
	return found(kv), nil
}

// found is the answer for a key; one without a revision has no value.
func found(kv client.KeyValue) *pb.GetResponse {
	return &pb.GetResponse{Found: kv.Revision != 0, Value: kv.Value, Revision: uint64(kv.Revision)}
}

func (s *kvService) Put(ctx context.Context, q *pb.PutRequest) (*pb.PutResponse, error) {
	rev, err := s.client.Put(ctx, q.Key, q.Value)
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.PutResponse{Revision: uint64(rev)}, nil
}

func (s *kvService) Delete(ctx context.Context, q *pb.DeleteRequest) (*pb.DeleteResponse, error) {
	rev, err := s.client.Delete(ctx, q.Key)
	if err != nil {
		return nil, api.Status(err)
	}
	return &pb.DeleteResponse{Revision: uint64(rev)}, nil
}

func (s *kvService) Scan(ctx context.Context, q *pb.ScanRequest) (*pb.ScanResponse, error) {
	var at shard.Revision
	o := client.ScanOptions{
		Start: q.Start, End: q.End, Reverse: q.Reverse, KeysOnly: q.KeysOnly, Limit: int(min(q.Limit, shard.PageRowsMax)),
		AnyReplica: q.AnyReplica, At: &at,
	}
	if q.Revision != nil {
		// For the library 0 is the latest state; who names it here is mistaken.
		if o.Revision = shard.Revision(*q.Revision); o.Revision == 0 {
			return nil, api.Status(&shard.InvalidError{Field: "revision", Reason: "is 0; revisions begin with 1, and without one the latest state is read"})
		}
	} else if q.AnyReplica {
		return nil, api.Status(&shard.InvalidError{Field: "any_replica", Reason: "is for reads at a revision; name one"})
	}
	rows, resume, err := s.client.ScanPage(ctx, o)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.ScanResponse{More: resume != nil, Resume: resume, Revision: uint64(at)}
	for _, row := range rows {
		r.Rows = append(r.Rows, &pb.KeyValue{Key: row.Key, Value: row.Value, Revision: uint64(row.Revision)})
	}
	return r, nil
}

func checkMulti(n int) error {
	if n == 0 || n > multiKeysMax {
		return &shard.InvalidError{Field: "request", Reason: fmt.Sprintf("names %d keys, the limits are 1 and %d", n, multiKeysMax)}
	}
	return nil
}

func (s *kvService) MultiGet(ctx context.Context, q *pb.MultiGetRequest) (*pb.MultiGetResponse, error) {
	if err := checkMulti(len(q.Keys)); err != nil {
		return nil, api.Status(err)
	}
	r := &pb.MultiGetResponse{}
	size := 0
	for part := range slices.Chunk(q.Keys, multiGetPart) {
		kvs, err := s.client.MultiGet(ctx, part)
		if err != nil {
			return nil, api.Status(err)
		}
		for _, kv := range kvs {
			r.Results = append(r.Results, found(kv))
			size += len(kv.Value)
		}
		if size > multiGetBytesMax {
			return nil, api.Status(&shard.InvalidError{Field: "request", Reason: fmt.Sprintf("asks for values of more than %d bytes together; name fewer keys", multiGetBytesMax)})
		}
	}
	return r, nil
}

func (s *kvService) MultiPut(ctx context.Context, q *pb.MultiPutRequest) (*pb.MultiPutResponse, error) {
	if err := checkMulti(len(q.Pairs)); err != nil {
		return nil, api.Status(err)
	}
	pairs := make([]client.KeyValue, len(q.Pairs))
	for i, p := range q.Pairs {
		pairs[i] = client.KeyValue{Key: p.Key, Value: p.Value}
	}
	revisions, errs := s.client.MultiPut(ctx, pairs)
	r := &pb.MultiPutResponse{}
	for i := range pairs {
		outcome := &pb.PutOutcome{Revision: uint64(revisions[i])}
		if errs != nil && errs[i] != nil { // nil as a whole if every pair was written
			outcome.Error = errs[i].Error()
			outcome.Undetermined = errors.Is(errs[i], shard.ErrUndetermined)
		}
		r.Results = append(r.Results, outcome)
	}
	return r, nil
}
