package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// demoNode is one process of a demo.
type demoNode struct {
	number        int
	address, http string
	logPath       string
	cmd           *exec.Cmd
	exited        chan struct{} // closed when it was reaped
	stopping      atomic.Bool   // the demo has told it to
}

// startNode starts the process of node number, the first of which creates the
// cluster.
func (d *demo) startNode(number int, ports *reservedPorts) (*demoNode, error) {
	name := "node" + strconv.Itoa(number)
	n := &demoNode{number: number, logPath: filepath.Join(d.dir, name+".log"), exited: make(chan struct{})}
	n.address, n.http = ports.take(2*number-2), ports.take(2*number-1)
	args := []string{"start", "--store", filepath.Join(d.dir, name), "--listen", n.address, "--http", n.http}
	if d.secure {
		args = append(args, "--certs-dir", d.certsDir())
	} else {
		args = append(args, "--insecure")
	}
	if number == 1 {
		args = append(args, "--initial-shards", strconv.Itoa(d.shards))
	} else {
		args = append(args, "--join", d.nodes[0].address)
	}
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	n.cmd = exec.Command(d.binary, args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.Env = withoutFlags(os.Environ())
	// A group of its own: Ctrl-C is for the demo, which then stops the nodes
	// after whoever uses them.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(n.cmd.SysProcAttr)
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("node %d: %w", number, err)
	}
	d.nodes = append(d.nodes, n)
	go func() {
		// The error says what ProcessState says.
		_ = n.cmd.Wait()
		close(n.exited)
	}()
	return n, nil
}

// withoutFlags drops the variables that stand for flags: those of the demo are
// not meant for its nodes.
func withoutFlags(environ []string) []string {
	var kept []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "KILORAFT_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// whenExited calls do if the process exits before it is told to.
func (n *demoNode) whenExited(do func()) {
	go func() {
		<-n.exited
		if !n.stopping.Load() {
			do()
		}
	}()
}

// nodeFailure is what went wrong with nodes, in several lines.
type nodeFailure struct{ text string }

func (e *nodeFailure) Error() string { return e.text }

// failure says how the process exited, and what it said last.
func (n *demoNode) failure() *nodeFailure {
	text := fmt.Sprintf("node %d has exited (%v)", n.number, n.cmd.ProcessState)
	if last := lastLines(n.logPath, 10); last != "" {
		text += ":\n" + last
	}
	return &nodeFailure{text}
}

// lastLines returns the last lines of a file, or "" if there are none.
func lastLines(path string, count int) string {
	const tailBytes = 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	tail := make([]byte, min(info.Size(), tailBytes))
	n, _ := f.ReadAt(tail, info.Size()-int64(len(tail)))
	lines := bytes.Split(bytes.TrimRight(tail[:n], "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(len(lines)-count, 0):], []byte("\n")))
}

// demoPort is where the first node of a demo listens if it can.
const demoPort = 7400

// reservedPorts holds ports until the process that is to have each is started.
type reservedPorts struct{ listeners []net.Listener }

// reservePorts takes n loopback ports: from demoPort on where those are free,
// any others instead.
func reservePorts(n int) (*reservedPorts, error) {
	r := &reservedPorts{}
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(demoPort+i))
		if err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			r.release()
			return nil, fmt.Errorf("no free port: %w", err)
		}
		r.listeners = append(r.listeners, l)
	}
	return r, nil
}

// take gives the i-th port up and returns its address.
func (r *reservedPorts) take(i int) string {
	_ = r.listeners[i].Close()
	return r.listeners[i].Addr().String()
}

func (r *reservedPorts) release() {
	for _, l := range r.listeners {
		_ = l.Close() // harmless for those that were taken
	}
}
