package api

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// A status travels in HTTP/2 headers, which peers bound: texts are cut, and
	// details that do not fit are left out.
	statusTextBytesMax   = 2 << 10
	statusDetailBytesMax = 64 << 10
)

// Status turns an error into a gRPC status error, for a handler to return. An
// error of shard's closed set travels in the details, and Error on the other
// side gives it back. Statuses pass through; contexts' errors keep their gRPC
// codes; anything else is internal.
func Status(err error) error {
	if err == nil {
		return nil
	}
	// Only a bare status passes through: a wrapped one may have a cause of the
	// closed set, which decides the code.
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return s.GRPCStatus().Err()
	}
	code, closed := codeOf(err)
	st := status.New(code, cut(err.Error()))
	if !closed {
		return st.Err()
	}
	if detailed, detailErr := st.WithDetails(&kiloraftpb.ErrorDetail{Error: detailOf(err)}); detailErr == nil {
		st = detailed
	}
	return st.Err()
}

// codeOf chooses the gRPC code for clients that know no details. closed tells
// whether the error itself travels too.
//
// Codes that generic clients and proxies retry by themselves (Unavailable) are
// given only to errors that promise that nothing was done.
func codeOf(err error) (code codes.Code, closed bool) {
	var invalid *shard.InvalidError
	var notLeader *shard.NotLeaderError
	var wrongShard *shard.WrongShardError
	var denied *shard.DeniedError
	var notReady *shard.NotReadyError
	switch {
	case errors.Is(err, shard.ErrUndetermined):
		// Before all others: it may wrap what a later attempt was refused with,
		// which says nothing about the earlier ones. Not to be repeated blindly.
		return codes.Unknown, true
	case errors.As(err, &denied):
		return codes.PermissionDenied, true
	case errors.As(err, &invalid), errors.Is(err, shard.ErrMalformed):
		return codes.InvalidArgument, true
	case errors.As(err, &notLeader), errors.Is(err, shard.ErrUnavailable), errors.Is(err, shard.ErrNoRevision):
		return codes.Unavailable, true
	case errors.As(err, &wrongShard), errors.Is(err, shard.ErrDropped):
		return codes.Aborted, true // route again, then repeat
	case errors.Is(err, shard.ErrBusy):
		return codes.ResourceExhausted, true
	case errors.Is(err, shard.ErrStopped):
		return codes.DataLoss, true
	case errors.Is(err, shard.ErrFutureRevision), errors.Is(err, shard.ErrCompacted):
		return codes.OutOfRange, true
	case errors.As(err, &notReady):
		return codes.FailedPrecondition, true
	case errors.Is(err, shard.ErrSpansShards), errors.Is(err, shard.ErrRangeTooWide):
		return codes.FailedPrecondition, true // of other keys, or after a merge
	case errors.Is(err, context.Canceled):
		return codes.Canceled, false
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, false
	}
	return codes.Internal, true
}

// detailOf is the encoding of err. Descriptors are hints and are dropped when
// they do not fit; a text is cut.
func detailOf(err error) []byte {
	var lost *shard.OutcomeLostError
	if errors.Is(err, shard.ErrUndetermined) && !errors.As(err, &lost) {
		err = shard.ErrUndetermined
	}
	b := shard.AppendError(nil, err)
	if len(b) <= statusDetailBytesMax {
		return b
	}
	var wrongShard *shard.WrongShardError
	if errors.As(err, &wrongShard) {
		return shard.AppendError(nil, &shard.WrongShardError{Shard: wrongShard.Shard})
	}
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) {
		return shard.AppendError(nil, &shard.InvalidError{Field: cut(invalid.Field), Reason: cut(invalid.Reason)})
	}
	var notReady *shard.NotReadyError
	if errors.As(err, &notReady) {
		return shard.AppendError(nil, &shard.NotReadyError{Shard: notReady.Shard, Reason: cut(notReady.Reason)})
	}
	return shard.AppendError(nil, &shard.InternalError{Reason: cut(err.Error())})
}

// cut bounds a text, and makes it valid UTF-8: gRPC refuses other statuses.
func cut(s string) string {
	if len(s) > statusTextBytesMax {
		s = s[:statusTextBytesMax] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// Error turns the error of a gRPC call back into the one that the other side
// gave to Status: errors.Is and errors.As find the same member of the closed set,
// and the text is the same. An error without details is from gRPC itself, which
// does not tell whether a request that was under way took effect; it comes back
// as a RemoteError in plain words, or wrapping the context's error. Other errors
// are returned as they are.
func Error(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range st.Details() {
		detail, ok := d.(*kiloraftpb.ErrorDetail)
		if !ok {
			continue
		}
		sent, decodeErr := shard.DecodeError(detail.GetError())
		if decodeErr != nil || sent == nil {
			continue
		}
		if sent.Error() == st.Message() {
			return sent
		}
		return &RemoteError{status: st, cause: sent}
	}
	switch st.Code() {
	case codes.Canceled:
		return &RemoteError{status: st, cause: context.Canceled}
	case codes.DeadlineExceeded:
		return &RemoteError{status: st, cause: context.DeadlineExceeded}
	}
	return &RemoteError{status: st}
}

// RemoteError is an error that came over gRPC. It wraps the error of shard's
// closed set, or of package context, that the other side meant, if any.
type RemoteError struct {
	status *status.Status
	cause  error
}

// Error is the other side's text, without gRPC's decoration.
func (e *RemoteError) Error() string {
	if m := e.status.Message(); m != "" {
		return m
	}
	return "the call failed: " + e.status.Code().String()
}

// Unwrap is the error that the other side meant, or nil.
func (e *RemoteError) Unwrap() error { return e.cause }

// GRPCStatus lets package status find the code.
func (e *RemoteError) GRPCStatus() *status.Status { return e.status }
