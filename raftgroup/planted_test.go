//go:build planted

package raftgroup

import (
	"testing"

	"github.com/kiloraft/kiloraft/internal/planted"
)

// The planted bugs of removals are found by the tests of the rules that they break.
func TestPlantedBugs(t *testing.T) {
	defer planted.Choose("")
	for _, c := range []struct {
		bug  planted.Bug
		test func(testing.TB) error
	}{
		{planted.TombstoneNotWritten, zombieReplicaVotes},
		{planted.RemovedReplicaNotTold, func(t testing.TB) error { return absentReplicaIsTold(t, false) }},
		{planted.VoterRemovedAtOnce, lostCommitAfterRemoval},
	} {
		for _, bug := range []planted.Bug{"", c.bug} {
			t.Run(string(c.bug), func(t *testing.T) {
				planted.Choose(bug)
				err := c.test(t)
				if (err != nil) != (bug != "") {
					t.Errorf("on %t: %v", bug != "", err)
				}
				t.Log(err)
			})
		}
	}
}
