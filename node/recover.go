package node

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/revision"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A shard that has lost the majority of its voters for ever is recovered from one
// replica that is left: offline, on the stopped store of its node. The replica becomes
// the only voter of a new line of descriptors, and commits the log that it has.
//
// What keeps the lost replicas, should they come back, from undoing that:
//
//   - They are not listed by the new descriptor, and their IDs are below its next
//     replica ID: that is proof that they were removed, which this node tells them as
//     soon as it hears from them. They stop and delete their data. The next ID jumps far,
//     so that this covers replicas, too, that the lost ones have added without this one
//     knowing of it.
//   - The survivor's own ID is a new one. Nothing that it has voted for or acknowledged
//     under the old one counts for or against it, and what is sent to the old one is
//     nobody's.
//   - The epoch's confVersion jumps far, so that the directory and all clients take the
//     new descriptor for the later one, and membership changes that wait in the log
//     are refused. The version stays: writes that wait in the log name it, and some of them
//     may have been acknowledged. So a replica whose log holds a split that it has not
//     applied is not recovered (recover_split.go).
//   - The jump is drawn at random. If a shard is recovered from two stores, which
//     nobody must do, one of them has the higher IDs, and the other one finds proof of its
//     removal there; with equal jumps each would remove the other.
//
// Until they meet they do not know of each other: two lost nodes that come back and see
// each other but not this node, are a majority of the old configuration and go on.
// Only whoever recovers can know that they are gone.

// recoveryJump is the least by which replica IDs and confVersion jump.
const recoveryJump = 1 << 20

// recoveredRevisions is the jump of the revision bound, when the meta shard is
// recovered: more than can have been granted while a replica lagged.
const recoveredRevisions = 1 << 40

// Recovery is what recovering one shard means.
type Recovery struct {
	Before, After shard.Descriptor
	Old           shard.Replica // the replica that is left
	New           shard.ReplicaID

	Applied, AppliedTerm uint64
	Committed            uint64 // as far as it knows
	Last, LastTerm       uint64 // of its log
	LastRevision         shard.Revision

	// Gone are the replicas that are given up because their nodes are; Others those on
	// nodes that are not said to be gone. These will be removed too.
	Gone, Others []shard.Replica
	// Majority: the others and this one could be one.
	Majority bool
	// Unapplied is a split in the log that is not applied, for which Recover refuses the
	// plan; nil: none.
	Unapplied *UnappliedSplit
}

// PlanRecovery says for each shard with a replica in the store what its recovery would
// mean if the given nodes are gone for good. It changes nothing.
func PlanRecovery(e *storage.Engine, world env.Env, gone []shard.NodeID) ([]Recovery, error) {
	id, ok, err := e.Identity()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, ErrNoIdentity
	case slices.Contains(gone, id.Node):
		return nil, &shard.InvalidError{Field: "lost node", Reason: fmt.Sprintf("%d is the node whose store this is", id.Node)}
	}
	replicas, err := e.Replicas()
	if err != nil {
		return nil, err
	}
	var plans []Recovery
	for _, r := range replicas {
		if !r.Initialized {
			continue // it has voted, and has nothing
		}
		p, err := planRecovery(e, world, r, gone)
		if err != nil {
			return nil, fmt.Errorf("shard %d: %w", r.Shard, err)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

func planRecovery(e *storage.Engine, world env.Env, r storage.ReplicaRecord, gone []shard.NodeID) (Recovery, error) {
	state, _, err := e.ReplicaState(r.Shard)
	if err != nil {
		return Recovery{}, err
	}
	d := state.Descriptor
	own, listed := d.Replica(r.Replica)
	if !listed {
		return Recovery{}, fmt.Errorf("its descriptor does not list replica %d, which is here: it was removed", r.Replica)
	}
	log, err := e.OpenLog(r.Shard, r.Replica)
	if err != nil {
		return Recovery{}, err
	}
	defer log.Release()
	hs, _ := log.InitialState()
	last, _ := log.LastIndex()
	lastTerm, err := log.Term(last)
	if err != nil {
		return Recovery{}, err
	}
	p := Recovery{Before: d, Old: own, Applied: state.Applied, AppliedTerm: state.AppliedTerm, Committed: max(hs.Commit, state.Applied),
		Last: last, LastTerm: lastTerm, LastRevision: state.LastRevision}
	if p.Unapplied, err = unappliedSplit(log, state.Applied, d); err != nil {
		return Recovery{}, err
	}
	left := []shard.Replica{own}
	for _, o := range d.Replicas {
		switch {
		case o.ID == own.ID:
		case slices.Contains(gone, o.Node):
			p.Gone = append(p.Gone, o)
		default:
			p.Others = append(p.Others, o)
			left = append(left, o)
		}
	}
	p.Majority = majority(d.Replicas, left)
	p.After = d.Clone()
	jump := recoveryJump + world.Uint64()%recoveryJump
	p.New = d.NextReplica + shard.ReplicaID(jump)
	p.After.NextReplica = p.New + 1
	p.After.Epoch.ConfVersion += jump
	p.After.Replicas = []shard.Replica{{ID: p.New, Node: own.Node, Role: shard.Voter}}
	return p, nil
}

// majority tells whether those that are left can decide: in a joint configuration they
// must in both halves.
func majority(all, left []shard.Replica) bool {
	decides := func(also shard.Role) bool {
		votes := func(rs []shard.Replica) (n int) {
			for _, r := range rs {
				if r.Role == shard.Voter || r.Role == also {
					n++
				}
			}
			return n
		}
		return votes(left) > votes(all)/2
	}
	return decides(shard.Incoming) && decides(shard.Outgoing)
}

// Recover carries plans out that PlanRecovery made of the same engine, all of them or
// none. done is called once that is durable. A plan with a Refusal is not carried out.
func Recover(e *storage.Engine, plans []Recovery, done func()) error {
	for i := range plans {
		if err := plans[i].Refusal(); err != nil {
			return err
		}
	}
	b := e.NewBatch()
	for i := range plans {
		p := &plans[i]
		if err := e.StageRecovery(b, p.Old.ID, p.New, p.After); err != nil {
			b.Close()
			return fmt.Errorf("shard %d: %w", p.Before.ID, err)
		}
		if p.Before.ID == shard.MetaID {
			if err := stageMetaRecovery(e, b); err != nil {
				b.Close()
				return err
			}
		}
	}
	return e.CommitSync(b, 0, done)
}

// stageMetaRecovery raises what the meta shard hands out, above all that it may have
// handed out without this replica knowing of it.
func stageMetaRecovery(e *storage.Engine, b *storage.Batch) error {
	v := e.NewView()
	defer v.Close()
	get := func(key []byte) ([]byte, error) {
		value, _, _, err := v.Get(key, shard.MaxRevision)
		return slices.Clone(value), err
	}
	counters, err := catalog.RecoveredCounters(get)
	if err != nil {
		return fmt.Errorf("the meta shard's counters: %w", err)
	}
	for _, w := range counters {
		b.PutUnversioned(w.Key, w.Value)
	}
	bound, err := get(revision.BoundKey())
	if err != nil {
		return err
	}
	var last uint64
	if len(bound) == 8 {
		last = binary.BigEndian.Uint64(bound)
	}
	replicas, err := e.Replicas()
	if err != nil {
		return err
	}
	for _, r := range replicas {
		state, _, err := e.ReplicaState(r.Shard)
		if err != nil {
			return err
		}
		last = max(last, uint64(state.LastRevision))
	}
	b.PutUnversioned(revision.BoundKey(), binary.BigEndian.AppendUint64(nil, last+recoveredRevisions))
	return nil
}
