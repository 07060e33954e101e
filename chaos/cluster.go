package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/kiloraft/kiloraft/internal/certs"
)

const (
	// ranges is into how many shards the user keys are divided to begin with.
	ranges     = 8
	nodeMemory = "64MiB"
	// diskBytes is the size of the disk that is filled.
	diskBytes = 512 << 20
	// chaosClient is who uses the cluster.
	chaosClient = "chaos"
	peerPort    = "7400"
)

// cluster is the nodes, the network between them, and everything that is theirs.
type cluster struct {
	binary  string
	dir     string
	certs   string
	cell    bool // every node has a network of its own
	nodes   []*node
	board   *switchboard
	wires   *wires // of a cell
	starter starter
	verdict *verdict
}

// newCluster prepares everything; nothing runs yet.
func newCluster(cfg config, dir string, v *verdict, rnd *rand.Rand) (*cluster, error) {
	c := &cluster{binary: cfg.binary, dir: dir, certs: filepath.Join(dir, "certs"), cell: cfg.noCell == "", starter: newStarter(), verdict: v}
	for i := range cfg.nodes {
		c.nodes = append(c.nodes, &node{number: i + 1, founder: i == 0, store: filepath.Join(dir, fmt.Sprintf("store%d", i+1)), log: filepath.Join(dir, fmt.Sprintf("node%d.log", i+1))})
	}
	c.board = newSwitchboard(cfg.nodes, rand.New(rand.NewPCG(rnd.Uint64(), 0)))
	connect := c.onLoopback
	if c.cell {
		connect = c.inNamespaces
	}
	if err := connect(); err != nil {
		return c, err
	}
	if c.cell {
		n := c.nodes[rnd.IntN(len(c.nodes))]
		if err := os.Mkdir(n.store, 0o700); err != nil {
			return c, err
		}
		if err := smallDisk(n.store, diskBytes); err != nil {
			return c, err
		}
		n.smallDisk = true
	}
	return c, c.makeCerts()
}

// makeCerts makes an authority, one certificate for all nodes, and one of an admin.
func (c *cluster) makeCerts() error {
	r := certs.Request{Dir: c.certs}
	if _, err := certs.CreateCA(r); err != nil {
		return err
	}
	hosts := map[string]bool{}
	var list []string
	for _, n := range c.nodes {
		for _, address := range []string{n.listen, n.advertise} {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			if !hosts[host] {
				hosts[host] = true
				list = append(list, host)
			}
		}
	}
	if _, err := certs.CreateNode(r, list); err != nil {
		return err
	}
	_, err := certs.CreateClient(r, chaosClient, true)
	return err
}

// onLoopback has all nodes listen on loopback ports. Who a connection comes from is
// found out from the process that owns it.
func (c *cluster) onLoopback() error {
	for _, n := range c.nodes {
		own, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer own.Close() // all are held until the last one is known, so that they differ
		n.listen = own.Addr().String()
		front, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		n.advertise = front.Addr().String()
		c.board.serve(n.number, front, func(int) (net.Conn, error) { return net.Dial("tcp", n.listen) }, c.ownerOf)
	}
	return nil
}

// ownerOf is the node whose process has the other end of a connection, or 0.
func (c *cluster) ownerOf(conn net.Conn) int {
	inode := socketInode(conn.RemoteAddr().(*net.TCPAddr), conn.LocalAddr().(*net.TCPAddr))
	if inode == "" {
		return outside
	}
	for _, n := range c.nodes {
		n.mu.Lock()
		p := n.process
		n.mu.Unlock()
		if p != nil && hasSocket(p.cmd.Process.Pid, inode) {
			return n.number
		}
	}
	return outside
}

// endpoints are where clients reach the nodes.
func (c *cluster) endpoints() []string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, n.advertise)
	}
	return list
}

// endpointsBut are those of the other nodes, in the form of a flag.
func (c *cluster) endpointsBut(n *node) string {
	var list []string
	for _, other := range c.nodes {
		if other != n {
			list = append(list, other.advertise)
		}
	}
	return strings.Join(list, ",")
}

// close ends every process, paused ones too, and the network. With keep the store on
// the small disk is copied to where the others are.
func (c *cluster) close(keep bool) {
	var stopping sync.WaitGroup
	for _, n := range c.nodes {
		stopping.Go(func() { c.stop(n, syscall.SIGKILL) })
	}
	stopping.Wait()
	c.board.close()
	close(c.starter)
	for _, n := range c.nodes {
		if !n.smallDisk {
			continue
		}
		if keep {
			if err := os.CopyFS(n.store+".copy", os.DirFS(n.store)); err != nil {
				fmt.Fprintln(os.Stderr, "chaos:", err)
			}
		}
		if err := removeDisk(n.store); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
	}
}
