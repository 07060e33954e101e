package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// echo serves the raw services by sending every frame back, and a protobuf one.
type echo struct {
	kiloraftpb.UnimplementedKVServer
	pool FramePool
}

func (e *echo) Stream(s *RawStream) error {
	for {
		f, err := s.Receive(shard.FrameBytesMax)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if string(f) == "refuse" {
			return &shard.NotLeaderError{Shard: 3, Leader: shard.LeaderHint{Node: 2, Term: 8}}
		}
		if err := s.Send(append(e.pool.Buffer(), f...), &e.pool); err != nil {
			return err
		}
	}
}
func (e *echo) Messages(s *RawStream) error { return e.Stream(s) }
func (e *echo) Snapshot(s *RawStream) error { return e.Stream(s) }

func (e *echo) Get(_ context.Context, r *kiloraftpb.GetRequest) (*kiloraftpb.GetResponse, error) {
	return &kiloraftpb.GetResponse{Found: true, Value: r.Key}, nil
}

func startEcho(t testing.TB) *grpc.ClientConn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{}
	server := grpc.NewServer(ServerOptions()...)
	RegisterOperations(server, e)
	RegisterPeerStream(server, e)
	kiloraftpb.RegisterKVServer(server, e)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestRawStreams(t *testing.T) {
	conn := startEcho(t)
	type open func(context.Context, grpc.ClientConnInterface, ...grpc.CallOption) (*RawStream, error)
	for name, open := range map[string]open{"operations": OpenOperations, "messages": OpenPeerMessages, "snapshot": OpenPeerSnapshot} {
		s, err := open(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		var pool FramePool
		var kept [][]byte
		sizes := []int{0, 1, 1023, 1024, 1025, 16 << 10, 1 << 20, 3 << 20, 7, shard.FrameBytesMax}
		for _, size := range sizes {
			frame := append(pool.Buffer(), bytes.Repeat([]byte{byte(size)}, size)...)
			if err := s.Send(frame, &pool); err != nil {
				t.Fatal(err)
			}
			got, err := s.Receive(shard.FrameBytesMax)
			if err != nil {
				t.Fatalf("%s: frame of %d bytes: %v", name, size, err)
			}
			kept = append(kept, got)
		}
		// A received frame stays as it was whatever comes later.
		for i, size := range sizes {
			if !bytes.Equal(kept[i], bytes.Repeat([]byte{byte(size)}, size)) {
				t.Errorf("%s: frame %d of %d bytes differs", name, i, size)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Receive(1); err != io.EOF {
			t.Errorf("%s: %v, want io.EOF", name, err)
		}
	}
	// The protobuf service of the same server and connection is unaffected.
	got, err := kiloraftpb.NewKVClient(conn).Get(t.Context(), &kiloraftpb.GetRequest{Key: []byte("k")})
	if err != nil || string(got.Value) != "k" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRawStreamErrors(t *testing.T) {
	conn := startEcho(t)
	s, err := OpenOperations(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send([]byte("refuse"), nil); err != nil {
		t.Fatal(err)
	}
	var notLeader *shard.NotLeaderError
	if _, err := s.Receive(1); !errors.As(err, &notLeader) || notLeader.Leader.Term != 8 {
		t.Errorf("the handler's error came as %v", err)
	}

	// A frame above the stream's bound breaks this stream only.
	s, err = OpenOperations(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(make([]byte, shard.FrameBytesMax+1), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(shard.FrameBytesMax); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("an oversize frame gave %v", err)
	}

	// A frame above the server's bound is refused by gRPC before it is read.
	s, err = OpenOperations(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(make([]byte, PeerFrameBytesMax+1), nil); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := s.Receive(shard.FrameBytesMax); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a huge frame gave %v", err)
	}

	// Protobuf instead of a raw frame: an error, and the server stays up.
	bad, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+operationsService+"/Stream")
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.SendMsg(&kiloraftpb.GetRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if err := bad.RecvMsg(&kiloraftpb.GetResponse{}); status.Code(err) != codes.Internal {
		t.Errorf("a protobuf message on a raw stream gave %v", err)
	}
	if _, err := kiloraftpb.NewKVClient(conn).Get(t.Context(), &kiloraftpb.GetRequest{}); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
}

// TestFramePool: a buffer comes back once, and only if it is of a useful size.
func TestFramePool(t *testing.T) {
	var p FramePool
	if b := p.Buffer(); len(b) != 0 || cap(b) < framePoolBytesMin {
		t.Errorf("a fresh buffer has %d of %d bytes", len(b), cap(b))
	}
	if b := p.Get(3 << 20); len(*b) != 3<<20 {
		t.Errorf("Get gave %d bytes", len(*b))
	}
	p.Recycle(make([]byte, 0, framePoolBytesMax+1))
	p.Recycle(make([]byte, 0, 16))
	for range 4 {
		if b := p.Buffer(); cap(b) < framePoolBytesMin || cap(b) > framePoolBytesMax {
			t.Errorf("the pool kept a buffer of %d bytes", cap(b))
		}
	}
}

// BenchmarkRawFrames measures frames of 16 KiB there and back.
func BenchmarkRawFrames(b *testing.B) {
	conn := startEcho(b)
	s, err := OpenPeerMessages(b.Context(), conn)
	if err != nil {
		b.Fatal(err)
	}
	const size = 16 << 10
	var pool FramePool
	payload := make([]byte, size)
	b.SetBytes(2 * size)
	b.ReportAllocs()
	b.ResetTimer()
	sent := make(chan error, 1)
	go func() {
		for range b.N {
			if err := s.Send(append(pool.Buffer(), payload...), &pool); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range b.N {
		if _, err := s.Receive(size); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
}
