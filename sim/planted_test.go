//go:build planted

package sim

import (
	"flag"
	"fmt"
	"strings"
	"sync"

	"github.com/kiloraft/kiloraft/internal/planted"
)

// plantedBugs says in how many seeds each bug must be found, and by which check: a
// part of its words, or several with bars between. Checks that find it too, and
// before, are overlooked.
var plantedBugs = []struct {
	bug       planted.Bug
	seeds     uint64
	invariant string // in a few words
	found     string
	overlook  string
	scenario  string // empty: drawn faults
}{
	{planted.AckBeforeQuorum, 3, "no acknowledged write is lost", "is in no log|not linearizable|no moment is left|missed a write|do not follow real time|two attempts of one write|took effect", "", ""},
	{planted.NoFsyncBeforeAck, 3, "what is promised outlives a crash", "came back with|differs at index|forks at index", "", ""},
	{planted.VoteBeforeEarlierSync, 40, "what is promised outlives a crash", "came back with|votes twice", "", "VotesArriveTwice"},
	{planted.StateApartFromData, 20, "content is what the log says", "is missing|different content|came out otherwise|differs", "", ""},
	{planted.EpochNotChecked, 10, "a change applies to its epoch", "a membership change for epoch", "", "ReplicasMoveUnderLoad"},
	{planted.ReadBeforeOwnTerm, 10, "histories are linearizable", "not linearizable|no moment is left|do not follow real time|did not find what", "", "LoneVoterRestarts"},
	{planted.EmptyLogAppends, 5, "a replica applies its log", "not initialized|stops at index|panic", "", ""},
	{planted.ReadThroughIngest, 20, "a read at R repeats", "did not find what the logs say|missed a write|something else", "", "ReadsDuringInstall"},
	{planted.RetryWithoutLookUp, 3, "no write takes effect twice", "took effect twice|otherwise than the first|told that it does nothing", "", ""},
	{planted.RetryWithoutLookUp, 3, "no write takes effect twice", "took effect twice|otherwise than the first|told that it does nothing", "", "LostAckRetryAcrossMove"},
	{planted.RevisionFetchedAhead, 3, "revisions follow real time", "do not follow real time|took effect twice", "one of the future|reaches a caller", ""},
	{planted.GrantWithoutConfirming, 3, "revisions follow real time", "do not follow real time", "one of the future|reaches a caller", "DeposedMetaLeaderIsAsked"},
	{planted.BoundUnapplied, 5, "revisions are unique", "two writes have one revision|do not follow real time|took effect twice|is called one of the future", "", ""},
	{planted.ReadFromViewBelow, 4, "a read at R repeats", "did not find what the logs say", "which nobody was given", ""},
	{planted.ReadIndexBySuccessor, 3, "revisions follow real time", "do not follow real time", "", "DeposedMetaLeaderIsAsked"},
	{planted.FloorIgnoredByReads, 10, "a read at R repeats", "did not find what the logs say", "", ""},
	{planted.StaleStreamNotDropped, 4, "no write takes effect twice", "took effect twice|otherwise than the first|told that it does nothing", "", "NewStreamOvertakesStalledOne"},
	{planted.StaleRevisionApplied, 2, "revisions rise in a log", "revision", "", "StaleRevisionInTheLog"},
	{planted.ProposedInALaterTerm, 8, "no write takes effect twice", "took effect twice|otherwise than the first|told that it does nothing", "", "LateAttemptInALaterTerm"},
	{planted.DropWithoutItsShadow, 10, "content is what the log says", "shows at the floor|came out otherwise than its log says|differs from its leader's", "", ""},
	{planted.NoTraceOfNothing, 20, "a retry is told the same", "was told that it does nothing", "is missing|otherwise than the first|none of the", "ReplacedClientsChoose"},
	{planted.TombstoneNotWritten, 10, "a removed replica never acts again", "which was removed from", "", "ReplicasMoveUnderLoad"},
	{planted.RemovedReplicaNotTold, 20, "all converges once healed", "not settled", "", "ReplicasMoveUnderLoad"},
	{planted.VoterRemovedAtOnce, 10, "a voter is demoted first", "a voter is demoted first", "", "ReplicasMoveUnderLoad"},
	{planted.SplitOverwritesVote, 20, "what is promised outlives a split", "votes twice|goes from|came back with", "", ""},
	{planted.BornBelowLast, 3, "revisions rise from a shard to those that split off", "is born with last revision", "", ""},
	{planted.BornBelowLast, 3, "a read at R repeats", "did not find what the logs say|nobody wrote|not linearizable", "is born with last revision", ""},
	{planted.FloorNotCopied, 10, "a floor never falls, over splits neither", "is born with floor", "", "SplitsUnderAFloor"},
	{planted.FloorNotCopied, 20, "a read at R repeats", "did not find what the logs say|is missing|differs from its leader's", "is born with floor", "SplitsUnderAFloor"},
	{planted.EpochNotChecked, 3, "a write applies to its epoch", "is applied to version|is applied to epoch", "", ""},
	{planted.BirthIgnoresLater, 5, "a removed replica never acts again", "which was removed from|two shards that overlap", "", "SplitComesAfterTheRemoval"},
}

