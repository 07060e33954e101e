package sim

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func TestWhichNodesAShardCanDoWithout(t *testing.T) {
	roles := func(roles ...shard.Role) shard.Descriptor {
		var d shard.Descriptor
		for i, r := range roles {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1), Role: r})
		}
		return d
	}
	const v, l, in, out = shard.Voter, shard.Learner, shard.Incoming, shard.Outgoing
	for _, c := range []struct {
		name    string
		d       shard.Descriptor
		without []shard.NodeID // the last one is asked for
		want    bool
	}{
		{"one of three", roles(v, v, v), []shard.NodeID{3}, true},
		{"two of three", roles(v, v, v), []shard.NodeID{1, 3}, false},
		{"a learner", roles(v, v, v, l), []shard.NodeID{1, 4}, true},
		{"one that comes, of three", roles(out, v, v, in), []shard.NodeID{4}, true},
		{"one that comes, of three with one lost", roles(out, v, v, in), []shard.NodeID{2, 4}, false},
		{"a single voter", roles(v, l, l), []shard.NodeID{1}, false},
		{"one that may be about to make a single voter a pair", roles(v, l), []shard.NodeID{2}, false},
		{"one that makes a pair", roles(v, in), []shard.NodeID{2}, false},
	} {
		d, node := c.d, c.without[len(c.without)-1]
		got := majorityWithout(&d, c.without, shard.Outgoing) && majorityWithout(&d, c.without, shard.Incoming) && !becomesPair(&d, node)
		if got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
