package shard

import (
	"errors"
	"fmt"
	"strings"
)

// The closed set of errors. Each says what the caller does next. Errors without
// data are variables; errors with data are types. All of them cross the wire
// unchanged (AppendError, DecodeError), and package api maps them to gRPC statuses.
var (
	// ErrMalformed: bytes that do not decode. The sender has a bug or is not
	// Kiloraft; the receiver drops the connection or refuses the command.
	ErrMalformed = errors.New("malformed bytes")
	// ErrBusy: a byte budget is used up. Nothing was done; try again after a backoff.
	ErrBusy = errors.New("busy: a byte budget of the node is used up; try again")
	// ErrDropped: the operation was not done and never will be, because
	// leadership moved or a later attempt replaced it. Route again and repeat.
	ErrDropped = errors.New("the operation was dropped before it took effect; try again")
	// ErrUndetermined: the write may or may not have taken effect, or may
	// still do so. A later attempt of the same operation can tell, unless the error
	// is an OutcomeLostError; else read to find out, and repeat only what is idempotent.
	ErrUndetermined = errors.New("undetermined: the write may or may not have taken effect")
	// ErrUnavailable: the shard cannot serve now (no leader, no majority, node
	// closing). Nothing was done; try again, elsewhere if possible.
	ErrUnavailable = errors.New("unavailable: no leader, no majority, or the node is stopping")
	// ErrStopped: the replica found corruption and takes no further part. Its
	// node's log says what; another replica serves.
	ErrStopped = errors.New("the replica stopped because its data is corrupt")
	// ErrFutureRevision: a read at a revision that was not handed out yet.
	ErrFutureRevision = errors.New("the revision is in the future: it was not handed out yet")
	// ErrNoRevision: no revision could be drawn, because the meta shard has no
	// leader or no majority. Nothing was done; try again after a backoff.
	ErrNoRevision = errors.New("no revision can be drawn now: the meta shard has no leader or no majority; try again")
	// ErrSpansShards: the keys of a batch lie in several shards, and only within
	// one are they written atomically. Split the batch, or choose other keys.
	ErrSpansShards = errors.New("the keys of the batch lie in several shards; a batch is atomic within one shard only")
	// ErrRangeTooWide: a delete-range passes more versions than one may. Nothing was
	// done. Scan its range, and delete piece by piece what each page shows.
	ErrRangeTooWide = errors.New("the range holds too many versions and tombstones for one delete-range; delete what a page of a scan shows, page by page")
	// ErrCompacted: a read at a revision whose versions were dropped already.
	ErrCompacted = errors.New("the revision is below the floor: its versions were dropped")
)

// InvalidError is bad input: the call can never succeed as it is.
type InvalidError struct {
	Field  string // what is wrong: "key", "value", "request", a flag
	Reason string // what is wrong with it, and the limit
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Reason }

// OutcomeLostError is ErrUndetermined for good: no later attempt of the operation
// will be told more, because what an earlier one may have written cannot be looked
// for any more. It did nothing itself.
type OutcomeLostError struct {
	Reason string // why it cannot: "it is older than the retention"
}

func (e *OutcomeLostError) Error() string { return ErrUndetermined.Error() + ": " + e.Reason }

// Unwrap makes errors.Is find ErrUndetermined.
func (e *OutcomeLostError) Unwrap() error { return ErrUndetermined }

// LeaderHint is what a node knows of a shard's leader. Zero fields are unknown.
type LeaderHint struct {
	Replica ReplicaID
	Node    NodeID
	Term    uint64
	Address string // where clients reach the node
}

// NotLeaderError: the attempt did not reach the replica and term that lead now.
// Nothing was done. With a hint, repeat there at once; without one, try another
// replica after a short backoff.
type NotLeaderError struct {
	Shard  ID
	Leader LeaderHint
}

func (e *NotLeaderError) Error() string {
	if e.Leader.Node == 0 {
		return fmt.Sprintf("shard %d: the leader is not known here", e.Shard)
	}
	return fmt.Sprintf("shard %d is led by node %d (%s) in term %d", e.Shard, e.Leader.Node, e.Leader.Address, e.Leader.Term)
}

