package raftgroup

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// A frame between nodes is a concatenation of messages, each preceded by its
// length. It is encoded by hand straight into the transport's buffer, and
// without raftpb: messages on the wire then have no field that a group could
// not use, and entries are contiguous by construction.
//
//	length    uvarint, of what follows
//	flags     byte: flagStartKey, or one of these alone:
//	          flagNote: a note's bytes follow instead
//	          flagRemoved: shard, replica that was removed, lowest replica that may follow it
//	          flagAsk: shard, replica that asks whether it was removed
//	shard, from replica, to replica   uvarints
//	start key length and bytes, if flagged: of appends that probe, and of snapshots
//	type      byte, raftpb's number
//	fields    byte: which of the optional fields follow; reject
//	term, log term, index, commit, reject hint   uvarints
//	context   length and bytes
//	entries   count, then type byte, term, data length and data of each;
//	          the first one's index is index+1
//	snapshot  index, term, and four lists: voters, outgoing, learners, learners next

const (
	flagStartKey byte = 1
	flagNote     byte = 2
	flagRemoved  byte = 4
	flagAsk      byte = 8

	fieldReject   byte = 1
	fieldContext  byte = 2
	fieldEntries  byte = 4
	fieldSnapshot byte = 8
	fieldsAll          = fieldReject | fieldContext | fieldEntries | fieldSnapshot

	// contextBytesMax bounds a message's context; raft's own and ours have at most 24.
	contextBytesMax = 64
	// noteBytesMax bounds a note.
	noteBytesMax = 256
	// membersMax bounds each list of a configuration.
	membersMax = 64
	// positionMax keeps arithmetic on indexes and terms from overflowing.
	positionMax = 1 << 62
)

// envelope is a message with its addresses.
type envelope struct {
	shard    shard.ID
	from, to shard.ReplicaID
	startKey []byte
	note     []byte // not nil: there is nothing else; aliases the frame
	// next is set in a notice that replica to was removed, and ask in a question of
	// replica from whether it was; there is nothing else then but the shard.
	next  shard.ReplicaID
	ask   bool
	msg   raftpb.Message
	bytes int64 // of memory, for the budget
}

// raft tells whether there is a message of raft.
func (e *envelope) raft() bool { return e.note == nil && e.next == 0 && !e.ask }

// travels tells which types may come over the network. Forwarded proposals and
// transfers are not used; MsgReadIndex and its response must not be: a deposed
// leader's read would be confirmed by its successor.
func travels(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp,
		raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgSnap,
		raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow:
		return true
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		return planted.On(planted.ReadIndexBySuccessor)
	}
	return false
}

func uvarintBytes(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// messageBytes is the encoded size of m without its length; startKey nil: none.
func messageBytes(id shard.ID, startKey []byte, m *raftpb.Message) int {
	n := 1 + uvarintBytes(uint64(id)) + uvarintBytes(m.From) + uvarintBytes(m.To) +
		2 + uvarintBytes(m.Term) + uvarintBytes(m.LogTerm) + uvarintBytes(m.Index) +
		uvarintBytes(m.Commit) + uvarintBytes(m.RejectHint)
	if len(startKey) > 0 {
		n += uvarintBytes(uint64(len(startKey))) + len(startKey)
	}
	if len(m.Context) > 0 {
		n += uvarintBytes(uint64(len(m.Context))) + len(m.Context)
	}
	if len(m.Entries) > 0 {
		n += uvarintBytes(uint64(len(m.Entries)))
		for i := range m.Entries {
			e := &m.Entries[i]
			n += 1 + uvarintBytes(e.Term) + uvarintBytes(uint64(len(e.Data))) + len(e.Data)
		}
	}
	if m.Snapshot != nil {
		md := &m.Snapshot.Metadata
		n += uvarintBytes(md.Index) + uvarintBytes(md.Term)
		for _, list := range confLists(&md.ConfState) {
			n += uvarintBytes(uint64(len(*list)))
			for _, v := range *list {
				n += uvarintBytes(v)
			}
		}
	}
	return n
}

func confLists(cs *raftpb.ConfState) [4]*[]uint64 {
	return [4]*[]uint64{&cs.Voters, &cs.VotersOutgoing, &cs.Learners, &cs.LearnersNext}
}

// appendMessage appends m, whose messageBytes are size, with its length.
func appendMessage(b []byte, id shard.ID, startKey []byte, m *raftpb.Message, size int) []byte {
	b = binary.AppendUvarint(b, uint64(size))
	var flags byte
	if len(startKey) > 0 {
		flags = flagStartKey
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(id))
	b = binary.AppendUvarint(b, m.From)
	b = binary.AppendUvarint(b, m.To)
	if len(startKey) > 0 {
		b = binary.AppendUvarint(b, uint64(len(startKey)))
		b = append(b, startKey...)
	}
	var fields byte
	if m.Reject {
		fields |= fieldReject
	}
	if len(m.Context) > 0 {
		fields |= fieldContext
	}
	if len(m.Entries) > 0 {
		fields |= fieldEntries
	}
	if m.Snapshot != nil {
		fields |= fieldSnapshot
	}
	b = append(b, byte(m.Type), fields)
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, m.LogTerm)
	b = binary.AppendUvarint(b, m.Index)
	b = binary.AppendUvarint(b, m.Commit)
	b = binary.AppendUvarint(b, m.RejectHint)
	if len(m.Context) > 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Context)))
		b = append(b, m.Context...)
	}
	if len(m.Entries) > 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Entries)))
		for i := range m.Entries {
			e := &m.Entries[i]
			b = append(b, byte(e.Type))
			b = binary.AppendUvarint(b, e.Term)
			b = binary.AppendUvarint(b, uint64(len(e.Data)))
			b = append(b, e.Data...)
		}
	}
	if m.Snapshot != nil {
		md := &m.Snapshot.Metadata
		b = binary.AppendUvarint(b, md.Index)
		b = binary.AppendUvarint(b, md.Term)
		for _, list := range confLists(&md.ConfState) {
			b = binary.AppendUvarint(b, uint64(len(*list)))
			for _, v := range *list {
				b = binary.AppendUvarint(b, v)
			}
		}
	}
	return b
}

