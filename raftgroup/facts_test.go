package raftgroup

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Facts about raft v3.6.0 that this package relies on. An upgrade that changes
// one of them must be noticed here, and not by a lost write.

func factNode(t *testing.T, id uint64, st *raft.MemoryStorage, applied uint64) *raft.RawNode {
	t.Helper()
	rn, err := raft.NewRawNode(&raft.Config{ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: st, Applied: applied,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16, AsyncStorageWrites: true, PreVote: true, CheckQuorum: true,
		StepDownOnRemoval: true, DisableProposalForwarding: true, Logger: quietLogger()})
	if err != nil {
		t.Fatal(err)
	}
	return rn
}

func factStorage(t *testing.T, term, commit uint64, voters ...uint64) *raft.MemoryStorage {
	t.Helper()
	st := raft.NewMemoryStorage()
	if err := st.ApplySnapshot(raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: 10, Term: 5,
		ConfState: raftpb.ConfState{Voters: voters}}}); err != nil {
		t.Fatal(err)
	}
	if err := st.SetHardState(raftpb.HardState{Term: term, Commit: commit}); err != nil {
		t.Fatal(err)
	}
	return st
}

// lead makes a lone voter the leader, stepping responses at once.
func lead(t *testing.T, rn *raft.RawNode, st *raft.MemoryStorage) {
	t.Helper()
	if err := rn.Campaign(); err != nil {
		t.Fatal(err)
	}
	for i := 0; rn.BasicStatus().RaftState != raft.StateLeader; i++ {
		if i == 10 {
			t.Fatal("a lone voter does not get elected")
		}
		for _, m := range rn.Ready().Messages {
			for _, r := range m.Responses {
				_ = rn.Step(r)
			}
		}
	}
}

func typesOf(ms []raftpb.Message) (now, responses map[raftpb.MessageType]int) {
	now, responses = map[raftpb.MessageType]int{}, map[raftpb.MessageType]int{}
	for _, m := range ms {
		now[m.Type]++
		for _, r := range m.Responses {
			responses[r.Type]++
		}
	}
	return now, responses
}

// A replica that is never ticked refuses votes once it has heard a leader. So
// uninitialized replicas are ticked.
func TestFactUntickedReplicaRefusesVotes(t *testing.T) {
	for _, ticked := range []bool{false, true} {
		rn := factNode(t, 3, raft.NewMemoryStorage(), 0)
		_ = rn.Step(raftpb.Message{Type: raftpb.MsgHeartbeat, From: 1, To: 3, Term: 5})
		if ticked {
			for range 20 {
				rn.Tick()
			}
		}
		_ = rn.Step(raftpb.Message{Type: raftpb.MsgVote, From: 2, To: 3, Term: 6, Index: 20, LogTerm: 5})
		if st := rn.BasicStatus(); (st.Vote == 2) != ticked {
			t.Errorf("ticked %v: vote %d in term %d", ticked, st.Vote, st.Term)
		}
	}
}

// Without a configuration a replica never campaigns, however long it is ticked.
func TestFactUninitializedReplicaDoesNotCampaign(t *testing.T) {
	rn := factNode(t, 3, raft.NewMemoryStorage(), 0)
	for range 200 {
		rn.Tick()
	}
	_ = rn.Campaign()
	if st := rn.BasicStatus(); st.RaftState != raft.StateFollower || rn.HasReady() {
		t.Errorf("state %v in term %d", st.RaftState, st.Term)
	}
}

