package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/internal/certs"
)

// cluster asks whichever endpoint answers.
type cluster struct {
	target
	conns   []*grpc.ClientConn // one for each endpoint
	watched []certs.Watched    // their credentials
}

// dialCluster connects lazily; the caller closes the result.
func (a *app) dialCluster() (*cluster, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	return dialTarget(t)
}

func dialTarget(t target) (*cluster, error) {
	c := &cluster{target: t}
	for _, e := range t.endpoints {
		watched := certs.Watch(t.creds)
		conn, err := grpc.NewClient("passthrough:///"+e, append(api.DialOptions(), grpc.WithTransportCredentials(watched))...)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("%s: %w", e, err)
		}
		c.conns, c.watched = append(c.conns, conn), append(c.watched, watched)
	}
	return c, nil
}

func (c *cluster) close() {
	for _, conn := range c.conns {
		_ = conn.Close() // nothing is left to be lost
	}
}

// attemptMin is how long an endpoint at least gets before the next is asked.
const attemptMin = time.Second

// ask makes a call on one endpoint after the other until one answers: with a
// result, or with an error that is an answer. Endpoints that cannot be reached,
// or cannot serve now, are passed over.
func ask[R any](ctx context.Context, c *cluster, call func(context.Context, grpc.ClientConnInterface) (R, error)) (R, error) {
	var none R
	var failures []string
	var last error
	for i, conn := range c.conns {
		attempt, cancel := c.attempt(ctx, len(c.conns)-i)
		r, err := call(attempt, conn)
		cancel()
		if err == nil {
			return r, nil
		}
		last = c.watched[i].Reason(api.Error(err))
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			return none, last
		}
		failures = append(failures, fmt.Sprintf("%s: %v", c.endpoints[i], last))
	}
	if len(failures) == 1 {
		return none, fmt.Errorf("%s does not serve: %w", c.endpoints[0], last)
	}
	return none, errors.New("no endpoint serves: " + strings.Join(failures, "; "))
}

// attempt shares what is left of the time among the endpoints that are left.
func (c *cluster) attempt(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || left == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(left), attemptMin))
}

func (c *cluster) status(ctx context.Context) (*kiloraftpb.StatusResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.StatusResponse, error) {
		return kiloraftpb.NewClusterClient(conn).Status(ctx, &kiloraftpb.StatusRequest{})
	})
}

func (c *cluster) nodes(ctx context.Context) (*kiloraftpb.ListNodesResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.ListNodesResponse, error) {
		return kiloraftpb.NewClusterClient(conn).ListNodes(ctx, &kiloraftpb.ListNodesRequest{})
	})
}

func (c *cluster) shards(ctx context.Context, q *kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.ListShardsResponse, error) {
		return kiloraftpb.NewClusterClient(conn).ListShards(ctx, q)
	})
}

func (c *cluster) transferLeader(ctx context.Context, q *kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.TransferLeaderResponse, error) {
		return kiloraftpb.NewAdminClient(conn).TransferLeader(ctx, q)
	})
}

func (c *cluster) settings(ctx context.Context) (*kiloraftpb.ListSettingsResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.ListSettingsResponse, error) {
		return kiloraftpb.NewClusterClient(conn).ListSettings(ctx, &kiloraftpb.ListSettingsRequest{})
	})
}

func (c *cluster) setSetting(ctx context.Context, name, value string) (*kiloraftpb.SetSettingResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.SetSettingResponse, error) {
		return kiloraftpb.NewAdminClient(conn).SetSetting(ctx, &kiloraftpb.SetSettingRequest{Name: name, Value: value})
	})
}

func (c *cluster) inspectKey(ctx context.Context, key []byte) (*kiloraftpb.InspectKeyResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.InspectKeyResponse, error) {
		return kiloraftpb.NewClusterClient(conn).InspectKey(ctx, &kiloraftpb.InspectKeyRequest{Key: key})
	})
}

// askAdmin makes a call of the service that changes the cluster.
func askAdmin[R any](ctx context.Context, c *cluster, call func(context.Context, kiloraftpb.AdminClient) (R, error)) (R, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (R, error) {
		return call(ctx, kiloraftpb.NewAdminClient(conn))
	})
}

func (c *cluster) operations(ctx context.Context, id uint64) (*kiloraftpb.ListOperationsResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.ListOperationsResponse, error) {
		return kiloraftpb.NewClusterClient(conn).ListOperations(ctx, &kiloraftpb.ListOperationsRequest{Id: id})
	})
}

func (c *cluster) cancelOperation(ctx context.Context, id uint64) (*kiloraftpb.OperationResponse, error) {
	return askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.OperationResponse, error) {
		return admin.CancelOperation(ctx, &kiloraftpb.CancelOperationRequest{Id: id})
	})
}

func explaining(shard, node uint64) func(context.Context, grpc.ClientConnInterface) (*kiloraftpb.ExplainPlacementResponse, error) {
	return func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.ExplainPlacementResponse, error) {
		return kiloraftpb.NewClusterClient(conn).ExplainPlacement(ctx, &kiloraftpb.ExplainPlacementRequest{Shard: shard, Node: node})
	}
}

func (c *cluster) checkShard(ctx context.Context, id uint64) (*kiloraftpb.CheckShardResponse, error) {
	return ask(ctx, c, func(ctx context.Context, conn grpc.ClientConnInterface) (*kiloraftpb.CheckShardResponse, error) {
		return kiloraftpb.NewAdminClient(conn).CheckShard(ctx, &kiloraftpb.CheckShardRequest{Shard: id})
	})
}

// onCluster runs a command's question within --timeout.
func (a *app) onCluster(ctx context.Context, do func(context.Context, *cluster) error) error {
	c, err := a.dialCluster()
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := a.within(ctx)
	defer cancel()
	return do(ctx, c)
}
