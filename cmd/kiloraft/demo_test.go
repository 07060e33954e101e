package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// syncBuffer is written by one goroutine and read by another.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
	seen func(text string)
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	if b.seen != nil {
		b.seen(b.text.String())
	}
	return len(p), nil
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// inOwnTemp has temporary folders made in a folder of the test's own, which must
// be empty at its end, and nodes be fake ones.
func inOwnTemp(t *testing.T, fake string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv(fakeNodeVariable, fake)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the demo left %v behind, %v", left, err)
		}
	})
}

func TestDemoExec(t *testing.T) {
	inOwnTemp(t, "fine")
	t.Setenv("KILORAFT_MEMORY", "nonsense") // for a start of the user's own, not for nodes of a demo
	c := command{}
	r := c.run(t, "demo", "--nodes", "2", "--shards", "4", "--exec", `printf '%s|%s' "$KILORAFT_ENDPOINTS" "${PATH%%:*}"; exit 5`)
	if r.code != 5 || r.stderr != "" {
		t.Fatalf("demo: %+v", r)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	endpoints, path, _ := strings.Cut(r.stdout, "|")
	if len(strings.Split(endpoints, ",")) != 2 || !strings.HasPrefix(endpoints, "127.0.0.1:") || path != filepath.Dir(self) {
		t.Errorf("the command saw endpoints %q and a path that begins with %q", endpoints, path)
	}
	if r := c.run(t, "demo", "--nodes", "1", "--exec", "kill -KILL $$"); r.code != 128+9 {
		t.Errorf("a command that was killed: %+v", r)
	}
	if r := c.run(t, "demo", "--nodes", "1", "--exec", "true"); r.code != exitDone || r.stdout != "" || r.stderr != "" {
		t.Errorf("a command that is silent: %+v", r)
	}
}

// A secure demo's command finds certificates, and its own are not in the way.
func TestSecureDemo(t *testing.T) {
	inOwnTemp(t, "fine")
	t.Setenv("KILORAFT_CERTS_DIR", "of-another-cluster")
	t.Setenv("KILORAFT_CLIENT", "somebody")
	r := command{}.run(t, "demo", "--nodes", "2", "--secure", "--exec", `ls "$KILORAFT_CERTS_DIR"; echo "client=$KILORAFT_CLIENT"`)
	if r.code != exitDone || r.stdout != "ca.crt\nca.key\nclient.demo.crt\nclient.demo.key\nnode.crt\nnode.key\nclient=\n" || r.stderr != "" {
		t.Errorf("demo: %+v", r)
	}
	r = command{}.run(t, "demo", "--nodes", "1", "--exec", `echo "certs=$KILORAFT_CERTS_DIR"`)
	if r.code != exitDone || r.stdout != "certs=\n" {
		t.Errorf("a demo in plaintext: %+v", r)
	}
}

func TestSecureDemoIntroducesItself(t *testing.T) {
	inOwnTemp(t, "fine")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stdout := &syncBuffer{seen: func(text string) {
		if strings.Contains(text, "Ctrl-C stops the cluster.") {
			cancel()
		}
	}}
	stderr := &syncBuffer{}
	a := newApp(strings.NewReader(""), stdout, stderr, func(string) (string, bool) { return "", false })
	if code := a.run(ctx, []string{"demo", "--nodes", "1", "--secure"}); code != exitDone {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"https://127.0.0.1:", "\n  export KILORAFT_CERTS_DIR=" + os.TempDir(), "/certs\n"} {
		if text := stdout.String(); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestDemoUntilInterrupted(t *testing.T) {
	inOwnTemp(t, "fine")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stdout := &syncBuffer{seen: func(text string) {
		if strings.Contains(text, "Ctrl-C stops the cluster.") {
			cancel()
		}
	}}
	stderr := &syncBuffer{}
	a := newApp(strings.NewReader(""), stdout, stderr, func(string) (string, bool) { return "", false })
	if code := a.run(ctx, []string{"demo"}); code != exitDone {
		t.Errorf("exit %d: %s", code, stderr)
	}
	text := stdout.String()
	for _, want := range []string{"kiloraft demo: 3 nodes, 8 shards, everything in a temporary folder (removed at the end)\n\n  node 1  127.0.0.1:",
		"\n  node 3  127.0.0.1:", "0 leaders\n", "1 leader\n", "export KILORAFT_ENDPOINTS=127.0.0.1:", "kv put hello world\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestDemoInterruptedWhileACommandRuns(t *testing.T) {
	inOwnTemp(t, "fine")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stdout := &syncBuffer{seen: func(string) { cancel() }}
	a := newApp(strings.NewReader(""), stdout, &syncBuffer{}, func(string) (string, bool) { return "", false })
	// The shell's child gets the signal, too: else the shell would wait for it.
	code := a.run(ctx, []string{"demo", "--nodes", "1", "--exec", `trap 'exit 9' TERM; sh -c 'echo ready; exec sleep 1000'; exit 3`})
	if code != 9 {
		t.Errorf("exit %d, want the command's own 9", code)
	}
}

func TestDemoShowsWhyANodeFailed(t *testing.T) {
	inOwnTemp(t, "broken")
	r := command{}.run(t, "demo", "--nodes", "2", "--exec", "true")
	if r.code != exitFailed || !strings.Contains(r.stderr, "node 2 has exited (exit status 1):\nkiloraft: start: store is broken on purpose\n") {
		t.Errorf("demo: %+v", r)
	}
}

func TestLastLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if got := lastLines(name, 3); got != "" {
		t.Errorf("of no file: %q", got)
	}
	if err := os.WriteFile(name, []byte(strings.Repeat("early\n", 10_000)+"a\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastLines(name, 2); got != "b\nc" {
		t.Errorf("got %q", got)
	}
}

func TestVersion(t *testing.T) {
	var got map[string]any
	decode(t, command{}.run(t, "version", "-o", "json"), &got)
	if got["version"] != version || got["go"] == "" {
		t.Errorf("version: %v", got)
	}
	if r := (command{}).run(t, "version"); !strings.HasPrefix(r.stdout, "kiloraft "+version) {
		t.Errorf("version: %+v", r)
	}
}
