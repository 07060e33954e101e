package api

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// PeerFrameBytesMax bounds a frame between nodes, and thereby any message that a
// node's gRPC server accepts. It leaves ample room for one raft message with an
// entry of the largest size.
const PeerFrameBytesMax = 64 << 20

// UnacknowledgedMax is how long a server lets what it has sent go unacknowledged,
// before it gives the connection up: as long as gRPC waits for a ping.
const UnacknowledgedMax = keepaliveTimeout

const (
	// Windows that hold several packed frames, so that throughput does not
	// depend on the round trip time. Setting them switches gRPC's own
	// estimation off, which costs a ping per burst.
	streamWindowBytes = 8 << 20
	connWindowBytes   = 16 << 20
	// One system call moves a whole packed frame of usual size.
	ioBufferBytes = 128 << 10

	// A peer that stays silent is pinged after keepaliveIdle and given up after
	// keepaliveTimeout more. gRPC allows clients no less than 10 s.
	keepaliveIdle    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// Clients may ping this often; gRPC's default of 5 minutes would have the
	// server hang up on them.
	keepaliveMinTime = 5 * time.Second

	// connectTimeout bounds one attempt to connect.
	connectTimeout = 3 * time.Second
)

// connectBackoff is the pause between attempts on a connection that is kept.
// gRPC's own grows to two minutes, in which calls to a node that is back fail.
var connectBackoff = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// ServerOptions are what a gRPC server of a node needs for the raw streams:
// frame bound, windows, keepalive. The caller adds credentials and limits.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(PeerFrameBytesMax),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.ReadBufferSize(ioBufferBytes),
		grpc.WriteBufferSize(ioBufferBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveIdle, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
	}
}

// DialOptions are what a connection to a node needs for the raw streams. The
// caller adds credentials. Proxies from the environment are not used: nodes
// and their clients are reached directly.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(PeerFrameBytesMax)),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithReadBufferSize(ioBufferBytes),
		grpc.WithWriteBufferSize(ioBufferBytes),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connectBackoff, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveIdle, Timeout: keepaliveTimeout}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // callers know what may be repeated; gRPC does not
	}
}
