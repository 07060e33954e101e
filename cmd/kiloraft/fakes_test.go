package main

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/server"
	"github.com/kiloraft/kiloraft/shard"
)

// fakeNodeVariable makes the test binary behave as kiloraft with fake nodes:
// the demo starts its own executable, which in a test is the test.
const fakeNodeVariable = "FAKE_NODES"

func TestMain(m *testing.M) {
	if os.Getenv(fakeNodeVariable) != "" && len(os.Args) > 1 && (os.Args[1] == "start" || os.Args[1] == "demo") {
		a := newApp(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
		a.runServer = runFakeNode
		os.Exit(a.run(context.Background(), os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// runFakeNode is a node that knows of the others by files beside its store.
func runFakeNode(ctx context.Context, c server.Config) error {
	if os.Getenv(fakeNodeVariable) == "broken" && len(c.Join) > 0 {
		return &shard.InvalidError{Field: "store", Reason: "is broken on purpose"}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.Store)
	if err := os.WriteFile(filepath.Join(dir, "live-"+c.Listen), nil, 0o600); err != nil {
		return err
	}
	l, options, err := withCerts(c, l)
	if err != nil {
		return err
	}
	s := grpc.NewServer(options...)
	kiloraftpb.RegisterClusterServer(s, &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) {
		live, err := filepath.Glob(filepath.Join(dir, "live-*"))
		r := &kiloraftpb.StatusResponse{Nodes: uint64(len(live)), NodesLive: uint64(len(live)), Shards: uint64(c.InitialShards) + 1}
		for i, name := range live {
			_, address, _ := strings.Cut(filepath.Base(name), "-")
			r.NodeInfos = append(r.NodeInfos, &kiloraftpb.NodeInfo{Id: uint64(i + 1), Address: address, Live: true, Leaders: uint64(i % 2)})
		}
		return r, err
	}})
	return s.Serve(l)
}

// withCerts puts a fake node behind the certificates of its configuration, if any.
func withCerts(c server.Config, l net.Listener) (net.Listener, []grpc.ServerOption, error) {
	if c.CertsDir == "" {
		return l, api.ServerOptions(), nil
	}
	log := slog.New(slog.DiscardHandler)
	source, err := certs.OpenNode(c.CertsDir, "127.0.0.1", log)
	if err != nil {
		return nil, nil, err
	}
	return source.ListenGRPC(l, log), append(api.ServerOptions(), grpc.Creds(certs.Accepting())), nil
}

// fakeCluster serves the control services; calls that have no function fail.
type fakeCluster struct {
	kiloraftpb.UnimplementedClusterServer
	kiloraftpb.UnimplementedAdminServer
	status     func() (*kiloraftpb.StatusResponse, error)
	listNodes  func() (*kiloraftpb.ListNodesResponse, error)
	listShards func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error)
	transfer   func(*kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error)
	settings   func() (*kiloraftpb.ListSettingsResponse, error)
	setSetting func(*kiloraftpb.SetSettingRequest) (*kiloraftpb.SetSettingResponse, error)
	inspectKey func(*kiloraftpb.InspectKeyRequest) (*kiloraftpb.InspectKeyResponse, error)
	change     func(*kiloraftpb.ChangeReplicasRequest) (*kiloraftpb.OperationResponse, error)
	scatter    func(*kiloraftpb.ScatterShardsRequest) (*kiloraftpb.ScatterShardsResponse, error)
	drain      func(*kiloraftpb.DrainNodeRequest) (*kiloraftpb.OperationResponse, error)
	leave      func(*kiloraftpb.DecommissionNodeRequest) (*kiloraftpb.OperationResponse, error)
	cancel     func(*kiloraftpb.CancelOperationRequest) (*kiloraftpb.OperationResponse, error)
	operations func(*kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error)
	explain    func(*kiloraftpb.ExplainPlacementRequest) (*kiloraftpb.ExplainPlacementResponse, error)
	checkShard func(*kiloraftpb.CheckShardRequest) (*kiloraftpb.CheckShardResponse, error)
}

func (f *fakeCluster) ScatterShards(_ context.Context, q *kiloraftpb.ScatterShardsRequest) (*kiloraftpb.ScatterShardsResponse, error) {
	r, err := f.scatter(q)
	return r, api.Status(err)
}

func (f *fakeCluster) ChangeReplicas(_ context.Context, q *kiloraftpb.ChangeReplicasRequest) (*kiloraftpb.OperationResponse, error) {
	r, err := f.change(q)
	return r, api.Status(err)
}

func (f *fakeCluster) DrainNode(_ context.Context, q *kiloraftpb.DrainNodeRequest) (*kiloraftpb.OperationResponse, error) {
	r, err := f.drain(q)
	return r, api.Status(err)
}

func (f *fakeCluster) DecommissionNode(_ context.Context, q *kiloraftpb.DecommissionNodeRequest) (*kiloraftpb.OperationResponse, error) {
	r, err := f.leave(q)
	return r, api.Status(err)
}

func (f *fakeCluster) CancelOperation(_ context.Context, q *kiloraftpb.CancelOperationRequest) (*kiloraftpb.OperationResponse, error) {
	r, err := f.cancel(q)
	return r, api.Status(err)
}

func (f *fakeCluster) ListOperations(_ context.Context, q *kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error) {
	r, err := f.operations(q)
	return r, api.Status(err)
}

func (f *fakeCluster) ExplainPlacement(_ context.Context, q *kiloraftpb.ExplainPlacementRequest) (*kiloraftpb.ExplainPlacementResponse, error) {
	r, err := f.explain(q)
	return r, api.Status(err)
}

func (f *fakeCluster) CheckShard(_ context.Context, q *kiloraftpb.CheckShardRequest) (*kiloraftpb.CheckShardResponse, error) {
	r, err := f.checkShard(q)
	return r, api.Status(err)
}

func (f *fakeCluster) Status(context.Context, *kiloraftpb.StatusRequest) (*kiloraftpb.StatusResponse, error) {
	r, err := f.status()
	return r, api.Status(err)
}

func (f *fakeCluster) ListNodes(context.Context, *kiloraftpb.ListNodesRequest) (*kiloraftpb.ListNodesResponse, error) {
	r, err := f.listNodes()
	return r, api.Status(err)
}

func (f *fakeCluster) ListShards(_ context.Context, q *kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
	r, err := f.listShards(q)
	return r, api.Status(err)
}

func (f *fakeCluster) TransferLeader(_ context.Context, q *kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error) {
	r, err := f.transfer(q)
	return r, api.Status(err)
}

func (f *fakeCluster) ListSettings(context.Context, *kiloraftpb.ListSettingsRequest) (*kiloraftpb.ListSettingsResponse, error) {
	r, err := f.settings()
	return r, api.Status(err)
}

func (f *fakeCluster) SetSetting(_ context.Context, q *kiloraftpb.SetSettingRequest) (*kiloraftpb.SetSettingResponse, error) {
	r, err := f.setSetting(q)
	return r, api.Status(err)
}

func (f *fakeCluster) InspectKey(_ context.Context, q *kiloraftpb.InspectKeyRequest) (*kiloraftpb.InspectKeyResponse, error) {
	r, err := f.inspectKey(q)
	return r, api.Status(err)
}

// serveFake serves f on a loopback port for the length of the test.
func serveFake(t *testing.T, f *fakeCluster) (address string) {
	t.Helper()
	return serveFakeWith(t, server.Config{}, f)
}

// serveFakeWith serves f with the certificates of a configuration.
func serveFakeWith(t *testing.T, c server.Config, f *fakeCluster) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, options, err := withCerts(c, l)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	kiloraftpb.RegisterClusterServer(s, f)
	kiloraftpb.RegisterAdminServer(s, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

// deadAddress is a loopback address at which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// fakeStore is a map that stands for a cluster, with all that it ever held.
type fakeStore struct {
	mu       sync.Mutex
	values   map[string]client.KeyValue
	history  []map[string]client.KeyValue // by revision
	revision shard.Revision
	err      error // of every operation
	closed   bool
	// anywhere counts reads that any replica might have served.
	anywhere int
	// stopAfter has a delete-range end with err after so many keys; 0: at once.
	stopAfter int
}

func newFakeStore() *fakeStore {
	return &fakeStore{values: map[string]client.KeyValue{}, history: []map[string]client.KeyValue{{}}}
}

// changed notes the state after a write. The lock is held.
func (s *fakeStore) changed() shard.Revision {
	s.revision++
	s.history = append(s.history, maps.Clone(s.values))
	return s.revision
}

// at is the state at a revision, 0 being the latest. The lock is held.
func (s *fakeStore) at(r shard.Revision) (map[string]client.KeyValue, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case r == 0:
		return s.values, nil
	case r > s.revision:
		return nil, shard.ErrFutureRevision
	}
	return s.history[r], nil
}

func (s *fakeStore) Get(ctx context.Context, key []byte, _ ...client.CallOption) (client.KeyValue, error) {
	return s.getAt(ctx, key, 0, false)
}

func (s *fakeStore) getAt(_ context.Context, key []byte, r shard.Revision, anyReplica bool) (client.KeyValue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if anyReplica {
		s.anywhere++
	}
	values, err := s.at(r)
	if err != nil {
		return client.KeyValue{}, &client.OpError{Op: "get", Key: key, Err: err}
	}
	kv, ok := values[string(key)]
	if !ok {
		return client.KeyValue{}, &client.OpError{Op: "get", Key: key, Err: client.ErrNotFound}
	}
	return kv, nil
}

func (s *fakeStore) Put(_ context.Context, key, value []byte, _ ...client.CallOption) (shard.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(key, value)
}

func (s *fakeStore) put(key, value []byte) (shard.Revision, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.values[string(key)] = client.KeyValue{Key: bytes.Clone(key), Value: bytes.Clone(value), Revision: s.revision + 1}
	return s.changed(), nil
}

func (s *fakeStore) Delete(_ context.Context, key []byte, _ ...client.CallOption) (shard.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, string(key))
	return s.changed(), s.err
}

// CompareAndSwap finds out what a condition asks for by making those that hold.
func (s *fakeStore) CompareAndSwap(_ context.Context, key []byte, condition client.Condition, value []byte, _ ...client.CallOption) (client.SwapResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, present := s.values[string(key)]
	holding := []client.Condition{client.IfAbsent()}
	if present {
		holding = []client.Condition{client.IfValue(current.Value), client.IfRevision(current.Revision)}
	}
	if s.err == nil && !slices.ContainsFunc(holding, func(c client.Condition) bool { return reflect.DeepEqual(c, condition) }) {
		return client.SwapResult{Current: current}, nil
	}
	r, err := s.put(key, value)
	return client.SwapResult{Swapped: err == nil, Revision: r}, err
}

// deleteRange works in pieces of two keys.
func (s *fakeStore) deleteRange(_ context.Context, start, end []byte, progress func(client.DeleteRangeResult)) (done client.DeleteRangeResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil && s.stopAfter == 0 {
		return done, s.err
	}
	var keys []string
	for k := range s.values {
		if k >= string(start) && (len(end) == 0 || k < string(end)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for piece := range slices.Chunk(keys, 2) {
		if s.err != nil && int(done.Deleted) >= s.stopAfter {
			done.Next = []byte(piece[0])
			return done, &client.OpError{Op: "delete range", Key: start, Err: s.err}
		}
		for _, k := range piece {
			delete(s.values, k)
			done.Deleted++
		}
		done.Revision = s.changed()
		progress(done)
	}
	return done, nil
}

func (s *fakeStore) MultiPut(ctx context.Context, pairs []client.KeyValue, _ ...client.CallOption) ([]shard.Revision, []error) {
	revisions, errs := make([]shard.Revision, len(pairs)), make([]error, len(pairs))
	for i, p := range pairs {
		revisions[i], errs[i] = s.Put(ctx, p.Key, p.Value)
	}
	return revisions, errs
}

func (s *fakeStore) Scan(_ context.Context, o client.ScanOptions) iter.Seq2[client.KeyValue, error] {
	s.mu.Lock()
	if o.AnyReplica {
		s.anywhere++
	}
	var rows []client.KeyValue
	values, err := s.at(o.Revision)
	for _, kv := range values {
		if bytes.Compare(kv.Key, o.Start) >= 0 && (len(o.End) == 0 || bytes.Compare(kv.Key, o.End) < 0) {
			rows = append(rows, kv)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b client.KeyValue) int {
		if o.Reverse {
			a, b = b, a
		}
		return cmp.Compare(string(a.Key), string(b.Key))
	})
	return func(yield func(client.KeyValue, error) bool) {
		for i, kv := range rows {
			if o.Limit > 0 && i >= o.Limit || !yield(kv, nil) {
				return
			}
		}
		if err != nil {
			yield(client.KeyValue{}, err)
		}
	}
}

func (s *fakeStore) Close() error { s.closed = true; return nil }

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// command runs a command line in this process.
type command struct {
	env   map[string]string
	stdin string
	store *fakeStore
	start func(context.Context, server.Config) error
}

func (c command) run(t *testing.T, args ...string) result {
	t.Helper()
	return c.runWithin(t, context.Background(), args...)
}

func (c command) runWithin(t *testing.T, ctx context.Context, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := newApp(strings.NewReader(c.stdin), &stdout, &stderr, func(name string) (string, bool) {
		if name == "GOGC" || name == "GOMEMLIMIT" {
			return "off", true // leave the test's own collector alone
		}
		v, ok := c.env[name]
		return v, ok
	})
	a.openStore = func(context.Context, target, time.Duration) (store, error) {
		if c.store == nil {
			t.Error("a store was opened")
			return nil, context.Canceled
		}
		return c.store, nil
	}
	a.runServer = func(ctx context.Context, config server.Config) error {
		if c.start == nil {
			t.Error("a server was started")
			return nil
		}
		return c.start(ctx, config)
	}
	code := a.run(ctx, args)
	return result{code, stdout.String(), stderr.String()}
}
