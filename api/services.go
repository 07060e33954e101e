package api

import (
	"context"

	"google.golang.org/grpc"
)

// Names of the raw services; their methods are not in any .proto file, because
// what they carry is not protobuf.
const (
	operationsService = "kiloraft.v1.Operations"
	peerStreamService = "kiloraft.v1.PeerStream"
)

// Full names of the raw methods, as those of the generated services are called
// KV_Get_FullMethodName.
const (
	OperationsStreamMethod = "/" + operationsService + "/Stream"
	PeerMessagesMethod     = "/" + peerStreamService + "/Messages"
	PeerSnapshotMethod     = "/" + peerStreamService + "/Snapshot"
)

// OperationsServer serves client streams: package shard's greeting, hello,
// request and response frames, each of at most shard.FrameBytesMax.
type OperationsServer interface {
	// Stream serves one client until it returns, which ends the stream. An
	// error reaches the client as Status(err).
	Stream(s *RawStream) error
}

// RegisterOperations adds the service to a gRPC server before it serves.
func RegisterOperations(r grpc.ServiceRegistrar, server OperationsServer) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: operationsService,
		HandlerType: (*OperationsServer)(nil),
		Streams:     []grpc.StreamDesc{rawMethod("Stream", OperationsServer.Stream)},
	}, server)
}

// OpenOperations opens a client stream. It lives until ctx ends, the server ends
// it or the connection breaks.
func OpenOperations(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*RawStream, error) {
	return openRaw(ctx, conn, OperationsStreamMethod, opts)
}

// PeerStreamServer serves the streams of other nodes, see package
// raftgroup/transport. Frames have at most PeerFrameBytesMax.
type PeerStreamServer interface {
	// Messages takes packed raft messages of all groups of one node.
	Messages(s *RawStream) error
	// Snapshot takes one snapshot.
	Snapshot(s *RawStream) error
}

// RegisterPeerStream adds the service to a gRPC server before it serves.
func RegisterPeerStream(r grpc.ServiceRegistrar, server PeerStreamServer) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: peerStreamService,
		HandlerType: (*PeerStreamServer)(nil),
		Streams: []grpc.StreamDesc{
			rawMethod("Messages", PeerStreamServer.Messages),
			rawMethod("Snapshot", PeerStreamServer.Snapshot),
		},
	}, server)
}

// OpenPeerMessages opens a stream of raft messages.
func OpenPeerMessages(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*RawStream, error) {
	return openRaw(ctx, conn, PeerMessagesMethod, opts)
}

// OpenPeerSnapshot opens a stream for one snapshot.
func OpenPeerSnapshot(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*RawStream, error) {
	return openRaw(ctx, conn, PeerSnapshotMethod, opts)
}

// rawMethod describes a bidirectional raw stream that serve handles.
func rawMethod[S any](name string, serve func(S, *RawStream) error) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName:    name,
		ServerStreams: true,
		ClientStreams: true,
		Handler: func(server any, stream grpc.ServerStream) error {
			return Status(serve(server.(S), &RawStream{stream: stream}))
		},
	}
}
