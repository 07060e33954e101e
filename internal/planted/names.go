package planted

// Bug is the name of a planted bug: the rule that it breaks.
type Bug string

const (
	RetryWithoutLookUp     Bug = "retry without look-up"
	RevisionFetchedAhead   Bug = "revision fetched ahead"
	GrantWithoutConfirming Bug = "grant without confirming leadership"
	ReadFromViewBelow      Bug = "read at R from a view below R"
	ReadIndexBySuccessor   Bug = "ReadIndex confirmed by a successor"
	FloorIgnoredByReads    Bug = "floor ignored by reads"
	StaleStreamNotDropped  Bug = "stale stream's queue not dropped"
	StaleRevisionApplied   Bug = "revision that is not larger is applied"
	ProposedInALaterTerm   Bug = "proposed in a later term than the draw's"
	DropWithoutItsShadow   Bug = "tombstone dropped without what it shadows"
	NoTraceOfNothing       Bug = "operation that did nothing leaves no trace"
	TombstoneNotWritten    Bug = "tombstone not written"
	RemovedReplicaNotTold  Bug = "removed replica not told"
	VoterRemovedAtOnce     Bug = "voter removed without demotion"
)

// Bugs lists all names.
func Bugs() []Bug {
	return []Bug{RetryWithoutLookUp, RevisionFetchedAhead, GrantWithoutConfirming, ReadFromViewBelow, ReadIndexBySuccessor,
		FloorIgnoredByReads, StaleStreamNotDropped, StaleRevisionApplied, ProposedInALaterTerm, DropWithoutItsShadow, NoTraceOfNothing,
		TombstoneNotWritten, RemovedReplicaNotTold, VoterRemovedAtOnce}
}
