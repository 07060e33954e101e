package raftgroup

import (
	"bytes"
	"errors"
	"log/slog"
	"reflect"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

func quietLogger() raft.Logger { return raftLogger{log: slog.New(slog.DiscardHandler)} }

func sampleMessages() []raftpb.Message {
	return []raftpb.Message{
		{Type: raftpb.MsgHeartbeat, From: 1, To: 2, Term: 7, Commit: 300, Context: bytes.Repeat([]byte{9}, 24)},
		{Type: raftpb.MsgHeartbeatResp, From: 2, To: 1, Term: 7},
		{Type: raftpb.MsgApp, From: 1, To: 2, Term: 7, LogTerm: 6, Index: 1000, Commit: 990, Entries: []raftpb.Entry{
			{Type: raftpb.EntryNormal, Term: 6, Index: 1001, Data: []byte("one")},
			{Type: raftpb.EntryConfChangeV2, Term: 7, Index: 1002, Data: bytes.Repeat([]byte("x"), 300)},
			{Type: raftpb.EntryNormal, Term: 7, Index: 1003},
		}},
		{Type: raftpb.MsgAppResp, From: 2, To: 1, Term: 7, Index: 1003, Reject: true, RejectHint: 900, LogTerm: 5},
		{Type: raftpb.MsgVote, From: 3, To: 2, Term: 8, Index: 1003, LogTerm: 7, Context: []byte("CampaignTransfer")},
		{Type: raftpb.MsgPreVoteResp, From: 2, To: 3, Term: 9},
		{Type: raftpb.MsgTimeoutNow, From: 2, To: 3, Term: 9},
		{Type: raftpb.MsgSnap, From: 2, To: 3, Term: 9, Snapshot: &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: 50, Term: 4,
			ConfState: raftpb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1, 4}, Learners: []uint64{3}, LearnersNext: []uint64{4}}}}},
	}
}

func TestMessagesTravelUnchanged(t *testing.T) {
	var frame []byte
	startKeys := [][]byte{nil, []byte("\x02start")}
	for i, m := range sampleMessages() {
		size, before := messageBytes(shard.ID(300+i), startKeys[i%2], &m), len(frame)
		frame = appendMessage(frame, shard.ID(300+i), startKeys[i%2], &m, size)
		if got := len(frame) - before - uvarintBytes(uint64(size)); got != size {
			t.Errorf("%v: %d bytes, announced %d", m.Type, got, size)
		}
	}
	for i, want := range sampleMessages() {
		e, rest, err := nextMessage(frame)
		if err != nil {
			t.Fatal(err)
		}
		if e.shard != shard.ID(300+i) || uint64(e.from) != want.From || uint64(e.to) != want.To || !reflect.DeepEqual(e.msg, want) || !bytes.Equal(e.startKey, startKeys[i%2]) {
			t.Errorf("message %d came as %+v, want %+v", i, e, want)
		}
		frame = rest
	}
	if len(frame) != 0 {
		t.Errorf("%d bytes left", len(frame))
	}
}

func TestDecodedMessageDoesNotAliasFrame(t *testing.T) {
	m := sampleMessages()[2]
	frame := appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))
	e, _, err := nextMessage(frame)
	if err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if !reflect.DeepEqual(e.msg, sampleMessages()[2]) {
		t.Error("the message changed with its frame")
	}
}

