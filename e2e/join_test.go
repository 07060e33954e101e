package e2e

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestJoinRefusesBadInput tries to join what cannot be joined. Each is refused with
// its reason, and the cluster is as before.
func TestJoinRefusesBadInput(t *testing.T) {
	c, other := startCluster(t, 1, 1), startCluster(t, 1, 1)
	free := freePorts(t, 4)
	start := func(store string, args ...string) output {
		return run(t, "", append([]string{"start", "--insecure", "--http", "", "--store", filepath.Join(c.dir, store), "--listen", free[0]}, args...)...)
	}
	// Each of these two takes the whole patience of a join, so they run at a time.
	t.Run("patience", func(t *testing.T) {
		t.Run("to nothing", func(t *testing.T) {
			t.Parallel()
			expectFailure(t, start("nothing", "--join", free[1]), 1, "--join", "30s", free[1])
		})
		t.Run("to something else", func(t *testing.T) {
			t.Parallel()
			address := mailServer(t)
			expectFailure(t, start("else", "--listen", free[3], "--join", address), 1, "--join", "30s", address)
		})
	})
	t.Run("to itself", func(t *testing.T) {
		expectFailure(t, start("itself", "--join", free[0]), 2, "itself")
	})
	t.Run("an address that does not lead back", func(t *testing.T) {
		expectFailure(t, start("away", "--join", c.nodes[0].address, "--advertise", free[2]), 2, "--advertise", free[2], "does not lead back")
		expectFailure(t, start("astray", "--join", c.nodes[0].address, "--advertise", other.nodes[0].address), 2, "--advertise", "another process")
	})
	t.Run("StoreFromOtherClusterRefused", func(t *testing.T) {
		foreign := filepath.Join(c.dir, "foreign")
		other.nodes[0].kill()
		if err := os.CopyFS(foreign, os.DirFS(other.store(1))); err != nil {
			t.Fatal(err)
		}
		other.nodes[0].start()
		expectFailure(t, start("foreign", "--join", c.nodes[0].address), 1, "foreign", "belongs to cluster", "another --store")
	})
	if nodes := c.members(); len(nodes) != 1 {
		t.Errorf("nodes are %+v", nodes)
	}
	c.waitWhole()
	other.waitWhole()
}

// mailServer listens, and speaks something else.
func mailServer(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mail.example ESMTP\r\n"))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}
