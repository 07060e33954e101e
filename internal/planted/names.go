package planted

// Bug is the name of a planted bug: the rule that it breaks.
type Bug string

const (
	AckBeforeQuorum        Bug = "ack before quorum"
	NoFsyncBeforeAck       Bug = "no fsync before ack"
	VoteBeforeEarlierSync  Bug = "vote leaves before an earlier one is synced"
	StateApartFromData     Bug = "replicated state not in the batch of its data"
	EpochNotChecked        Bug = "epoch not checked at apply"
	DescriptorNotRechecked Bug = "descriptor not re-checked after the view is opened"
	ReadBeforeOwnTerm      Bug = "read before this term's first entry is applied"
	EmptyLogAppends        Bug = "uninitialized replica appends to an empty log"
	ReadThroughIngest      Bug = "read through an ingest"
	RetryWithoutLookUp     Bug = "retry without look-up"
	RevisionFetchedAhead   Bug = "revision fetched ahead"
	GrantWithoutConfirming Bug = "grant without confirming leadership"
	BoundUnapplied         Bug = "revision bound raised from an unapplied value"
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
	SplitOverwritesVote    Bug = "split overwrites term or vote"
	BornBelowLast          Bug = "right side born below the parent's last revision"
	FloorNotCopied         Bug = "floor not copied by a split"
	BirthIgnoresLater      Bug = "split ignores a tombstone or a later replica"
	BirthWithoutClaim      Bug = "birth without claim"
	BirthSpanNotKept       Bug = "span not kept until a birth is taken in"
)

// Bugs lists all names.
func Bugs() []Bug {
	return []Bug{AckBeforeQuorum, NoFsyncBeforeAck, VoteBeforeEarlierSync, StateApartFromData, EpochNotChecked, DescriptorNotRechecked,
		ReadBeforeOwnTerm, EmptyLogAppends, ReadThroughIngest, RetryWithoutLookUp, RevisionFetchedAhead, GrantWithoutConfirming, BoundUnapplied, ReadFromViewBelow, ReadIndexBySuccessor,
		FloorIgnoredByReads, StaleStreamNotDropped, StaleRevisionApplied, ProposedInALaterTerm, DropWithoutItsShadow, NoTraceOfNothing,
		TombstoneNotWritten, RemovedReplicaNotTold, VoterRemovedAtOnce,
		SplitOverwritesVote, BornBelowLast, FloorNotCopied, BirthIgnoresLater, BirthWithoutClaim, BirthSpanNotKept}
}