// Every cut and every type that must not travel is refused.
func TestMalformedMessagesAreRefused(t *testing.T) {
	for _, m := range sampleMessages() {
		frame := appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))
		for cut := range len(frame) {
			if _, _, err := nextMessage(frame[:cut]); !errors.Is(err, shard.ErrMalformed) {
				t.Errorf("%v cut to %d of %d bytes: %v", m.Type, cut, len(frame), err)
			}
		}
	}
	for _, typ := range []raftpb.MessageType{raftpb.MsgHup, raftpb.MsgProp, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp,
		raftpb.MsgStorageAppend, raftpb.MsgStorageAppendResp, raftpb.MsgStorageApply, raftpb.MsgTransferLeader, 99} {
		m := raftpb.Message{Type: typ, From: 1, To: 2, Term: 3}
		if _, _, err := nextMessage(appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%v: %v", typ, err)
		}
	}
	for name, m := range map[string]raftpb.Message{
		"term 0":             {Type: raftpb.MsgHeartbeat, From: 1, To: 2},
		"to itself":          {Type: raftpb.MsgHeartbeat, From: 2, To: 2, Term: 1},
		"from nobody":        {Type: raftpb.MsgHeartbeat, To: 2, Term: 1},
		"entries decreasing": {Type: raftpb.MsgApp, From: 1, To: 2, Term: 5, LogTerm: 4, Entries: []raftpb.Entry{{Term: 3}}},
		"entries ahead":      {Type: raftpb.MsgApp, From: 1, To: 2, Term: 5, LogTerm: 4, Entries: []raftpb.Entry{{Term: 6}}},
		"entries elsewhere":  {Type: raftpb.MsgHeartbeat, From: 1, To: 2, Term: 5, Entries: []raftpb.Entry{{Term: 5}}},
		"huge index":         {Type: raftpb.MsgApp, From: 1, To: 2, Term: 5, Index: 1 << 63},
		"snapshot elsewhere": {Type: raftpb.MsgApp, From: 1, To: 2, Term: 5, Snapshot: &raftpb.Snapshot{}},
		"no snapshot":        {Type: raftpb.MsgSnap, From: 1, To: 2, Term: 5},
	} {
		if _, _, err := nextMessage(appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Notices and questions about removals share frames with messages.
func TestRemovalsTravel(t *testing.T) {
	m := sampleMessages()[0]
	frame := appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m))
	frame = appendRemoved(frame, 1<<40, 300, 301)
	frame = appendAsk(frame, 6, 7)
	var got []envelope
	for rest := frame; len(rest) > 0; {
		e, r, err := nextMessage(rest)
		if err != nil {
			t.Fatal(err)
		}
		got, rest = append(got, e), r
	}
	if len(got) != 3 || !got[0].raft() || got[1].raft() || got[2].raft() {
		t.Fatalf("%+v", got)
	}
	if e := got[1]; e.shard != 1<<40 || e.to != 300 || e.next != 301 || e.ask {
		t.Errorf("%+v", e)
	}
	if e := got[2]; e.shard != 6 || e.from != 7 || e.next != 0 || !e.ask {
		t.Errorf("%+v", e)
	}
	for name, b := range map[string][]byte{
		"removed and not passed": appendRemoved(nil, 5, 7, 7),
		"no replica":             appendRemoved(nil, 5, 0, 7),
		"no shard":               appendRemoved(nil, 0, 6, 7),
		"a huge replica":         appendRemoved(nil, 5, 6, 1<<63),
		"nobody asks":            appendAsk(nil, 5, 0),
		"asks for no shard":      appendAsk(nil, 0, 5),
		"two flags":              {4, flagAsk | flagRemoved, 5, 6, 7},
		"too long":               {4, flagAsk, 5, 6, 7},
		"too short":              {2, flagAsk, 5},
		"nothing":                {1, flagRemoved},
	} {
		if _, _, err := nextMessage(b); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(appendMessage(nil, 5, nil, &m, messageBytes(5, nil, &m)))
	}
	f.Add(appendNote(nil, []byte("note")))
	f.Add(appendRemoved(nil, 300, 7, 1<<40))
	f.Add(appendAsk(nil, 300, 7))
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, rest, err := nextMessage(frame)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if len(rest) >= len(frame) {
			t.Fatal("nothing was consumed")
		}
		// What decodes encodes to something that decodes to the same.
		var again []byte
		switch {
		case e.note != nil:
			again = appendNote(nil, e.note)
		case e.next != 0:
			again = appendRemoved(nil, e.shard, e.to, e.next)
		case e.ask:
			again = appendAsk(nil, e.shard, e.from)
		default:
			again = appendMessage(nil, e.shard, e.startKey, &e.msg, messageBytes(e.shard, e.startKey, &e.msg))
		}
		if e.next != 0 || e.ask {
			if len(again) > removalBytesMax {
				t.Fatalf("%d bytes", len(again))
			}
		}
		e2, _, err := nextMessage(again)
		e.bytes, e2.bytes = 0, 0
		if err != nil || !reflect.DeepEqual(e, e2) {
			t.Fatalf("%+v became %+v, error %v", e, e2, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte{entryFormat})
	f.Add(appendOperation([]byte{entryFormat}, &Proposal{Header: []byte("a"), Body: []byte("bc")}))
	f.Add([]byte{2, 1, 1})
	f.Add([]byte{entryFormat, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		ops, err := openEntry(data)
		for err == nil && ops.more() {
			_, err = ops.next()
		}
		if err != nil && !errors.Is(err, shard.ErrMalformed) {
			t.Fatal(err)
		}
	})
}

func TestOperationsArePackedAndUnpacked(t *testing.T) {
	data := []byte{entryFormat}
	var want [][]byte
	for _, n := range []int{0, 1, 127, 128, 70_000} {
		p := &Proposal{Header: []byte("h"), Body: bytes.Repeat([]byte("b"), n)}
		data = appendOperation(data, p)
		want = append(want, append([]byte("h"), p.Body...))
		if got := len(appendOperation(nil, p)); got != operationBytes(p) {
			t.Errorf("%d bytes, announced %d", got, operationBytes(p))
		}
	}
	ops, err := openEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		var op []byte
		if op, err = ops.next(); err != nil || !bytes.Equal(op, w) {
			t.Fatalf("%d bytes, want %d; error %v", len(op), len(w), err)
		}
	}
	if ops.more() {
		t.Error("more operations than were packed")
	}
}
