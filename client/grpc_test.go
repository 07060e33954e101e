package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// stub is a node of a pretended cluster behind a real gRPC server on loopback.
type stub struct {
	kiloraftpb.UnimplementedClusterServer
	cluster  *clienttest.Cluster
	node     shard.NodeID
	listener net.Listener
	rpc      *grpc.Server

	mu     sync.Mutex
	frames [][]byte                                   // received, hellos included
	greet  func(*api.RawStream, shard.Greeting) error // nil: as it should be
}

func (s *stub) Info(context.Context, *kiloraftpb.InfoRequest) (*kiloraftpb.InfoResponse, error) {
	info := s.cluster.Info(s.node)
	m := &kiloraftpb.InfoResponse{ClusterId: info.Cluster[:], NodeId: uint64(info.Node), Meta: api.FromDescriptor(&info.Meta), MetaLeaderNode: uint64(info.MetaLeader)}
	for i := range s.cluster.Nodes {
		m.Nodes = append(m.Nodes, &kiloraftpb.NodeAddress{NodeId: uint64(i + 1), Address: info.Nodes[shard.NodeID(i+1)]})
	}
	return m, nil
}

func (s *stub) Stream(raw *api.RawStream) error {
	s.mu.Lock()
	greet := s.greet
	s.mu.Unlock()
	end := s.cluster.Open(s.node)
	for first := true; ; first = false {
		frame, err := raw.Receive(shard.FrameBytesMax)
		if err != nil {
			return nil
		}
		s.mu.Lock()
		if len(s.frames) < 100 {
			s.frames = append(s.frames, frame)
		}
		s.mu.Unlock()
		answer, err := end.Handle(frame)
		if err == nil && first && greet != nil {
			if err := greet(raw, s.cluster.Greeting(s.node)); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = raw.Send(answer, nil)
		}
		if err != nil {
			return err
		}
	}
}

