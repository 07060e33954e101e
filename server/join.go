package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	joinPatience = 30 * time.Second
	joinPause    = 300 * time.Millisecond
	joinAttempt  = 5 * time.Second
)

// membership is what a cluster gives to a node that joins it.
type membership struct {
	cluster shard.ClusterID
	node    shard.NodeID
	nodes   map[shard.NodeID]string
}

// join asks the nodes at addresses, in turn, for an identity, until one gives it
// or joinPatience is over. An ID whose answer was lost is spent; that is harmless,
// because a node exists for the cluster only once it has registered itself.
func join(ctx context.Context, addresses []string, advertise string, proof []byte, log *slog.Logger, s *security) (membership, error) {
	if slices.Contains(addresses, advertise) {
		return membership{}, &shard.InvalidError{Field: "--join", Reason: advertise + " is this node itself; name a node of a running cluster, or leave --join out to create one"}
	}
	deadline, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	var last error
	for {
		for _, address := range addresses {
			m, err := joinOnce(deadline, address, advertise, proof, s)
			if err == nil {
				return m, nil
			}
			var invalid *shard.InvalidError
			var denied *shard.DeniedError
			if errors.As(err, &invalid) || errors.As(err, &denied) {
				if invalid != nil && strings.HasPrefix(invalid.Field, "--") {
					return membership{}, err
				}
				return membership{}, fmt.Errorf("--join %s: %w", address, err)
			}
			if deadline.Err() == nil || last == nil {
				last = fmt.Errorf("%s: %w", address, err)
				log.Info("join not possible yet", "address", address, "err", err)
			}
		}
		select {
		case <-deadline.Done():
			if ctx.Err() != nil {
				return membership{}, ctx.Err()
			}
			return membership{}, fmt.Errorf("--join: no node gave an identity within %v; is one of them running? last answer from %w", joinPatience, last)
		case <-time.After(joinPause):
		}
	}
}

func joinOnce(ctx context.Context, address, advertise string, proof []byte, s *security) (membership, error) {
	creds := certs.Watch(s.dialing())
	conn, err := grpc.NewClient("passthrough:///"+address, append(api.DialOptions(), grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return membership{}, &shard.InvalidError{Field: "address", Reason: err.Error()}
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinAttempt)
	defer cancel()
	r, err := pb.NewPeerClient(conn).Join(ctx, &pb.JoinRequest{Address: advertise, Proof: proof})
	if err != nil {
		return membership{}, creds.Reason(api.Error(err))
	}
	m := membership{node: shard.NodeID(r.NodeId), nodes: make(map[shard.NodeID]string)}
	if len(r.ClusterId) != len(m.cluster) || m.node == 0 {
		return membership{}, &shard.InvalidError{Field: "answer", Reason: "is not from a Kiloraft node"}
	}
	copy(m.cluster[:], r.ClusterId)
	for _, n := range r.Nodes {
		m.nodes[shard.NodeID(n.NodeId)] = n.Address
	}
	return m, nil
}
