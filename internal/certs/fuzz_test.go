package certs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// FuzzFiles: whatever stands in the files of certificates and keys, they are refused
// with the name of a file, or serve a node whose role and host they are for.
func FuzzFiles(f *testing.F) {
	r := Request{Dir: filepath.Join(f.TempDir(), "certs")}
	var err error
	if _, err = CreateCA(r); err == nil {
		_, err = CreateNode(r, []string{"127.0.0.1"})
	}
	if err == nil {
		_, err = CreateClient(r, "alice", false)
	}
	if err != nil {
		f.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range []string{"ca.crt", "node.crt", "node.key", "client.alice.crt", "client.alice.key"} {
		if files[name], err = os.ReadFile(filepath.Join(r.Dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(files["ca.crt"], files["node.crt"], files["node.key"])
	f.Add(files["ca.crt"], files["client.alice.crt"], files["client.alice.key"])
	f.Add(files["node.crt"], files["node.crt"], files["node.key"])
	f.Add(files["node.key"], files["ca.crt"], files["node.crt"])
	f.Add(append(files["ca.crt"], files["ca.crt"]...), files["node.crt"][:200], files["node.key"][:100])
	f.Add([]byte{}, []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte{0})
	f.Fuzz(func(t *testing.T, ca, cert, key []byte) {
		dir := t.TempDir()
		for name, text := range map[string][]byte{"ca.crt": ca, "node.crt": cert, "node.key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b, err := load(dir, nodeName, "127.0.0.1", time.Now())
		var invalid *shard.InvalidError
		switch {
		case err != nil && (!errors.As(err, &invalid) || filepath.Dir(invalid.Field) != dir):
			t.Fatalf("%v does not name a file", err)
		case err == nil && (b.identity.Role != Node || covers(b.cert.Leaf, "127.0.0.1") != nil):
			t.Fatalf("the certificate of %v is taken for a node's at 127.0.0.1", b.identity)
		}
	})
}
