package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Offline is the store of a node that does not run, open for repairs. Close it.
type Offline struct {
	dir    string
	env    *prod.Env
	engine *storage.Engine
}

// OpenOffline opens the store of a stopped node. It makes nothing: a folder that holds
// no store is refused, and so is one that a process has open.
func OpenOffline(dir string) (*Offline, error) {
	files, err := os.ReadDir(dir)
	if err == nil && len(files) == 0 {
		err = errors.New("the folder is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	o := &Offline{dir: dir, env: prod.New()}
	o.engine, err = storage.Open(storage.Config{Dir: dir, Env: o.env, Logger: slog.New(slog.DiscardHandler),
		Fatal: func(err error) {
			fmt.Fprintf(os.Stderr, "kiloraft: store %s: %v; the process ends\n", dir, err)
			os.Exit(1)
		}})
	if err != nil {
		o.env.Close()
		if errors.Is(err, storage.ErrLocked) {
			err = fmt.Errorf("%w; stop the node first", err)
		}
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return o, nil
}

// Close closes the store.
func (o *Offline) Close() error {
	o.env.Close()
	return o.engine.Close()
}

// Identity is whose store it is.
func (o *Offline) Identity() (storage.Identity, error) {
	id, ok, err := o.engine.Identity()
	if err == nil && !ok {
		err = node.ErrNoIdentity
	}
	return id, err
}

// PlanRecovery says what recovering each shard would mean; see node.PlanRecovery.
func (o *Offline) PlanRecovery(gone []shard.NodeID) ([]node.Recovery, error) {
	return node.PlanRecovery(o.engine, o.env, gone)
}

// Recover carries plans out.
func (o *Offline) Recover(ctx context.Context, plans []node.Recovery) error {
	_, err := await(ctx, func(done func(struct{}, error)) {
		if err := node.Recover(o.engine, plans, func() { done(struct{}{}, nil) }); err != nil {
			done(struct{}{}, err)
		}
	})
	return err
}

// answerTimeout is how long a node that is said to be gone has to show that it is not.
const answerTimeout = 2 * time.Second

// Answering finds which of the given nodes have an address in the store's address book
// at which something answers that may be that node, and returns those addresses. What
// says, in a way that can be trusted, that it is somebody else is not that node: one that
// has taken its place, with a disk of its own. All else that takes a connection may be:
// a node that hangs does, and so does one that speaks TLS to a caller without certificates.
func (o *Offline) Answering(ctx context.Context, nodes []shard.NodeID, creds credentials.TransportCredentials) ([]string, error) {
	self, err := o.Identity()
	if err != nil {
		return nil, err
	}
	book, err := node.OpenAddressBook(o.engine)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	found := make(chan string, len(nodes))
	for _, id := range nodes {
		go func() {
			address := book.Lookup(id)
			if address == "" || !takesConnections(ctx, address) || isSomebodyElse(ctx, address, self.Cluster, id, creds) {
				found <- ""
				return
			}
			found <- fmt.Sprintf("node %d at %s", id, address)
		}()
	}
	var answering []string
	for range nodes {
		if a := <-found; a != "" {
			answering = append(answering, a)
		}
	}
	slices.Sort(answering)
	return answering, nil
}

func takesConnections(ctx context.Context, address string) bool {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// isSomebodyElse tells whether a node answers at an address and is not the one that the
// cluster has by that ID.
func isSomebodyElse(ctx context.Context, address string, cluster shard.ClusterID, id shard.NodeID, creds credentials.TransportCredentials) bool {
	conn, err := grpc.NewClient("passthrough:///"+address, append(api.DialOptions(), grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return false
	}
	defer conn.Close()
	r, err := pb.NewClusterClient(conn).Info(ctx, &pb.InfoRequest{})
	if err != nil {
		return false
	}
	other, err := api.ToClusterID(r.ClusterId)
	return err == nil && (other != cluster || shard.NodeID(r.NodeId) != id)
}