// A follower forwards MsgReadIndex, and believes the answer, although proposals
// are not forwarded. So neither is ever taken from the network, and ReadIndex
// is stepped only while leading.
func TestFactFollowerForwardsReadIndex(t *testing.T) {
	rn := factNode(t, 3, factStorage(t, 5, 10, 1, 2, 3), 10)
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgHeartbeat, From: 1, To: 3, Term: 6, Commit: 10})
	rn.ReadIndex([]byte("ctx"))
	if now, _ := typesOf(rn.Ready().Messages); now[raftpb.MsgReadIndex] != 1 {
		t.Errorf("messages %v", now)
	}
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgReadIndexResp, From: 1, To: 3, Term: 6, Index: 10,
		Entries: []raftpb.Entry{{Data: []byte("ctx")}}})
	if rs := rn.Ready().ReadStates; len(rs) != 1 {
		t.Errorf("read states %v", rs)
	}
	if err := rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: 3, Entries: []raftpb.Entry{{Data: []byte("x")}}}); err != raft.ErrProposalDropped {
		t.Errorf("a follower's proposal: %v", err)
	}
	if travels(raftpb.MsgReadIndex) || travels(raftpb.MsgReadIndexResp) || travels(raftpb.MsgProp) {
		t.Error("a message that must not travel does")
	}
}

// After a restart a lone voter answers ReadIndex with a commit index below
// entries that it had acknowledged. So reads wait for an applied entry of the
// current term.
func TestFactLoneVoterReadIndexIsOld(t *testing.T) {
	st := factStorage(t, 6, 10, 1)
	_ = st.Append([]raftpb.Entry{{Index: 11, Term: 6}, {Index: 12, Term: 6, Data: []byte("acknowledged")}})
	rn := factNode(t, 1, st, 10)
	lead(t, rn, st)
	rn.ReadIndex([]byte("r"))
	if rs := rn.Ready().ReadStates; len(rs) != 1 || rs[0].Index != 10 {
		t.Errorf("read states %v", rs)
	}
}

// A refused conf change becomes an empty normal entry in the caller's own slice,
// which also learns index and term.
func TestFactRefusedConfChangeShowsInSlice(t *testing.T) {
	st := factStorage(t, 5, 10, 1)
	rn := factNode(t, 1, st, 10)
	lead(t, rn, st)
	cc := raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode, NodeID: 2}}}
	data, _ := cc.Marshal()
	for i, want := range []raftpb.EntryType{raftpb.EntryConfChangeV2, raftpb.EntryNormal} {
		entries := []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Data: data}}
		err := rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: 1, Entries: entries})
		// The second is refused: the first is not applied.
		if e := entries[0]; err != nil || e.Type != want || e.Index != uint64(12+i) || e.Term != 6 {
			t.Errorf("entry %+v, error %v", e, err)
		}
	}
}

// A conf change that is refused at apply is simply not passed to
// ApplyConfChange; an empty one would leave the joint configuration, with or
// without a context. A pending index that is applied does not block the next.
func TestFactEmptyConfChangeLeavesJoint(t *testing.T) {
	cc := raftpb.ConfChangeV2{Context: []byte("refused")}
	if !cc.LeaveJoint() {
		t.Error("an empty conf change with a context does not leave")
	}
	one := raftpb.ConfChangeV2{Transition: raftpb.ConfChangeTransitionJointExplicit,
		Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode, NodeID: 2}}}
	if auto, joint := one.EnterJoint(); auto || !joint {
		t.Errorf("one explicit change: joint %v, leaves by itself %v", joint, auto)
	}
}

