package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// kvCaller is the unary service as a test calls it.
type kvCaller struct {
	pb.KVClient
	t   *testing.T
	ctx context.Context
}

// startKV runs a node with two user shards, divided at byte 0x80.
func startKV(t *testing.T) *kvCaller {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return &kvCaller{pb.NewKVClient(startServerWith(t, func(c *Config) { c.InitialShards = 2 })), t, ctx}
}

func (c *kvCaller) put(key, value string) uint64 {
	c.t.Helper()
	r, err := c.Put(c.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil || r.Revision == 0 {
		c.t.Fatalf("put %q: %v, %v", key, r, err)
	}
	return r.Revision
}

// value is what a key has: its value and revision, "" and 0 without one.
func (c *kvCaller) value(key string) (string, uint64) {
	c.t.Helper()
	r, err := c.Get(c.ctx, &pb.GetRequest{Key: []byte(key)})
	if err != nil || r.Found != (r.Revision != 0) {
		c.t.Fatalf("get %q: %v, %v", key, r, err)
	}
	return string(r.Value), r.Revision
}

// refused checks an error's code and cause.
func refused(t *testing.T, what string, err error, code codes.Code, cause error) {
	t.Helper()
	var invalid *shard.InvalidError
	ok := errors.Is(api.Error(err), cause)
	if cause == nil {
		ok = errors.As(api.Error(err), &invalid)
	}
	if status.Code(err) != code || !ok {
		t.Errorf("%s: %v, want code %v for %v", what, err, code, cause)
	}
}

func TestGetAtARevisionOverGRPC(t *testing.T) {
	c := startKV(t)
	first := c.put("k", "one")
	second := c.put("k", "two")
	if second <= first {
		t.Fatalf("revisions %d, then %d", first, second)
	}
	for _, anywhere := range []bool{false, true} {
		r, err := c.Get(c.ctx, &pb.GetRequest{Key: []byte("k"), Revision: &first, AnyReplica: anywhere})
		if err != nil || string(r.Value) != "one" || r.Revision != first {
			t.Errorf("at %d: %v, %v", first, r, err)
		}
	}
	zero, negative, future := uint64(0), uint64(1<<64-1), second+1_000_000_000
	for _, bad := range []struct {
		what     string
		revision *uint64
		anywhere bool
		code     codes.Code
		cause    error
	}{
		{"0", &zero, false, codes.InvalidArgument, nil},
		{"-1", &negative, false, codes.InvalidArgument, nil},
		{"the future", &future, false, codes.OutOfRange, shard.ErrFutureRevision},
		{"none, anywhere", nil, true, codes.InvalidArgument, nil},
	} {
		_, err := c.Get(c.ctx, &pb.GetRequest{Key: []byte("k"), Revision: bad.revision, AnyReplica: bad.anywhere})
		refused(t, "get at "+bad.what, err, bad.code, bad.cause)
		_, err = c.Scan(c.ctx, &pb.ScanRequest{Revision: bad.revision, AnyReplica: bad.anywhere})
		refused(t, "scan at "+bad.what, err, bad.code, bad.cause)
	}
}

// Pages that name the first one's revision are of one state, over shards.
func TestScanPagesAreOfOneRevisionOverGRPC(t *testing.T) {
	c := startKV(t)
	keys := []string{"a", "b", "\x90", "\xa0"}
	for _, k := range keys {
		c.put(k, "old")
	}
	q := &pb.ScanRequest{Limit: 1}
	for i, k := range keys {
		page, err := c.Scan(c.ctx, q)
		if err != nil || len(page.Rows) != 1 || string(page.Rows[0].Key) != k || string(page.Rows[0].Value) != "old" {
			t.Fatalf("page %d: %v, %v", i, page, err)
		}
		if page.Revision == 0 || q.Revision != nil && page.Revision != *q.Revision {
			t.Fatalf("page %d is of revision %d, asked for %v", i, page.Revision, q.Revision)
		}
		for _, later := range keys {
			c.put(later, "new")
		}
		c.put(k+"x", "new")
		q.Revision, q.Start = &page.Revision, page.Resume
	}
}

func TestCasOverGRPC(t *testing.T) {
	c := startKV(t)
	cas := func(q *pb.CasRequest) *pb.CasResponse {
		t.Helper()
		q.Key = []byte("k")
		r, err := c.Cas(c.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := cas(&pb.CasRequest{Condition: &pb.CasRequest_IfAbsent{IfAbsent: true}, Value: []byte("one")})
	if !r.Held || r.Revision == 0 || r.Current != nil {
		t.Fatalf("if absent: %v", r)
	}
	first := r.Revision
	if r = cas(&pb.CasRequest{Condition: &pb.CasRequest_IfAbsent{IfAbsent: true}, Value: []byte("x")}); r.Held || r.Revision != 0 || string(r.Current.GetValue()) != "one" || r.Current.GetRevision() != first {
		t.Errorf("if absent, and it is not: %v", r)
	}
	if r = cas(&pb.CasRequest{Condition: &pb.CasRequest_IfValue{IfValue: []byte("one")}, Value: []byte("two")}); !r.Held || r.Revision <= first {
		t.Errorf("if value: %v", r)
	}
	if r = cas(&pb.CasRequest{Condition: &pb.CasRequest_IfRevision{IfRevision: first}, Value: []byte("x")}); r.Held {
		t.Errorf("if an old revision: %v", r)
	}
	for what, q := range map[string]*pb.CasRequest{
		"no condition":    {Key: []byte("k"), Value: []byte("x")},
		"absent is false": {Key: []byte("k"), Value: []byte("x"), Condition: &pb.CasRequest_IfAbsent{}},
		"revision 0":      {Key: []byte("k"), Value: []byte("x"), Condition: &pb.CasRequest_IfRevision{}},
		"no key":          {Value: []byte("x"), Condition: &pb.CasRequest_IfAbsent{IfAbsent: true}},
	} {
		_, err := c.Cas(c.ctx, q)
		refused(t, what, err, codes.InvalidArgument, nil)
	}
	if v, _ := c.value("k"); v != "two" {
		t.Errorf("the key has %q", v)
	}
	// A missing key has no revision, and no value.
	r, err := c.Cas(c.ctx, &pb.CasRequest{Key: []byte("none"), Condition: &pb.CasRequest_IfRevision{IfRevision: first}, Value: []byte("x")})
	if err != nil || r.Held || r.Current.GetFound() {
		t.Errorf("of a missing key: %v, %v", r, err)
	}
}

func putOperation(key, value string) *pb.BatchOperation {
	return &pb.BatchOperation{Operation: &pb.BatchOperation_Put{Put: &pb.KeyValue{Key: []byte(key), Value: []byte(value)}}}
}

func getOperation(key string) *pb.BatchOperation {
	return &pb.BatchOperation{Operation: &pb.BatchOperation_Get{Get: []byte(key)}}
}

func deleteOperation(key string) *pb.BatchOperation {
	return &pb.BatchOperation{Operation: &pb.BatchOperation_Delete{Delete: []byte(key)}}
}

func TestBatchOverGRPC(t *testing.T) {
	c := startKV(t)
	before := c.put("a", "1")
	q := &pb.BatchRequest{
		Compares: []*pb.Compare{
			{Key: []byte("a"), Condition: &pb.Compare_Revision{Revision: before}},
			{Key: []byte("a"), Condition: &pb.Compare_Value{Value: []byte("1")}},
			{Key: []byte("b"), Condition: &pb.Compare_Present{Present: false}},
			{Key: []byte("a"), Condition: &pb.Compare_Present{Present: true}},
		},
		Then:      []*pb.BatchOperation{getOperation("a"), putOperation("b", "2"), deleteOperation("c"), getOperation("none")},
		Otherwise: []*pb.BatchOperation{putOperation("otherwise", ""), getOperation("b")},
	}
	r, err := c.Batch(c.ctx, q)
	if err != nil || !r.Held || r.Revision <= before || len(r.Results) != 4 {
		t.Fatalf("%v, %v", r, err)
	}
	for i, want := range []*pb.GetResponse{{Found: true, Value: []byte("1"), Revision: before}, {Revision: r.Revision}, {Revision: r.Revision}, {}} {
		if got := r.Results[i]; got.Found != want.Found || !bytes.Equal(got.Value, want.Value) || got.Revision != want.Revision {
			t.Errorf("result %d: %v, want %v", i, got, want)
		}
	}
	if v, at := c.value("b"); v != "2" || at != r.Revision {
		t.Errorf("b is %q at %d", v, at)
	}
	// Now b is there: the other list.
	again, err := c.Batch(c.ctx, q)
	if err != nil || again.Held || again.Revision <= r.Revision || len(again.Results) != 2 || again.Results[0].Found || string(again.Results[1].Value) != "2" || !again.Results[1].Found {
		t.Fatalf("%v, %v", again, err)
	}
	// Nothing is written: no revision.
	none, err := c.Batch(c.ctx, &pb.BatchRequest{Then: []*pb.BatchOperation{getOperation("a")}})
	if err != nil || none.Revision != 0 || string(none.Results[0].Value) != "1" {
		t.Errorf("%v, %v", none, err)
	}
}

// What cannot be done is refused by its name, and changes nothing.
func TestBadBatchesOverGRPC(t *testing.T) {
	c := startKV(t)
	var many []*pb.BatchOperation
	for i := range 10_000 {
		many = append(many, putOperation(fmt.Sprintf("a%d", i), "x"))
	}
	for _, bad := range []struct {
		what  string
		q     *pb.BatchRequest
		code  codes.Code
		cause error
	}{
		{"nothing", &pb.BatchRequest{}, codes.InvalidArgument, nil},
		{"compares alone", &pb.BatchRequest{Compares: []*pb.Compare{{Key: []byte("a"), Condition: &pb.Compare_Present{}}}}, codes.InvalidArgument, nil},
		{"a compare of nothing", &pb.BatchRequest{Compares: []*pb.Compare{{Key: []byte("a")}}, Then: many[:1]}, codes.InvalidArgument, nil},
		{"an empty operation", &pb.BatchRequest{Then: []*pb.BatchOperation{many[0], {}}}, codes.InvalidArgument, nil},
		{"a key twice", &pb.BatchRequest{Then: []*pb.BatchOperation{many[0], many[0]}}, codes.InvalidArgument, nil},
		{"no key", &pb.BatchRequest{Then: []*pb.BatchOperation{many[0], putOperation("", "x")}}, codes.InvalidArgument, nil},
		{"10,000 operations", &pb.BatchRequest{Then: many}, codes.InvalidArgument, nil},
		{"two shards", &pb.BatchRequest{Then: []*pb.BatchOperation{many[0], putOperation("\x90", "x")}}, codes.FailedPrecondition, shard.ErrSpansShards},
		{"two shards by a compare", &pb.BatchRequest{Compares: []*pb.Compare{{Key: []byte("\x90"), Condition: &pb.Compare_Present{}}}, Then: many[:1]}, codes.FailedPrecondition, shard.ErrSpansShards},
	} {
		_, err := c.Batch(c.ctx, bad.q)
		refused(t, bad.what, err, bad.code, bad.cause)
	}
	if r, err := c.Scan(c.ctx, &pb.ScanRequest{}); err != nil || len(r.Rows) != 0 {
		t.Errorf("after refused batches there is %v, %v", r, err)
	}
}

func TestDeleteRangeOverGRPC(t *testing.T) {
	c := startKV(t)
	var last uint64
	for _, k := range []string{"a", "b", "c", "\x90", "\xa0"} {
		last = c.put(k, "v")
	}
	r, err := c.DeleteRange(c.ctx, &pb.DeleteRangeRequest{Start: []byte("b"), End: []byte("\x95")})
	if err != nil || r.Deleted != 3 || r.Revision <= last {
		t.Fatalf("%v, %v", r, err)
	}
	rows, err := c.Scan(c.ctx, &pb.ScanRequest{KeysOnly: true})
	if err != nil || len(rows.Rows) != 2 || string(rows.Rows[0].Key) != "a" || string(rows.Rows[1].Key) != "\xa0" {
		t.Fatalf("left: %v, %v", rows, err)
	}
	// As it was before.
	if rows, err = c.Scan(c.ctx, &pb.ScanRequest{KeysOnly: true, Revision: &last}); err != nil || len(rows.Rows) != 5 {
		t.Errorf("at %d: %v, %v", last, rows, err)
	}
	if r, err = c.DeleteRange(c.ctx, &pb.DeleteRangeRequest{Start: []byte("b"), End: []byte("\x95")}); err != nil || r.Deleted != 0 || r.Revision != 0 {
		t.Errorf("of an empty range: %v, %v", r, err)
	}
	_, err = c.DeleteRange(c.ctx, &pb.DeleteRangeRequest{Start: []byte("b"), End: []byte("a")})
	refused(t, "an inverted range", err, codes.InvalidArgument, nil)
}