// serveCluster puts every node of a cluster behind a server of its own.
func serveCluster(t testing.TB, cluster *clienttest.Cluster) []*stub {
	t.Helper()
	var stubs []*stub
	for i := range cluster.Nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &stub{cluster: cluster, node: shard.NodeID(i + 1), listener: l, rpc: grpc.NewServer(api.ServerOptions()...)}
		kiloraftpb.RegisterClusterServer(s.rpc, s)
		api.RegisterOperations(s.rpc, s)
		stubs = append(stubs, s)
	}
	cluster.Address = func(n shard.NodeID) string { return stubs[n-1].listener.Addr().String() }
	for _, s := range stubs {
		served := make(chan error, 1)
		go func() { served <- s.rpc.Serve(s.listener) }()
		t.Cleanup(func() {
			s.rpc.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	return stubs
}

func openGRPC(t testing.TB, cluster *clienttest.Cluster) *client.Client {
	t.Helper()
	c, err := client.Open(context.Background(), client.Options{Endpoints: []string{cluster.AddressOf(1)}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSuiteOverGRPC(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 13)
	serveCluster(t, cluster)
	clienttest.Run(t, func(t *testing.T) *client.Client { return openGRPC(t, cluster) })
}

func TestHandshakeOverGRPC(t *testing.T) {
	cluster := clienttest.NewCluster(1, 1, 1)
	s := serveCluster(t, cluster)[0]
	c := openGRPC(t, cluster)
	if _, err := c.Put(context.Background(), []byte("a"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := shard.DecodeHello(s.frames[0])
	if err != nil || h.Cluster != cluster.ID || h.Session == 0 {
		t.Errorf("the first frame is a hello of %+v, %v", h, err)
	}
	for _, frame := range s.frames[1:] {
		if err := shard.DecodeRequests(frame, func(shard.Request) {}); err != nil {
			t.Errorf("a later frame: %v", err)
		}
	}
}

// ending is a handler that waits for a stream's end.
type ending chan struct{}

func (e ending) Greeted(shard.Greeting) {}
func (e ending) Received([]byte)        {}
func (e ending) Closed(error)           { close(e) }

// TestBytesOfAFrameThatIsNotWhole: they count as they arrive.
func TestBytesOfAFrameThatIsNotWhole(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := client.NewGRPCDialer(nil)
	defer d.Close()
	ended := make(ending)
	s := d.Open(l.Addr().String(), ended)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s.Bytes() != 0 {
		t.Errorf("%d bytes have arrived", s.Bytes())
	}
	// SETTINGS without any, then half a header.
	if _, err := conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for s.Bytes() < 11 {
		select {
		case <-ended:
			t.Fatal("closed")
		case <-time.After(time.Millisecond):
		}
	}
	s.Close()
	<-ended
}

// TestNothingIsSentWithoutAGreeting: a server that does not greet, or greets as
// somebody else, or as nothing at all, gets no operation.
func TestNothingIsSentWithoutAGreeting(t *testing.T) {
	for name, greet := range map[string]func(*api.RawStream, shard.Greeting) error{
		"silent": func(raw *api.RawStream, _ shard.Greeting) error { <-raw.Context().Done(); return raw.Context().Err() },
		"other cluster": func(raw *api.RawStream, g shard.Greeting) error {
			g.Cluster[0]++
			return raw.Send(shard.AppendGreeting(nil, g), nil)
		},
		"other node": func(raw *api.RawStream, g shard.Greeting) error {
			g.Node++
			return raw.Send(shard.AppendGreeting(nil, g), nil)
		},
		"garbage": func(raw *api.RawStream, _ shard.Greeting) error {
			return raw.Send(bytes.Repeat([]byte{0xff}, 50), nil)
		},
		"oversize": func(raw *api.RawStream, _ shard.Greeting) error {
			return raw.Send(make([]byte, shard.FrameBytesMax+1), nil)
		},
		"refused": func(*api.RawStream, shard.Greeting) error { return shard.ErrUnavailable },
	} {
		t.Run(name, func(t *testing.T) {
			cluster := clienttest.NewCluster(1, 1, 1)
			s := serveCluster(t, cluster)[0]
			s.greet = greet
			c := openGRPC(t, cluster)
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			_, err := c.Put(ctx, []byte("a"), nil)
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, shard.ErrUndetermined) {
				t.Errorf("put: %v", err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, frame := range s.frames {
				if _, err := shard.DecodeHello(frame); err != nil {
					t.Errorf("it got %x", frame)
				}
			}
		})
	}
}

// TestAServerThatStopsOverGRPC: writes under way are undetermined or done, and a
// read finds another node.
func TestAServerThatStopsOverGRPC(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 1)
	stubs := serveCluster(t, cluster)
	c := openGRPC(t, cluster)
	defer c.Close()
	key := []byte("a")
	if _, err := c.Put(context.Background(), key, []byte("v")); err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{})
	var once sync.Once
	cluster.Change(func() {
		cluster.Answer = func(_ shard.NodeID, _ *shard.Request, c *shard.Command) (shard.Response, bool) {
			if string(c.Key) == "\x02lost" {
				once.Do(func() { close(reached) })
				return shard.Response{Err: shard.ErrBusy}, true
			}
			return shard.Response{}, false
		}
	})
	s := cluster.ShardOf(shard.UserKey(key))
	m, _ := s.Descriptor.Replica(s.Leader)
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { _, err := c.Put(ctx, []byte("lost"), nil); ended <- err }()
	<-reached
	stubs[m.Node-1].rpc.Stop()
	cluster.Change(func() { s.Lead(s.Leader%3 + 1); cluster.Answer = nil })
	if kv, err := c.Get(ctx, key); err != nil || string(kv.Value) != "v" {
		t.Errorf("%+v, %v", kv, err)
	}
	if err := <-ended; err != nil && !errors.Is(err, shard.ErrUndetermined) {
		t.Error(err)
	}
}

func BenchmarkOverGRPC(b *testing.B) {
	for _, kind := range []shard.Kind{shard.KindPut, shard.KindGet} {
		b.Run(map[shard.Kind]string{shard.KindPut: "put", shard.KindGet: "get"}[kind], func(b *testing.B) {
			cluster := clienttest.NewCluster(1, 3, 48)
			value := make([]byte, 256)
			serveCluster(b, cluster)
			cluster.Publish()
			cluster.Change(func() {
				cluster.Answer = func(_ shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
					return shard.Response{Result: shard.Result{Revision: 9, Found: true, Value: value}}, c.Kind == kind
				}
			})
			c := openGRPC(b, cluster)
			defer c.Close()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range 256 {
				wg.Go(func() {
					key := fmt.Appendf(nil, "%c%030d", i, i)
					for range b.N/256 + 1 {
						var err error
						if kind == shard.KindPut {
							_, err = c.Put(context.Background(), key, value)
						} else {
							_, err = c.Get(context.Background(), key)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			s := c.Core().Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			b.ReportMetric(float64(s.Attempts)/float64(s.Frames), "ops/frame")
		})
	}
}
