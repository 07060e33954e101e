package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func testDescriptor() shard.Descriptor {
	return shard.Descriptor{
		ID:    7,
		Span:  shard.Span{Start: shard.UserKey([]byte("a")), End: shard.UserKey([]byte("m"))},
		Epoch: shard.Epoch{Version: 3, ConfVersion: 5},
		Replicas: []shard.Replica{
			{ID: 1, Node: 1, Role: shard.Voter}, {ID: 4, Node: 2, Role: shard.Learner},
		},
		NextReplica: 5,
	}
}

// closedSet is every error that may cross the wire, with its gRPC code.
func closedSet() []struct {
	err  error
	code codes.Code
} {
	return []struct {
		err  error
		code codes.Code
	}{
		{shard.ErrMalformed, codes.InvalidArgument},
		{shard.ErrBusy, codes.ResourceExhausted},
		{shard.ErrDropped, codes.Aborted},
		{shard.ErrUndetermined, codes.Unknown},
		{shard.ErrUnavailable, codes.Unavailable},
		{shard.ErrStopped, codes.DataLoss},
		{shard.ErrNoRevision, codes.Unavailable},
		{shard.ErrSpansShards, codes.FailedPrecondition},
		{&shard.OutcomeLostError{Reason: "it is older than the retention"}, codes.Unknown},
		{shard.ErrRangeTooWide, codes.FailedPrecondition},
		{shard.ErrFutureRevision, codes.OutOfRange},
		{shard.ErrCompacted, codes.OutOfRange},
		{&shard.InvalidError{Field: "key", Reason: "is empty"}, codes.InvalidArgument},
		{&shard.NotLeaderError{Shard: 7, Leader: shard.LeaderHint{Replica: 2, Node: 3, Term: 9, Address: "h:1"}}, codes.Unavailable},
		{&shard.WrongShardError{Shard: 7, Descriptors: []shard.Descriptor{testDescriptor()},
			Leaders: []shard.LeaderHint{{Replica: 4, Node: 2, Term: 9, Address: "127.0.0.1:7402"}}}, codes.Aborted},
		{&shard.NotReadyError{Shard: 7, Reason: "replica 4 is not caught up"}, codes.FailedPrecondition},
		{&shard.InternalError{Reason: "boom"}, codes.Internal},
		{&shard.DeniedError{Reason: "an admin is needed"}, codes.PermissionDenied},
	}
}

// TestStatusEveryError sends each member of the closed set there and back, bare
// and wrapped.
func TestStatusEveryError(t *testing.T) {
	for _, c := range closedSet() {
		for _, err := range []error{c.err, fmt.Errorf("put %q: %w", "user/17", c.err)} {
			wire := Status(err)
			if got := status.Code(wire); got != c.code {
				t.Errorf("%v: code %v, want %v", err, got, c.code)
			}
			back := Error(wire)
			if back.Error() != err.Error() {
				t.Errorf("text %q, want %q", back, err)
			}
			if errors.Is(err, c.err) && reflect.TypeOf(c.err).Elem().Name() == "errorString" {
				if !errors.Is(back, c.err) {
					t.Errorf("%v came back as %#v", err, back)
				}
				continue
			}
			found := false
			for e := back; e != nil; e = errors.Unwrap(e) {
				found = found || reflect.DeepEqual(e, c.err)
			}
			if !found {
				t.Errorf("%v came back as %#v", err, back)
			}
		}
	}
}

// TestStatusCoversClosedSet fails when shard's closed set grows and this file
// does not: every code of the encoding up to the first unknown one has a case.
func TestStatusCoversClosedSet(t *testing.T) {
	covered := map[byte]bool{}
	for _, c := range closedSet() {
		covered[shard.AppendError(nil, c.err)[0]] = true
	}
	for code := byte(1); code < 64; code++ {
		// Zeros after the code are an empty error of that kind, if there is one.
		for zeros := range 8 {
			if sent, err := shard.DecodeError(append([]byte{code}, make([]byte, zeros)...)); err == nil && sent != nil && !covered[code] {
				t.Errorf("error code %d (%v) is not among the tested ones", code, sent)
			}
		}
	}
}

