package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A shard that splits off another one is born on each node by itself, when that node
// applies the split: one batch has both descriptors and the new replica's initial state.
// The data is there already. Three things may be in the way of the new replica:
//
//   - It is there. The nodes that applied the split before have elected a leader of the
//     new shard, whose messages have created the replica here, without a state. It may
//     have voted, so its {term, vote} stay as they are; only the state is written. It
//     takes that in at the start of its own next turn.
//   - It was there, and is not to come back: a tombstone, or a replica with a higher ID,
//     says that the new shard has removed it since. Then nobody here covers the right
//     side of the split, and its data goes. The later replica gets a snapshot.
//   - This replica is no member any more, as the log says before the split. Likewise.
//
// What is found must stay so until the batch is committed, and its group, pinned to
// another worker perhaps, is not asked to wait: a claim on the new shard keeps groups of it
// from being created and from being removed. It is held within one round.
//
// Invariant: a store has a state for at most one of the shards that overlap. While the
// parent covers the span no snapshot of the new shard is taken (Config.ReserveSpan), so
// its replica here, if there is one, has no state before the split is applied.

// birth is a replica of a new shard, from the apply of the split until its group has it.
type birth struct {
	id      shard.ID
	replica shard.ReplicaID
	here    *Group // was created by a message; nil: is to be made
}

// stageBirth stages what becomes of the right side of a split on this node.
func (g *Group) stageBirth(b *storage.Batch, w *applyWork, state *storage.ReplicaState) error {
	h, d := g.h, &state.Descriptor
	m, member := d.ReplicaOn(h.cfg.Node)
	if !member {
		b.DeleteSpan(d.Span)
		return nil
	}
	h.createMu.Lock()
	defer h.createMu.Unlock()
	lowest, initialized, err := h.engine.Claims(d.ID)
	if err != nil {
		return err
	}
	here, found := h.Group(d.ID)
	switch {
	case initialized || found && here.replica < m.ID || h.claims[d.ID]:
		return fmt.Errorf("%w: shard %d splits off shard %d and has a replica here already", shard.ErrMalformed, d.ID, g.shard)
	case (lowest > m.ID || found && here.replica > m.ID) && !planted.On(planted.BirthIgnoresLater):
		b.DeleteSpan(d.Span)
		return nil
	}
	h.claims[d.ID] = !planted.On(planted.BirthWithoutClaim)
	b.PutBornReplica(m.ID, state)
	w.births = append(w.births, birth{id: d.ID, replica: m.ID, here: here})
	return nil
}

// abandonBirths gives up the claims of births that are not committed.
func (h *Host) abandonBirths(births []birth) {
	h.createMu.Lock()
	defer h.createMu.Unlock()
	for i := range births {
		delete(h.claims, births[i].id)
	}
}

// bear makes the groups of new shards, whose states are committed. The one on the node
// of the parent's leader stands for election at once: whoever wrote to the parent comes
// here next.
func (g *Group) bear(births []birth) {
	if len(births) == 0 {
		return
	}
	_, campaign := g.leads()
	h := g.h
	for i := range births {
		b := &births[i]
		h.createMu.Lock()
		delete(h.claims, b.id)
		born, err := b.here, error(nil)
		if born == nil {
			if born, err = h.createLocked(b.id, b.replica, true); err != nil {
				h.claims[b.id] = true // a message must not make a replica that knows nothing of its state
			}
		}
		h.createMu.Unlock()
		switch {
		case err != nil && h.closed.Load():
		case err != nil:
			h.log.Error("the replica of a new shard cannot be started, and will be with the next start of the node", "shard", uint64(b.id), "error", err)
		case b.here != nil:
			born.pushBorn(campaign)
		case campaign:
			born.Campaign()
		}
		h.stats.births.Add(1)
	}
}

// pushBorn tells a replica without a state that it has one now.
func (g *Group) pushBorn(campaign bool) {
	g.box.mu.Lock()
	g.box.born, g.box.campaign = true, campaign
	g.unlockAndWake()
}

// takeBorn tells whether the state that a split has written is to be taken in.
func (b *mailbox) takeBorn() (born, campaign bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	born, campaign = b.born, b.campaign
	b.born = false
	return born, campaign
}

// beBorn takes the state in. The RawNode is made anew from it and from the {term, vote}
// of this replica; what an earlier one still has under way is dropped by its instance.
func (g *Group) beBorn(campaign bool) {
	g.machine.InstallBegin()
	state, found, err := g.h.engine.ReplicaState(g.shard)
	if err == nil && !found {
		err = fmt.Errorf("%w: a split has written no state", shard.ErrMalformed)
	}
	if err == nil {
		g.log.Release()
		g.log, err = g.h.engine.OpenLog(g.shard, g.replica)
	}
	if err != nil {
		g.machine.InstallEnd(nil)
		g.fail(err)
		return
	}
	g.applied = Position{Index: state.Applied, Term: state.AppliedTerm}
	g.machine.InstallEnd(&state)
	g.loadPeers()
	if err := g.startRaft(); err != nil {
		g.fail(err)
		return
	}
	g.h.initialized(g)
	if campaign {
		_ = g.rn.Campaign()
	}
}

// birthTimeouts is for how many election timeouts a replica without a state waits for
// the split that will create it.
const birthTimeouts = 4

// awaitsBirth tells whether an append to a replica without a state is to be dropped: a
// replica of another shard on this node still covers the place where the sender's shard
// starts, so the split that creates this one is on its way. Answered, the append would
// bring a snapshot that nobody needs. Votes and heartbeats go on.
func (g *Group) awaitsBirth(m *incoming) bool {
	return len(m.startKey) > 0 && !g.initialized && g.clock <= birthTimeouts*uint64(g.h.cfg.ElectionTicks) &&
		g.h.cfg.Covers(g.shard, m.startKey)
}

// probeKey is the key that an append carries for awaitsBirth, if this leader has followers
// whose logs it does not know.
func (g *Group) probeKey() []byte {
	if d := g.machine.Descriptor(); g.probing && d != nil {
		return d.Span.Start
	}
	return nil
}

// lookForProbes is called with every tick. A new leader knows nobody's log.
func (g *Group) lookForProbes() {
	_, leads := g.leads()
	g.probing = !leads
	if leads {
		g.rn.WithProgress(func(_ uint64, _ raft.ProgressType, pr tracker.Progress) {
			g.probing = g.probing || pr.State != tracker.StateReplicate
		})
	}
}
