package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/shard"
)

// secureNode is a node with certificates, and how to talk to it.
type secureNode struct {
	t             *testing.T
	dir           string
	address, http string
	rpc           *grpc.Server
}

func startSecure(t *testing.T) *secureNode {
	t.Helper()
	n := &secureNode{t: t, dir: filepath.Join(t.TempDir(), "certs")}
	r := certs.Request{Dir: n.dir}
	must := func(_ certs.Created, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(certs.CreateCA(r))
	must(certs.CreateNode(r, []string{"127.0.0.1"}))
	must(certs.CreateClient(r, "client", false))
	must(certs.CreateClient(r, "admin", true))
	served := make(chan *grpc.Server, 1)
	startServerWith(t, func(c *Config) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		c.Insecure, c.CertsDir, c.HTTP = false, n.dir, l.Addr().String()
		c.observe = func(s *grpc.Server) { served <- s }
		n.address, n.http = c.Listen, c.HTTP
	})
	n.rpc = <-served
	return n
}

// as are the credentials of a role.
func (n *secureNode) as(role certs.Role) credentials.TransportCredentials {
	n.t.Helper()
	var source *certs.Source
	var err error
	switch role {
	case certs.NoRole:
		return n.withoutRole()
	case certs.Node:
		source, err = certs.OpenNode(n.dir, "", slog.New(slog.DiscardHandler))
	default:
		source, err = certs.OpenClient(n.dir, string(role), slog.New(slog.DiscardHandler))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return source.Dialing()
}

// withoutRole has a certificate that the authority has signed for something else.
func (n *secureNode) withoutRole() credentials.TransportCredentials {
	n.t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(n.dir, "ca.crt"), filepath.Join(n.dir, "ca.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "printer", OrganizationalUnit: []string{"admin"}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		n.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	return credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
}

func (n *secureNode) conn(role certs.Role) *grpc.ClientConn {
	n.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.address, append(api.DialOptions(), grpc.WithTransportCredentials(n.as(role)))...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call makes a call with an empty request, whatever the method takes.
func call(ctx context.Context, conn *grpc.ClientConn, m grpc.MethodInfo, method string) error {
	if !m.IsServerStream && !m.IsClientStream {
		return conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.CallContentSubtype("kiloraft-raw"))
	if err == nil {
		err = s.CloseSend()
	}
	if err == nil {
		err = s.RecvMsg(nil) // the end or an error: what has nothing to say sends no frame
	}
	return err
}

// Every RPC of every service is in the gate's table, and every role is let through
// where the table says so, and nowhere else.
func TestEveryRPCIsBehindTheGate(t *testing.T) {
	n := startSecure(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// What the rules are, apart from how the table writes them.
	may := map[string][]certs.Role{
		"KV": {certs.Client, certs.Admin, certs.Node}, "Cluster": {certs.Client, certs.Admin, certs.Node}, "Operations": {certs.Client, certs.Admin, certs.Node},
		"Admin": {certs.Admin}, "Peer": {certs.Node}, "PeerStream": {certs.Node},
	}
	methods := 0
	for service, info := range n.rpc.GetServiceInfo() {
		allowed, known := may[strings.TrimPrefix(service, "kiloraft.v1.")]
		if !known {
			t.Errorf("this test does not know who may call service %s", service)
		}
		for _, m := range info.Methods {
			methods++
			method := "/" + service + "/" + m.Name
			if gateTable[method] == nobody {
				t.Errorf("%s is not in the gate's table", method)
			}
			for _, role := range []certs.Role{certs.NoRole, certs.Client, certs.Admin, certs.Node} {
				err := call(ctx, n.conn(role), m, method)
				denied := status.Code(err) == codes.PermissionDenied
				if admitted := slices.Contains(allowed, role); denied == admitted {
					t.Errorf("%s as role %q: %v", method, role, err)
				}
				var reason *shard.DeniedError
				if denied && (!errors.As(api.Error(err), &reason) || !strings.Contains(reason.Reason, method+" needs the role ")) {
					t.Errorf("%s as role %q is denied without a reason: %v", method, role, err)
				}
			}
		}
	}
	if methods != len(gateTable) || methods < 24 {
		t.Errorf("%d methods were called, the table has %d", methods, len(gateTable))
	}
}

// An RPC that nobody has put into the table is for nobody, with certificates and
// without, and a node that has one does not start.
func TestWhatTheGateDoesNotKnow(t *testing.T) {
	for _, secure := range []bool{true, false} {
		g := &gate{secure: secure, refusals: &certs.Refusals{Log: slog.New(slog.DiscardHandler)}}
		var denied *shard.DeniedError
		if err := g.admit(t.Context(), "/kiloraft.v1.KV/Forgotten"); !errors.As(err, &denied) || !strings.Contains(err.Error(), "is for nobody") {
			t.Errorf("secure %v: %v", secure, err)
		}
		// Nor does a secure gate let through who has shown nothing.
		if err := g.admit(t.Context(), pb.KV_Get_FullMethodName); secure != errors.As(err, &denied) {
			t.Errorf("without a certificate, secure %v: %v", secure, err)
		}
	}
	unlisted := grpc.NewServer()
	unlisted.RegisterService(&grpc.ServiceDesc{ServiceName: "kiloraft.v1.New", Methods: []grpc.MethodDesc{{MethodName: "Forgotten"}}}, nil)
	panics(t, unlisted, "/kiloraft.v1.New/Forgotten")
	panics(t, grpc.NewServer(), "RPCs that do not exist")
}

// panics wants the gate to refuse a server that does not fit its table.
func panics(t *testing.T, rpc *grpc.Server, words string) {
	t.Helper()
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, words) {
			t.Errorf("panicked with %q, want %q", p, words)
		}
	}()
	(&gate{}).covers(rpc)
}

// With certificates a caller is what its certificate says, and not what it says.
func TestOnlyNodesWriteSystemKeys(t *testing.T) {
	n := startSecure(t)
	env := prod.New()
	defer env.Close()
	for role, allowed := range map[certs.Role]bool{certs.Node: true, certs.Admin: false, certs.Client: false} {
		dialer := client.NewGRPCDialer(n.as(role), grpc.WithStreamInterceptor(asNode)) // which claims to be a node
		core := client.NewCore(client.CoreConfig{Env: env, Dialer: dialer, Endpoints: []string{n.address}})
		done := make(chan error, 1)
		put := shard.Command{Kind: shard.KindCompareAndPut, Key: append([]byte{shard.SystemKeyspace}, "test/"+role...), ExpectAbsent: true, Value: []byte("v")}
		core.Do(put, 10*time.Second, func(_ shard.Result, err error) { done <- err })
		select {
		case err := <-done:
			if allowed != (err == nil) {
				t.Errorf("a system key written as role %s: %v", role, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("no answer as role %s", role)
		}
		core.Close()
		_ = dialer.Close()
	}
}

// A node does not join under an address for which nobody would accept its
// certificate.
func TestJoinUnderAnotherAddress(t *testing.T) {
	n := startSecure(t)
	peer := pb.NewPeerClient(n.conn(certs.Node))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proof, end, err := prove(l)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer end()
	for address, fine := range map[string]bool{l.Addr().String(): true, "127.0.0.2:7400": false, "n9:7400": false} {
		_, err := peer.Join(t.Context(), &pb.JoinRequest{Address: address, Proof: proof})
		if fine != (err == nil) || !fine && !strings.Contains(err.Error(), "is for 127.0.0.1 and not for") {
			t.Errorf("joining at %s: %v", address, err)
		}
	}
	if _, err := peer.Join(t.Context(), &pb.JoinRequest{Address: "127.0.0.1"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("joining without a port: %v", err)
	}
}

// The HTTP port is behind certificates, too, and profiles are for admins.
func TestHTTPWithCertificates(t *testing.T) {
	n := startSecure(t)
	text, err := os.ReadFile(filepath.Join(n.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	get := func(url, name string) (int, string, error) {
		config := &tls.Config{RootCAs: roots}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(n.dir, name+".crt"), filepath.Join(n.dir, name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 20 * time.Second}
		r, err := c.Get(url)
		if err != nil {
			return 0, "", err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return r.StatusCode, string(body), err
	}
	for _, c := range []struct {
		path, name string
		code       int
		says       string
	}{
		{"/metrics", "client.client", 200, "kiloraft_certificate_expiry_seconds"}, {"/metrics", "node", 200, "kiloraft_shards"},
		{"/debug/pprof/cmdline", "client.admin", 200, "server"}, {"/debug/pprof/cmdline", "client.client", 403, "needs the role admin"}, {"/debug/pprof/cmdline", "node", 403, "needs the role admin"},
	} {
		if code, body, err := get("https://"+n.http+c.path, c.name); err != nil || code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s as %s: %d %.200q %v", c.path, c.name, code, body, err)
		}
	}
	if code, body, err := get("https://"+n.http+"/healthz", "client.client"); err != nil || code == 403 { // healthy yet or not
		t.Errorf("/healthz as a client: %d %q %v", code, body, err)
	}
	if _, _, err := get("https://"+n.http+"/healthz", ""); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
	if code, body, err := get("http://"+n.http+"/healthz", ""); err != nil || code != 400 || !strings.Contains(body, "TLS") {
		t.Errorf("in plaintext: %d %q %v", code, body, err)
	}
}

func TestSecurityIsChecked(t *testing.T) {
	n := startSecure(t)
	for what, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"neither":            {func(c *Config) { c.Insecure = false }, "--certs-dir is missing"},
		"both":               {func(c *Config) { c.CertsDir = n.dir }, "--insecure goes without --certs-dir"},
		"plaintext outside":  {func(c *Config) { c.Listen = "0.0.0.0:0" }, "not a loopback address"},
		"no certificates":    {func(c *Config) { c.Insecure, c.CertsDir = false, t.TempDir() }, "ca.crt does not exist"},
		"another host":       {func(c *Config) { c.Insecure, c.CertsDir, c.Advertise = false, n.dir, "n9:7400" }, "is for 127.0.0.1 and not for n9"},
		"listens everywhere": {func(c *Config) { c.Insecure, c.CertsDir, c.Listen = false, n.dir, "0.0.0.0:0" }, "say by --advertise"},
		"advertises nothing": {func(c *Config) { c.Insecure, c.CertsDir, c.Advertise = false, n.dir, "[::]:7400" }, "--advertise [::]:7400 leads nowhere"},
	} {
		config := Config{Store: filepath.Join(t.TempDir(), "store"), Listen: "127.0.0.1:0", Insecure: true, Logger: slog.New(slog.DiscardHandler)}
		c.change(&config)
		if err := Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
		if _, err := os.Stat(config.Store); err == nil {
			t.Errorf("%s: a store was made", what)
		}
	}
}

func TestAdvertised(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000}
	for _, c := range []struct{ advertise, listen, want string }{
		{"", "127.0.0.1:0", "127.0.0.1:7000"}, {"", "n1:7000", "n1:7000"}, {"", "[::1]:0", "[::1]:7000"}, {"n1:80", "0.0.0.0:0", "n1:80"},
		{"", "0.0.0.0:0", ""}, {"", "[::]:0", ""}, {"", ":0", ""}, {"", "n1", ""}, {"n1", "n1:1", ""}, {":80", "n1:1", ""},
	} {
		got, err := advertised(c.advertise, c.listen, bound)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("--advertise %q --listen %q: %q, %v", c.advertise, c.listen, got, err)
		}
	}
}
