package raftgrouptest

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Tail is entries that follow the last one of a log, all of one term.
type Tail struct {
	log     *storage.Log
	term    uint64
	next    uint64
	entries []raftpb.Entry
	err     error
}

// NewTail begins behind a log's last entry.
func NewTail(log *storage.Log, term uint64) *Tail {
	last, err := log.LastIndex()
	return &Tail{log: log, term: term, next: last + 1, err: err}
}

func (t *Tail) add(kind raftpb.EntryType, data []byte) {
	t.entries = append(t.entries, raftpb.Entry{Type: kind, Term: t.term, Index: t.next, Data: data})
	t.next++
}

// Operations adds an entry with operations; without any it is a leader's first.
func (t *Tail) Operations(ops ...[]byte) {
	var data []byte
	if len(ops) > 0 {
		data = append(data, 1) // the entry format
	}
	for _, op := range ops {
		data = append(binary.AppendUvarint(data, uint64(len(op))), op...)
	}
	t.add(raftpb.EntryNormal, data)
}

// Membership adds the entry of a membership change.
func (t *Tail) Membership(m *shard.MembershipChange) {
	cc := raftpb.ConfChangeV2{Context: shard.AppendMembershipChange(nil, m)}
	data, err := cc.Marshal()
	if err != nil && t.err == nil {
		t.err = err
	}
	t.add(raftpb.EntryConfChangeV2, data)
}

// Stage stages the entries, and that all up to commit are known to be committed.
func (t *Tail) Stage(b *storage.Batch, commit uint64) error {
	if len(t.entries) > 0 {
		t.log.Append(b, t.entries)
	}
	t.log.SetHardState(b, raftpb.HardState{Term: t.term, Commit: commit})
	return t.err
}
