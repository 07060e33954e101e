package replica

import (
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Split parts the shard if this replica leads it. done is called exactly once, perhaps
// before the call returns: with both descriptors once the split is applied here, else
// with a NotLeaderError, the refusal of s by the applied descriptor (a WrongShardError
// with it if s is for another epoch, an InvalidError, a NotReadyError), an error that
// wraps ErrDropped while another change is under way, or ErrUndetermined.
func (r *Replica) Split(s shard.Split, done func(left, right shard.Descriptor, err error)) {
	fail := func(err error) { done(shard.Descriptor{}, shard.Descriptor{}, err) }
	l, d := r.leadership.Load(), r.descriptor.Load()
	if !l.Leading || d == nil {
		fail(r.notLeader())
		return
	}
	left, right, err := s.Apply(d)
	if err != nil {
		fail(err)
		return
	}
	share, err := r.shareBelow(s.Key)
	if err != nil {
		fail(&shard.InternalError{Reason: "estimating the data of the new shard: " + err.Error()})
		return
	}
	// A membership change in the log before the split would have it refused when it is
	// applied, and a split before a membership change that one.
	if !r.membership.CompareAndSwap(false, true) {
		fail(fmt.Errorf("%w: a membership change or a split is under way", shard.ErrDropped))
		return
	}
	keys, bytes := r.Estimate()
	c := shard.Command{Kind: shard.KindSplit, Key: s.Key, Right: s.Right, ConfVersion: s.Epoch.ConfVersion,
		RightKeys: uint64(float64(keys) * (1 - share)), RightBytes: uint64(float64(bytes) * (1 - share))}
	r.proposeUpkeep(l.Term, s.Epoch.Version, &c, func(res raftgroup.Result, err error) {
		r.membership.Store(false)
		if err == nil {
			err = res.Err
		}
		if err != nil {
			fail(r.hinted(err))
			return
		}
		done(left, right, nil)
	})
}

// parted follows a batch in which the shard was split, while the generation is odd. The
// replicas of the new shards are known to the store, or about to be: one that has to take
// its state in first has its span kept until then, as nothing here covers it any more.
func (t turn) parted() {
	for _, born := range t.born {
		t.store.reserveBirth(born)
		t.sweep.parted(t.Replica, born)
	}
	t.born = nil
}

// parted takes what the new shard has out of the estimate of what this one holds. What is
// below the floor is looked at anew.
func (s *sweepState) parted(r *Replica, born *storage.ReplicaState) {
	keys, bytes := r.Estimate()
	next := &estimate{keysPerVersion: 1, perByte: 1} // as before the first sweep
	if e := s.estimate.Load(); e != nil {
		next.keysPerVersion, next.perByte = e.keysPerVersion, e.perByte
	}
	next.keys, next.bytes = keys-min(keys, born.Versions), bytes-min(bytes, born.Bytes)
	next.versions, next.bytesWritten = r.machine.State().Versions, r.machine.State().Bytes
	s.estimate.Store(next)
	s.fresh.Store(true)
}

// Covers is the host's Config.Covers.
func (s *Store) Covers(id shard.ID, key []byte) bool {
	r := s.replicas.covering(&shard.Command{Kind: shard.KindGet, Key: key})
	return r != nil && r.id != id
}

// rerouted is what the caller of a write is told that a split overtook in the log: where
// its key is now.
func (w *write) rerouted(err error) error {
	var wrong *shard.WrongShardError
	var c shard.Command
	if !errors.As(err, &wrong) || shard.DecodeCommand(w.command, &c) != nil {
		return err
	}
	return w.r.store.wrongShard(w.r.id, w.r, &c)
}
