package raftgroup

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// crashParent is the shard that is split, and partedShards are it and what comes of it.
const crashParent shard.ID = 5

var partedShards = []shard.ID{crashParent, 11, 12, 13, 14, 15, 16, 17, 18}

// split splits a shard, and looks at what a power cut leaves of it.
func (r *crashRun) split(id shard.ID, key string, right shard.ID, phase string) {
	r.closely()
	r.c.split(id, key, right)
	r.c.put(id, r.firstKey(id)+"=left of "+key)
	r.c.put(right, key+"=right of "+key)
	r.check(phase)
}

// firstKey is where a shard begins, within the one that the test has made.
func (r *crashRun) firstKey(id shard.ID) string {
	d := r.c.descriptor(id)
	return string(d.Span.Start[len(registerSpan(id).Start):]) + "0"
}

// runSplits is the story of a shard that is split again and again, the upper end first:
// values of 200 or 10,000 bytes, of keys with "k", are in the way of no split.
func (r *crashRun) runSplits() {
	c := r.c
	r.bootstrap(crashParent, 1, 2, 3)
	c.start()
	for i := range 3 {
		for _, key := range []string{"a", "e", "i", "k", "m", "o", "q", "s", "u", "x"} {
			c.put(crashParent, fmt.Sprintf("%s%d=%d", key, i%2, i))
		}
	}
	c.mustAgree(crashParent)
	r.split(crashParent, "w", 11, "a split")

	// The new shard has a replica that has voted and has no state: its node loses its
	// power before the split is applied, and again behind it.
	late := c.node(c.waitLeader(crashParent).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != late.id || e.shard != crashParent }
	r.split(crashParent, "t", 12, "a split that one node does not hear of")
	c.until("the late node has voted", func() bool { m := late.machine(12); return m != nil && late.hardState(12).Vote != 0 })
	r.check("a vote before the split")
	r.crash(late)
	c.put(12, "u1=without one node")
	c.filter = nil
	r.closely()
	c.until("the late node has applied the split", func() bool { m := late.machine(12); return m != nil && m.state != nil })
	r.check("the birth of one that has voted")
	r.crash(late)
	c.mustAgree(crashParent)
	c.mustAgree(12)
	r.durable(late)
	r.check("after the birth of one that has voted")

	// The new shard removes its replica before the node applies the split.
	slow := c.node(c.waitLeader(crashParent).id%3 + 1)
	c.filter = func(_, to shard.NodeID, e *envelope) bool { return to != slow.id || e.shard != crashParent }
	r.split(crashParent, "p", 13, "a split before a removal")
	c.until("the replica is there", func() bool { return slow.machine(13) != nil })
	old := c.replicaOn(13, slow.id)
	c.steadily(13, shard.Change{Kind: shard.Demote, Replica: old})
	c.until("the joint configuration is left", func() bool { return !c.joint(13) })
	c.steadily(13, shard.Change{Kind: shard.RemoveLearner, Replica: old})
	c.until("the replica is removed", func() bool { _, here := slow.host.Group(13); return !here })
	r.facts.forgo(slow.id, 13)
	r.durable(slow)
	r.check("a removal before the split")
	c.filter = nil
	r.closely()
	c.mustAgree(crashParent)
	r.durable(slow)
	r.check("a split that is discarded")
	r.crash(slow)
	c.mustAgree(crashParent)
	c.addLearner(13, slow.id)
	c.put(13, "q0=came back")
	c.mustAgree(13)
	r.durable(slow)
	r.check("a snapshot of what was discarded")

	// A split right behind a snapshot, and one that the snapshot is behind.
	size := 200
	if r.seed%2 == 0 {
		size = 10 << 10
	}
	for _, s := range []struct {
		key    string
		right  shard.ID
		before bool
	}{{"n", 14, false}, {"l", 15, true}} {
		far := c.node(c.waitLeader(crashParent).id%3 + 1)
		installs := far.machine(crashParent).installs
		c.leaveBehind(crashParent, far, size)
		if s.before {
			r.split(crashParent, s.key, s.right, "a split that a node learns of by a snapshot")
		}
		c.heal()
		c.until("the snapshot is installed", func() bool { return far.machine(crashParent).installs > installs })
		if !s.before {
			r.split(crashParent, s.key, s.right, "a split behind a snapshot")
			r.crash(far)
		}
		c.mustAgree(crashParent)
		c.mustAgree(s.right)
		r.durable(far)
		r.check("snapshots")
	}

	// Several splits, of both sides, in one batch.
	away := c.node(c.waitLeader(crashParent).id%3 + 1)
	c.isolate(away.id)
	r.split(crashParent, "h", 16, "splits without one node")
	r.split(16, "j", 17, "splits without one node")
	r.split(crashParent, "d", 18, "splits without one node")
	c.heal()
	r.closely()
	c.mustAgree(crashParent)
	r.check("several splits at once")
	for _, n := range c.nodes {
		r.crash(n)
	}
	for _, id := range r.shards {
		c.put(id, r.firstKey(id)+"=all have crashed")
		c.mustAgree(id)
	}
	r.check("all nodes have crashed")
}
