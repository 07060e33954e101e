package certs

import (
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// folder makes a folder with an authority, a node's certificate for 127.0.0.1
// and localhost, and those of the client alice and the admin root.
func folder(t *testing.T) string {
	t.Helper()
	r := Request{Dir: filepath.Join(t.TempDir(), "certs")}
	_, err := CreateCA(r)
	ok(t, err)
	_, err = CreateNode(r, []string{"127.0.0.1", "localhost"})
	ok(t, err)
	_, err = CreateClient(r, "alice", false)
	ok(t, err)
	_, err = CreateClient(r, "root", true)
	ok(t, err)
	return r.Dir
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// forge signs a certificate as the authority of dir would, after it was changed.
func forge(t *testing.T, dir, name string, role Role, hosts []string, change func(*x509.Certificate)) {
	t.Helper()
	r := Request{Dir: dir, Overwrite: true, ValidFor: time.Hour}
	ok(t, r.check(0))
	ca, err := r.authority()
	ok(t, err)
	c := r.certificate("forged", role, hosts, time.Now().Add(time.Hour))
	change(c)
	_, err = r.issue(c, name, role, ca)
	ok(t, err)
}

// says tells whether an error says all of the words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error %q does not say %q", err, w)
		}
	}
}

// notes is a log that a test can wait for.
type notes struct {
	mu   sync.Mutex
	more sync.Cond
	text strings.Builder
}

func newNotes() *notes {
	n := &notes{}
	n.more.L = &n.mu
	return n
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.more.Broadcast()
	return n.text.Write(p)
}

func (n *notes) logger() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

func (n *notes) count(words string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.text.String(), words)
}

// await waits until the log says words.
func (n *notes) await(t *testing.T, words string) {
	t.Helper()
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		late = true
		n.more.Broadcast()
	})
	defer timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for !strings.Contains(n.text.String(), words) {
		if late {
			t.Errorf("the log does not say %q:\n%s", words, n.text.String())
			return
		}
		n.more.Wait()
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	ok(t, err)
	return info.Mode().Perm()
}
