package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

// access is who may call an RPC. The zero value is nobody.
type access uint8

const (
	nobody access = iota
	// clients: whoever has a role. Admins are clients, and nodes are: they read and
	// write the meta shard's records at each other, as their clients.
	clients
	// admins alone. Nodes need none of it, and a node that was taken over should not
	// be able to order the others about.
	admins
	// nodes alone: what they ask of each other is trusted.
	nodes
)

func (a access) String() string {
	return [...]string{"is for nobody", "needs the role client, admin or node", "needs the role admin (kiloraft cert create-client NAME --admin)", "needs the role node"}[a]
}

func (a access) admits(r certs.Role) bool {
	switch a {
	case clients:
		return r == certs.Client || r == certs.Admin || r == certs.Node
	case admins:
		return r == certs.Admin
	case nodes:
		return r == certs.Node
	}
	return false
}

// gateTable is every RPC of every service that a node has, and who may call it.
// What is not listed nobody may call.
var gateTable = map[string]access{
	pb.KV_Get_FullMethodName:         clients,
	pb.KV_Put_FullMethodName:         clients,
	pb.KV_Delete_FullMethodName:      clients,
	pb.KV_Scan_FullMethodName:        clients,
	pb.KV_Cas_FullMethodName:         clients,
	pb.KV_Batch_FullMethodName:       clients,
	pb.KV_DeleteRange_FullMethodName: clients,
	pb.KV_MultiGet_FullMethodName:    clients,
	pb.KV_MultiPut_FullMethodName:    clients,
	// Writes to the system keyspace are for nodes; see operations.
	api.OperationsStreamMethod: clients,

	pb.Cluster_Info_FullMethodName:         clients,
	pb.Cluster_Status_FullMethodName:       clients,
	pb.Cluster_ListNodes_FullMethodName:    clients,
	pb.Cluster_ListShards_FullMethodName:   clients,
	pb.Cluster_ListSettings_FullMethodName: clients,
	pb.Cluster_InspectKey_FullMethodName:   clients,

	pb.Cluster_ListOperations_FullMethodName:   clients,
	pb.Cluster_ExplainPlacement_FullMethodName: clients,

	pb.Admin_ChangeReplicas_FullMethodName:   admins,
	pb.Admin_DrainNode_FullMethodName:        admins,
	pb.Admin_DecommissionNode_FullMethodName: admins,
	pb.Admin_CancelOperation_FullMethodName:  admins,
	pb.Admin_TransferLeader_FullMethodName:   admins,
	pb.Admin_SetSetting_FullMethodName:       admins,
	pb.Admin_CheckShard_FullMethodName:       admins,
	pb.Admin_SplitShard_FullMethodName:       admins,
	pb.Admin_ScatterShards_FullMethodName:    admins,

	pb.Peer_Join_FullMethodName:             nodes,
	pb.Peer_NodeReport_FullMethodName:       nodes,
	pb.Peer_ChangeMembership_FullMethodName: nodes,
	pb.Peer_SplitShard_FullMethodName:       nodes,
	pb.Peer_TransferShard_FullMethodName:    nodes,
	api.PeerMessagesMethod:                  nodes,
	api.PeerSnapshotMethod:                  nodes,
}

// gate stands in front of every RPC, and lets nobody through whom the table does
// not. On a plaintext port, which is on loopback, everybody has every role.
type gate struct {
	secure   bool
	refusals *certs.Refusals
}

// options put the gate in front of a server's RPCs, before any other interceptor.
func (g *gate) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, serve grpc.UnaryHandler) (any, error) {
			if err := g.admit(ctx, info.FullMethod); err != nil {
				return nil, api.Status(err)
			}
			return serve(ctx, q)
		}),
		grpc.ChainStreamInterceptor(func(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, serve grpc.StreamHandler) error {
			if err := g.admit(s.Context(), info.FullMethod); err != nil {
				return api.Status(err)
			}
			return serve(server, s)
		}),
	}
}

// admit returns nil, or a shard.DeniedError.
func (g *gate) admit(ctx context.Context, method string) error {
	need := gateTable[method]
	if !g.secure && need != nobody {
		return nil
	}
	caller, shown := certs.CallerOf(ctx)
	if shown && need.admits(caller.Identity.Role) {
		return nil
	}
	var from net.Addr
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr
	}
	return g.refuse(from, caller.Identity, method, need)
}

// refuse logs a refusal and puts it into words.
func (g *gate) refuse(from net.Addr, caller certs.Identity, what string, need access) error {
	err := &shard.DeniedError{Reason: fmt.Sprintf("%s %v; the certificate is of %v", what, need, caller)}
	g.refusals.Say(from, err.Reason)
	return err
}

// covers panics if the table does not list every RPC of a server, or lists one
// that it does not have: then somebody has added an RPC and not thought of who may
// call it.
func (g *gate) covers(rpc *grpc.Server) {
	stale := maps.Clone(gateTable)
	for service, info := range rpc.GetServiceInfo() {
		for _, m := range info.Methods {
			method := "/" + service + "/" + m.Name
			if gateTable[method] == nobody {
				panic("the gate does not know who may call " + method)
			}
			delete(stale, method)
		}
	}
	if len(stale) > 0 {
		panic(fmt.Sprint("the gate knows RPCs that do not exist: ", slices.Sorted(maps.Keys(stale))))
	}
}
