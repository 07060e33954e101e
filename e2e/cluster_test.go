package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kiloraft/kiloraft/client"
)

// binary is the kiloraft that the tests run; TestMain builds it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kiloraft-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "kiloraft")
	build := exec.Command("go", "build", "-o", binary, "github.com/kiloraft/kiloraft/cmd/kiloraft")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building kiloraft: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// process is one node as a process of its own.
type process struct {
	t       *testing.T
	name    string
	args    []string
	address string
	http    string
	log     string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd was reaped
}

// freePorts reserves n loopback addresses at once, so that they differ, and
// gives them back for the processes to bind.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done = cmd, done
}

// signal sends sig and waits until the process is gone.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		p.t.Errorf("%s did not end within 30 s of %v", p.name, sig)
	}
}

// ended is closed when the process has ended, by itself or not.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// mustEnd waits until the process ends by itself.
func (p *process) mustEnd() {
	p.t.Helper()
	select {
	case <-p.ended():
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s still runs:\n%s", p.name, tail(p.log, 20))
	}
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// metrics reads the node's /metrics.
func (p *process) metrics() (string, error) {
	r, err := http.Get("http://" + p.http + "/metrics")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// metric reads one figure from the node's /metrics.
func (p *process) metric(name string) float64 {
	p.t.Helper()
	all, err := p.metrics()
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(all) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return v
		}
	}
	p.t.Fatalf("%s is not in /metrics of %s", name, p.name)
	return 0
}

// cluster is some nodes and how to talk to them.
type cluster struct {
	t     *testing.T
	dir   string
	nodes []*process
}

// startCluster starts nodes processes, the first of which creates the cluster,
// and waits until it is whole.
func startCluster(t *testing.T, nodes, shards int) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	ports := freePorts(t, 2*nodes)
	for i := range nodes {
		p := &process{
			t: t, name: fmt.Sprintf("node %d", i+1), address: ports[2*i], http: ports[2*i+1],
			log: filepath.Join(c.dir, fmt.Sprintf("node%d.log", i+1)),
		}
		p.args = []string{"start", "--insecure", "--store", filepath.Join(c.dir, fmt.Sprintf("store%d", i+1)), "--listen", p.address, "--http", p.http}
		if i == 0 {
			p.args = append(p.args, "--initial-shards", fmt.Sprint(shards))
		} else {
			p.args = append(p.args, "--join", c.nodes[0].address)
		}
		c.nodes = append(c.nodes, p)
		p.start()
	}
	t.Cleanup(c.stop)
	c.waitWhole()
	return c
}

func (c *cluster) stop() {
	for _, p := range c.nodes {
		p.kill()
	}
	if c.t.Failed() {
		for _, p := range c.nodes {
			c.t.Logf("last lines of %s:\n%s", p.name, tail(p.log, 30))
		}
	}
}

func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (c *cluster) endpoints() string {
	var out []string
	for _, p := range c.nodes {
		out = append(out, p.address)
	}
	return strings.Join(out, ",")
}

// output of one run of the binary.
type output struct {
	stdout, stderr string
	code           int
}

// run runs the binary against the cluster.
func (c *cluster) run(args ...string) output { return run(c.t, c.endpoints(), args...) }

func run(t *testing.T, endpoints string, args ...string) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "KILORAFT_ENDPOINTS="+endpoints)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("kiloraft %v did not end: %s", args, stderr.String())
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs the binary and decodes its JSON document into v.
func (c *cluster) must(v any, args ...string) {
	c.t.Helper()
	o := c.run(append(args, "-o", "json")...)
	if o.code != 0 {
		c.t.Fatalf("kiloraft %v: exit %d: %s", args, o.code, o.stderr)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(o.stdout), v); err != nil {
		c.t.Fatalf("kiloraft %v: %v in %q", args, err, o.stdout)
	}
}

// waitWhole waits until all nodes are live and every shard has its voters.
func (c *cluster) waitWhole() {
	c.t.Helper()
	var s struct {
		Healthy bool `json:"healthy"`
		Nodes   int  `json:"nodes"`
	}
	for deadline := time.Now().Add(90 * time.Second); ; {
		o := c.run("status", "--wait", "--timeout", "30s", "-o", "json")
		if o.code == 0 && json.Unmarshal([]byte(o.stdout), &s) == nil && s.Healthy && s.Nodes == len(c.nodes) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the cluster is not whole: exit %d\n%s\n%s", o.code, o.stdout, o.stderr)
		}
	}
}

func (c *cluster) client() *client.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := client.Open(ctx, client.Options{Endpoints: strings.Split(c.endpoints(), ",")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}
