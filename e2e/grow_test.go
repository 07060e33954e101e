package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// newNode adds a node that joins the first one; it is not started.
func (c *cluster) newNode() *process {
	i := len(c.nodes) + 1
	ports := freePorts(c.t, 2)
	p := &process{t: c.t, name: fmt.Sprintf("node %d", i), address: ports[0], http: ports[1], log: filepath.Join(c.dir, fmt.Sprintf("node%d.log", i))}
	p.args = []string{"start", "--insecure", "--store", c.store(i), "--listen", p.address, "--http", p.http, "--join", c.nodes[0].address}
	c.nodes = append(c.nodes, p)
	return p
}

func (c *cluster) store(i int) string { return filepath.Join(c.dir, fmt.Sprintf("store%d", i)) }

type shardJSON struct {
	ID       uint64
	Leader   uint64
	Replicas []replicaJSON
}

type replicaJSON struct {
	Node uint64
	Role string
}

func (c *cluster) shards() (all []shardJSON) {
	c.t.Helper()
	c.must(&all, "shard", "list")
	return all
}

// nodes of a shard's replicas.
func (s *shardJSON) on() (nodes []uint64) {
	for _, r := range s.Replicas {
		nodes = append(nodes, r.Node)
	}
	return nodes
}

type nodeJSON struct {
	ID      uint64
	Address string
	Live    bool
	State   string
	Shards  int
	Leaders int
	Dead    bool
}

func (c *cluster) members() (all []nodeJSON) {
	c.t.Helper()
	c.must(&all, "node", "list")
	return all
}

