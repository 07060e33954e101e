//go:build planted

package sim

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/internal/planted"
)

// plantedBugs says in how many seeds each bug must be found, and by which check: a
// part of its words, or several with bars between. Checks that find it too, and
// before, are overlooked.
var plantedBugs = []struct {
	bug      planted.Bug
	seeds    uint64
	found    string
	overlook string
	scenario string // empty: drawn faults
}{
	{planted.RetryWithoutLookUp, 3, "took effect twice|otherwise than the first|told that it does nothing", "", ""},
	{planted.RetryWithoutLookUp, 3, "took effect twice|otherwise than the first|told that it does nothing", "", "LostAckRetryAcrossMove"},
	{planted.RevisionFetchedAhead, 3, "do not follow real time|took effect twice", "one of the future", ""},
	{planted.GrantWithoutConfirming, 3, "do not follow real time", "one of the future", "DeposedMetaLeaderIsAsked"},
	{planted.ReadFromViewBelow, 4, "did not find what the logs say", "which nobody was given", ""},
	{planted.ReadIndexBySuccessor, 3, "do not follow real time", "", "DeposedMetaLeaderIsAsked"},
	{planted.FloorIgnoredByReads, 10, "did not find what the logs say", "", ""},
	{planted.StaleStreamNotDropped, 4, "took effect twice|otherwise than the first|told that it does nothing", "", "NewStreamOvertakesStalledOne"},
	{planted.StaleRevisionApplied, 2, "revision", "", "StaleRevisionInTheLog"},
	{planted.ProposedInALaterTerm, 8, "took effect twice|otherwise than the first|told that it does nothing", "", "LateAttemptInALaterTerm"},
	{planted.DropWithoutItsShadow, 10, "shows at the floor|came out otherwise than its log says|differs from its leader's", "", ""},
	{planted.NoTraceOfNothing, 20, "was told that it does nothing", "is missing|otherwise than the first|none of the", "ReplacedClientsChoose"},
	{planted.TombstoneNotWritten, 10, "which was removed from", "", "ReplicasMoveUnderLoad"},
	{planted.RemovedReplicaNotTold, 50, "not settled", "", "ReplicasMoveUnderLoad"},
	{planted.VoterRemovedAtOnce, 10, "a voter is demoted first", "", "ReplicasMoveUnderLoad"},
}

// TestPlantedBugs switches one bug on after the other, and runs seeds until one
// fails. KILORAFT_PLANTED=part of a name runs only those.
func TestPlantedBugs(t *testing.T) {
	defer planted.Choose("")
	for _, p := range plantedBugs {
		if !strings.Contains(string(p.bug), os.Getenv("KILORAFT_PLANTED")) {
			continue
		}
		t.Run(string(p.bug), func(t *testing.T) {
			planted.Choose(p.bug)
			for seed := uint64(seed0); seed < seed0+p.seeds; seed++ {
				cfg := config(t, seed)
				if p.scenario != "" {
					cfg = directed(t, seed, p.scenario)
				}
				cfg.Overlook = func(err error) bool { return p.overlook != "" && contains(err.Error(), p.overlook) }
				r, err := Run(cfg)
				if err == nil {
					continue
				}
				var f *Failure
				if !errors.As(err, &f) {
					t.Fatal(err)
				}
				what, more, _ := strings.Cut(f.Err.Error(), "\n")
				if os.Getenv("KILORAFT_PLANTED_ALL") != "" {
					t.Log(more)
				}
				t.Logf("seed %d, while %s, faults %v: %s", seed, f.Phase, r.Faults, what)
				if !contains(what, p.found) {
					t.Fatalf("found by another check than %q", p.found)
				}
				return
			}
			t.Fatalf("%d seeds did not find it", p.seeds)
		})
	}
}

// contains tells whether a text has one of some parts, which bars separate.
func contains(text, parts string) bool {
	return slices.ContainsFunc(strings.Split(parts, "|"), func(part string) bool { return strings.Contains(text, part) })
}
