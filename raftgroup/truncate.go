package raftgroup

import (
	"go.etcd.io/raft/v3/tracker"

	"go.etcd.io/raft/v3"

	"github.com/kiloraft/kiloraft/storage"
)

// truncate drops the head of a log that has grown too large, in the batch of
// an apply. applied is what an earlier batch, and raft, already know to be
// applied: what is dropped is never needed again after losing the WAL's tail,
// because the batch that allowed it comes first in the WAL.
//
// Leader and followers decide on their own. All keep the newest quarter of the
// entries, so that a follower that is only a little behind, or a new leader's,
// needs no snapshot. A leader also keeps what active followers lack, up to a
// multiple of the size, and what the receivers of snapshots under way will ask
// for next, for a bounded time and up to a larger multiple. Past either bound a
// receiver needs another snapshot.
func (g *Group) truncate(b *storage.Batch, applied uint64) error {
	limit := g.h.cfg.LogBytesMax
	size := g.log.Bytes()
	if size <= limit {
		return nil
	}
	first, err := g.log.FirstIndex()
	if err != nil {
		return err
	}
	if applied < first {
		return nil
	}
	to := applied - (applied-first)/4
	if size <= truncationForcedTimes*limit {
		to = min(to, g.slowestActive())
	}
	if size <= snapshotHoldsTimes*limit {
		to = min(to, g.heldBack())
	}
	if to < first {
		return nil
	}
	return g.log.Truncate(b, to)
}

// slowestActive is the lowest match index of a follower that this leader has
// heard from lately; the largest index if it does not lead.
func (g *Group) slowestActive() uint64 {
	slowest := ^uint64(0)
	if _, leads := g.leads(); !leads {
		return slowest
	}
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != uint64(g.replica) && g.active(id) {
			slowest = min(slowest, pr.Match)
		}
	})
	return slowest
}
