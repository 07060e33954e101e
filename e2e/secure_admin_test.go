package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// ask runs a command as a client and decodes its document.
func (c *secureCluster) ask(name string, v any, args ...string) {
	c.t.Helper()
	o := c.as(name, append(args, "-o", "json")...)
	if o.code != 0 {
		c.t.Fatalf("%v as %s: exit %d: %s", args, name, o.code, o.stderr)
	}
	decodeInto(c.t, o.stdout, v)
}

// clientAs is a client of the library with a certificate.
func (c *secureCluster) clientAs(name string) *client.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := client.Open(ctx, client.Options{Endpoints: strings.Split(c.endpoints(), ","), CertsDir: c.users, CertName: name})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

type operationJSON struct {
	ID    uint64
	Kind  string
	Node  uint64
	State string
}

// state is what a client sees of the cluster, as text.
func (c *secureCluster) state() (shards []shardJSON, text string) {
	c.t.Helper()
	c.ask("app", &shards, "shard", "list")
	var nodes []nodeJSON
	c.ask("app", &nodes, "node", "list")
	for _, n := range nodes {
		text += fmt.Sprintf("node %d %s; ", n.ID, n.State)
	}
	for _, s := range shards {
		text += fmt.Sprintf("shard %d %v; ", s.ID, s.Replicas)
	}
	var ops []operationJSON
	c.ask("app", &ops, "ops", "list")
	text += fmt.Sprint(ops)
	return shards, text
}

// admin runs a command that changes the cluster: a client's certificate is refused and
// nothing has changed then, and an admin's is not.
func (c *secureCluster) admin(args ...string) output {
	c.t.Helper()
	_, before := c.state()
	expectFailure(c.t, c.as("app", args...), 1, "denied", "needs the role admin", `"app" (role client)`)
	if _, after := c.state(); after != before {
		c.t.Errorf("%v was refused, and there is a change:\n%s\n%s", args, before, after)
	}
	return c.as("ops", append(args, "--timeout", "60s")...)
}

// mustAdmin is admin, and demands that the command is carried out.
func (c *secureCluster) mustAdmin(args ...string) {
	c.t.Helper()
	if o := c.admin(args...); o.code != 0 {
		c.t.Fatalf("%v: exit %d: %s", args, o.code, o.stderr)
	}
}