// fleetOnly chooses among the planted bugs.
var fleetOnly = flag.String("sim.only", "", "of the planted bugs, those whose names contain this")

// pendingBugs are those that a run cannot show, and why.
var pendingBugs = map[planted.Bug]string{
	planted.DescriptorNotRechecked: "a read is one step of a run; shard/replica's tests show it",
	planted.BirthWithoutClaim:      "a round is one step of a run, and a node has one worker; raftgroup's tests show it",
	planted.BirthSpanNotKept:       "from one round to the next; shard/replica's tests show it",
}

func plant(bug string) { planted.Choose(planted.Bug(bug)) }

// runPlanted prints what has found each bug, and ends in one line.
func runPlanted() int {
	rows, caught := make([]string, len(plantedBugs)), 0
	var tasks []func(func(*job) result)
	var mu sync.Mutex
	for i := range plantedBugs {
		if !strings.Contains(string(plantedBugs[i].bug), *fleetOnly) {
			continue
		}
		tasks = append(tasks, func(run func(*job) result) {
			row, ok := catch(i, run)
			mu.Lock()
			defer mu.Unlock()
			if rows[i] = row; ok {
				caught++
			}
		})
	}
	inParallel(*fleetProcs, tasks)
	fmt.Printf("%-50s %-10s  %-36s  %s\n", "bug", "seeds", "invariant", "what the run said")
	for _, row := range rows {
		if row != "" {
			fmt.Println(row)
		}
	}
	for _, b := range planted.Bugs() {
		if why := pendingBugs[b]; why != "" {
			fmt.Printf("%-50s elsewhere   %s\n", b, why)
		}
	}
	verdict, code := "ok", 0
	if caught < len(tasks) || len(plantedBugs)+len(pendingBugs) < len(planted.Bugs()) {
		verdict, code = "FAILED", 1
	}
	fmt.Printf("sim-planted: bugs=%d caught=%d %s\n", len(tasks), caught, verdict)
	return code
}

// catch runs seed after seed until one finds a bug.
func catch(i int, run func(*job) result) (row string, ok bool) {
	p := &plantedBugs[i]
	for n := uint64(1); n <= p.seeds; n++ {
		r := run(&job{Seed: seed0 + n - 1, Bug: string(p.bug), Scenario: p.scenario, Overlook: p.overlook})
		what := firstLine(r.Error)
		switch {
		case r.Error == "":
		case contains(what, p.found):
			return fmt.Sprintf("%-50s %3d of %-3d  %-36s  %s", p.bug, n, p.seeds, p.invariant, cutTo(what, 110)), true
		default:
			return fmt.Sprintf("%-50s FAILED      seed %d: found by another check than %q: %s", p.bug, seed0+n-1, p.found, cutTo(what, 300)), false
		}
	}
	return fmt.Sprintf("%-50s FAILED      %d seeds did not find it", p.bug, p.seeds), false
}

// firstLine is what an error says before what it shows.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
