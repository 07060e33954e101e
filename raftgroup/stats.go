package raftgroup

import "sync/atomic"

// HostStats counts since the host was made; the bytes are in use now.
type HostStats struct {
	Rounds, GroupsInRounds, SyncedRounds, Entries, Operations, Messages, MessagesDropped, ReadIndexes, Reads uint64
	// Readies that groups produced.
	Readies uint64
	// Snapshots that were sent whole, that ended otherwise, that were installed, and
	// that were received in part or whole and given up.
	SnapshotsSent, SnapshotsUnsent, SnapshotsTaken, SnapshotsGivenUp uint64
	// Snapshots that wait or are being sent, and that are being received or installed.
	SnapshotsOut, SnapshotsIn int64
	// Replicas removed from this node; replicas of others that were told of their
	// removal; questions whether own ones were removed.
	ReplicasRemoved, Notices, Questions uint64
	Births                              uint64 // of replicas that splits have made
	ProposalBytes, IncomingBytes        int64
}

type hostCounters struct {
	rounds, groupsInRounds, syncedRounds, entries, operations atomic.Uint64
	messages, messagesDropped, readIndexes, reads, readies    atomic.Uint64
	snapshotsSent, snapshotsUnsent                            atomic.Uint64
	snapshotsTaken, snapshotsGivenUp                          atomic.Uint64
	replicasRemoved, notices, questions, births               atomic.Uint64
}

// Stats of the host. Operations per entry is Operations/Entries, groups per
// round is GroupsInRounds/Rounds.
func (h *Host) Stats() HostStats {
	c := &h.stats
	return HostStats{
		Rounds: c.rounds.Load(), GroupsInRounds: c.groupsInRounds.Load(), SyncedRounds: c.syncedRounds.Load(),
		Entries: c.entries.Load(), Operations: c.operations.Load(),
		Messages: c.messages.Load(), MessagesDropped: c.messagesDropped.Load(),
		ReadIndexes: c.readIndexes.Load(), Reads: c.reads.Load(), Readies: c.readies.Load(),
		SnapshotsSent: c.snapshotsSent.Load(), SnapshotsUnsent: c.snapshotsUnsent.Load(),
		SnapshotsTaken: c.snapshotsTaken.Load(), SnapshotsGivenUp: c.snapshotsGivenUp.Load(),
		SnapshotsOut: h.snapshotsOut.Load(), SnapshotsIn: h.snapshotsIn.Load(),
		ReplicasRemoved: c.replicasRemoved.Load(), Notices: c.notices.Load(), Questions: c.questions.Load(),
		Births:        c.births.Load(),
		ProposalBytes: h.proposalBytes.Load(), IncomingBytes: h.incomingBytes.Load(),
	}
}
