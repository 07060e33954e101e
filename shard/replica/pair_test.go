package replica

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// Two voters are a quorum of three and of two, never of five, of a joint
// configuration, with a learner, or of one and itself.
func TestPairsAndPartners(t *testing.T) {
	v, l, in, out := shard.Voter, shard.Learner, shard.Incoming, shard.Outgoing
	for name, c := range map[string]struct {
		roles []shard.Role // of replicas 1, 2, …, on nodes 11, 12, …
		pairs []shard.ReplicaID
		// partner if nobody, and if the first pair is to be avoided
		partner, other shard.ReplicaID
	}{
		"three":          {[]shard.Role{v, v, v}, []shard.ReplicaID{2, 3}, 2, 3},
		"two":            {[]shard.Role{v, v}, []shard.ReplicaID{2}, 2, 2},
		"one":            {[]shard.Role{v}, nil, 0, 0},
		"with a learner": {[]shard.Role{v, l, v, v}, []shard.ReplicaID{3, 4}, 3, 4},
		"a learner":      {[]shard.Role{l, v, v}, nil, 0, 0},
		"five":           {[]shard.Role{v, v, v, v, v}, nil, 0, 0},
		"joint":          {[]shard.Role{v, v, out, in}, nil, 0, 0},
	} {
		r := &Replica{self: 1}
		if _, _, ok := r.Partner(0); ok || r.Pair(2) {
			t.Errorf("%s: a pair before there is a descriptor", name)
		}
		d := shard.Descriptor{ID: shard.MetaID}
		for i, role := range c.roles {
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 11), Role: role})
		}
		r.descriptor.Store(&d)
		var pairs []shard.ReplicaID
		for id := range shard.ReplicaID(7) {
			if r.Pair(id) {
				pairs = append(pairs, id)
			}
		}
		if len(pairs) != len(c.pairs) || len(pairs) > 0 && pairs[0] != c.pairs[0] {
			t.Errorf("%s: pairs with %v, want %v", name, pairs, c.pairs)
		}
		for avoid, want := range map[shard.ReplicaID]shard.ReplicaID{0: c.partner, c.partner: c.other} {
			if c.partner == 0 && avoid != 0 {
				continue
			}
			id, node, ok := r.Partner(avoid)
			if id != want || ok != (want != 0) || ok && node != shard.NodeID(want+10) {
				t.Errorf("%s: partner %d on node %d, %v, avoiding %d; want %d", name, id, node, ok, avoid, want)
			}
		}
	}
}
