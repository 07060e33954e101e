package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// expectFailure runs the binary and demands an exit code and words of stderr.
func expectFailure(t *testing.T, o output, code int, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d: %s", o.code, code, o.stderr)
	}
	for _, w := range words {
		if !strings.Contains(o.stderr, w) {
			t.Errorf("stderr does not say %q: %s", w, o.stderr)
		}
	}
	if strings.Contains(o.stderr, "rpc error") || strings.Contains(o.stderr, "goroutine ") {
		t.Errorf("stderr shows internals: %s", o.stderr)
	}
}

func TestStartRefusesBadInput(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	start := func(args ...string) output {
		return run(t, "", append([]string{"start", "--insecure", "--http", "", "--listen", ports[0]}, args...)...)
	}
	t.Run("unknown flag", func(t *testing.T) {
		expectFailure(t, start("--store", filepath.Join(dir, "a"), "--no-such-flag"), 2, "--no-such-flag")
	})
	t.Run("port taken", func(t *testing.T) {
		l, err := net.Listen("tcp", ports[1])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		expectFailure(t, start("--store", filepath.Join(dir, "b"), "--listen", ports[1]), 1, ports[1], "taken")
	})
	t.Run("no --insecure", func(t *testing.T) {
		expectFailure(t, run(t, "", "start", "--store", filepath.Join(dir, "c"), "--listen", ports[0]), 2, "--insecure")
	})
	t.Run("not loopback", func(t *testing.T) {
		expectFailure(t, start("--store", filepath.Join(dir, "d"), "--listen", "0.0.0.0:0"), 2, "loopback")
	})
	t.Run("store is a file", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		expectFailure(t, start("--store", file), 1, file)
	})
	t.Run("foreign store", func(t *testing.T) {
		foreign := filepath.Join(dir, "foreign")
		if err := os.MkdirAll(foreign, 0o700); err != nil {
			t.Fatal(err)
		}
		note := filepath.Join(foreign, "family-photos.tar")
		if err := os.WriteFile(note, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		expectFailure(t, start("--store", foreign), 1, foreign)
		if b, err := os.ReadFile(note); err != nil || string(b) != "precious" {
			t.Errorf("the foreign file was touched: %q %v", b, err)
		}
	})
	t.Run("join itself", func(t *testing.T) {
		expectFailure(t, start("--store", filepath.Join(dir, "e"), "--join", ports[0]), 2, "itself")
	})
	t.Run("too many initial shards", func(t *testing.T) {
		expectFailure(t, start("--store", filepath.Join(dir, "f"), "--initial-shards", "1000000"), 2, "initial-shards")
	})
}

// TestServerSurvivesBadInput sends one node what it must refuse, and demands
// that it goes on serving what it had.
func TestServerSurvivesBadInput(t *testing.T) {
	c := startCluster(t, 1, 2)
	c.must(nil, "kv", "put", "kept", "safe")
	t.Run("keys and values", func(t *testing.T) {
		expectFailure(t, c.run("kv", "put", "", "v"), 1, "key", "empty")
		expectFailure(t, c.run("kv", "put", strings.Repeat("k", 8<<10+1), "v"), 1, "key", "8,193", "8,192")
		expectFailure(t, c.run("kv", "get", "absent"), 3)
		expectFailure(t, c.run("kv", "scan", "b", "a"), 1, "range")
		c.must(nil, "kv", "put", strings.Repeat("k", 8<<10), "longest")
	})
	t.Run("unknown shard and node", func(t *testing.T) {
		expectFailure(t, c.run("shard", "show", "999"), 1, "999")
		expectFailure(t, c.run("shard", "transfer-leader", "2", "--to", "77"), 2, "77")
	})
	t.Run("random bytes", func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			conn, err := net.DialTimeout("tcp", c.nodes[0].address, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			junk := make([]byte, 1+rnd.IntN(4096))
			for i := range junk {
				junk[i] = byte(rnd.Uint32())
			}
			_, _ = conn.Write(junk)
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	})
	var got struct{ Value string }
	c.must(&got, "kv", "get", "kept")
	if got.Value != "safe" {
		t.Errorf("kept = %q", got.Value)
	}
}

// TestSameStoreStartedTwiceRefused starts a second process on a live node's store,
// which is locked, and on a copy of it: that one finds its incarnation taken and
// ends. The cluster stays whole.
func TestSameStoreStartedTwiceRefused(t *testing.T) {
	c := startCluster(t, 3, 2)
	victim := c.nodes[2]
	victim.kill()
	copied := filepath.Join(c.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(c.dir, "store3"))); err != nil {
		t.Fatal(err)
	}
	victim.start()
	c.waitWhole()
	start := func(store string) output {
		return run(t, "", "start", "--insecure", "--http", "", "--store", store, "--listen", freePorts(t, 1)[0])
	}
	expectFailure(t, start(c.store(3)), 1, "store3", "another process")
	expectFailure(t, start(copied), 1, "copy")
	c.waitWhole()
}

// TestMixedEndpointsRefused gives a client the nodes of two clusters.
func TestMixedEndpointsRefused(t *testing.T) {
	a, b := startCluster(t, 1, 1), startCluster(t, 1, 1)
	o := run(t, a.endpoints()+","+b.endpoints(), "kv", "put", "k", "v")
	expectFailure(t, o, 1, "cluster")
}
