package e2e

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestOperatorsAreRefusedWithReasons asks a cluster of four nodes for what cannot be,
// in earnest and in thought: both are refused with the same words and the same exit
// code, and nothing has changed after it.
func TestOperatorsAreRefusedWithReasons(t *testing.T) {
	c := startCluster(t, 4, 2)
	c.must(nil, "settings", "set", "placement.rebalance", "false")
	s := c.shards()[1]
	var free uint64
	for id := uint64(1); id <= 4; id++ {
		if !memberOf(&s, id) {
			free = id
		}
	}
	from, used := s.Replicas[0].Node, s.Replicas[1].Node
	move := func(from, to uint64) []string {
		return []string{"shard", "move", fmt.Sprint(s.ID), "--from", fmt.Sprint(from), "--to", fmt.Sprint(to)}
	}
	refused := func(what string, line []string, words ...string) {
		t.Helper()
		before := c.layout()
		earnest, thought := c.run(line...), c.run(append(line, "--dry-run")...)
		if earnest.code == 0 || earnest.code != thought.code || earnest.stderr != thought.stderr || earnest.stdout+thought.stdout != "" {
			t.Errorf("%s: in earnest %+v, in thought %+v", what, earnest, thought)
		}
		if err := failure(earnest, earnest.code, words...); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if after := c.layout(); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: %+v became %+v", what, before, after)
		}
	}

	refused("an unknown node", move(from, 99), "node 99 does not exist")
	refused("a used node", move(from, used), fmt.Sprintf("node %d has a replica", used))
	refused("from a node without a replica", move(free, used), fmt.Sprintf("node %d has no replica", free))
	refused("too few voters", []string{"shard", "remove-replica", fmt.Sprint(s.ID), "--from", fmt.Sprint(from)}, "placement would add one at once")

	// What is allowed in thought has changed nothing either.
	before := c.layout()
	for _, line := range [][]string{move(from, free), {"shard", "transfer-leader", fmt.Sprint(s.ID), "--to", fmt.Sprint(used)}, {"node", "drain", fmt.Sprint(free)}, {"node", "decommission", fmt.Sprint(free)}} {
		var got struct {
			DryRun *bool `json:"dry_run"`
		}
		if c.must(&got, append(line, "--dry-run")...); got.DryRun == nil || !*got.DryRun {
			t.Errorf("%v: %+v", line, got)
		}
	}
	if after := c.layout(); !reflect.DeepEqual(after, before) {
		t.Errorf("dry runs: %+v became %+v", before, after)
	}

	// Many operators at once: one operation begins, and it is done.
	outcomes := make([]output, 6)
	var all sync.WaitGroup
	for i := range outcomes {
		all.Go(func() { outcomes[i] = c.run(append(move(from, free), "--timeout", "60s")...) })
	}
	all.Wait()
	done := 0
	for _, o := range outcomes {
		if o.code == 0 {
			done++
			continue
		}
		if err := failure(o, o.code); err != nil || !strings.Contains(o.stderr, "operation") && !strings.Contains(o.stderr, "replica") {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if done != 1 {
		t.Errorf("%d of the operators moved the shard: %+v", done, outcomes)
	}
	c.await(30*time.Second, "the shard as it was asked for", func() bool {
		now := c.shards()[1]
		return memberOf(&now, free) && !memberOf(&now, from) && len(now.Replicas) == 3
	})
	var ops []struct{ ID uint64 }
	c.must(&ops, "ops", "list")
	if len(ops) != 1 {
		t.Errorf("operations: %+v", ops)
	}
	expectFailure(t, c.run("ops", "cancel", fmt.Sprint(ops[0].ID)), 1, "already")

	// from is free now: it drains, and then it is dead.
	c.must(nil, "node", "drain", fmt.Sprint(from), "--timeout", "60s")
	refused("a draining node", move(used, from), fmt.Sprintf("node %d is draining", from))
	for _, p := range c.nodes {
		if c.nodeAt(p) == from {
			p.kill()
			break
		}
	}
	c.await(30*time.Second, "the node not answering", func() bool { return !c.member(from).Live })
	c.must(nil, "node", "drain", fmt.Sprint(from), "--undo")
	refused("a dead node", move(used, from), fmt.Sprintf("node %d is not answering", from))
	refused("a leader for a dead node", []string{"shard", "transfer-leader", "1", "--to", fmt.Sprint(from)}, fmt.Sprint(from))
}

// layout is what a person may change of a cluster: where replicas are, what is wanted
// of nodes, and what was asked for. Leaders may move by themselves.
func (c *cluster) layout() (all struct {
	Shards [][]replicaJSON
	States []string
	Ops    []map[string]any
}) {
	c.t.Helper()
	for _, s := range c.shards() {
		all.Shards = append(all.Shards, s.Replicas)
	}
	for _, n := range c.members() {
		all.States = append(all.States, n.State)
	}
	c.must(&all.Ops, "ops", "list")
	return all
}
