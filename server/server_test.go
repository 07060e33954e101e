package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
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

// A plaintext port is on a loopback address, whatever the address was written like: what
// a name leads to is known once the port is bound.
func TestInsecurePortsAreOnLoopback(t *testing.T) {
	for name, test := range map[string]struct {
		cfg   Config
		field string
	}{
		"all addresses":     {Config{Listen: ":0", Insecure: true}, "--listen"},
		"an address of all": {Config{Listen: "0.0.0.0:0", Insecure: true}, "--listen"},
		"the port of HTTP":  {Config{Listen: "127.0.0.1:0", HTTP: "[::]:0", Insecure: true}, "--http"},
		"loopback":          {Config{Listen: "127.0.0.1:0", HTTP: "localhost:0", Insecure: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.cfg.Advertise, test.cfg.Logger = "127.0.0.1:1", slog.New(slog.DiscardHandler)
			s := &server{cfg: test.cfg, log: test.cfg.Logger}
			defer s.close()
			err := s.bind() // past the check of what is written
			var invalid *shard.InvalidError
			if test.field == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.As(err, &invalid) || invalid.Field != test.field || !strings.Contains(invalid.Reason, "loopback") {
				t.Errorf("%v", err)
			}
		})
	}
}