// decoder reads one message. The first malformed field sets err, and every
// later read returns zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: raft message: %s", shard.ErrMalformed, fmt.Sprintf(format, args...))
		d.b = nil
	}
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("cut short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad varint")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) position() uint64 {
	v := d.uvarint()
	if v >= positionMax {
		d.fail("index or term %d", v)
		return 0
	}
	return v
}

func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) || n > uint64(limit) {
		d.fail("field of %d bytes, %d are left, the limit is %d", n, len(d.b), limit)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// appendNote appends a note with its length.
func appendNote(b, note []byte) []byte {
	b = binary.AppendUvarint(b, uint64(1+len(note)))
	b = append(b, flagNote)
	return append(b, note...)
}

// appendRemoved appends a notice of removal with its length.
func appendRemoved(b []byte, id shard.ID, replica, next shard.ReplicaID) []byte {
	b = binary.AppendUvarint(b, uint64(1+uvarintBytes(uint64(id))+uvarintBytes(uint64(replica))+uvarintBytes(uint64(next))))
	b = append(b, flagRemoved)
	b = binary.AppendUvarint(b, uint64(id))
	b = binary.AppendUvarint(b, uint64(replica))
	return binary.AppendUvarint(b, uint64(next))
}

// appendAsk appends a replica's question whether it was removed, with its length.
func appendAsk(b []byte, id shard.ID, replica shard.ReplicaID) []byte {
	b = binary.AppendUvarint(b, uint64(1+uvarintBytes(uint64(id))+uvarintBytes(uint64(replica))))
	b = append(b, flagAsk)
	b = binary.AppendUvarint(b, uint64(id))
	return binary.AppendUvarint(b, uint64(replica))
}

// removalBytesMax is what a notice or a question takes with its length.
const removalBytesMax = lengthBytesMax + 1 + 3*10

// nextMessage splits the first message off a frame and decodes it. The result
// shares no memory with the frame, but for a note.
func nextMessage(frame []byte) (e envelope, rest []byte, err error) {
	n, w := binary.Uvarint(frame)
	if w <= 0 || n > uint64(len(frame)-w) {
		return e, nil, fmt.Errorf("%w: raft message longer than its frame", shard.ErrMalformed)
	}
	rest = frame[w+int(n):]
	d := decoder{b: frame[w : w+int(n)]}
	d.envelope(&e)
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return e, rest, d.err
}

func (d *decoder) envelope(e *envelope) {
	flags := d.byte()
	if flags == flagNote {
		if len(d.b) == 0 || len(d.b) > noteBytesMax {
			d.fail("a note of %d bytes", len(d.b))
		}
		e.note, d.b = d.b, nil
		return
	}
	if flags == flagRemoved || flags == flagAsk {
		d.removal(e, flags == flagAsk)
		return
	}
	if flags&^flagStartKey != 0 {
		d.fail("flags %#x", flags)
	}
	e.shard = shard.ID(d.uvarint())
	e.from = shard.ReplicaID(d.uvarint())
	e.to = shard.ReplicaID(d.uvarint())
	if d.err == nil && (e.shard == 0 || e.from == 0 || e.to == 0 || e.from == e.to ||
		uint64(e.from) >= positionMax || uint64(e.to) >= positionMax) {
		d.fail("from replica %d to replica %d of shard %d", e.from, e.to, e.shard)
	}
	if flags&flagStartKey != 0 {
		e.startKey = append([]byte(nil), d.bytes(shard.KeyBytesMax+1)...)
	}
	m := &e.msg
	m.From, m.To = uint64(e.from), uint64(e.to)
	m.Type = raftpb.MessageType(d.byte())
	if d.err == nil && !travels(m.Type) {
		d.fail("type %d does not travel", m.Type)
	}
	fields := d.byte()
	if fields&^fieldsAll != 0 {
		d.fail("fields %#x", fields)
	}
	m.Reject = fields&fieldReject != 0
	m.Term, m.LogTerm, m.Index = d.position(), d.position(), d.position()
	m.Commit, m.RejectHint = d.position(), d.position()
	if d.err == nil && m.Term == 0 && m.Type != raftpb.MsgReadIndex {
		d.fail("term 0") // raft takes it for a local message
	}
	e.bytes = 128
	if fields&fieldContext != 0 {
		m.Context = append([]byte(nil), d.bytes(contextBytesMax)...)
	}
	if fields&fieldEntries != 0 {
		if m.Type != raftpb.MsgApp && m.Type != raftpb.MsgReadIndex && m.Type != raftpb.MsgReadIndexResp {
			d.fail("entries in a message of type %d", m.Type)
		}
		e.bytes += d.entries(m)
	}
	if (fields&fieldSnapshot != 0) != (m.Type == raftpb.MsgSnap) {
		d.fail("snapshot and type %d", m.Type)
	}
	if fields&fieldSnapshot != 0 && d.err == nil {
		d.snapshot(m)
	}
}

func (d *decoder) removal(e *envelope, ask bool) {
	e.shard, e.ask = shard.ID(d.uvarint()), ask
	replica := shard.ReplicaID(d.uvarint())
	if ask {
		e.from = replica
	} else {
		e.to, e.next = replica, shard.ReplicaID(d.uvarint())
	}
	if d.err == nil && (e.shard == 0 || replica == 0 || uint64(max(replica, e.next)) >= positionMax || !ask && e.next <= replica) {
		d.fail("replica %d of shard %d removed, or asks, with %d next", replica, e.shard, e.next)
	}
}

// entries copies all data into one piece of memory and returns its size.
func (d *decoder) entries(m *raftpb.Message) int64 {
	n := d.uvarint()
	if n == 0 || n > uint64(len(d.b)/3) { // an entry has at least three bytes
		d.fail("%d entries in %d bytes", n, len(d.b))
		return 0
	}
	entries := make([]raftpb.Entry, 0, min(n, 1024))
	total, term := 0, m.LogTerm
	for i := range n {
		e := raftpb.Entry{Type: raftpb.EntryType(d.byte()), Term: d.position(), Index: m.Index + 1 + i}
		e.Data = d.bytes(len(d.b))
		if d.err == nil && (e.Type != raftpb.EntryNormal && e.Type != raftpb.EntryConfChangeV2 || e.Term < term || e.Term > m.Term) {
			d.fail("entry of type %d and term %d", e.Type, e.Term)
		}
		if d.err != nil {
			return 0
		}
		term = e.Term
		total += len(e.Data)
		entries = append(entries, e)
	}
	arena := make([]byte, 0, total)
	for i := range entries {
		if e := &entries[i]; len(e.Data) > 0 {
			at := len(arena)
			arena = append(arena, e.Data...)
			e.Data = arena[at:len(arena):len(arena)]
		} else {
			e.Data = nil
		}
	}
	m.Entries = entries
	return int64(total) + 64*int64(len(entries))
}

func (d *decoder) snapshot(m *raftpb.Message) {
	s := &raftpb.Snapshot{}
	s.Metadata.Index, s.Metadata.Term = d.position(), d.position()
	for _, list := range confLists(&s.Metadata.ConfState) {
		n := d.uvarint()
		if n > membersMax {
			d.fail("%d members", n)
			return
		}
		for range n {
			*list = append(*list, d.uvarint())
		}
	}
	if d.err == nil && (s.Metadata.Index == 0 || s.Metadata.Term == 0 || s.Metadata.Term > m.Term) {
		d.fail("snapshot at index %d and term %d", s.Metadata.Index, s.Metadata.Term)
	}
	m.Snapshot = s
}