// TestAdminCommandsOverTLS walks the commands that look after shards, nodes, operations
// and placement over mutual TLS, each one in the roles that may and may not use it.
func TestAdminCommandsOverTLS(t *testing.T) {
	t.Parallel()
	c := startSecureCluster(t, 4, 1)
	mute := silentHandshake(t, c.nodes[0].address)
	c.mustAdmin("placement", "pause")
	c.mustAdmin("settings", "set", "shard.check_interval", "2h")

	shards, _ := c.state()
	user := shards[1]
	id, on := fmt.Sprint(user.ID), user.on()
	free := uint64(10) // IDs are 1 to 4
	for _, n := range on {
		free -= n
	}
	var from uint64
	for _, n := range on {
		if n != user.Leader {
			from = n
		}
	}
	replicas := func() []uint64 {
		shards, _ := c.state()
		on := shards[1].on()
		slices.Sort(on)
		return on
	}
	c.mustAdmin("shard", "move", id, "--from", fmt.Sprint(from), "--to", fmt.Sprint(free))
	if on := replicas(); len(on) != 3 || slices.Contains(on, from) || !slices.Contains(on, free) {
		t.Errorf("after the move the shard is on nodes %v", on)
	}
	c.mustAdmin("shard", "add-replica", id, "--to", fmt.Sprint(from))
	if on := replicas(); len(on) != 4 {
		t.Errorf("with one more it is on nodes %v", on)
	}
	c.mustAdmin("shard", "remove-replica", id, "--from", fmt.Sprint(from))
	if on := replicas(); len(on) != 3 || slices.Contains(on, from) {
		t.Errorf("with one less it is on nodes %v", on)
	}
	c.mustAdmin("shard", "transfer-leader", id, "--to", fmt.Sprint(free))
	if shards, _ := c.state(); shards[1].Leader != free {
		t.Errorf("node %d leads", shards[1].Leader)
	}

	c.mustAdmin("node", "drain", fmt.Sprint(free))
	if shards, _ := c.state(); shards[1].Leader == free || shards[0].Leader == free {
		t.Error("a drained node leads")
	}
	c.mustAdmin("node", "drain", fmt.Sprint(free), "--undo")

	taken := c.as("ops", "shard", "add-replica", id, "--to", fmt.Sprint(free))
	expectFailure(t, taken, 2, fmt.Sprintf("--to node %d has a replica of shard %s already", free, id))

	for _, args := range [][]string{{"--shard", id}, {"--node", fmt.Sprint(free)}, nil} {
		if o := c.as("app", append([]string{"placement", "explain"}, args...)...); o.code != 0 || o.stdout == "" {
			t.Errorf("explain %v: exit %d: %s", args, o.code, o.stderr)
		}
	}

	// What takes long can be looked at, and cancelled.
	content := big{keys: 200, valueBytes: 60 << 10}
	content.write(t, c.clientAs("app"))
	c.mustAdmin("settings", "set", "snapshot.rate", "1MiB")
	for _, p := range c.nodes {
		p.logged("name=snapshot.rate value=1MiB") // it has come there
	}
	expectFailure(t, c.as("ops", "node", "decommission", fmt.Sprint(free), "--timeout", "2s"), 1, "goes on", "ops show", "ops cancel")
	var ops []operationJSON
	c.ask("app", &ops, "ops", "list")
	i := slices.IndexFunc(ops, func(op operationJSON) bool { return op.Node == free && op.State == "running" })
	if i < 0 {
		t.Fatalf("operations: %+v", ops)
	}
	op := fmt.Sprint(ops[i].ID)
	if o := c.as("app", "ops", "show", op); o.code != 0 || !strings.Contains(o.stdout, "left on it: ") {
		t.Errorf("exit %d: %s%s", o.code, o.stdout, o.stderr)
	}
	expectFailure(t, c.as("app", "ops", "cancel", op), 1, "denied", "needs the role admin")
	if o := c.as("ops", "ops", "cancel", op); o.code != 0 {
		t.Fatalf("exit %d: %s", o.code, o.stderr)
	}
	var nodes []nodeJSON
	c.ask("app", &nodes, "node", "list")
	for _, n := range nodes {
		if n.State != "serving" {
			t.Errorf("%+v", n)
		}
	}
	if o := c.as("app", "ops", "show", op); o.code != 0 || !strings.Contains(o.stdout, "decommission node "+fmt.Sprint(free)+": cancelled") {
		t.Errorf("what was cancelled leaves no record: exit %d: %s%s", o.code, o.stdout, o.stderr)
	}
	var moved []struct {
		Kind  string
		Ended int64 `json:"ended_unix"`
	}
	c.ask("app", &moved, "ops", "list")
	for _, op := range moved {
		if op.Kind == "remove-replica" && time.Since(time.Unix(op.Ended, 0)) > time.Hour {
			t.Errorf("%+v ended at no time", op)
		}
	}

	// A learner that was half-way stays while placement is paused.
	c.mustAdmin("placement", "resume")
	c.within("what was half done is undone", func() bool {
		shards, _ := c.state()
		for _, s := range shards {
			if len(s.Replicas) != 3 || slices.ContainsFunc(s.Replicas, func(r replicaJSON) bool { return r.Role != "voter" }) {
				return false
			}
		}
		return true
	})
	c.mustAdmin("settings", "set", "snapshot.rate", "1GiB")

	// One leaves, and its process ends.
	c.mustAdmin("node", "decommission", fmt.Sprint(from))
	c.ask("app", &nodes, "node", "list")
	left := c.nodes[:0:0]
	for _, p := range c.nodes {
		if slices.ContainsFunc(nodes, func(n nodeJSON) bool { return n.Address == p.address }) {
			left = append(left, p)
		} else {
			p.mustEnd()
		}
	}
	if c.nodes = left; len(c.nodes) != 3 {
		t.Fatalf("%d nodes are listed", len(c.nodes))
	}
	c.whole()
	c.mustAdmin("debug", "check", "--all")

	// Nodes that answer are not lost, whether they can be asked who they are or not.
	offline := c.nodes[2]
	store := offline.args[slices.Index(offline.args, "--store")+1]
	var others []string
	for _, n := range nodes {
		if n.Address != offline.address {
			others = append(others, "--lost", fmt.Sprint(n.ID))
		}
	}
	offline.signal(syscall.SIGTERM)
	recoverIt := append([]string{"debug", "recover", "--store", store, "--yes"}, others...)
	expectFailure(t, c.as("ops", recoverIt...), 1, "nothing was done", "an answer from node")
	expectFailure(t, c.run(recoverIt...), 1, "nothing was done", "an answer from node")
	// One of three is away: the two that are left are needed.
	for _, p := range c.nodes[:2] {
		n := nodes[slices.IndexFunc(nodes, func(n nodeJSON) bool { return n.Address == p.address })]
		o := c.as("ops", "shard", "remove-replica", id, "--from", fmt.Sprint(n.ID))
		expectFailure(t, o, 1, "with 2 voters of which 1 answer, which is no majority")
	}
	if on := replicas(); len(on) != 3 {
		t.Errorf("after a removal that was refused it is on nodes %v", on)
	}
	offline.start()
	c.whole()

	// The node has ended a handshake that went nowhere.
	if err := mute.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, mute); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a handshake that never ends is waited for")
	}
}

// silentHandshake begins a TLS handshake with a node and says nothing more.
func silentHandshake(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00}); err != nil { // a record of 512 bytes is to follow
		t.Fatal(err)
	}
	return conn
}
