package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A majority is lost for ever: two of three nodes are killed and their disks wiped. The
// third one is recovered and serves everything that it had; new nodes join and take
// replicas; a lost node that comes back with its old store after all starts anew.
func TestRecoverLostMajority(t *testing.T) {
	c := startCluster(t, 3, 4)
	const keys = 60
	for i := range keys {
		c.must(nil, "kv", "put", recoverKey(i), fmt.Sprintf("value-%d", i))
	}
	c.waitEverywhere(keys)
	// IDs are given in the order in which the nodes join, which is not that of their start.
	var nodes []struct {
		ID      uint64
		Address string
	}
	c.must(&nodes, "node", "list")
	id := map[string]string{}
	for _, n := range nodes {
		id[n.Address] = fmt.Sprint(n.ID)
	}
	one, two, own := id[c.nodes[0].address], id[c.nodes[1].address], id[c.nodes[2].address]
	old := filepath.Join(c.dir, "store2.old")
	for _, p := range c.nodes[:2] {
		p.kill()
	}
	if err := os.Rename(filepath.Join(c.dir, "store2"), old); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "store1")); err != nil {
		t.Fatal(err)
	}
	left := c.nodes[2]
	store := filepath.Join(c.dir, "store3")
	recoverIt := func(args ...string) output {
		return c.run(append([]string{"debug", "recover", "--store", store}, args...)...)
	}
	expectFailure(t, recoverIt("--lost", one, "--lost", two, "--yes"), 1, "in use by another process", "stop the node")
	left.signal(syscall.SIGTERM)

	expectFailure(t, recoverIt("--yes"), 2, "--lost")
	expectFailure(t, recoverIt("--lost", one, "--yes"), 1, "nothing was done", "majority")
	expectFailure(t, recoverIt("--lost", one, "--shard", "2", "--yes"), 1, "nothing was done", "shard 2 may have a majority")
	expectFailure(t, recoverIt("--lost", one, "--lost", two, "--lost", own, "--yes"), 1, "the node whose store this is")
	expectFailure(t, recoverIt("--lost", one, "--lost", two, "--shard", "99", "--yes"), 1, "no replica of shard 99")
	expectFailure(t, recoverIt("--lost", one, "--lost", two), 1, "nothing was done: it was not confirmed") // its input is empty
	expectFailure(t, c.run("debug", "recover", "--store", filepath.Join(c.dir, "nowhere"), "--lost", "1"), 1, "nowhere")
	if _, err := os.Stat(filepath.Join(c.dir, "nowhere")); err == nil {
		t.Error("a store was made")
	}

	var plans []struct {
		Shard, Replica uint64
		Lost           []struct{ Node uint64 }
		Recovered      bool
		LastIndex      uint64 `json:"last_index"`
		Applied        uint64 `json:"applied_index"`
	}
	look := func(args ...string) {
		t.Helper()
		r := recoverIt(append(args, "--lost", one, "--lost", two, "-o", "json")...)
		if err := json.Unmarshal([]byte(r.stdout), &plans); err != nil || r.code != 0 {
			t.Fatalf("%v: %+v", err, r)
		}
		if len(plans) != 5 || len(plans[0].Lost) != 2 || plans[0].LastIndex < plans[0].Applied || !strings.Contains(r.stderr, "NOT KNOWN COMMITTED") {
			t.Fatalf("%+v", r)
		}
	}
	// Whatever takes connections at a lost node's address may be that node, but for one that
	// says that it is another.
	hangs, err := net.Listen("tcp", c.nodes[0].address)
	if err != nil {
		t.Fatal(err)
	}
	expectFailure(t, recoverIt("--lost", one, "--lost", two, "--yes"), 1, "nothing was done", fmt.Sprintf("an answer from node %s at %s,", one, c.nodes[0].address))
	_ = hangs.Close()
	another := &process{t: t, name: "another cluster", address: c.nodes[1].address, http: freePorts(t, 1)[0], log: filepath.Join(c.dir, "another.log")}
	another.args = []string{"start", "--insecure", "--store", filepath.Join(c.dir, "another"), "--listen", another.address, "--http", another.http}
	another.start()
	t.Cleanup(another.kill)
	c.within("another cluster's node serves", func() bool { return run(t, another.address, "status").code == 0 })
	look("--dry-run")
	another.kill()
	if plans[0].Recovered {
		t.Error("a dry run did it")
	}
	look("--yes")
	if !plans[4].Recovered {
		t.Error("it was not done")
	}
	expectFailure(t, recoverIt("--lost", one, "--lost", two, "--yes"), 1, "nothing was done") // its shards have their majority

	left.start()
	c.nodes = []*process{left}
	c.mustHold(keys)
	c.must(nil, "kv", "put", "after", "recovery")

	// A lost node with an older store than the recovered one: its replicas find out that
	// they were removed, and the shards go on.
	back := &process{t: t, name: "node 2 again", address: freePorts(t, 1)[0], log: filepath.Join(c.dir, "node2.again.log")}
	back.args = []string{"start", "--insecure", "--store", old, "--listen", back.address, "--http", "", "--join", left.address}
	back.start()
	t.Cleanup(back.kill)
	c.within("the replicas of the lost node are gone", func() bool {
		return strings.Count(readFile(t, back.log), "a replica was removed") >= 5
	})
	c.nodes = append(c.nodes, back)

	for i := range 2 {
		ports := freePorts(t, 2)
		p := &process{t: t, name: fmt.Sprintf("new node %d", i+1), address: ports[0], http: ports[1], log: filepath.Join(c.dir, fmt.Sprintf("new%d.log", i+1))}
		p.args = []string{"start", "--insecure", "--store", filepath.Join(c.dir, fmt.Sprintf("new%d", i+1)), "--listen", p.address, "--http", p.http, "--join", left.address}
		p.start()
		t.Cleanup(p.kill)
		c.nodes = append(c.nodes, p)
	}
	c.within("every shard has three voters", func() bool {
		var shards []struct{ Replicas []struct{ Role string } }
		c.must(&shards, "shard", "list", "--timeout", "30s")
		for _, s := range shards {
			voters := 0
			for _, r := range s.Replicas {
				if r.Role == "voter" {
					voters++
				}
			}
			if voters != 3 || len(s.Replicas) != 3 {
				return false
			}
		}
		return len(shards) == 5
	})
	c.mustHold(keys)
	left.kill()
	c.nodes = c.nodes[1:]
	c.mustHold(keys)
	c.mustGet("after", "recovery")
}

// recoverKey spreads keys over the shards.
func recoverKey(i int) string { return fmt.Sprintf("%c-%d", byte(i*4+3), i) }

func (c *cluster) mustHold(keys int) {
	c.t.Helper()
	for i := range keys {
		c.mustGet(recoverKey(i), fmt.Sprintf("value-%d", i))
	}
}

func (c *cluster) mustGet(key, want string) {
	c.t.Helper()
	var kv struct{ Value string }
	if c.must(&kv, "kv", "get", key, "--timeout", "30s"); kv.Value != want {
		c.t.Errorf("%s: %q, want %q", key, kv.Value, want)
	}
}

// waitEverywhere waits until each replica has each key.
func (c *cluster) waitEverywhere(keys int) {
	c.t.Helper()
	for i := range keys {
		c.within("every replica has it", func() bool {
			var r struct {
				Replicas []struct{ Versions []struct{} }
			}
			c.must(&r, "debug", "key", recoverKey(i))
			for _, p := range r.Replicas {
				if len(p.Versions) == 0 {
					return false
				}
			}
			return len(r.Replicas) == 3
		})
	}
}

// within polls a condition of the processes.
func (c *cluster) within(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func decodeInto(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}
