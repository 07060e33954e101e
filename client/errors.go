package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kiloraft/kiloraft/shard"
)

var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the client was closed. The operation did not take effect,
	// unless the error is also shard.ErrUndetermined.
	ErrClosed = errors.New("the client is closed")
)

// MixedClustersError: endpoints belong to different clusters. Name endpoints of
// one cluster only.
type MixedClustersError struct {
	Endpoint string // that belongs to Cluster
	Cluster  shard.ClusterID
	Other    string // that belongs to OtherCluster
	OtherID  shard.ClusterID
}

func (e *MixedClustersError) Error() string {
	return fmt.Sprintf("endpoints belong to different clusters: %s to %v, %s to %v; name endpoints of one cluster", e.Endpoint, e.Cluster, e.Other, e.OtherID)
}

// UnreachableError: no endpoint gave a usable answer.
type UnreachableError struct {
	Cause   error    // why the wait ended
	Answers []string // what was heard of each endpoint, in their order
}

func (e *UnreachableError) Error() string {
	return "no endpoint answered (" + e.Cause.Error() + "): " + strings.Join(e.Answers, "; ")
}

func (e *UnreachableError) Unwrap() error { return e.Cause }

// GaveUpError: the operation ended before the cluster had done it, because the
// caller's deadline passed, the caller cancelled, or the client was closed. It
// wraps that cause, and shard.ErrUndetermined if a write may have been sent;
// without that the operation did not take effect and will not.
type GaveUpError struct {
	Cause        error // context.DeadlineExceeded, context.Canceled or ErrClosed
	Undetermined bool
	Attempts     int   // how often it was sent
	Last         error // what the last attempt that did not take effect was told; may be nil
}

func (e *GaveUpError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v after %d attempts", e.Cause, e.Attempts)
	if e.Undetermined {
		s.WriteString("; the write may or may not have taken effect")
	} else if e.Last != nil {
		fmt.Fprintf(&s, "; the last thing heard was: %v", e.Last)
	}
	return s.String()
}

// Unwrap makes errors.Is find the cause and ErrUndetermined. Last is left out:
// what an earlier attempt was told is no verdict on the operation.
func (e *GaveUpError) Unwrap() []error {
	if e.Undetermined {
		return []error{e.Cause, shard.ErrUndetermined}
	}
	return []error{e.Cause}
}

// lostError: the stream broke between a write and its answer.
type lostError struct {
	node    shard.NodeID
	address string
	cause   error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("the connection to node %d (%s) broke before the answer came (%v): the write may or may not have taken effect", e.node, e.address, e.cause)
}

func (e *lostError) Unwrap() error { return shard.ErrUndetermined }

// failedError: the server failed at a write in a way that does not tell whether
// it took effect.
type failedError struct{ cause error }

func (e *failedError) Error() string {
	return e.cause.Error() + "; the write may or may not have taken effect"
}

func (e *failedError) Unwrap() []error { return []error{e.cause, shard.ErrUndetermined} }

// OpError is what the facade's methods return: which operation failed, on which
// key, and why.
type OpError struct {
	Op  string // "get", "put", "delete", "scan"
	Key []byte // user key; of a scan, its start
	Err error
}

// keyTextMax is how much of a long key an error shows.
const keyTextMax = 80

func (e *OpError) Error() string {
	key := shard.FormatUserKey(e.Key)
	if len(key) > keyTextMax {
		key = key[:keyTextMax] + "…"
	}
	return fmt.Sprintf(`%s "%s": %v`, e.Op, key, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
