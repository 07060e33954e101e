package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

// makeCerts runs a cert command.
func makeCerts(t *testing.T, args ...string) {
	t.Helper()
	if o := run(t, "", append([]string{"cert"}, args...)...); o.code != 0 {
		t.Fatalf("kiloraft cert %v: exit %d: %s", args, o.code, o.stderr)
	}
}

// secureCluster is a cluster of which every node has a folder of certificates of
// its own, as if it were another machine's.
type secureCluster struct {
	*cluster
	ca    string
	users string // folder of the clients' certificates
}

func (c *secureCluster) certsOf(node int) string {
	return filepath.Join(c.dir, fmt.Sprintf("certs%d", node))
}

// as runs the binary with the certificate of a client.
func (c *secureCluster) as(name string, args ...string) output {
	return c.run(append(args, "--certs-dir", c.users, "--client", name)...)
}

func startSecureCluster(t *testing.T, nodes, shards int) *secureCluster {
	t.Helper()
	c := &secureCluster{cluster: &cluster{t: t, dir: t.TempDir()}}
	c.ca, c.users = filepath.Join(c.dir, "ca"), filepath.Join(c.dir, "users")
	makeCerts(t, "create-ca", "--certs-dir", c.ca)
	makeCerts(t, "create-client", "app", "--certs-dir", c.users, "--ca-dir", c.ca)
	makeCerts(t, "create-client", "ops", "--admin", "--certs-dir", c.users, "--ca-dir", c.ca)
	t.Cleanup(c.stop)
	ports := freePorts(t, 2*nodes)
	for i := range nodes {
		makeCerts(t, "create-node", "127.0.0.1", "--certs-dir", c.certsOf(i+1), "--ca-dir", c.ca)
		p := &process{t: t, name: fmt.Sprintf("node %d", i+1), address: ports[2*i], http: ports[2*i+1], log: filepath.Join(c.dir, fmt.Sprintf("node%d.log", i+1))}
		p.args = []string{"start", "--certs-dir", c.certsOf(i + 1), "--store", filepath.Join(c.dir, fmt.Sprintf("store%d", i+1)), "--listen", p.address, "--http", p.http}
		if i == 0 {
			p.args = append(p.args, "--initial-shards", fmt.Sprint(shards))
		} else {
			p.args = append(p.args, "--join", c.nodes[0].address)
		}
		c.nodes = append(c.nodes, p)
		p.start()
	}
	c.whole()
	return c
}

// whole waits until all nodes are live and every shard has its voters.
func (c *secureCluster) whole() {
	c.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; {
		o := c.as("app", "status", "--wait", "--timeout", "30s", "-o", "json")
		if o.code == 0 && strings.Contains(o.stdout, `"healthy": true`) && strings.Contains(o.stdout, fmt.Sprintf(`"nodes": %d,`, len(c.nodes))) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the cluster is not whole: exit %d\n%s\n%s", o.code, o.stdout, o.stderr)
		}
	}
}

// logged waits until a node's log says words.
func (p *process) logged(words string) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(p.log); err == nil && strings.Contains(string(b), words) {
			return
		}
	}
	p.t.Errorf("the log of %s does not say %q:\n%s", p.name, words, tail(p.log, 20))
}