// await asks until ready holds.
func (c *cluster) await(within time.Duration, what string, ready func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(within); !ready(); {
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v not yet: %s\n%s\n%s", within, what, c.run("shard", "list").stdout, c.run("status").stdout)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// even is that every live node has about as many replicas as any other, and every
// shard its voters and nothing else: the meta shard has five where five nodes serve.
func (c *cluster) even(nodes int) bool {
	held := map[uint64]int{}
	for _, s := range c.shards() {
		if len(s.Replicas) != placement.VotersWanted(shard.ID(s.ID), nodes) {
			return false
		}
		for _, r := range s.Replicas {
			if r.Role != "voter" {
				return false
			}
			held[r.Node]++
		}
	}
	least, most := 1<<30, 0
	for _, n := range held {
		least, most = min(least, n), max(most, n)
	}
	return len(held) == nodes && most-least <= 2
}

// onlyVoters is that no shard has a replica that comes or goes, and all have leaders.
func (c *cluster) onlyVoters() bool {
	for _, s := range c.shards() {
		for _, r := range s.Replicas {
			if r.Role != "voter" || s.Leader == 0 {
				return false
			}
		}
	}
	return true
}

// TestGrowAndShrinkUnderLoad takes a cluster from one node to three and to five,
// and by moves, drains and decommissions back to three, while clients go on. Not
// one operation fails.
func TestGrowAndShrinkUnderLoad(t *testing.T) {
	c := startCluster(t, 1, 8)
	l := startLoad(t, c.endpoints(), 6)
	started := time.Now()
	at := func(what string) {
		t.Logf("%5.1f s: %s, %d operations", time.Since(started).Seconds(), what, l.ops.Load())
	}
	at("one node")
	for range 2 {
		c.newNode().start()
	}
	c.waitWhole()
	at("three nodes")
	for range 2 {
		c.newNode().start()
	}
	c.waitWhole()
	c.await(60*time.Second, "replicas spread over five nodes", func() bool { return c.even(5) })
	at("five nodes")

	// Moves by hand, of leaders too, while nothing moves by itself: what is even by number
	// may not be so by bytes.
	c.must(nil, "settings", "set", "placement.rebalance", "false")
	time.Sleep(3 * time.Second) // nodes follow a setting within seconds
	for i := range 3 {
		c.await(60*time.Second, "only voters", c.onlyVoters)
		s := c.shards()[1+i]
		var to uint64
		for _, n := range c.members() {
			if memberOf(&s, n.ID) {
				continue
			}
			to = n.ID
		}
		c.must(nil, "shard", "move", fmt.Sprint(s.ID), "--from", fmt.Sprint(s.Leader), "--to", fmt.Sprint(to), "--timeout", "60s")
	}
	c.must(nil, "settings", "set", "placement.rebalance", "true")
	at("three moves")

	// A node is drained, stopped and started: a rolling restart.
	second := c.nodeAt(c.nodes[1])
	c.must(nil, "node", "drain", fmt.Sprint(second), "--timeout", "60s")
	for _, s := range c.shards() {
		if s.Leader == second {
			t.Errorf("shard %d is led by the drained node", s.ID)
		}
	}
	c.nodes[1].signal(syscall.SIGTERM)
	c.nodes[1].start()
	c.waitWhole()
	c.await(30*time.Second, "the node serving again", func() bool { return c.member(second).State == "serving" })
	at("a drained restart")

	// Two leave for ever, the first one among them: it founded the cluster.
	for _, i := range []int{0, 3} {
		p := c.nodes[i]
		id := c.nodeAt(p)
		c.must(nil, "node", "decommission", fmt.Sprint(id), "--timeout", "90s")
		at(fmt.Sprintf("node %d decommissioned", id))
		p.mustEnd()
		expectFailure(t, run(t, "", p.args...), 1, "decommissioned", "empty store")
	}
	c.nodes = []*process{c.nodes[1], c.nodes[2], c.nodes[4]}
	c.waitWhole()
	if !c.even(3) {
		t.Errorf("replicas are not on three nodes: %+v", c.shards())
	}
	if n := len(c.members()); n != 3 {
		t.Errorf("%d nodes are listed", n)
	}
	l.end(t)
}

func memberOf(s *shardJSON, node uint64) bool {
	for _, id := range s.on() {
		if id == node {
			return true
		}
	}
	return false
}

// nodeAt is the ID of the live node that runs as p.
func (c *cluster) nodeAt(p *process) uint64 {
	c.t.Helper()
	for _, n := range c.members() {
		if n.Live && n.Address == p.address {
			return n.ID
		}
	}
	c.t.Fatalf("%s is not listed as live", p.name)
	return 0
}

func (c *cluster) member(id uint64) nodeJSON {
	for _, n := range c.members() {
		if n.ID == id {
			return n
		}
	}
	return nodeJSON{}
}

// TestWipedNodeIsReplaced loses a node's disk. The node rejoins as a new one, and
// what the old one had is rebuilt, under load and without a failed operation; the
// old one is then taken off the list.
func TestWipedNodeIsReplaced(t *testing.T) {
	c := startCluster(t, 3, 8)
	c.must(nil, "settings", "set", "placement.dead_after", "5s")
	l := startLoad(t, c.endpoints(), 4)
	victim := c.nodes[2]
	old := c.nodeAt(victim)
	victim.kill()
	if err := os.RemoveAll(c.store(3)); err != nil {
		t.Fatal(err)
	}
	victim.start()
	c.await(60*time.Second, "the old node's replicas replaced", func() bool {
		for _, s := range c.shards() {
			if memberOf(&s, old) || len(s.Replicas) != 3 {
				return false
			}
		}
		return true
	})
	if n := c.member(old); !n.Dead || n.Live {
		t.Errorf("the old node is %+v", n)
	}
	if now := c.nodeAt(victim); now == old {
		t.Errorf("the wiped node has its ID %d again", now)
	}
	c.must(nil, "node", "decommission", fmt.Sprint(old), "--timeout", "60s")
	c.waitWhole()
	l.end(t)
}

// TestLateComerFindsItsTombstones has a node come back after all that it had was
// rebuilt elsewhere: it gives up what it holds, and may be used again.
func TestLateComerFindsItsTombstones(t *testing.T) {
	c := startCluster(t, 4, 6)
	c.must(nil, "settings", "set", "placement.dead_after", "5s")
	c.must(nil, "settings", "set", "placement.rebalance", "false")
	victim := c.nodes[3]
	id := c.nodeAt(victim)
	c.await(30*time.Second, "replicas on the fourth node", func() bool { return c.member(id).Shards > 0 })
	victim.kill()
	c.await(60*time.Second, "its replicas rebuilt", func() bool {
		for _, s := range c.shards() {
			if memberOf(&s, id) || len(s.Replicas) != 3 {
				return false
			}
		}
		return true
	})
	victim.start()
	c.waitWhole()
	c.await(60*time.Second, "the late comer empty", func() bool { n := c.member(id); return n.Live && n.Shards == 0 })
	c.must(nil, "shard", "move", "2", "--from", fmt.Sprint(c.shards()[1].Replicas[0].Node), "--to", fmt.Sprint(id), "--timeout", "60s")
	c.must(nil, "kv", "put", "after", "all")
}

// TestOperationsSurviveRestarts stops whoever drives placement in the middle of
// moves: they go on, and all end.
func TestOperationsSurviveRestarts(t *testing.T) {
	c := startCluster(t, 4, 8)
	c.must(nil, "settings", "set", "placement.rebalance", "false")
	wanted := map[uint64]uint64{}
	for _, s := range c.shards()[1:] {
		for _, n := range c.members() {
			if !memberOf(&s, n.ID) {
				// It waits for next to nothing and gives up: the operation goes on.
				o := c.run("shard", "move", fmt.Sprint(s.ID), "--from", fmt.Sprint(s.Replicas[0].Node), "--to", fmt.Sprint(n.ID), "--timeout", "1s")
				if o.code != 0 && !strings.Contains(o.stderr, "goes on") {
					t.Fatalf("shard move: %+v", o)
				}
				wanted[s.ID] = n.ID
			}
		}
		if len(wanted) == 4 {
			// All at once.
			for _, p := range c.nodes {
				p.kill()
			}
			for _, p := range c.nodes {
				p.start()
			}
			c.waitWhole()
		}
	}
	c.await(90*time.Second, "all operations over", func() bool {
		var ops []struct{ State string }
		c.must(&ops, "ops", "list")
		for _, op := range ops {
			if op.State == "running" {
				return false
			}
		}
		return len(ops) == len(wanted)
	})
	var ops []struct {
		Shard         uint64
		State, Reason string
	}
	c.must(&ops, "ops", "list")
	for _, op := range ops {
		if op.State != "done" {
			t.Errorf("%+v", op)
		}
	}
	for _, s := range c.shards() {
		if to := wanted[s.ID]; to != 0 && !memberOf(&s, to) {
			t.Errorf("shard %d is on %v and not on %d", s.ID, s.on(), to)
		}
	}
}
