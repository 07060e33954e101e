package shard

import "encoding/binary"

// Kind says what a command does. Kinds are never reused: they rest in logs.
type Kind byte

const (
	KindPut           Kind = 1 // Key, Value
	KindDelete        Kind = 2 // Key
	KindIncrement     Kind = 3 // Key, Delta; system keyspace only
	KindCompareAndPut Kind = 4 // Key, Expect or ExpectAbsent, Value or Remove; system keyspace only
	KindGet           Kind = 5 // Key, Revision
	KindScan          Kind = 6 // Start, End, Limit, Bytes, Reverse, KeysOnly, Revision
	KindBatch         Kind = 7 // Compares, Then, Else; user keyspace only
	// KindDeleteRange removes the first Limit keys that have a value in [Start,
	// End), at one revision; user keyspace only.
	KindDeleteRange Kind = 8
	KindDraw        Kind = 9 // Limit: how many revisions; served by the meta shard's leader

	// The rest is proposed by a shard's leader itself, and refused from outside.
	KindRaise Kind = 10 // the shard's last revision rises to that of the operation
	KindFloor Kind = 11 // Revision: the shard's floor rises to it
	// KindDigest has each replica compute a digest of its content as of the command's
	// place in the log; KindVerify, later, has each compare its own with the leader's.
	KindDigest Kind = 12
	KindVerify Kind = 13 // Digested, Applied, Value: the digest
	// KindSplit parts the shard in two at Key: ConfVersion, Right, RightKeys, RightBytes.
	// See Split.
	KindSplit Kind = 14
)

// Write tells whether commands of this kind go through the log.
func (k Kind) Write() bool {
	switch k {
	case KindPut, KindDelete, KindIncrement, KindCompareAndPut, KindBatch, KindDeleteRange, KindRaise, KindFloor, KindDigest, KindVerify, KindSplit:
		return true
	}
	return false
}

// Upkeep tells whether commands of this kind are proposed by a shard's leader for the
// shard itself: they write no keys.
func (k Kind) Upkeep() bool { return k >= KindRaise && k <= KindSplit }

// Spans tells whether commands of this kind are about [Start, End) instead of keys.
func (k Kind) Spans() bool { return k == KindScan || k == KindDeleteRange }

// OpID names an operation for ever: exactly-once rests on it. It is stored in
// the header of every version that the operation wrote.
type OpID struct {
	Session  Session
	Sequence uint64 // grows by one with each operation of a session
}

// Command is one decoded operation. The client encodes it once; the bytes
// travel unchanged through the server into the log. Byte slices alias the
// decoded input.
type Command struct {
	Kind Kind
	// Retry marks an attempt after the first.
	Retry bool
	Op    OpID
	// Birth is the newest revision that the session knew when it made the
	// operation: no version above it can be the operation's own.
	Birth Revision

	Key          []byte // full key, for all kinds but KindScan
	Value        []byte
	Delta        uint64
	Expect       []byte // KindCompareAndPut: the value that the key must have
	ExpectAbsent bool   // KindCompareAndPut: the key must have no value
	Remove       bool   // KindCompareAndPut: delete the key instead of writing Value

	Start, End []byte   // full keys, [Start, End)
	Limit      uint64   // rows; 0: as many as fit a page
	Bytes      uint64   // bytes of keys and values; 0: PageBytesMax
	Reverse    bool     // from End down to Start
	KeysOnly   bool     // rows without values
	Revision   Revision // 0: the latest state
	// AnyReplica: a read at a revision may be served by a follower whose last
	// revision is not below it. One that lags answers NotLeaderError.
	AnyReplica bool

	// Voter of a KindDraw is the asking node's replica of the meta shard, 0 if it
	// has none or will not confirm what it is given; see package revision.
	Voter ReplicaID

	// Of KindVerify: the index of the KindDigest, and what was applied in the view that
	// the leader's digest is of, which matters for keys without versions.
	Digested, Applied uint64

	// Of KindSplit: with the operation's epoch version, the exact epoch that it is for;
	// the new shard, and about how many keys and bytes of keys and values it gets.
	ConfVersion           uint64
	Right                 ID
	RightKeys, RightBytes uint64

	// Of KindBatch: if all Compares hold, Then is carried out, else Else.
	Compares   []Compare
	Then, Else []BatchOp
}

const (
	flagRetry    = 1 << 0
	flagReverse  = 1 << 1
	flagKeysOnly = 1 << 2
	flagAbsent   = 1 << 3
	flagRemove   = 1 << 4
	flagAny      = 1 << 5
	flagsKnown   = 1<<6 - 1
)