// WrongShardError: the attempt named a shard that is not here, an epoch version
// that is not current, or a key outside the span. Nothing was done. Descriptors
// are what the node knows of the key's surroundings, perhaps nothing: accept
// the newer ones and route again; without any, ask the directory.
//
// Leaders are what the node knows of the leaders of the shards in Descriptors, each in
// the place of its descriptor: whoever routes again need not look for them. It may be
// shorter, or nil; zero fields are unknown.
type WrongShardError struct {
	Shard       ID
	Descriptors []Descriptor
	Leaders     []LeaderHint
}

// Leader is what is known of the leader of the shard in Descriptors[i].
func (e *WrongShardError) Leader(i int) LeaderHint {
	if i < len(e.Leaders) {
		return e.Leaders[i]
	}
	return LeaderHint{}
}

func (e *WrongShardError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "shard %d does not serve this key in this epoch here", e.Shard)
	for i := range e.Descriptors {
		d := &e.Descriptors[i]
		fmt.Fprintf(&s, "; shard %d at epoch %v covers [%s, %s)", d.ID, d.Epoch, FormatKey(d.Span.Start), FormatKey(d.Span.End))
	}
	return s.String()
}

// DeniedError: who asks may not do that, or one side of a connection does not
// accept the other's certificate. Nothing was done. It will be the same again, until
// somebody changes the certificates.
type DeniedError struct{ Reason string }

func (e *DeniedError) Error() string { return "denied: " + e.Reason }

// NotReadyError: a change of a shard's membership or leadership that fits its
// descriptor, and that its leader refuses for now: a learner is not caught up, a
// majority would be lost. Nothing was done; try again when the reason is gone, or
// decide otherwise.
type NotReadyError struct {
	Shard  ID
	Reason string
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("shard %d is not ready for this: %s", e.Shard, e.Reason)
}

// InternalError is an unexpected failure of the server, in words. It is not
// known whether a write took effect.
type InternalError struct{ Reason string }

func (e *InternalError) Error() string { return "internal: " + e.Reason }

// errorCode is how an error is called on the wire. Codes are never reused.
type errorCode byte

const (
	codeOK             errorCode = 0
	codeInvalid        errorCode = 1
	codeNotLeader      errorCode = 2
	codeWrongShard     errorCode = 3
	codeBusy           errorCode = 4
	codeDropped        errorCode = 5
	codeUndetermined   errorCode = 6
	codeUnavailable    errorCode = 7
	codeStopped        errorCode = 8
	codeFutureRevision errorCode = 9
	codeCompacted      errorCode = 10
	codeMalformed      errorCode = 11
	codeInternal       errorCode = 12
	codeNoRevision     errorCode = 13
	codeSpansShards    errorCode = 14
	codeDenied         errorCode = 15
	codeOutcomeLost    errorCode = 16
	codeRangeTooWide   errorCode = 17
	codeNotReady       errorCode = 18
)

var codesOfErrors = []struct {
	code errorCode
	err  error
}{
	{codeBusy, ErrBusy}, {codeDropped, ErrDropped}, {codeUndetermined, ErrUndetermined},
	{codeUnavailable, ErrUnavailable}, {codeStopped, ErrStopped}, {codeFutureRevision, ErrFutureRevision},
	{codeCompacted, ErrCompacted}, {codeMalformed, ErrMalformed}, {codeNoRevision, ErrNoRevision},
	{codeSpansShards, ErrSpansShards}, {codeRangeTooWide, ErrRangeTooWide},
}

