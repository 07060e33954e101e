package certs

import (
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Every folder that nobody would accept is refused, with the file and the reason.
func TestUnusableFolders(t *testing.T) {
	now := time.Now()
	move := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			ok(t, os.Rename(certFile(dir, from), certFile(dir, to)))
			ok(t, os.Rename(keyFile(dir, from), keyFile(dir, to)))
		}
	}
	forged := func(name string, role Role, change func(*x509.Certificate)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { forge(t, dir, name, role, []string{"127.0.0.1"}, change) }
	}
	write := func(file, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			ok(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
	}
	urn := func(s string) *url.URL {
		u, err := url.Parse(s)
		ok(t, err)
		return u
	}
	for what, c := range map[string]struct {
		harm func(*testing.T, string)
		name string // nodeName if empty
		says []string
	}{
		"no authority":   {harm: func(t *testing.T, dir string) { ok(t, os.Remove(certFile(dir, caName))) }, says: []string{"ca.crt does not exist", "create-ca"}},
		"no certificate": {harm: func(t *testing.T, dir string) { ok(t, os.Remove(certFile(dir, nodeName))) }, says: []string{"node.crt does not exist", "create-node"}},
		"no key":         {harm: func(t *testing.T, dir string) { ok(t, os.Remove(keyFile(dir, nodeName))) }, says: []string{"node.key does not exist", "create-node"}},
		"no client":      {harm: move("client.alice", "client.bob"), name: "client.alice", says: []string{"client.alice.crt does not exist", "create-client alice"}},
		"open key": {harm: func(t *testing.T, dir string) { ok(t, os.Chmod(keyFile(dir, nodeName), 0o604)) },
			says: []string{"node.key can be read or written by others (mode 0604)", "chmod 600"}},
		"key for the group": {harm: func(t *testing.T, dir string) { ok(t, os.Chmod(keyFile(dir, nodeName), 0o640)) }, says: []string{"mode 0640"}},
		"another key": {harm: func(t *testing.T, dir string) {
			ok(t, os.Rename(keyFile(dir, "client.alice"), keyFile(dir, nodeName)))
		}, says: []string{"node.crt does not belong to the key in"}},
		"empty certificate": {harm: write("node.crt", ""), says: []string{"node.crt holds no certificate"}},
		"random bytes":      {harm: write("ca.crt", "\x00\x01random"), says: []string{"ca.crt holds no certificate"}},
		"broken":            {harm: write("node.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), says: []string{"node.crt holds a broken certificate"}},
		"key for certificate": {harm: func(t *testing.T, dir string) {
			ok(t, os.Rename(keyFile(dir, nodeName), certFile(dir, nodeName)))
		}, says: []string{"node.crt holds a PRIVATE KEY"}},
		"empty key":        {harm: write("node.key", ""), says: []string{"node.key holds no key"}},
		"broken key":       {harm: write("node.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), says: []string{"node.key holds no private key that can be used"}},
		"huge":             {harm: write("node.crt", string(make([]byte, fileBytesMax+1))), says: []string{"node.crt is no certificate"}},
		"authority is not": {harm: func(t *testing.T, dir string) { ok(t, os.Rename(certFile(dir, "client.root"), certFile(dir, caName))) }, says: []string{"ca.crt holds the certificate of", "which is no authority"}},
		"other authority": {harm: func(t *testing.T, dir string) {
			_, err := CreateCA(Request{Dir: dir, Overwrite: true})
			ok(t, err)
		}, says: []string{"node.crt is not signed by an authority that is trusted here", "create-node"}},
		"expired":       {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), says: []string{"node.crt expired on 2"}},
		"not yet valid": {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), says: []string{"node.crt is not valid before 2"}},
		"other host":    {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"n7"} }), says: []string{"node.crt is for n7 and not for 127.0.0.1"}},
		"no host":       {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.IPAddresses = nil }), says: []string{"node.crt is for no host and not for 127.0.0.1"}},
		"no server": {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			says: []string{"node.crt is not made for this use"}},
		"client as a node": {harm: forged(nodeName, Client, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }),
			says: []string{`node.crt is of "forged" (role client), and a node's is needed`}},
		"node as a client": {harm: forged("client.alice", Node, func(*x509.Certificate) {}), name: "client.alice", says: []string{`is of "forged" (role node), and a client's or admin's is needed`}},
		"no role":          {harm: forged(nodeName, Node, func(c *x509.Certificate) { c.URIs = nil }), says: []string{`is of "forged" (no role)`}},
		"two roles": {harm: forged("client.alice", Admin, func(c *x509.Certificate) { c.URIs = append(c.URIs, Client.uri()) }), name: "client.alice",
			says: []string{`is of "forged" (no role)`}},
		"unknown role": {harm: forged("client.alice", Admin, func(c *x509.Certificate) { c.URIs = []*url.URL{urn("urn:kiloraft:role:god")} }), name: "client.alice",
			says: []string{`is of "forged" (no role)`}},
	} {
		t.Run(what, func(t *testing.T) {
			dir, name, host := folder(t), c.name, ""
			if name == "" {
				name, host = nodeName, "127.0.0.1"
			}
			if _, err := load(dir, name, host, now); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.harm(t, dir)
			_, err := load(dir, name, host, now)
			says(t, err, append(c.says, dir)...)
		})
	}
}

// A URI that is not ours says nothing about the role.
func TestRoles(t *testing.T) {
	foreign, err := url.Parse("spiffe://example.org/kiloraft")
	ok(t, err)
	for _, c := range []struct {
		uris []*url.URL
		want Role
	}{
		{nil, NoRole}, {[]*url.URL{foreign}, NoRole}, {[]*url.URL{Node.uri()}, Node}, {[]*url.URL{foreign, Client.uri()}, Client},
		{[]*url.URL{Admin.uri()}, Admin}, {[]*url.URL{Admin.uri(), Admin.uri()}, NoRole}, {[]*url.URL{Node.uri(), Client.uri()}, NoRole}, {[]*url.URL{NoRole.uri()}, NoRole},
	} {
		if got := IdentityOf(&x509.Certificate{URIs: c.uris}).Role; got != c.want {
			t.Errorf("%v is role %q, want %q", c.uris, got, c.want)
		}
	}
	if got := Admin.uri().String(); got != "urn:kiloraft:role:admin" {
		t.Errorf("an admin's URI is %s", got)
	}
}

func TestWhichClient(t *testing.T) {
	dir := folder(t)
	log := newNotes().logger()
	_, err := OpenClient(dir, "", log)
	says(t, err, "alice, root", "name one")
	for name, role := range map[string]Role{"alice": Client, "root": Admin} {
		s, err := OpenClient(dir, name, log)
		ok(t, err)
		if id := s.Identity(); id.Role != role || id.Name != name {
			t.Errorf("%s is %v", name, id)
		}
	}
	_, err = OpenClient(dir, "../node", log)
	says(t, err, "is no name")
	_, err = OpenClient(dir, "eve", log)
	says(t, err, "client.eve.crt does not exist")
	ok(t, os.Remove(certFile(dir, "client.root")))
	if s, err := OpenClient(dir, "", log); err != nil || s.Identity().Name != "alice" {
		t.Errorf("the only client: %v", err)
	}
	ok(t, os.Remove(certFile(dir, "client.alice")))
	_, err = OpenClient(dir, "", log)
	says(t, err, "holds no certificate of a client", "create-client")
	_, err = OpenClient(filepath.Join(dir, "absent"), "", log)
	says(t, err, "does not exist")
}
