package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// A node that joins says where it can be reached. An address that does not lead
// back to it would make it a node that nobody ever reaches; so the node that is
// asked tries it first. The joining node does not serve yet: until it has its
// identity it answers whoever connects with a proof that only it and the node that
// it asked know.

const (
	proofBytes       = 16
	leadBackPatience = 3 * time.Second
)

// prove answers connections to l with a proof until end is called, which gives l
// back as it was.
func prove(l net.Listener) (proof []byte, end func(), err error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, nil, &shard.InternalError{Reason: fmt.Sprintf("a listener of type %T", l)}
	}
	proof = make([]byte, proofBytes)
	if _, err := rand.Read(proof); err != nil {
		return nil, nil, err
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return // the deadline; a listener that is broken shows when it serves
			}
			_ = conn.SetDeadline(time.Now().Add(leadBackPatience))
			_, _ = conn.Write(proof)
			_ = conn.Close()
		}
	})
	return proof, func() {
		_ = tcp.SetDeadline(time.Unix(1, 0))
		done.Wait()
		_ = tcp.SetDeadline(time.Time{})
	}, nil
}

// leadsBack tells why an address does not lead to the node that gave the proof.
func leadsBack(ctx context.Context, address string, proof []byte) error {
	if len(proof) != proofBytes {
		return &shard.InvalidError{Field: "proof", Reason: fmt.Sprintf("has %d bytes instead of %d", len(proof), proofBytes)}
	}
	ctx, cancel := context.WithTimeout(ctx, leadBackPatience)
	defer cancel()
	wrong := func(why string) error {
		return &shard.InvalidError{Field: "--advertise", Reason: fmt.Sprintf("%s does not lead back to the node that joins, %s; give the address at which other nodes reach it", address, why)}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Err != nil {
			err = op.Err
		}
		return wrong("as seen from here: " + err.Error())
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	got := make([]byte, proofBytes)
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, proof) {
		return wrong("but to another process")
	}
	return nil
}

// clusterPatience bounds the question which cluster a store's node is to join.
const clusterPatience = 2 * time.Second

// sameCluster refuses to start a store against nodes of another cluster. Nodes that
// do not answer say nothing against it.
func sameCluster(ctx context.Context, store string, own shard.ClusterID, addresses []string, options ...grpc.DialOption) error {
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	foreign := make(chan error, len(addresses))
	var asked sync.WaitGroup
	for _, address := range addresses {
		asked.Go(func() {
			conn, err := grpc.NewClient("passthrough:///"+address, options...)
			if err != nil {
				return
			}
			defer conn.Close()
			r, err := pb.NewClusterClient(conn).Info(ctx, &pb.InfoRequest{})
			if err != nil {
				return
			}
			if id, err := api.ToClusterID(r.ClusterId); err == nil && id != own {
				foreign <- fmt.Errorf("store %s belongs to cluster %v, but %s is cluster %v; use another --store, or --join the right cluster", store, own, address, id)
			}
		})
	}
	asked.Wait()
	select {
	case err := <-foreign:
		return err
	default:
		return nil
	}
}
