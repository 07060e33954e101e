package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

const (
	demoNodesMax = 32
	// demoPatience is how long a cluster may take to be ready.
	demoPatience = 60 * time.Second
	// demoSpread is how long to wait for leaders to be spread.
	demoSpread = 5 * time.Second
	// demoGrace is how long a process may take to stop when it is asked to.
	demoGrace = 10 * time.Second
)

func (a *app) demoCommand() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole cluster of real processes in a temporary folder",
		Long: "Run a whole cluster of real processes on this machine, in a temporary folder that is removed at the end.\n" +
			"Without --exec it says how to talk to the cluster and runs until it is interrupted. With it, CMD runs by\n" +
			"`sh -c` once all nodes are live and replicated, with KILORAFT_ENDPOINTS set and this binary in PATH; the\n" +
			"cluster stops with CMD, whose exit code is the demo's. With --secure it makes certificates in that folder,\n" +
			"and CMD has KILORAFT_CERTS_DIR set.",
		Example: `  kiloraft demo
  kiloraft demo --shards 48 --exec 'kiloraft bench put --duration 10s'`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case d.nodeCount < 1 || d.nodeCount > demoNodesMax:
				return usagef("--nodes: it is %d and must be between 1 and %d", d.nodeCount, demoNodesMax)
			case d.shards < 1 || d.shards > shardsMax:
				return usagef("--shards: it is %d and must be between 1 and %d", d.shards, shardsMax)
			case cmd.Flags().Changed("exec") && strings.TrimSpace(d.command) == "":
				return usagef("--exec: it is empty")
			}
			d.app = a
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&d.nodeCount, "nodes", 3, "run `N` nodes")
	cmd.Flags().IntVar(&d.shards, "shards", 8, "divide the keys into `N` shards at first")
	cmd.Flags().BoolVar(&d.secure, "secure", false, "make certificates and use them: mutual TLS on every port")
	cmd.Flags().StringVar(&d.command, "exec", "", "run `CMD` on the cluster, then stop")
	return cmd
}

// demo is one run of a cluster. All processes that it starts are its children,
// and all are gone when run returns; should the demo itself be killed, the
// operating system kills the nodes (where it can, see dieWithParent).
type demo struct {
	*app
	nodeCount, shards int
	command           string
	secure            bool

	creds  credentials.TransportCredentials // of the demo's own questions
	binary string                           // this one
	dir    string
	nodes  []*demoNode
}

func (d *demo) run(ctx context.Context) (err error) {
	// Linux kills children when the thread that started them ends, not the
	// process: so all are started by one thread that outlives them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if d.binary, err = os.Executable(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "kiloraft-demo-"); err != nil { // mode 0700
		return err
	}
	defer func() {
		d.stop()
		if removeErr := os.RemoveAll(d.dir); err == nil {
			err = removeErr
		}
	}()
	if err = d.makeCerts(); err != nil {
		return err
	}
	d.say("kiloraft demo: %d nodes, %d shards, everything in a temporary folder (removed at the end)\n\n", d.nodeCount, d.shards)
	status, err := d.start(ctx)
	if err != nil {
		if ctx.Err() != nil && d.command == "" {
			return nil // interrupted while starting: nothing has failed
		}
		return err
	}
	if d.command != "" {
		return d.execute(ctx)
	}
	d.introduce(status)
	d.watch(ctx)
	d.say("\nstopping the cluster\n")
	return nil
}

// say prints, unless standard output belongs to the command.
func (d *demo) say(format string, args ...any) {
	if d.command == "" {
		fmt.Fprintf(d.stdout, format, args...)
	}
}

// start brings the nodes up, one after the other so that IDs follow ports, and
// waits until all are live and every shard is replicated.
func (d *demo) start(ctx context.Context) (*kiloraftpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, max(demoPatience, d.global.timeout))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	ports, err := reservePorts(2 * d.nodeCount)
	if err != nil {
		return nil, err
	}
	defer ports.release()
	for i := range d.nodeCount {
		n, err := d.startNode(i+1, ports)
		if err != nil {
			return nil, err
		}
		n.whenExited(func() { fail(n.failure()) })
		live := uint64(i + 1)
		if _, err := d.await(ctx, func(s *kiloraftpb.StatusResponse) bool { return s.GetNodesLive() >= live }); err != nil {
			return nil, err
		}
	}
	whole := func(s *kiloraftpb.StatusResponse) bool { return s.GetNodesLive() >= uint64(d.nodeCount) && settled(s) }
	status, err := d.await(ctx, whole)
	if err != nil {
		return nil, err
	}
	// A cluster is whole before its leaders are spread. That is worth a moment,
	// because figures that somebody takes first would be of one node; but nothing
	// depends on it.
	spreading, stop := context.WithTimeout(ctx, demoSpread)
	defer stop()
	if even, err := d.await(spreading, func(s *kiloraftpb.StatusResponse) bool { return whole(s) && spread(s) }); err == nil {
		status = even
	}
	return status, context.Cause(ctx)
}

// spread tells whether the nodes lead about as many shards each.
func spread(s *kiloraftpb.StatusResponse) bool {
	var least, most uint64
	for i, n := range s.GetNodeInfos() {
		if i == 0 || n.GetLeaders() < least {
			least = n.GetLeaders()
		}
		most = max(most, n.GetLeaders())
	}
	return most-least <= 1
}

