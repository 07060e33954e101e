package replica

import (
	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// readAt carries out a read at a revision. It is served from a view whose last
// revision is not below it, at any replica, and nobody has to confirm that a
// replica leads: revisions strictly increase along the log, so that whoever has
// applied one as large has all versions up to it, and none can come to them.
//
// While the shard has not come as far, a later write may still be given a smaller
// revision. The leader rules that out: it raises the shard's last revision. A
// follower cannot.
func (rd *read) readAt() {
	r := rd.r
	if rd.covered(shard.Revision(r.lastRevision.Load())) {
		r.store.reads.again(rd)
		return
	}
	if !r.leadership.Load().Leading {
		rd.refuse(r.notLeader())
		return
	}
	// One that nobody was given must not become the shard's last: every draw until
	// the grants have come as far would be refused.
	r.store.cfg.Revisions.HandedOut(rd.command.Revision, func(known bool, err error) {
		switch {
		case err != nil:
			rd.refuse(err)
		case !known:
			rd.refuse(shard.ErrFutureRevision)
		default:
			rd.r.raises.add(rd)
		}
	})
}

// covered tells whether a view with this last revision serves the read.
func (rd *read) covered(last shard.Revision) bool {
	return rd.command.Revision <= last || planted.On(planted.ReadFromViewBelow)
}

// at is the revision to read at from a view that was opened after rd.last was
// noted and before this call.
func (rd *read) at() (shard.Revision, error) {
	if rd.command.System() {
		return shard.MaxRevision, nil
	}
	// The floor belongs to the view or is a newer one: nothing is dropped below a
	// floor before it is published, so that a view which lacks a version is never
	// read with a floor that knows nothing of it.
	floor := shard.Revision(rd.r.floor.Load())
	at := rd.command.Revision
	switch {
	case at == 0 && rd.command.Kind == shard.KindGet:
		return shard.MaxRevision, nil
	case at == 0 && rd.last < floor:
		return 0, errUnfit // so long ago was it noted
	case at == 0:
		// Later pages are read at this revision: the first one must not show more.
		return rd.last, nil
	case !rd.covered(rd.last):
		return 0, errUnfit
	case at < floor && !planted.On(planted.FloorIgnoredByReads):
		return 0, shard.ErrCompacted
	}
	return at, nil
}
