package client_test

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

// certsFolder makes certificates of a node on loopback and of a client.
func certsFolder(t *testing.T) string {
	t.Helper()
	r := certs.Request{Dir: t.TempDir()}
	_, err := certs.CreateCA(r)
	if err == nil {
		_, err = certs.CreateNode(r, []string{"127.0.0.1"})
	}
	if err == nil {
		_, err = certs.CreateClient(r, "app", false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Dir
}

// serveSecurely puts the one node of a cluster behind the certificates of dir.
func serveSecurely(t *testing.T, cluster *clienttest.Cluster, dir string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	source, err := certs.OpenNode(dir, "127.0.0.1", log)
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{cluster: cluster, node: 1, listener: l, rpc: grpc.NewServer(append(api.ServerOptions(), grpc.Creds(certs.Accepting()))...)}
	kiloraftpb.RegisterClusterServer(s.rpc, s)
	api.RegisterOperations(s.rpc, s)
	cluster.Address = func(shard.NodeID) string { return l.Addr().String() }
	ended := make(chan error, 1)
	go func() { ended <- s.rpc.Serve(source.ListenGRPC(l, log)) }()
	t.Cleanup(func() {
		s.rpc.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestClientWithCertificates(t *testing.T) {
	dir := certsFolder(t)
	address := serveSecurely(t, clienttest.NewCluster(1, 1, 1), dir)
	c, err := client.Open(t.Context(), client.Options{Endpoints: []string{address}, CertsDir: dir, DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), []byte("k"), []byte("v")); err != nil {
		t.Error(err)
	}
	if kv, err := c.Get(t.Context(), []byte("k")); err != nil || string(kv.Value) != "v" {
		t.Errorf("got %q, %v", kv.Value, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A client that is denied by every endpoint says so at once, not when its time is up.
func TestDeniedAtFirstContact(t *testing.T) {
	dir := certsFolder(t)
	address := serveSecurely(t, clienttest.NewCluster(1, 1, 1), dir)
	began := time.Now()
	for what, o := range map[string]client.Options{
		"plaintext":         {},
		"another authority": {CertsDir: certsFolder(t)},
	} {
		o.Endpoints, o.DialTimeout, o.Logger = []string{address}, time.Hour, slog.New(slog.DiscardHandler)
		_, err := client.Open(t.Context(), o)
		var denied *shard.DeniedError
		if !errors.As(err, &denied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// A core that is told not to give up asks again: the certificates may have changed.
func TestDeniedIsNotFinalForNodes(t *testing.T) {
	dir := certsFolder(t)
	address := serveSecurely(t, clienttest.NewCluster(1, 1, 1), dir)
	o := client.Options{Endpoints: []string{address, "127.0.0.1:1"}, DialTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	_, err := client.Open(t.Context(), o)
	var unreachable *client.UnreachableError
	if !errors.As(err, &unreachable) { // the other endpoint might still have come
		t.Errorf("denied by one of two endpoints: %v", err)
	}
}

func TestBadCertificateOptions(t *testing.T) {
	dir := certsFolder(t)
	dialer := client.NewGRPCDialer(nil)
	defer dialer.Close()
	var invalid *shard.InvalidError
	for what, o := range map[string]client.Options{
		"with a dialer":  {CertsDir: dir, Dialer: dialer},
		"no folder":      {CertsDir: dir + "/absent"},
		"no such client": {CertsDir: dir, CertName: "eve"},
		"a path":         {CertsDir: dir, CertName: "../node"},
		"another place":  {Endpoints: []string{"192.0.2.7:7400"}},
	} {
		if len(o.Endpoints) == 0 {
			o.Endpoints = []string{"127.0.0.1:1"}
		}
		if _, err := client.Open(t.Context(), o); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
