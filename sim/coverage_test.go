package sim

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func userShard(id shard.ID, version uint64, start, end string) shard.Descriptor {
	d := shard.Descriptor{ID: id, Span: shard.Span{Start: []byte(start), End: []byte(end)}, Epoch: shard.Epoch{Version: version, ConfVersion: 1},
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}
	if start == "" {
		d.Span.Start = shard.UserSpan().Start
	}
	if end == "" {
		d.Span.End = shard.UserSpan().End
	}
	return d
}

// Every key has one shard, at every moment at which all of a change is there.
func TestCoverageFindsGapsAndOverlaps(t *testing.T) {
	meta := shard.Descriptor{ID: shard.MetaID, Span: shard.SystemSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}}
	other := userShard(2, 1, "", "\x02m")
	other.Replicas[0].Node = 9
	for name, c := range map[string]struct {
		after []shard.Descriptor
		want  string
	}{
		"nothing changes":            {nil, ""},
		"a split":                    {[]shard.Descriptor{userShard(2, 2, "", "\x02g"), userShard(4, 2, "\x02g", "\x02m")}, ""},
		"what is old comes late":     {[]shard.Descriptor{userShard(2, 2, "", "\x02g"), userShard(4, 2, "\x02g", "\x02m"), userShard(2, 1, "", "\x02m")}, ""},
		"half of a split":            {[]shard.Descriptor{userShard(2, 2, "", "\x02g")}, "is next to be covered"},
		"a split that leaves a gap":  {[]shard.Descriptor{userShard(2, 2, "", "\x02g"), userShard(4, 2, "\x02h", "\x02m")}, "is next to be covered"},
		"a shard too many":           {[]shard.Descriptor{userShard(4, 2, "\x02g", "\x02m")}, "is next to be covered"},
		"the end is missing":         {[]shard.Descriptor{userShard(3, 2, "\x02m", "\x02x")}, "no shard covers"},
		"one version, two spans":     {[]shard.Descriptor{userShard(2, 1, "", "\x02k")}, "has the span"},
		"one epoch, two descriptors": {[]shard.Descriptor{other}, "has the descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := NewTrace(nil)
			w := NewWitness(NewLoop(1, tr), tr)
			w.begins([]shard.Descriptor{meta, userShard(2, 1, "", "\x02m"), userShard(3, 1, "\x02m", "")})
			w.covered()
			if w.Err() != nil {
				t.Fatal(w.Err())
			}
			for i := range c.after {
				w.covers("n1", &c.after[i])
			}
			w.covered()
			verdict(t, w.Err(), c.want)
		})
	}
}

// A node is taken from the cluster only where all shards can do without it.
func TestMajorityWithout(t *testing.T) {
	v, in, out, l := shard.Voter, shard.Incoming, shard.Outgoing, shard.Learner
	for _, c := range []struct {
		roles   []shard.Role // of replicas on nodes 1, 2, …
		without []shard.NodeID
		want    bool
	}{
		{[]shard.Role{v, v, v}, []shard.NodeID{1}, true},
		{[]shard.Role{v, v, v}, []shard.NodeID{1, 3}, false},
		{[]shard.Role{v, v, v}, []shard.NodeID{1, 9}, true},
		{[]shard.Role{v}, []shard.NodeID{1}, false},
		{[]shard.Role{v, v}, []shard.NodeID{1}, false},
		{[]shard.Role{v, l, l}, []shard.NodeID{2}, true},
		{[]shard.Role{v, in, in}, []shard.NodeID{1}, false}, // the outgoing half is node 1 alone
		{[]shard.Role{v, in, in}, []shard.NodeID{2}, true},
		{[]shard.Role{v, v, out, in}, []shard.NodeID{1}, true},
		{[]shard.Role{v, v, out, in}, []shard.NodeID{1, 4}, false},
	} {
		d := replicasAs(c.roles...)
		if got := majorityWithout(d, c.without, out) && majorityWithout(d, c.without, in); got != c.want {
			t.Errorf("%v without %v: %v", c.roles, c.without, got)
		}
	}
}