func TestStatusOfOthers(t *testing.T) {
	if Status(nil) != nil || Error(nil) != nil || Error(io.EOF) != io.EOF {
		t.Error("nil and io.EOF must pass")
	}
	if back := Error(Status(context.DeadlineExceeded)); !errors.Is(back, context.DeadlineExceeded) {
		t.Errorf("deadline came back as %#v", back)
	}
	if back := Error(Status(context.Canceled)); !errors.Is(back, context.Canceled) {
		t.Errorf("cancel came back as %#v", back)
	}
	// A write whose deadline passed is undetermined first of all.
	if back := Error(Status(fmt.Errorf("%w (%w)", shard.ErrUndetermined, context.DeadlineExceeded))); !errors.Is(back, shard.ErrUndetermined) {
		t.Errorf("undetermined came back as %#v", back)
	}
	// Whatever a later attempt was refused with, an earlier one may have worked.
	for _, later := range []error{&shard.InvalidError{Field: "batch", Reason: "is odd"}, shard.ErrSpansShards, shard.ErrNoRevision, shard.ErrBusy, &shard.NotLeaderError{Shard: 7}} {
		err := fmt.Errorf("%w (%w)", later, shard.ErrUndetermined)
		wire := Status(err)
		if back := Error(wire); status.Code(wire) != codes.Unknown || !errors.Is(back, shard.ErrUndetermined) || errors.Is(back, shard.ErrBusy) || back.Error() != err.Error() {
			t.Errorf("%v came back as %#v, code %v", err, back, status.Code(wire))
		}
	}
	// That it will stay so travels, too.
	var lost *shard.OutcomeLostError
	if back := Error(Status(fmt.Errorf("%w (%w)", shard.ErrBusy, &shard.OutcomeLostError{Reason: "test"}))); !errors.As(back, &lost) || !errors.Is(back, shard.ErrUndetermined) || errors.Is(back, shard.ErrBusy) {
		t.Errorf("a lost outcome came back as %#v", back)
	}
	var internal *shard.InternalError
	if back := Error(Status(errors.New("disk on fire"))); !errors.As(back, &internal) || internal.Reason != "disk on fire" {
		t.Errorf("unknown error came back as %#v", back)
	}
	own := status.Error(codes.Unauthenticated, "no certificate")
	if got := Status(own); status.Code(got) != codes.Unauthenticated {
		t.Errorf("a handler's own status became %v", got)
	}
	back := Error(own)
	if back.Error() != "no certificate" || status.Code(back) != codes.Unauthenticated {
		t.Errorf("a bare status came back as %v (%v)", back, status.Code(back))
	}
	if got := Status(back); status.Code(got) != codes.Unauthenticated {
		t.Errorf("a remote error passed on became %v", got)
	}
	plain := errors.New("not gRPC")
	if Error(plain) != plain {
		t.Error("an error that is not a status must be returned as it is")
	}
}

// TestStatusForgedDetails: details that do not decode are ignored.
func TestStatusForgedDetails(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {255}, {3, 1, 200}, bytes.Repeat([]byte{0xff}, 100)} {
		st, err := status.New(codes.Aborted, "text").WithDetails(&kiloraftpb.ErrorDetail{Error: b})
		if err != nil {
			t.Fatal(err)
		}
		if back := Error(st.Err()); back.Error() != "text" || errors.Unwrap(back) != nil {
			t.Errorf("details %x came back as %#v", b, back)
		}
	}
}

// TestStatusBounds: huge errors stay within what headers may hold, and keep their kind.
func TestStatusBounds(t *testing.T) {
	d := testDescriptor()
	d.Span.Start = shard.UserKey(bytes.Repeat([]byte{'a'}, shard.KeyBytesMax))
	d.Span.End = shard.UserKey(bytes.Repeat([]byte{'b'}, shard.KeyBytesMax))
	wrong := &shard.WrongShardError{Shard: 7}
	for range 64 {
		wrong.Descriptors = append(wrong.Descriptors, d)
	}
	long := strings.Repeat("\xff…", 1<<20)
	var gotWrong *shard.WrongShardError
	var gotInvalid *shard.InvalidError
	var gotInternal *shard.InternalError
	for _, c := range []struct {
		err    error
		target any
	}{
		{wrong, &gotWrong}, {&shard.InvalidError{Field: long, Reason: long}, &gotInvalid},
		{errors.New(long), &gotInternal},
	} {
		wire := Status(c.err)
		st, _ := status.FromError(wire)
		size := len(st.Message())
		for _, any := range st.Proto().GetDetails() {
			size += len(any.GetValue())
		}
		if size > statusDetailBytesMax+2*statusTextBytesMax {
			t.Errorf("%T: a status of %d bytes", c.err, size)
		}
		if !errors.As(Error(wire), c.target) {
			t.Errorf("%T came back as %T", c.err, Error(wire))
		}
	}
	if gotWrong.Shard != 7 {
		t.Errorf("shard %d, want 7", gotWrong.Shard)
	}
}