// AppendError appends the encoding of err, which may be nil. An error outside
// the closed set becomes an InternalError with its text. Of a WrongShardError at
// most the first 64 descriptors travel.
func AppendError(b []byte, err error) []byte {
	if err == nil {
		return append(b, byte(codeOK))
	}
	var invalid *InvalidError
	var notLeader *NotLeaderError
	var wrongShard *WrongShardError
	var denied *DeniedError
	var lost *OutcomeLostError
	var notReady *NotReadyError
	switch {
	case errors.As(err, &denied):
		return appendBytes(append(b, byte(codeDenied)), []byte(denied.Reason))
	case errors.As(err, &lost):
		return appendBytes(append(b, byte(codeOutcomeLost)), []byte(lost.Reason))
	case errors.As(err, &invalid):
		b = append(b, byte(codeInvalid))
		b = appendBytes(b, []byte(invalid.Field))
		return appendBytes(b, []byte(invalid.Reason))
	case errors.As(err, &notLeader):
		b = append(b, byte(codeNotLeader))
		return appendLeader(appendUvarints(b, uint64(notLeader.Shard)), notLeader.Leader)
	case errors.As(err, &wrongShard):
		b = append(b, byte(codeWrongShard))
		// More than the reader accepts would make the whole frame malformed.
		known := wrongShard.Descriptors[:min(len(wrongShard.Descriptors), descriptorsPerErrorMax)]
		b = appendUvarints(b, uint64(wrongShard.Shard), uint64(len(known)))
		for i := range known {
			b = appendBytes(b, AppendDescriptor(nil, &known[i]))
			b = appendLeader(b, wrongShard.Leader(i))
		}
		return b
	case errors.As(err, &notReady):
		b = appendUvarints(append(b, byte(codeNotReady)), uint64(notReady.Shard))
		return appendBytes(b, []byte(notReady.Reason))
	}
	for _, c := range codesOfErrors {
		if errors.Is(err, c.err) {
			return append(b, byte(c.code))
		}
	}
	var internal *InternalError
	if !errors.As(err, &internal) {
		internal = &InternalError{Reason: err.Error()}
	}
	return appendBytes(append(b, byte(codeInternal)), []byte(internal.Reason))
}

func appendLeader(b []byte, l LeaderHint) []byte {
	b = appendUvarints(b, uint64(l.Replica), uint64(l.Node), l.Term)
	return appendBytes(b, []byte(l.Address))
}

func (r *reader) leader() LeaderHint {
	return LeaderHint{Replica: ReplicaID(r.uvarint()), Node: NodeID(r.uvarint()), Term: r.uvarint(), Address: string(r.bytes())}
}

// DecodeError reads what AppendError wrote. The first result is the error that
// travelled, the second one reports bytes that do not decode.
func DecodeError(b []byte) (sent, err error) {
	r := reader{b: b}
	sent = r.error()
	return sent, r.done()
}

// descriptorsPerErrorMax bounds the descriptors of one WrongShardError.
const descriptorsPerErrorMax = 64

func (r *reader) error() error {
	code := errorCode(r.byte())
	switch code {
	case codeOK:
		return nil
	case codeInvalid:
		return &InvalidError{Field: string(r.bytes()), Reason: string(r.bytes())}
	case codeNotLeader:
		return &NotLeaderError{Shard: ID(r.uvarint()), Leader: r.leader()}
	case codeWrongShard:
		e := &WrongShardError{Shard: ID(r.uvarint())}
		n := r.uvarint()
		if n > descriptorsPerErrorMax {
			r.fail("%d descriptors in one error", n)
			return nil
		}
		for range n {
			d, err := DecodeDescriptor(r.bytes())
			if err != nil {
				r.fail("%v", err)
				return nil
			}
			e.Descriptors = append(e.Descriptors, d)
			e.Leaders = append(e.Leaders, r.leader())
		}
		return e
	case codeDenied:
		return &DeniedError{Reason: string(r.bytes())}
	case codeNotReady:
		return &NotReadyError{Shard: ID(r.uvarint()), Reason: string(r.bytes())}
	case codeInternal:
		return &InternalError{Reason: string(r.bytes())}
	case codeOutcomeLost:
		return &OutcomeLostError{Reason: string(r.bytes())}
	}
	for _, c := range codesOfErrors {
		if c.code == code {
			return c.err
		}
	}
	r.fail("error code %d", code)
	return nil
}
