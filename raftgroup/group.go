package raftgroup

import (
	"fmt"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Group is one raft group on this node. Methods are safe for concurrent use and
// never block.
type Group struct {
	h       *Host
	w       *worker
	shard   shard.ID
	replica shard.ReplicaID

	box    mailbox
	status atomic.Pointer[Status]
	nodes  atomic.Pointer[[]peerNode] // where the peers are, for sends outside the turn
	// receiving is set while a snapshot for this group is under way, from its
	// first byte until it is installed or given up.
	receiving atomic.Bool
	// proof is what the applied descriptor proves of removals; told is the host's tick,
	// plus one, at which a replica was last told of its own. gone: this one was removed.
	proof atomic.Pointer[proof]
	told  atomic.Uint64
	gone  atomic.Bool
	// term is that of raft, stored before anything that speaks of it leaves.
	term atomic.Uint64

	// What follows belongs to the group's turn.

	machine  Machine
	log      *storage.Log
	rn       *raft.RawNode
	instance uint64 // of rn: responses to an earlier one are dropped
	dead     error  // why the group takes no further part
	parked   bool   // a large snapshot is being installed

	in         mail // taken, and not worked off if the turn stopped early
	applied    Position
	saved      raftpb.HardState // term and vote as last staged
	leadership Leadership       // as last reported
	published  uint64           // the clock when the status was last computed
	clock      uint64           // ticks

	peers []peer
	joint bool // the applied configuration is
	// jointSince is the clock from which on this leader might have left it.
	jointSince uint64
	handover   handover
	asking     asking

	// uncovered: term, vote or entries were staged, and no sync that was asked
	// for since covers them. cover is the last sync that was asked for after
	// staging such writes; nil: there were none.
	uncovered bool
	cover     *syncRecord

	probing    bool        // if it leads, it does not know all followers' logs
	waiting    []*Proposal // not proposed yet
	commitSeen uint64      // commit index of the last Ready
	pending    []pendingEntry
	conf       Position // of the last membership change that this replica has proposed

	reads    readState
	transfer *transfer

	outgoing []*outgoingSnapshot
	// candidate was stepped and is not accepted by raft yet; install is being
	// installed.
	candidate, install *receivedSnapshot
	initialized        bool
}

func newGroup(h *Host, id shard.ID, replica shard.ReplicaID, initialized bool) (*Group, error) {
	g := &Group{h: h, w: h.workers[uint64(id)%uint64(len(h.workers))], shard: id, replica: replica, initialized: initialized, probing: true}
	g.status.Store(&Status{Shard: id, Replica: replica})
	g.nodes.Store(&[]peerNode{})
	// Until create puts it into the run queue nobody else does: the machine is known
	// to others before the rest of the group is there.
	g.box.queued = true
	var state *storage.ReplicaState
	if initialized {
		s, ok, err := h.engine.ReplicaState(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%w: replica is initialized and has no state", shard.ErrMalformed)
		}
		state = &s
	}
	var err error
	if g.machine, err = h.cfg.NewMachine(g, state); err != nil {
		return nil, err
	}
	if g.log, err = h.engine.OpenLog(id, replica); err != nil {
		return nil, err
	}
	g.applied = g.machine.Applied()
	g.loadPeers()
	if err := g.startRaft(); err != nil {
		return nil, err
	}
	g.publishStatus()
	return g, nil
}

// startRaft makes the RawNode from what the log and the machine have.
func (g *Group) startRaft() error {
	hs, err := g.log.InitialState()
	if err != nil {
		return err
	}
	g.saved = hs
	g.instance++
	c := &g.h.cfg
	g.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(g.replica), Storage: raftStorage{Log: g.log, g: g}, Applied: g.applied.Index,
		ElectionTick: c.ElectionTicks, HeartbeatTick: c.HeartbeatTicks,
		AsyncStorageWrites: true, PreVote: true, CheckQuorum: true,
		StepDownOnRemoval: true, DisableProposalForwarding: true,
		ReadOnlyOption: raft.ReadOnlySafe,
		MaxSizePerMsg:  messageBytesMax, MaxInflightMsgs: inflightMessagesMax, MaxInflightBytes: inflightBytesMax,
		MaxCommittedSizePerReady:  committedBytesMax,
		MaxUncommittedEntriesSize: uint64(c.ProposalBytesMax),
		Logger:                    raftLogger{log: g.h.log, shard: g.shard, replica: g.replica},
	})
	if err != nil {
		return err
	}
	if err := g.firstElection(); err != nil {
		return err
	}
	g.publishTerm()
	return nil
}

// firstElection keeps the start of a node with thousands of groups short. A
// lone voter has nobody to wait for. Of several, one that all agree on stands
// first: its clock is ahead by nearly an election timeout, so that it acts
// within the next one at a random time, while the others wait theirs out. That
// avoids most split votes, spreads the elections over a timeout, and the
// leaders over the nodes. A leader that lives is not disturbed: the other
// replicas refuse pre-votes while they hear it.
func (g *Group) firstElection() error {
	var voters []shard.ReplicaID
	for _, p := range g.peers {
		if p.role.votes() {
			voters = append(voters, p.replica)
		}
	}
	if len(voters) == 0 || voters[uint64(g.shard)%uint64(len(voters))] != g.replica {
		return nil
	}
	if len(voters) == 1 {
		return g.rn.Campaign()
	}
	for range g.h.cfg.ElectionTicks - 1 { // raft's time-out is never shorter than this
		g.rn.Tick()
	}
	return nil
}

// Shard that the group serves.
func (g *Group) Shard() shard.ID { return g.shard }

// Replica of the shard that this node has.
func (g *Group) Replica() shard.ReplicaID { return g.replica }

// Term is a term such that this replica has neither voted nor stood for election
// in a later one, nor acknowledged a later leader, as far as anybody else can know.
// So what a quorum says of its terms at some moment shows that nobody had been
// elected in a later term by then.
func (g *Group) Term() uint64 { return g.term.Load() }

func (g *Group) publishTerm() {
	if term := g.rn.BasicStatus().Term; term != g.term.Load() {
		g.term.Store(term)
	}
}

// Campaign makes the replica stand for election at once. Nothing happens if it
// leads, is no voter, or has membership changes to apply.
func (g *Group) Campaign() {
	g.pushControl(control{run: func() { _ = g.rn.Campaign() }, abandon: func(error) {}})
}

// Turn calls run on the group's turn, or abandoned with the reason if the group has
// stopped before, which may be before Turn returns: one of them, once. While run
// runs nothing is applied and no snapshot is being installed; it may commit a small
// batch to the engine. Like every callback it must not block.
func (g *Group) Turn(run func(), abandoned func(error)) {
	g.pushControl(control{run: run, abandon: abandoned})
}

// raftStorage is the group's log as raft sees it.
type raftStorage struct {
	*storage.Log
	g *Group
}

func (s raftStorage) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	hs, err := s.Log.InitialState()
	return hs, confState(s.g.members()), err
}

func (s raftStorage) Snapshot() (raftpb.Snapshot, error) { return s.g.openSnapshot() }

var _ Receiver = (*Host)(nil)