// await asks the first node until ready holds. A node that exits ends the wait.
func (d *demo) await(ctx context.Context, ready func(*kiloraftpb.StatusResponse) bool) (*kiloraftpb.StatusResponse, error) {
	c, err := dialTarget(target{endpoints: []string{d.nodes[0].address}, creds: d.creds})
	if err != nil {
		return nil, err
	}
	defer c.close()
	s, err := c.awaitStatus(ctx, ready, nil)
	if err == nil {
		return s, nil
	}
	var exited *nodeFailure
	if errors.As(context.Cause(ctx), &exited) {
		return nil, exited
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, d.notReady(strings.TrimPrefix(err.Error(), context.DeadlineExceeded.Error()+": "))
	}
	return nil, err
}

// notReady says what a cluster lacks that has run out of time, and what its nodes
// said last: their logs go with the folder.
func (d *demo) notReady(lacks string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the cluster is not ready after %s: %s", duration(max(demoPatience, d.global.timeout)), lacks)
	for _, n := range d.nodes {
		fmt.Fprintf(&b, "\nnode %d:\n%s", n.number, lastLines(n.logPath, 5))
	}
	return &nodeFailure{b.String()}
}

// introduce says how to talk to the cluster.
func (d *demo) introduce(status *kiloraftpb.StatusResponse) {
	leaders := map[string]uint64{}
	for _, n := range status.GetNodeInfos() {
		leaders[n.GetAddress()] = n.GetLeaders()
	}
	for _, n := range d.nodes {
		noun := "leaders"
		if leaders[n.address] == 1 {
			noun = "leader"
		}
		d.say("  node %-2d %-15s  %s://%-15s  %d %s\n", n.number, n.address, d.scheme(), n.http, leaders[n.address], noun)
	}
	certs := ""
	if d.secure {
		certs = "\n  export KILORAFT_CERTS_DIR=" + d.certsDir()
	}
	d.say(`
Try, in another terminal:
  export KILORAFT_ENDPOINTS=%s%[3]s
  %[2]s kv put hello world
  %[2]s kv scan
  %[2]s bench put --duration 10s
  %[2]s status
Ctrl-C stops the cluster.
`, d.endpointList(), programName(), certs)
}

func (d *demo) endpointList() string {
	var list []string
	for _, n := range d.nodes {
		list = append(list, n.address)
	}
	return strings.Join(list, ",")
}

// watch waits for the interrupt. A node that goes away meanwhile, perhaps
// because somebody tries what happens then, is reported; the others go on.
func (d *demo) watch(ctx context.Context) {
	for _, n := range d.nodes {
		n.whenExited(func() {
			if ctx.Err() == nil {
				fmt.Fprintf(d.stderr, "kiloraft: demo: %v\n", n.failure())
			}
		})
	}
	<-ctx.Done()
}

// execute runs the command and returns its exit code as the demo's. An interrupt
// is passed on to the command.
func (d *demo) execute(ctx context.Context) error {
	cmd := exec.Command("sh", "-c", d.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.stdin, d.stdout, d.stderr
	cmd.Env = append(withoutSecurity(os.Environ()), "KILORAFT_ENDPOINTS="+d.endpointList(),
		"PATH="+filepath.Dir(d.binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	if d.secure {
		cmd.Env = append(cmd.Env, "KILORAFT_CERTS_DIR="+d.certsDir())
	}
	// From a terminal the command gets the interrupt itself, and needs to stay in
	// the foreground; elsewhere it gets a group of its own, so that the signal
	// reaches what the shell has started.
	ownGroup := !terminal(d.stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: ownGroup}
	dieWithParent(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var err error
	select {
	case err = <-exited:
	case <-ctx.Done():
		err = endCommand(cmd.Process, ownGroup, exited)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &exitError{code: exitCodeOf(exit.ProcessState)}
	}
	return fmt.Errorf("--exec: %w", err)
}

// endCommand stops a command that was interrupted: a first signal, unless the
// terminal has sent one, then harder ones.
func endCommand(p *os.Process, ownGroup bool, exited chan error) error {
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}
	if ownGroup {
		signalProcess(p, ownGroup, syscall.SIGTERM)
		signals = signals[1:]
	}
	for _, s := range signals {
		select {
		case err := <-exited:
			return err
		case <-time.After(demoGrace):
			signalProcess(p, ownGroup, s)
		}
	}
	return <-exited
}

// exitCodeOf is the code that a shell would report.
func exitCodeOf(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

func signalProcess(p *os.Process, group bool, s syscall.Signal) {
	pid := p.Pid
	if group {
		pid = -pid
	}
	// It fails only if the process is gone already.
	_ = syscall.Kill(pid, s)
}

// stop ends all nodes, at once, and waits for each.
func (d *demo) stop() {
	for _, n := range d.nodes {
		n.stopping.Store(true)
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
	}
	patience := time.After(demoGrace)
	for _, n := range d.nodes {
		select {
		case <-n.exited:
			continue
		case <-patience:
			patience = closedTime
		}
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// closedTime has no patience left.
var closedTime = func() chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()