// MarkRetry marks an encoded command as an attempt after the first.
func MarkRetry(command []byte) { command[1] |= flagRetry }

// AppendCommand appends the encoding of c to b.
func AppendCommand(b []byte, c *Command) []byte {
	var flags byte
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{c.Retry, flagRetry}, {c.Reverse, flagReverse}, {c.KeysOnly, flagKeysOnly}, {c.ExpectAbsent, flagAbsent}, {c.Remove, flagRemove}, {c.AnyReplica, flagAny}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, byte(c.Kind), flags)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Op.Session))
	b = appendUvarints(b, c.Op.Sequence, uint64(c.Birth))
	switch c.Kind {
	case KindPut:
		b = appendBytes(b, c.Key)
		b = append(b, c.Value...)
	case KindDelete:
		b = append(b, c.Key...)
	case KindIncrement:
		b = appendUvarints(b, c.Delta)
		b = append(b, c.Key...)
	case KindCompareAndPut:
		b = appendBytes(b, c.Key)
		b = appendBytes(b, c.Expect)
		b = append(b, c.Value...)
	case KindGet:
		b = appendUvarints(b, uint64(c.Revision))
		b = append(b, c.Key...)
	case KindScan:
		b = appendUvarints(b, c.Limit, c.Bytes, uint64(c.Revision))
		b = appendBytes(b, c.Start)
		b = append(b, c.End...)
	case KindDeleteRange:
		b = appendUvarints(b, c.Limit)
		b = appendBytes(b, c.Start)
		b = append(b, c.End...)
	case KindBatch:
		b = appendBatch(b, c)
	case KindDraw:
		b = appendUvarints(b, c.Limit, uint64(c.Voter))
	case KindFloor:
		b = appendUvarints(b, uint64(c.Revision))
	case KindVerify:
		b = appendUvarints(b, c.Digested, c.Applied)
		b = append(b, c.Value...)
	case KindSplit:
		b = appendUvarints(b, c.ConfVersion, uint64(c.Right), c.RightKeys, c.RightBytes)
		b = append(b, c.Key...)
	}
	return b
}

// DecodeCommand reads what AppendCommand wrote into c. c's slices alias b.
func DecodeCommand(b []byte, c *Command) error {
	r := reader{b: b}
	*c = Command{Kind: Kind(r.byte())}
	flags := r.byte()
	if r.err == nil && flags&^flagsKnown != 0 {
		r.fail("command flags %#x", flags)
	}
	c.Retry = flags&flagRetry != 0
	c.Reverse = flags&flagReverse != 0
	c.KeysOnly = flags&flagKeysOnly != 0
	c.ExpectAbsent = flags&flagAbsent != 0
	c.Remove = flags&flagRemove != 0
	c.AnyReplica = flags&flagAny != 0
	c.Op.Session = Session(r.uint64())
	c.Op.Sequence = r.uvarint()
	c.Birth = r.revision()
	switch c.Kind {
	case KindPut:
		c.Key = r.bytes()
		c.Value = r.rest()
	case KindDelete:
		c.Key = r.rest()
	case KindIncrement:
		c.Delta = r.uvarint()
		c.Key = r.rest()
	case KindCompareAndPut:
		c.Key = r.bytes()
		c.Expect = r.bytes()
		c.Value = r.rest()
	case KindGet:
		c.Revision = r.revision()
		c.Key = r.rest()
	case KindScan:
		c.Limit = r.uvarint()
		c.Bytes = r.uvarint()
		c.Revision = r.revision()
		c.Start = r.bytes()
		c.End = r.rest()
	case KindDeleteRange:
		c.Limit = r.uvarint()
		c.Start = r.bytes()
		c.End = r.rest()
	case KindBatch:
		r.batch(c)
	case KindDraw:
		c.Limit = r.uvarint()
		c.Voter = ReplicaID(r.uvarint())
	case KindRaise, KindDigest:
	case KindFloor:
		c.Revision = r.revision()
	case KindVerify:
		c.Digested = r.uvarint()
		c.Applied = r.uvarint()
		c.Value = r.rest()
	case KindSplit:
		c.ConfVersion = r.uvarint()
		c.Right = ID(r.uvarint())
		c.RightKeys = r.uvarint()
		c.RightBytes = r.uvarint()
		c.Key = r.rest()
	default:
		r.fail("command kind %d", c.Kind)
	}
	return r.done()
}

func (r *reader) revision() Revision {
	v := r.uvarint()
	if v > uint64(MaxRevision) {
		r.fail("revision %d", v)
		return 0
	}
	return Revision(v)
}

func appendUvarints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}