// TestSecureCluster runs three nodes with certificates of their own, and tries who
// may do what.
func TestSecureCluster(t *testing.T) {
	c := startSecureCluster(t, 3, 4)
	first := c.nodes[0]
	for _, args := range [][]string{{"kv", "put", "k", "v"}, {"kv", "get", "k"}, {"kv", "scan"}, {"status"}, {"node", "list"}, {"shard", "list"},
		{"settings", "list"}, {"debug", "key", "k"}, {"bench", "put", "--clients", "8", "--duration", "1s", "--warmup", "0s", "--keys", "100"}} {
		for _, name := range []string{"app", "ops"} {
			if o := c.as(name, args...); o.code != 0 {
				t.Errorf("%v as %s: exit %d: %s", args, name, o.code, o.stderr)
			}
		}
	}
	t.Run("roles", func(t *testing.T) {
		set := []string{"settings", "set", "kv.retention", "20m"}
		expectFailure(t, c.as("app", set...), 1, "denied", "needs the role admin", `"app" (role client)`)
		if o := c.as("ops", set...); o.code != 0 {
			t.Errorf("an admin: exit %d: %s", o.code, o.stderr)
		}
		// A node's certificate in a client's place is no client's.
		odd := filepath.Join(c.dir, "odd")
		if err := os.CopyFS(odd, os.DirFS(c.certsOf(1))); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{".crt", ".key"} {
			if err := os.Chmod(filepath.Join(odd, "node"+suffix), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(odd, "node"+suffix), filepath.Join(odd, "client.node"+suffix)); err != nil {
				t.Fatal(err)
			}
		}
		expectFailure(t, c.run("status", "--certs-dir", odd), 1, "(role node), and a client's or admin's is needed")
	})
	t.Run("library", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cl, err := client.Open(ctx, client.Options{Endpoints: strings.Split(c.endpoints(), ","), CertsDir: c.users, CertName: "app"})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if kv, err := cl.Get(ctx, []byte("k")); err != nil || string(kv.Value) != "v" {
			t.Errorf("got %q, %v", kv.Value, err)
		}
		_, err = client.Open(ctx, client.Options{Endpoints: strings.Split(c.endpoints(), ",")})
		var denied *shard.DeniedError
		if !errors.As(err, &denied) {
			t.Errorf("in plaintext: %v", err)
		}
	})
	t.Run("plaintext", func(t *testing.T) {
		expectFailure(t, c.run("kv", "get", "k"), 1, "speaks TLS", "--certs-dir")
		expectFailure(t, c.run("status"), 1, "speaks TLS", "--certs-dir")
		first.logged("it does not speak TLS")
	})
	t.Run("another authority", func(t *testing.T) {
		eve := filepath.Join(c.dir, "eve")
		makeCerts(t, "create-ca", "--certs-dir", eve)
		makeCerts(t, "create-client", "eve", "--admin", "--certs-dir", eve)
		expectFailure(t, c.run("kv", "get", "k", "--certs-dir", eve), 1, "denied", "is not signed by an authority that is trusted here")
		// Even if eve trusts the cluster, the cluster does not trust eve.
		b, err := os.ReadFile(filepath.Join(c.ca, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		mine, err := os.ReadFile(filepath.Join(eve, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(eve, "ca.crt"), append(b, mine...), 0o600); err != nil {
			t.Fatal(err)
		}
		expectFailure(t, c.run("kv", "get", "k", "--certs-dir", eve), 1, "denied", "it is not signed by an authority that the node trusts")
		first.logged(`(role admin), is not signed by an authority that is trusted here`)
		// Nor a node of another authority.
		makeCerts(t, "create-node", "127.0.0.1", "--certs-dir", eve)
		o := run(t, "", "start", "--certs-dir", eve, "--store", filepath.Join(c.dir, "eve-store"), "--listen", "127.0.0.1:0", "--http", "", "--join", first.address)
		expectFailure(t, o, 1, "--join "+first.address, "it is not signed by an authority that the node trusts")
	})
	t.Run("another name", func(t *testing.T) {
		_, port, _ := strings.Cut(first.address, ":")
		expectFailure(t, run(t, "localhost:"+port, "status", "--certs-dir", c.users, "--client", "app"), 1, "is for 127.0.0.1 and not for localhost")
	})
	t.Run("expired", func(t *testing.T) {
		old := filepath.Join(c.dir, "old")
		r := certs.Request{Dir: old, CADir: c.ca, ValidFor: time.Hour, Now: time.Now().Add(-48 * time.Hour)}
		if _, err := certs.CreateClient(r, "old", false); err != nil {
			t.Fatal(err)
		}
		if _, err := certs.CreateNode(r, []string{"127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		expectFailure(t, c.run("status", "--certs-dir", old), 1, "client.old.crt", "expired on 2")
		o := run(t, "", "start", "--certs-dir", old, "--store", filepath.Join(c.dir, "old-store"), "--listen", "127.0.0.1:0", "--http", "")
		expectFailure(t, o, 1, "node.crt", "expired on 2")
	})
	t.Run("another host", func(t *testing.T) {
		o := run(t, "", "start", "--certs-dir", c.certsOf(1), "--store", filepath.Join(c.dir, "other-store"), "--listen", "127.0.0.1:0", "--advertise", "localhost:7400", "--http", "")
		expectFailure(t, o, 1, "node.crt", "is for 127.0.0.1 and not for localhost")
	})
	c.whole()
}

// TestCertificatesReload changes the authority and every certificate of a running
// cluster, without a restart and without losing it.
func TestCertificatesReload(t *testing.T) {
	c := startSecureCluster(t, 3, 2)
	if o := c.as("app", "kv", "put", "k", "v"); o.code != 0 {
		t.Fatal(o.stderr)
	}
	next := filepath.Join(c.dir, "next-ca")
	makeCerts(t, "create-ca", "--certs-dir", next)
	both := []byte{}
	for _, dir := range []string{c.ca, next} {
		b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	folders := []string{c.users}
	for i := range c.nodes {
		folders = append(folders, c.certsOf(i+1))
	}
	// First everybody trusts both authorities.
	for _, dir := range folders {
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), both, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.handshakeUntil("certificates loaded again", 1)
	// Then come the new certificates.
	for i := range c.nodes {
		makeCerts(t, "create-node", "127.0.0.1", "--certs-dir", c.certsOf(i+1), "--ca-dir", next, "--overwrite")
	}
	makeCerts(t, "create-client", "app", "--certs-dir", c.users, "--ca-dir", next, "--overwrite")
	c.handshakeUntil("certificates loaded again", 2)
	// Then the old authority goes: what it has signed is worth nothing any more.
	b, err := os.ReadFile(filepath.Join(next, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range folders[1:] {
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.handshakeUntil("certificates loaded again", 3)
	expectFailure(t, c.as("ops", "status"), 1, "denied", "it is not signed by an authority that the node trusts")
	// A node that is broken by its new files goes on with the old ones.
	if err := os.WriteFile(filepath.Join(c.certsOf(1), "node.crt"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.handshakeUntil("new certificates cannot be used", 1, c.nodes[0])
	if o := c.as("app", "kv", "get", "k"); o.code != 0 || !strings.Contains(o.stdout, "v") {
		t.Errorf("after all: exit %d: %s", o.code, o.stderr)
	}
	c.whole()
}

// handshakeUntil connects to nodes until the log of each says words often enough:
// files are looked at when somebody connects.
func (c *secureCluster) handshakeUntil(words string, often int, nodes ...*process) {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	for _, p := range nodes {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			run(c.t, p.address, "node", "list", "--certs-dir", c.users, "--client", "app")
			b, err := os.ReadFile(p.log)
			if err != nil {
				c.t.Fatal(err)
			}
			if strings.Count(string(b), words) >= often {
				break
			}
			if time.Now().After(deadline) {
				c.t.Fatalf("the log of %s does not say %q %d times:\n%s", p.name, words, often, tail(p.log, 20))
			}
		}
	}
}

// TestSecureDemo has a demo make its certificates, and its command use them.
func TestSecureDemo(t *testing.T) {
	o := run(t, "", "demo", "--secure", "--nodes", "1", "--shards", "2", "--exec",
		"kiloraft kv put k v -o json >/dev/null && kiloraft kv get k && kiloraft settings set kv.retention 20m >/dev/null && kiloraft bench put --clients 4 --duration 1s --warmup 0s -o json >/dev/null")
	if o.code != 0 || !strings.HasPrefix(o.stdout, "v") {
		t.Errorf("exit %d: %s%s", o.code, o.stdout, o.stderr)
	}
}
