package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a node may take to end when it is asked to.
const stopPatience = 30 * time.Second

// starter starts processes on one thread, which lives as long as the starter: a
// kernel that kills children with their parent goes by the thread.
type starter chan func()

func newStarter() starter {
	s := make(starter)
	go func() {
		runtime.LockOSThread()
		for f := range s {
			f()
		}
	}()
	return s
}

func (s starter) start(cmd *exec.Cmd) (err error) {
	done := make(chan struct{})
	s <- func() {
		err = cmd.Start()
		close(done)
	}
	<-done
	return err
}

// process is the life of a node from one start to the end that follows.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it was reaped
}

// node is one node of the cluster: a place for a process and its store.
type node struct {
	number    int
	listen    string // where the process listens
	advertise string // where everybody reaches it: the proxy in front of it
	store     string
	log       string
	founder   bool   // it founds the cluster at its first start
	namespace string // of its network; "": it has the command's
	smallDisk bool   // its store can be filled

	mu      sync.Mutex
	process *process // nil: it is not to run
	mayEnd  bool     // it may end by itself
	busy    bool     // something is done to it, see faults.take
}

// start runs the node's process. A node that runs is left alone.
func (c *cluster) start(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		select {
		case <-n.process.ended:
		default:
			return nil
		}
	}
	args := []string{c.binary, "start", "--certs-dir", c.certs, "--store", n.store, "--listen", n.listen, "--advertise", n.advertise, "--http", "", "--memory", nodeMemory}
	if n.founder {
		n.founder = false
		args = append(args, "--initial-shards", fmt.Sprint(ranges))
	} else {
		args = append(args, "--join", c.endpointsBut(n))
	}
	if n.namespace != "" {
		args = append([]string{"ip", "netns", "exec", n.namespace}, args...)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	fmt.Fprintf(log, "--- %s: started by chaos\n", time.Now().Format(time.RFC3339Nano))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	if err := c.starter.start(cmd); err != nil {
		return fmt.Errorf("node %d: %w", n.number, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	n.process = p
	go c.watch(n, p)
	return nil
}

// watch reaps a process, and finds fault with one that ended by itself.
func (c *cluster) watch(n *node, p *process) {
	_ = p.cmd.Wait() // what it says ProcessState says, too
	close(p.ended)
	n.mu.Lock()
	byItself := n.process == p && !n.mayEnd
	n.mu.Unlock()
	if byItself {
		c.verdict.fail("node %d ended by itself (%v); its last words:\n%s", n.number, p.cmd.ProcessState, lastLines(n.log, 15))
	}
}

// runs tells whether the node's process is there.
func (n *node) runs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return false
	}
	select {
	case <-n.process.ended:
		return false
	default:
		return true
	}
}

// allow lets the process end by itself, or forbids it.
func (n *node) allow(end bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mayEnd = end
}

// signal sends a signal to the node's process, if there is one.
func (n *node) signal(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		_ = n.process.cmd.Process.Signal(sig) // it may just have ended
	}
}

// stop sends the signal that ends the process, and returns when it has ended.
func (c *cluster) stop(n *node, sig syscall.Signal) {
	n.mu.Lock()
	p := n.process
	n.process = nil
	n.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-p.ended:
	case <-patience.C:
		c.verdict.fail("node %d did not end within %v of %v", n.number, stopPatience, sig)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// lastLines returns the end of a file, for people.
func lastLines(name string, count int) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-count):], []byte("\n")))
}
