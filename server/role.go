package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kiloraft/kiloraft/internal/certs"
)

// Nodes are clients of each other for the meta shard's records, which other
// clients may read and not write. In plaintext a caller's role is what it says,
// and loopback is the boundary; with certificates it is what they say.
const (
	roleKey  = "kiloraft-role"
	roleNode = "node"
)

// fromNode tells whether the caller of an RPC acts as a node.
func fromNode(ctx context.Context) bool {
	if caller, ok := certs.CallerOf(ctx); ok {
		return caller.Identity.Role == certs.Node
	}
	md, _ := metadata.FromIncomingContext(ctx)
	roles := md.Get(roleKey)
	return len(roles) == 1 && roles[0] == roleNode
}

// asNode makes every stream that a plaintext connection opens act as a node.
func asNode(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(metadata.AppendToOutgoingContext(ctx, roleKey, roleNode), desc, conn, method, opts...)
}
