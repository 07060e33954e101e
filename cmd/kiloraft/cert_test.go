package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/server"
)

// made runs a cert command and returns its record.
func made(t *testing.T, args ...string) certRecord {
	t.Helper()
	var c certRecord
	decode(t, command{}.run(t, append(append([]string{"cert"}, args...), "-o", "json")...), &c)
	return c
}

func TestCertRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	ca := made(t, "create-ca", "--certs-dir", dir)
	node := made(t, "create-node", "n1", "10.0.0.1", "--certs-dir", dir)
	alice := made(t, "create-client", "alice", "--certs-dir", dir, "--valid-for", "90d")
	root := made(t, "create-client", "root", "--admin", "--certs-dir", dir)
	for _, c := range []struct {
		got              certRecord
		kind, role, name string
		days             int
	}{{ca, "ca", "", ca.Name, 3650}, {node, "node", "node", "n1", 1825}, {alice, "client", "client", "alice", 90}, {root, "client", "admin", "root", 365}} {
		days := int(time.Until(c.got.ValidUntil).Round(time.Hour).Hours() / 24)
		if c.got.Kind != c.kind || c.got.Role != c.role || c.got.Name != c.name || days != c.days || c.got.Serial == "" {
			t.Errorf("made %+v (%d days)", c.got, days)
		}
		for _, file := range []string{c.got.Certificate, c.got.Key} {
			if _, err := os.Stat(file); err != nil || filepath.Dir(file) != dir {
				t.Errorf("file %s: %v", file, err)
			}
		}
	}
	if strings.Join(node.Hosts, " ") != "n1 10.0.0.1" || !strings.Contains(ca.Name, "kiloraft CA") {
		t.Errorf("made %+v, %+v", node, ca)
	}
	r := command{}.run(t, "cert", "create-client", "alice", "--certs-dir", dir)
	if r.code != exitFailed || !strings.Contains(r.stderr, "client.alice.key exists already; --overwrite replaces it\n") {
		t.Errorf("made twice: %+v", r)
	}
	r = command{}.run(t, "cert", "create-client", "alice", "--certs-dir", dir, "--overwrite")
	if r.code != exitDone || !strings.Contains(r.stdout, "client       alice (role client)\nvalid until  2") || !strings.Contains(r.stdout, "key          "+alice.Key+" (secret)\n") {
		t.Errorf("made again: %+v", r)
	}
	away := filepath.Join(t.TempDir(), "n2")
	if r := (command{}).run(t, "cert", "create-node", "n2", "--certs-dir", away, "--ca-dir", dir); r.code != exitDone || !strings.Contains(r.stdout, "node         n2\n") {
		t.Errorf("an authority elsewhere: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(away, "ca.crt")); err != nil {
		t.Error(err)
	}
}

// Commands use the client's certificate that they are told to.
func TestCommandsWithCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	made(t, "create-ca", "--certs-dir", dir)
	made(t, "create-node", "127.0.0.1", "--certs-dir", dir)
	made(t, "create-client", "alice", "--certs-dir", dir)
	other := filepath.Join(t.TempDir(), "certs")
	made(t, "create-ca", "--certs-dir", other)
	made(t, "create-client", "alice", "--certs-dir", other)
	address := serveFakeWith(t, server.Config{CertsDir: dir}, &fakeCluster{listNodes: func() (*kiloraftpb.ListNodesResponse, error) {
		return &kiloraftpb.ListNodesResponse{Nodes: []*kiloraftpb.NodeInfo{{Id: 7}}}, nil
	}})
	list := func(args ...string) result {
		return command{}.run(t, append([]string{"node", "list", "--endpoints", address}, args...)...)
	}
	if r := list("--certs-dir", dir); r.code != exitDone || !strings.Contains(r.stdout, "7") {
		t.Errorf("with the only client: %+v", r)
	}
	for what, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"plaintext":         {nil, exitFailed, address + " speaks TLS; name certificates (--certs-dir)"},
		"another authority": {[]string{"--certs-dir", other}, exitFailed, "is not signed by an authority that is trusted here"},
		"no such client":    {[]string{"--certs-dir", dir, "--client", "eve"}, exitFailed, "client.eve.crt does not exist; kiloraft cert create-client eve makes it"},
		"no such folder":    {[]string{"--certs-dir", filepath.Join(dir, "x")}, exitFailed, "does not exist"},
	} {
		r := list(c.args...)
		if r.code != c.code || !strings.Contains(r.stderr, c.says) || strings.Contains(r.stderr, "desc =") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	made(t, "create-client", "bob", "--certs-dir", dir)
	if r := list("--certs-dir", dir); r.code != exitUsage || !strings.Contains(r.stderr, "--client is missing: "+dir+" holds the certificates of several clients, alice, bob; name one") {
		t.Errorf("with two clients: %+v", r)
	}
	if r := list("--certs-dir", dir, "--client", "bob"); r.code != exitDone {
		t.Errorf("with one of two clients: %+v", r)
	}
	plain := serveFake(t, &fakeCluster{})
	if r := (command{}).run(t, "node", "list", "--endpoints", plain, "--certs-dir", dir, "--client", "bob"); r.code != exitFailed || !strings.Contains(r.stderr, plain+" does not speak TLS; leave --certs-dir out") {
		t.Errorf("TLS at a plaintext port: %+v", r)
	}
}
