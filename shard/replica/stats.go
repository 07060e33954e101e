package replica

import (
	"errors"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/shard"
)

// Stats counts requests since the start: as accepted, and as refused by kind of
// error. A request that was accepted and failed later is in both.
type Stats struct {
	Puts, Deletes, SystemWrites uint64
	Batches, RangeDeletes       uint64
	Gets, Scans                 uint64
	Redraws                     uint64 // revisions drawn again because they came too late
	ReadRetries                 uint64 // reads taken again because of a descriptor or a snapshot
	Raises                      uint64 // of a shard's last revision, for reads
	FloorsProposed              uint64
	Sweeps                      uint64 // of a whole replica that were finished
	VersionsDropped             uint64
	// Digests computed for checks, and comparisons with a leader's by how they ended.
	Digests, ChecksSame, ChecksDiffer uint64
	Errors                            ErrorStats

	// What is outstanding now.
	Reads, ReadBytes, Writes, WriteBytes int64
}

// ErrorStats counts failed requests by kind.
type ErrorStats struct {
	Invalid, NotLeader, WrongShard, Busy, Dropped, Undetermined, Unavailable, Stopped, Revision, Internal uint64
}

type counters struct {
	puts, deletes, systemWrites, gets, scans, redraws, readRetries atomic.Uint64
	batches, rangeDeletes                                          atomic.Uint64
	raises, floorsProposed, sweeps, versionsDropped                atomic.Uint64
	digests, checksSame, checksDiffer                              atomic.Uint64
	errors                                                         [kinds]atomic.Uint64
}

const (
	kindInvalid = iota
	kindNotLeader
	kindWrongShard
	kindBusy
	kindDropped
	kindUndetermined
	kindUnavailable
	kindStopped
	kindRevision
	kindInternal
	kinds
)

func (c *counters) write(cmd *shard.Command) {
	switch {
	case cmd.System():
		c.systemWrites.Add(1)
	case cmd.Kind == shard.KindDelete:
		c.deletes.Add(1)
	case cmd.Kind == shard.KindBatch:
		c.batches.Add(1)
	case cmd.Kind == shard.KindDeleteRange:
		c.rangeDeletes.Add(1)
	default:
		c.puts.Add(1)
	}
}

func (c *counters) read(cmd *shard.Command) {
	if cmd.Kind == shard.KindScan {
		c.scans.Add(1)
	} else {
		c.gets.Add(1)
	}
}

func (c *counters) failed(err error) { c.errors[kindOf(err)].Add(1) }

func kindOf(err error) int {
	switch err.(type) {
	case *shard.InvalidError:
		return kindInvalid
	case *shard.NotLeaderError:
		return kindNotLeader
	case *shard.WrongShardError:
		return kindWrongShard
	case *shard.NotReadyError:
		return kindUnavailable
	}
	for _, k := range [...]struct {
		err  error
		kind int
	}{
		{shard.ErrBusy, kindBusy}, {shard.ErrDropped, kindDropped}, {shard.ErrUndetermined, kindUndetermined},
		{shard.ErrUnavailable, kindUnavailable}, {shard.ErrStopped, kindStopped}, {shard.ErrMalformed, kindInvalid},
		{shard.ErrFutureRevision, kindRevision}, {shard.ErrCompacted, kindRevision},
		{shard.ErrSpansShards, kindInvalid}, {shard.ErrNoRevision, kindUnavailable},
		{shard.ErrRangeTooWide, kindInvalid},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return kindInternal
}

// Stats is a copy of the counters.
func (s *Store) Stats() Stats {
	c := &s.stats
	failed := func(kind int) uint64 { return c.errors[kind].Load() }
	return Stats{
		Puts: c.puts.Load(), Deletes: c.deletes.Load(), SystemWrites: c.systemWrites.Load(),
		Batches: c.batches.Load(), RangeDeletes: c.rangeDeletes.Load(),
		Gets: c.gets.Load(), Scans: c.scans.Load(), Redraws: c.redraws.Load(), ReadRetries: c.readRetries.Load(),
		Raises: c.raises.Load(), FloorsProposed: c.floorsProposed.Load(), Sweeps: c.sweeps.Load(), VersionsDropped: c.versionsDropped.Load(),
		Digests: c.digests.Load(), ChecksSame: c.checksSame.Load(), ChecksDiffer: c.checksDiffer.Load(),
		Errors: ErrorStats{
			Invalid: failed(kindInvalid), NotLeader: failed(kindNotLeader), WrongShard: failed(kindWrongShard),
			Busy: failed(kindBusy), Dropped: failed(kindDropped), Undetermined: failed(kindUndetermined),
			Unavailable: failed(kindUnavailable), Stopped: failed(kindStopped), Revision: failed(kindRevision),
			Internal: failed(kindInternal),
		},
		Reads: s.readBudget.count.Load(), ReadBytes: s.readBudget.bytes.Load(),
		Writes: s.writeBudget.count.Load(), WriteBytes: s.writeBudget.bytes.Load(),
	}
}
