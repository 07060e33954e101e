package raftgroup

import (
	"cmp"
	"errors"
	"slices"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// A replica is removed only by proof that holds for ever: IDs are given in ascending
// order and never twice, so that
//
//   - an applied descriptor whose next replica ID exceeds the replica's, and that
//     does not list it, says that no later one will (shard.Descriptor.Removed). The
//     replica finds it in its own state, or a member tells it;
//   - a message to a higher replica ID of the shard on this node says that the shard has
//     given one to it, which it does only where it has none.
//
// The leader that applies a removal tells the replica. That may be lost, and a learner
// without a leader says nothing that anybody could answer; so members answer whatever
// a removed replica sends, and a replica that hears of no leader asks (ask.go).

// ErrRemoved: the replica was removed from its shard. Its tombstone keeps it from
// coming back.
var ErrRemoved = errors.New("the replica was removed from its shard")

// proof is what a group's applied descriptor proves of removals. Immutable.
type proof struct {
	next    shard.ReplicaID
	members []Member
}

func (p *proof) covers(id shard.ReplicaID) bool {
	return p != nil && id < p.next && !slices.ContainsFunc(p.members, func(m Member) bool { return m.ID == id })
}

// follows is the lowest ID that may follow a removed replica on its node. The shard may
// have given the node a later one already, which the tombstone must not forbid.
func (p *proof) follows(node shard.NodeID) shard.ReplicaID {
	for _, m := range p.members {
		if m.Node == node {
			return m.ID
		}
	}
	return p.next
}

// publishProof makes known what the descriptor proves, of this replica too.
func (g *Group) publishProof() *proof {
	d := g.machine.Descriptor()
	if d == nil {
		return nil
	}
	p := &proof{next: d.NextReplica, members: slices.Clone(d.Replicas)}
	g.proof.Store(p)
	if p.covers(g.replica) { // it is the group's turn: its end looks for this
		g.box.mu.Lock()
		g.box.removed.Store(max(uint64(p.follows(g.h.cfg.Node)), g.box.removed.Load()))
		g.box.mu.Unlock()
	}
	return p
}

// noticesPerTickMax bounds the notices of removal that a host sends in one tick. A
// group sends one. Who missed his will ask again.
const noticesPerTickMax = 256

// tellRemoved tells whether a replica was removed, and if so tells it too. Safe
// outside the turn.
func (g *Group) tellRemoved(id shard.ReplicaID, node shard.NodeID) bool {
	p := g.proof.Load()
	if !p.covers(id) {
		return false
	}
	if tick := g.h.ticks.Load() + 1; g.told.Swap(tick) != tick && g.h.notices.Add(1) <= noticesPerTickMax {
		g.notifyRemoved(id, node, p.follows(node))
	}
	return true
}

func (g *Group) notifyRemoved(id shard.ReplicaID, node shard.NodeID, next shard.ReplicaID) {
	if planted.On(planted.RemovedReplicaNotTold) {
		return
	}
	g.h.stats.notices.Add(1)
	g.h.transport.Send(node, removalBytesMax, func(frame []byte) []byte { return appendRemoved(frame, g.shard, id, next) })
}

// pushRemoved hands the group the proof that its replica was removed: next is the lowest
// ID that may be here. Also a stopped replica is removed. Safe outside the turn.
func (g *Group) pushRemoved(next shard.ReplicaID) {
	if next <= g.replica {
		return
	}
	g.box.mu.Lock()
	if uint64(next) <= g.box.removed.Load() {
		g.box.mu.Unlock()
		return
	}
	g.box.removed.Store(uint64(next))
	g.unlockAndWake()
}

// removed is the lowest ID that may follow this replica; 0: it is not known to be removed.
func (g *Group) removed() shard.ReplicaID {
	if g.gone.Load() {
		return 0
	}
	return shard.ReplicaID(g.box.removed.Load())
}

// remove ends a removed replica: it stops, and one batch puts a tombstone in the place
// of its records, log and data. The batch needs no sync: what comes of the shard
// next is behind it in the WAL, and a replica that a crash brings back is as it was
// before and will be told again.
//
// Invariant: it runs at the start of a turn, when all that earlier turns have staged
// is committed, and no snapshot is being installed.
func (g *Group) remove(next shard.ReplicaID) {
	h := g.h
	if g.dead == nil { // else it was told so before
		g.stop(ErrRemoved, &shard.WrongShardError{Shard: g.shard})
		g.machine.Stopped(ErrRemoved)
	}
	if h.erase(g, next) {
		h.log.Info("a replica was removed", "shard", uint64(g.shard), "replica", uint64(g.replica), "next", uint64(next))
		g.machine.Removed()
		h.stats.replicasRemoved.Add(1)
	}
}

// erase puts the tombstone in the place of a stopped replica, and forgets its group. false:
// not now, because a split is about to write a state for the replica, or not before the
// next start.
func (h *Host) erase(g *Group, next shard.ReplicaID) bool {
	h.createMu.Lock()
	defer h.createMu.Unlock()
	if h.claims[g.shard] {
		return false // the next turn is in another round
	}
	g.gone.Store(true) // responses that still wait for a sync are not sent
	b := h.engine.NewBatch()
	if err := h.engine.StageRemoval(b, g.shard, next); err != nil {
		b.Close()
		h.log.Error("a removed replica's data cannot be deleted", "shard", uint64(g.shard), "replica", uint64(g.replica), "error", err)
		return false // it stays stopped, and is tried again after the next start
	}
	if h.engine.Commit(b) != nil {
		return false // the engine has failed and said so
	}
	h.forget(g)
	return true
}

// forget makes room for a later replica of the group's shard. The tombstone is visible
// by now to whoever comes to make one.
func (h *Host) forget(g *Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.groups, g.shard)
	if !g.initialized {
		h.uninitialized--
	}
	all := *h.sorted.Load()
	at, ok := slices.BinarySearchFunc(all, g.shard, func(g *Group, id shard.ID) int { return cmp.Compare(g.shard, id) })
	if !ok || all[at] != g {
		panic("raftgroup: a removed group is not among the host's")
	}
	next := slices.Delete(slices.Clone(all), at, at+1)
	h.sorted.Store(&next)
}

// forbidden tells whether a tombstone keeps a replica from being here.
func (h *Host) forbidden(id shard.ID, replica shard.ReplicaID) (bool, error) {
	t, found, err := h.engine.Tombstone(id)
	return found && replica < t.NextReplica, err
}
