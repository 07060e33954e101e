package sim

import (
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// replicasAs is a descriptor with replicas in these roles, on nodes 1, 2 and so on.
func replicasAs(roles ...shard.Role) *shard.Descriptor {
	var d shard.Descriptor
	for i, r := range roles {
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(i + 1), Role: r})
	}
	d.NextReplica = shard.ReplicaID(len(roles) + 1)
	return &d
}

func TestALearnerOfASingleVoterIsNotToBeLost(t *testing.T) {
	for _, c := range []struct {
		d    *shard.Descriptor
		node shard.NodeID
		want bool
	}{
		{replicasAs(shard.Voter, shard.Learner), 2, true},
		{replicasAs(shard.Voter, shard.Learner, shard.Learner), 3, true},
		{replicasAs(shard.Voter, shard.Learner), 3, false},
		{replicasAs(shard.Voter, shard.Voter, shard.Voter, shard.Learner), 4, false},
	} {
		if got := becomesPair(c.d, c.node); got != c.want {
			t.Errorf("%v without node %d: %v", c.d.Replicas, c.node, got)
		}
	}
}

func TestAMoverMakesNoVoterInThePlaceOfNone(t *testing.T) {
	m := &mover{from: &Node{ID: 3}, to: &Node{ID: 4}}
	for _, c := range []struct {
		name    string
		d       *shard.Descriptor
		changes int
		over    bool
	}{
		{"begins", replicasAs(shard.Voter, shard.Voter, shard.Voter), 1, false},
		{"promotes and demotes", replicasAs(shard.Voter, shard.Voter, shard.Voter, shard.Learner), 2, false},
		{"finds a voter missing", replicasAs(shard.Voter, shard.Voter, shard.Learner, shard.Learner), 1, false},
		{"finds its source replaced", replicasAs(shard.Voter, shard.Voter, shard.Learner, shard.Learner, shard.Voter), 0, true},
		{"removes its source", replicasAs(shard.Voter, shard.Voter, shard.Learner, shard.Voter), 1, false},
	} {
		if changes, over := m.next(c.d); len(changes) != c.changes || over != c.over {
			t.Errorf("%s: %v, over %v", c.name, changes, over)
		}
	}
}
