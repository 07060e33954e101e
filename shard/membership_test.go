package shard

import (
	"errors"
	"fmt"
	"testing"
)

func roster(replicas ...Replica) Descriptor {
	d := Descriptor{ID: 5, Span: UserSpan(), Epoch: Epoch{2, 7}, Replicas: replicas, NextReplica: 1}
	for _, r := range replicas {
		d.NextReplica = r.ID + 1
	}
	return d
}

func TestMembershipChangeApply(t *testing.T) {
	three := roster(Replica{1, 11, Voter}, Replica{2, 12, Voter}, Replica{3, 13, Voter})
	learner := roster(Replica{1, 11, Voter}, Replica{2, 12, Learner}, Replica{4, 14, Learner})
	joint := roster(Replica{1, 11, Outgoing}, Replica{2, 12, Incoming}, Replica{3, 13, Voter})
	full := roster()
	for i := range maxReplicas {
		full.Replicas = append(full.Replicas, Replica{ReplicaID(i + 1), NodeID(i + 1), Voter})
	}
	full.NextReplica = maxReplicas + 1

	for _, c := range []struct {
		name    string
		d       Descriptor
		changes []Change
		want    string // replicas afterwards; empty: refused
	}{
		{"add a learner", three, []Change{{AddLearner, 4, 14}}, "[{1 11 voter} {2 12 voter} {3 13 voter} {4 14 learner}]"},
		{"add one that is not the next", three, []Change{{AddLearner, 5, 14}}, ""},
		{"add one with an ID of old", three, []Change{{AddLearner, 3, 14}}, ""},
		{"add on a node that has one", three, []Change{{AddLearner, 4, 12}}, ""},
		{"add on no node", three, []Change{{AddLearner, 4, 0}}, ""},
		{"add two", three, []Change{{AddLearner, 4, 14}, {AddLearner, 5, 15}}, ""},
		{"add while joint", joint, []Change{{AddLearner, 4, 14}}, ""},
		{"add to a full descriptor", full, []Change{{AddLearner, maxReplicas + 1, maxReplicas + 1}}, ""},
		{"remove a learner", learner, []Change{{RemoveLearner, 2, 0}}, "[{1 11 voter} {4 14 learner}]"},
		{"remove a voter", three, []Change{{RemoveLearner, 2, 0}}, ""},
		{"remove a stranger", three, []Change{{RemoveLearner, 9, 0}}, ""},
		{"remove two", learner, []Change{{RemoveLearner, 2, 0}, {RemoveLearner, 4, 0}}, ""},
		{"remove while joint", joint, []Change{{RemoveLearner, 2, 0}}, ""},
		{"promote two", learner, []Change{{Promote, 2, 0}, {Promote, 4, 0}}, "[{1 11 voter} {2 12 incoming} {4 14 incoming}]"},
		{"promote and demote", learner, []Change{{Promote, 2, 0}, {Demote, 1, 0}}, "[{1 11 outgoing} {2 12 incoming} {4 14 learner}]"},
		{"promote one twice", learner, []Change{{Promote, 2, 0}, {Promote, 2, 0}}, ""},
		{"promote a voter", three, []Change{{Promote, 2, 0}}, ""},
		{"promote while joint", joint, []Change{{Promote, 2, 0}}, ""},
		{"demote the last voter", learner, []Change{{Demote, 1, 0}}, ""},
		{"demote a learner", learner, []Change{{Demote, 2, 0}}, ""},
		{"demote a stranger", three, []Change{{Demote, 9, 0}}, ""},
		{"demote while joint", joint, []Change{{Demote, 3, 0}}, ""},
		{"leave", joint, []Change{{Kind: LeaveJoint}}, "[{1 11 learner} {2 12 voter} {3 13 voter}]"},
		{"leave what is not joint", three, []Change{{Kind: LeaveJoint}}, ""},
		{"leave and more", joint, []Change{{Kind: LeaveJoint}, {Kind: LeaveJoint}}, ""},
		{"a mix of simple and joint", learner, []Change{{Promote, 2, 0}, {AddLearner, 5, 15}}, ""},
		{"nothing", three, nil, ""},
		{"an unknown kind", three, []Change{{Kind: 99}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := fmt.Sprint(c.d)
			m := MembershipChange{Shard: c.d.ID, Epoch: c.d.Epoch, Changes: c.changes}
			next, err := m.Apply(&c.d)
			if fmt.Sprint(c.d) != before {
				t.Error("the descriptor it was applied to has changed")
			}
			if c.want == "" {
				var invalid *InvalidError
				if !errors.As(err, &invalid) {
					t.Fatalf("not refused: %v, %v", next.Replicas, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(next.Replicas); got != c.want {
				t.Errorf("replicas %s, want %s", got, c.want)
			}
			if want := (Epoch{c.d.Epoch.Version, c.d.Epoch.ConfVersion + 1}); next.Epoch != want {
				t.Errorf("epoch %v, want %v", next.Epoch, want)
			}
			if last := next.Replicas[len(next.Replicas)-1].ID; next.NextReplica <= last || next.NextReplica < c.d.NextReplica {
				t.Errorf("next replica %d", next.NextReplica)
			}
		})
	}
}

func TestMembershipChangeFitsOneEpochOnly(t *testing.T) {
	d := roster(Replica{1, 11, Voter})
	change := []Change{{AddLearner, 2, 12}}
	for _, m := range []MembershipChange{
		{Shard: 6, Epoch: d.Epoch, Changes: change},
		{Shard: 5, Epoch: Epoch{d.Epoch.Version + 1, d.Epoch.ConfVersion}, Changes: change},
		{Shard: 5, Epoch: Epoch{d.Epoch.Version, d.Epoch.ConfVersion - 1}, Changes: change},
	} {
		_, err := m.Apply(&d)
		var wrong *WrongShardError
		if !errors.As(err, &wrong) || len(wrong.Descriptors) != 1 || wrong.Descriptors[0].Epoch != d.Epoch {
			t.Errorf("%+v: %v", m, err)
		}
	}
	// What was applied once does not fit any more.
	m := MembershipChange{Shard: 5, Epoch: d.Epoch, Changes: change}
	next, err := m.Apply(&d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(&next); err == nil {
		t.Error("applied twice")
	}
}

// A descriptor proves the removal of those whose ID it has passed, and of nobody else.
func TestDescriptorProvesRemoval(t *testing.T) {
	d := roster(Replica{2, 12, Voter}, Replica{4, 14, Learner})
	d.NextReplica = 7
	for id, want := range map[ReplicaID]bool{1: true, 2: false, 3: true, 4: false, 5: true, 6: true, 7: false, 8: false} {
		if d.Removed(id) != want {
			t.Errorf("replica %d removed: %v, want %v", id, !want, want)
		}
	}
}