// Acknowledgements of appends and votes are only in MsgStorageAppend's
// responses; heartbeat responses leave at once.
func TestFactWhatWaitsForSync(t *testing.T) {
	rn := factNode(t, 3, factStorage(t, 5, 10, 1, 2, 3), 10)
	step := func(m raftpb.Message) (now, responses map[raftpb.MessageType]int) {
		m.To = 3
		_ = rn.Step(m)
		return typesOf(rn.Ready().Messages)
	}
	now, later := step(raftpb.Message{Type: raftpb.MsgVote, From: 2, Term: 6, Index: 10, LogTerm: 5})
	if now[raftpb.MsgVoteResp] != 0 || later[raftpb.MsgVoteResp] != 1 {
		t.Errorf("vote: now %v, after the sync %v", now, later)
	}
	// A repeated request is answered again although there is nothing to write.
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgVote, From: 2, To: 3, Term: 6, Index: 10, LogTerm: 5})
	rd := rn.Ready()
	if now, later = typesOf(rd.Messages); later[raftpb.MsgVoteResp] != 1 || !raft.IsEmptyHardState(rd.HardState) {
		t.Errorf("repeated vote: now %v, after the sync %v, hard state %v", now, later, rd.HardState)
	}
	now, later = step(raftpb.Message{Type: raftpb.MsgApp, From: 2, Term: 6, Index: 10, LogTerm: 5,
		Entries: []raftpb.Entry{{Index: 11, Term: 6}}})
	if now[raftpb.MsgAppResp] != 0 || later[raftpb.MsgAppResp] != 1 || later[raftpb.MsgStorageAppendResp] != 1 {
		t.Errorf("append: now %v, after the sync %v", now, later)
	}
	now, _ = step(raftpb.Message{Type: raftpb.MsgHeartbeat, From: 2, Term: 6})
	if now[raftpb.MsgHeartbeatResp] != 1 {
		t.Errorf("heartbeat: now %v", now)
	}
}

// Entries are handed out to apply only once they are stable here.
func TestFactAppliesOnlyStableEntries(t *testing.T) {
	st := factStorage(t, 5, 10, 1, 2, 3)
	rn := factNode(t, 3, st, 10)
	entries := []raftpb.Entry{{Index: 11, Term: 6, Data: []byte("x")}}
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 3, Term: 6, Index: 10, LogTerm: 5, Commit: 11, Entries: entries})
	rd := rn.Ready()
	if len(rd.CommittedEntries) != 0 {
		t.Errorf("%d committed entries before they are stable", len(rd.CommittedEntries))
	}
	_ = st.Append(entries)
	for _, m := range rd.Messages {
		for _, r := range m.Responses {
			if r.Type == raftpb.MsgStorageAppendResp {
				_ = rn.Step(r)
			}
		}
	}
	if rd = rn.Ready(); len(rd.CommittedEntries) != 1 {
		t.Errorf("%d committed entries when they are stable", len(rd.CommittedEntries))
	}
}

// A leader's appends leave at once, and raft never sends them to itself.
func TestFactLeaderAppendsLeaveAtOnce(t *testing.T) {
	st := factStorage(t, 5, 10, 1)
	rn := factNode(t, 1, st, 10)
	lead(t, rn, st)
	for range 5 {
		for _, m := range rn.Ready().Messages {
			if m.Type == raftpb.MsgStorageAppend {
				_ = st.Append(m.Entries)
			}
			for _, r := range m.Responses {
				_ = rn.Step(r)
			}
		}
	}
	rn.ApplyConfChange(raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode, NodeID: 2}}})
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgAppResp, From: 2, To: 1, Term: 6, Index: 11})
	_ = rn.Ready()
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgProp, From: 1, Entries: []raftpb.Entry{{Data: []byte("x")}}})
	now, later := typesOf(rn.Ready().Messages)
	if now[raftpb.MsgApp] != 1 || later[raftpb.MsgAppResp] != 1 {
		t.Errorf("now %v, after the sync %v", now, later)
	}
}

// A reset drops reads without a word.
func TestFactResetForgetsReads(t *testing.T) {
	st := factStorage(t, 5, 10, 1)
	rn := factNode(t, 1, st, 10)
	lead(t, rn, st)
	rn.ApplyConfChange(raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode, NodeID: 2}}})
	_ = rn.Ready()
	rn.ReadIndex([]byte("r"))
	_ = rn.Step(raftpb.Message{Type: raftpb.MsgHeartbeat, From: 2, To: 1, Term: 9})
	for rn.HasReady() {
		if rd := rn.Ready(); len(rd.ReadStates) > 0 {
			t.Errorf("read states %v", rd.ReadStates)
		}
	}
}
