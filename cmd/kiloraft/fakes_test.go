package main

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
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
	os.Exit(m.Run())
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
	s := grpc.NewServer(api.ServerOptions()...)
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

// fakeCluster serves the control services; calls that have no function fail.
type fakeCluster struct {
	kiloraftpb.UnimplementedClusterServer
	kiloraftpb.UnimplementedAdminServer
	status     func() (*kiloraftpb.StatusResponse, error)
	listNodes  func() (*kiloraftpb.ListNodesResponse, error)
	listShards func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error)
	transfer   func(*kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error)
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

// serveFake serves f on a loopback port for the length of the test.
func serveFake(t *testing.T, f *fakeCluster) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(api.ServerOptions()...)
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

// fakeStore is a map that stands for a cluster.
type fakeStore struct {
	mu       sync.Mutex
	values   map[string]client.KeyValue
	revision shard.Revision
	err      error // of every operation
	closed   bool
}

func newFakeStore() *fakeStore { return &fakeStore{values: map[string]client.KeyValue{}} }

func (s *fakeStore) Get(_ context.Context, key []byte, _ ...client.CallOption) (client.KeyValue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kv, ok := s.values[string(key)]
	if s.err == nil && !ok {
		return client.KeyValue{}, client.ErrNotFound
	}
	return kv, s.err
}

func (s *fakeStore) Put(_ context.Context, key, value []byte, _ ...client.CallOption) (shard.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.revision++
	s.values[string(key)] = client.KeyValue{Key: bytes.Clone(key), Value: bytes.Clone(value), Revision: s.revision}
	return s.revision, nil
}

func (s *fakeStore) Delete(_ context.Context, key []byte, _ ...client.CallOption) (shard.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.values, string(key))
	return s.revision, s.err
}

func (s *fakeStore) MultiPut(ctx context.Context, pairs []client.KeyValue) ([]shard.Revision, []error) {
	revisions, errs := make([]shard.Revision, len(pairs)), make([]error, len(pairs))
	for i, p := range pairs {
		revisions[i], errs[i] = s.Put(ctx, p.Key, p.Value)
	}
	return revisions, errs
}

func (s *fakeStore) Scan(_ context.Context, o client.ScanOptions) iter.Seq2[client.KeyValue, error] {
	s.mu.Lock()
	var rows []client.KeyValue
	for _, kv := range s.values {
		if bytes.Compare(kv.Key, o.Start) >= 0 && (len(o.End) == 0 || bytes.Compare(kv.Key, o.End) < 0) {
			rows = append(rows, kv)
		}
	}
	err := s.err
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
	a.openStore = func(context.Context, []string, time.Duration) (store, error) {
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
