package replica

import (
	"encoding/binary"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// Granter hands out revisions on the node whose replica leads the meta shard.
type Granter interface {
	// Grant hands out n consecutive revisions, the first of which is told. All are
	// larger than every revision that was handed out in the cluster before the
	// call, provided that they are confirmed: they are, if term is 0. Else the
	// asking node has to do so, which is possible only if voter is its replica of
	// the meta shard, and not 0: it may use them if that replica's Term is term at
	// some moment after it was told. done is called once, perhaps before Grant
	// returns, with an error if this node does not lead the meta shard.
	Grant(n int, voter shard.ReplicaID, done func(first shard.Revision, term uint64, err error))
}

// confirmation is a read of nothing: it asks whether this replica led.
type confirmation struct {
	done func(term uint64, err error)
}

// Confirm tells the term in which this replica led at some moment after the call
// and before done, or a NotLeaderError or ErrUnavailable. It costs one round of
// heartbeats, which all confirmations and reads that wait in the group share.
// done is called once, from the group's turn, unless Confirm returns an error.
func (r *Replica) Confirm(done func(term uint64, err error)) error {
	if err := r.group.Confirm(&confirmation{done}); err != nil {
		return r.hinted(err)
	}
	return nil
}

// confirmations answers those among what the group hands over, and returns the
// reads. The group reported its term before.
func (t turn) confirmations(confirmed []raftgroup.Read, err error) (reads []raftgroup.Read) {
	reads = confirmed[:0]
	for _, x := range confirmed {
		if c, ok := x.(*confirmation); ok {
			c.done(t.leadership.Load().Term, err)
		} else {
			reads = append(reads, x)
		}
	}
	return reads
}

// draw serves a draw of revisions. It takes no part in the budget for reads: the
// granter bounds what waits for it, and all writes of the cluster wait for that.
func (s *Store) draw(r *Replica, id uint64, c *shard.Command, reply func(shard.Response)) {
	if r.id != shard.MetaID || s.cfg.Grants == nil {
		s.refuse(id, &shard.InvalidError{Field: "draw", Reason: "is for the meta shard"}, reply)
		return
	}
	n := c.Limit
	s.cfg.Grants.Grant(int(n), c.Voter, func(first shard.Revision, term uint64, err error) {
		p := shard.Response{ID: id}
		if err != nil {
			p.Err = r.hinted(err)
			s.stats.failed(p.Err)
		} else {
			p.Result = shard.Result{Revision: first, Count: n}
			if term != 0 {
				p.Result.Value = binary.BigEndian.AppendUint64(nil, term)
			}
		}
		reply(p)
	})
}
