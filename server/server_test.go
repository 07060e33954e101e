package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/storage"
)

// startServer runs a node of its own cluster and returns a connection to it.
func startServer(t *testing.T) *grpc.ClientConn { return startServerWith(t, func(*Config) {}) }

// startServerWith has the configuration changed before.
func startServerWith(t *testing.T, change func(*Config)) *grpc.ClientConn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	config := Config{Store: t.TempDir(), Listen: address, Insecure: true, MemoryBytes: 32 << 20,
		Logger: slog.New(slog.DiscardHandler), Ready: func(storage.Identity) { close(ready) }}
	change(&config)
	go func() { ended <- Run(ctx, config) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(api.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// A MultiPut of which every pair is written has no errors to look at.
func TestMultiPutOverGRPC(t *testing.T) {
	kv := pb.NewKVClient(startServer(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var q pb.MultiPutRequest
	for i := range 3 {
		q.Pairs = append(q.Pairs, &pb.KeyValue{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")})
	}
	r, err := kv.MultiPut(ctx, &q)
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range r.Results {
		if outcome.Error != "" || outcome.Revision == 0 {
			t.Errorf("pair %d: %v", i, outcome)
		}
	}
	q.Pairs = append(q.Pairs, &pb.KeyValue{Value: []byte("no key")})
	if r, err = kv.MultiPut(ctx, &q); err != nil || r.Results[3].Error == "" || r.Results[0].Error != "" {
		t.Errorf("with one bad pair: %v, %v", r, err)
	}
}
