package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodePatience is how long the new node may take to end.
const nodePatience = 10 * time.Second

// newNode is the node that joins those of the demo.
type newNode struct {
	dir   string
	began time.Time
	cmd   *exec.Cmd
	gone  chan struct{} // closed when it was reaped
}

// startNode starts it, with the demo's binary. The caller stops it.
func startNode(endpoints []string) (*newNode, error) {
	dir, err := os.MkdirTemp("", "kiloraft-elastic-")
	if err != nil {
		return nil, err
	}
	n := &newNode{dir: dir, began: time.Now(), gone: make(chan struct{})}
	if err := n.start(strings.Join(endpoints, ",")); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("starting a node: %w", err)
	}
	return n, nil
}

func (n *newNode) start(join string) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_ = free.Close() // the node takes it
	log, err := os.Create(n.log())
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	// The demo has its binary's folder first in the path. The node stays in this command's
	// process group, which the demo ends if it has to.
	n.cmd = exec.Command("kiloraft", "start", "--insecure", "--store", filepath.Join(n.dir, "store"), "--listen", free.Addr().String(), "--http", "", "--join", join)
	n.cmd.Env = environ()
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithParent(n.cmd.SysProcAttr)
	if err := n.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = n.cmd.Wait() // whoever asks for its last words learns what it says
		close(n.gone)
	}()
	return nil
}

func (n *newNode) log() string { return filepath.Join(n.dir, "log") }

// ended tells whether the process has ended.
func (n *newNode) ended() bool {
	select {
	case <-n.gone:
		return true
	default:
		return false
	}
}

// lastWords are how the process ended, and the last line of its log.
func (n *newNode) lastWords() string {
	text, _ := os.ReadFile(n.log())
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return fmt.Sprintf("%v: %s", n.cmd.ProcessState, lines[len(lines)-1])
}

// stop ends the node and removes what it had.
func (n *newNode) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	patience := time.NewTimer(nodePatience)
	defer patience.Stop()
	select {
	case <-n.gone:
	case <-patience.C:
		_ = n.cmd.Process.Kill()
		<-n.gone
	}
	if err := os.RemoveAll(n.dir); err != nil {
		fmt.Fprintln(os.Stderr, "elastic:", err)
	}
}
