package raftgroup

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// These would not corrupt anything if they were different; they tune.
const (
	roundGroupsMax = 64 // groups that one round steps

	// entryBytesMax bounds an entry of packed operations; a single larger
	// operation gets an entry of its own.
	entryBytesMax = 1 << 20
	// uncommittedEntriesMax is how many of a group's entries may wait for a quorum
	// before new operations wait, to be packed together into the next one. With
	// one, 256 callers on 48 groups put 2.8 operations into an entry, with two
	// 1.9 and with four 1.3; processor time per operation was 35, 44 and 50 µs
	// and throughput fell likewise. A lone caller never waits.
	uncommittedEntriesMax = 1

	messageBytesMax       = 1 << 20  // of entries in one MsgApp, unless one entry is larger
	inflightMessagesMax   = 256      // MsgApps to one follower that are not acknowledged
	inflightBytesMax      = 32 << 20 // their bytes
	committedBytesMax     = 4 << 20  // of entries that one Ready hands out to apply
	incomingPerGroupMax   = 4096     // messages in one mailbox
	readsWaitingMax       = 1 << 16  // reads of the node
	ticksPendingMax       = 2        // in one mailbox
	uninitializedMax      = 1 << 14  // groups that messages may create
	learnedPeersMax       = 8        // senders outside the configuration, per group
	snapshotsPerGroupMax  = 3        // outgoing
	snapshotsOutMax       = 8192     // waiting or being sent, per node
	snapshotsInMax        = 32       // incoming, per node
	largeSnapshotsInMax   = 2        // of these, that are not kept in memory
	diskFullTicks         = 100      // for which no large snapshot is taken after one found the disk full
	snapshotHoldsTicks    = 3000     // for which a snapshot that is being sent may hold back truncation
	catchUpHoldsTicks     = 600      // for which its receiver may, afterwards
	snapshotHoldsTimes    = 64       // up to a log this many times LogBytesMax
	pendingTimeouts       = 8        // election timeouts after which a deposed leader's entries are undetermined
	truncationForcedTimes = 4        // a log this many times LogBytesMax waits for no follower
)

func (c *Config) setDefaults() {
	if c.Workers <= 0 {
		c.Workers = 1
		if n := runtime.GOMAXPROCS(0); n > 4 {
			c.Workers = n / 4
		}
	}
	if c.Tick <= 0 {
		c.Tick = 100 * time.Millisecond
	}
	if c.ElectionTicks <= 0 {
		c.ElectionTicks = 15
	}
	if c.HeartbeatTicks <= 0 {
		c.HeartbeatTicks = 3
	}
	if c.LogBytesMax <= 0 {
		c.LogBytesMax = 4 << 20
	}
	if c.ProposalBytesMax <= 0 {
		c.ProposalBytesMax = 64 << 20
	}
	if c.IncomingBytesMax <= 0 {
		c.IncomingBytesMax = 64 << 20
	}
	if c.ApplyBytesMax <= 0 {
		c.ApplyBytesMax = 16 << 20
	}
	if c.ReserveSpan == nil {
		c.ReserveSpan = func(*storage.ReplicaState) (func(), error) { return func() {}, nil }
	}
	if c.Covers == nil {
		c.Covers = func(shard.ID, []byte) bool { return false }
	}
	if c.Nodes == nil {
		c.Nodes = func() []shard.NodeID { return nil }
	}
	if c.Note == nil {
		c.Note = func(shard.NodeID, []byte) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}
