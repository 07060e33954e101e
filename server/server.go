package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// stopGrace is how long open calls may go on after a stop was asked for.
const stopGrace = 2 * time.Second

// Config of a server process.
type Config struct {
	Store     string // folder of the store; made with mode 0700 if it does not exist
	Listen    string // host:port for clients and peers
	Advertise string // where others reach this node; "": as Listen
	HTTP      string // host:port of health, metrics and profiles; "": none
	// Join names nodes of the cluster to join. Empty on an empty store: create a
	// cluster. On a store with an identity they are more places to find the cluster.
	Join          []string
	InitialShards int // user shards of a new cluster; 0: 1
	// CertsDir is the folder of the node's certificates; see package certs. Either
	// it is set, or Insecure.
	CertsDir    string
	Insecure    bool           // plaintext, on loopback addresses only
	MemoryBytes int64          // budget of the engine; 0: its default
	Locality    shard.Locality // where the node is: replicas are spread over places
	Version     string
	Logger      *slog.Logger
	// Raft tunes the groups; zero fields take the defaults.
	Raft node.RaftConfig
	// Ready is called once when the node serves. Optional.
	Ready func(storage.Identity)

	observe func(*grpc.Server) // tests look at what is served
}

// Run serves until ctx ends (nil) or something fails for good: bad
// configuration, a store that belongs elsewhere, a failing disk.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &server{cfg: cfg, log: cfg.Logger, stop: stop}
	defer s.close()
	if err := s.bind(); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	if err := s.identify(ctx); err != nil {
		return err
	}
	if err := s.startNode(ctx); err != nil {
		return err
	}
	if cfg.Ready != nil {
		cfg.Ready(s.identity)
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (c *Config) check() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.InitialShards == 0 {
		c.InitialShards = 1
	}
	switch {
	case c.Insecure && c.CertsDir != "":
		return &shard.InvalidError{Field: "--insecure", Reason: "goes without --certs-dir: a node serves one or the other"}
	case !c.Insecure && c.CertsDir == "":
		return &shard.InvalidError{Field: "--certs-dir", Reason: "is missing: the folder of the node's certificates (on loopback addresses --insecure does without)"}
	case !c.Insecure:
		return nil
	}
	for _, a := range []struct{ flag, address string }{{"--listen", c.Listen}, {"--http", c.HTTP}, {"--advertise", c.Advertise}} {
		if a.address == "" && a.flag != "--listen" {
			continue
		}
		if err := checkLoopback(a.flag, a.address); err != nil {
			return err
		}
	}
	return nil
}

// server is one process while it runs. Fields are set in the order of Run's calls.
type server struct {
	cfg  Config
	log  *slog.Logger
	stop context.CancelCauseFunc

	security     *security
	listener     net.Listener
	httpListener net.Listener
	advertise    string

	env      *prod.Env
	engine   *storage.Engine
	identity storage.Identity

	transport *transport.GRPC
	peers     *peerClient
	dialer    *client.GRPCDialer // of the node's own client
	node      *node.Node
}

// bind takes the ports first: a taken one must not cost a store its incarnation.
func (s *server) bind() error {
	var err error
	if s.listener, err = s.bindTo("--listen", s.cfg.Listen); err != nil {
		return err
	}
	if s.advertise, err = advertised(s.cfg.Advertise, s.cfg.Listen, s.listener.Addr()); err != nil {
		return err
	}
	if s.security, err = openSecurity(s.cfg.CertsDir, s.advertise, s.log); err != nil {
		return err
	}
	if s.cfg.HTTP != "" {
		if s.httpListener, err = s.bindTo("--http", s.cfg.HTTP); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) bindTo(flag, address string) (net.Listener, error) {
	l, err := listen(flag, address)
	if err == nil && s.cfg.Insecure {
		if err = onLoopback(flag, l); err != nil {
			_ = l.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (s *server) openStore() error {
	s.env = prod.New()
	var once sync.Once
	engine, err := storage.Open(storage.Config{
		Dir: s.cfg.Store, MemoryBytes: s.cfg.MemoryBytes, Env: s.env, Logger: s.log,
		Fatal: func(err error) {
			// Nothing may be done after a failed write or sync: what is in
			// memory and what is on disk no longer agree.
			once.Do(func() {
				s.log.Error("the disk failed; the process ends", "store", s.cfg.Store, "err", err)
				fmt.Fprintf(os.Stderr, "kiloraft: store %s: %v; the process ends\n", s.cfg.Store, err)
				os.Exit(1)
			})
		},
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", s.cfg.Store, err)
	}
	s.engine = engine
	return nil
}

// identify gives the store its identity: the next incarnation of the one it
// has, a new cluster's first, or one from the cluster that it joins.
func (s *server) identify(ctx context.Context) error {
	// Before the store's incarnation is spent.
	if known, ok, err := s.engine.Identity(); err == nil && ok {
		if err := sameCluster(ctx, s.cfg.Store, known.Cluster, s.cfg.Join, s.security.dialOptions()...); err != nil {
			return err
		}
	}
	id, err := await(ctx, func(done func(storage.Identity, error)) {
		if err := node.Resume(s.engine, func(id storage.Identity) { done(id, nil) }); err != nil {
			done(storage.Identity{}, err)
		}
	})
	switch {
	case err == nil:
	case !errors.Is(err, node.ErrNoIdentity):
		return err
	case len(s.cfg.Join) == 0:
		id, err = await(ctx, func(done func(storage.Identity, error)) {
			if err := node.Bootstrap(s.engine, s.env, s.advertise, s.cfg.InitialShards, func(id storage.Identity) { done(id, nil) }); err != nil {
				done(storage.Identity{}, err)
			}
		})
	default:
		id, err = s.adopt(ctx)
	}
	if err != nil {
		return err
	}
	s.identity = id
	s.log.Info("identity", "locality", s.cfg.Locality, "cluster", id.Cluster, "node", id.Node, "incarnation", id.Incarnation)
	return nil
}

func (s *server) adopt(ctx context.Context) (storage.Identity, error) {
	proof, end, err := prove(s.listener)
	if err != nil {
		return storage.Identity{}, err
	}
	m, err := join(ctx, s.cfg.Join, s.advertise, proof, s.log, s.security)
	end()
	if err != nil {
		return storage.Identity{}, err
	}
	return await(ctx, func(done func(storage.Identity, error)) {
		if err := node.Adopt(s.engine, m.cluster, m.node, m.nodes, func(id storage.Identity) { done(id, nil) }); err != nil {
			done(storage.Identity{}, err)
		}
	})
}

func (s *server) startNode(ctx context.Context) error {
	addresses, err := node.OpenAddressBook(s.engine)
	if err != nil {
		return err
	}
	s.peers = newPeerClient(ctx, s.security.dialOptions()...)
	if s.transport, err = s.newTransport(addresses); err != nil {
		return err
	}
	s.dialer = client.NewGRPCDialer(s.security.dialing(), grpc.WithStreamInterceptor(asNode))
	s.node, err = node.New(node.Config{
		Identity: s.identity, Env: s.env, Engine: s.engine, Addresses: addresses, Transport: s.transport,
		Dialer: s.dialer, Peers: s.peers,
		Advertise: s.advertise, HTTPAddress: s.cfg.HTTP, Version: s.cfg.Version, Locality: s.cfg.Locality, Logger: s.log,
		CPUSeconds: processCPUSeconds, Gauges: s.security.gauges, Stop: s.stop, Raft: s.cfg.Raft,
		Join: s.cfg.Join, UnixNow: unixNow,
	})
	if err != nil { // of what is in the store, most likely: say which
		return fmt.Errorf("store %s: %w", s.cfg.Store, err)
	}
	return nil
}

func (s *server) newTransport(addresses *node.AddressBook) (*transport.GRPC, error) {
	return transport.NewGRPC(transport.Config{
		Cluster: s.identity.Cluster, Node: s.identity.Node, Incarnation: s.identity.Incarnation, Address: s.advertise,
		Addresses: addresses.Lookup,
		PeerSeen: func(p transport.Peer) {
			if _, err := addresses.Learn(map[shard.NodeID]string{p.Node: p.Address}); err != nil {
				s.log.Error("address book not written", "err", err)
			}
		},
		Refused:     s.refused,
		DialOptions: s.security.dialOptions(), Logger: s.log,
	})
}

// refused ends the process when another node has seen a newer process with this
// store, or another one of the same age: two of them would vote twice.
func (s *server) refused(by shard.NodeID, why *transport.RefusedError) {
	if why.Reason == transport.CopiedStore || why.Reason == transport.StaleIncarnation {
		s.stop(fmt.Errorf("node %d refuses this store, of which a copy runs elsewhere: %w", by, why))
	}
}

// serve answers until ctx ends, then stops in order: no new calls, no more
// replicas, no more steps, the store last.
func (s *server) serve(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	rpc := s.newRPC(ctx)
	all.Go(func() error {
		if err := rpc.Serve(s.security.grpcPort(s.listener)); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	if s.httpListener != nil {
		all.Go(func() error {
			metrics := newMetrics(s.node)
			return serveHTTP(ctx, s.security.httpPort(s.httpListener), httpHandler(metrics, s.healthy, s.security.gate()))
		})
	}
	all.Go(func() error {
		<-ctx.Done()
		forced := time.AfterFunc(stopGrace, rpc.Stop)
		defer forced.Stop()
		s.transport.Close() // nothing may reach a host that closes; its streams never end by themselves
		s.node.Close()
		rpc.GracefulStop()
		return nil
	})
	return all.Wait()
}

func (s *server) newRPC(ctx context.Context) *grpc.Server {
	rpc := grpc.NewServer(s.security.serverOptions()...)
	cluster := &clusterService{node: s.node, peers: s.peers}
	pb.RegisterClusterServer(rpc, cluster)
	pb.RegisterAdminServer(rpc, &adminService{cluster: cluster})
	pb.RegisterPeerServer(rpc, &peerService{node: s.node})
	pb.RegisterKVServer(rpc, newKVService(s.node.Core()))
	api.RegisterOperations(rpc, &operations{node: s.node, log: s.log, stop: ctx.Done()})
	s.transport.RegisterWith(rpc)
	s.security.gate().covers(rpc)
	if s.cfg.observe != nil {
		s.cfg.observe(rpc)
	}
	return rpc
}

// healthy tells whether this node can serve: it leads or follows a leader in
// the meta shard or has not been given a replica of it.
func (s *server) healthy() error {
	if meta, ok := s.node.Store().Replica(shard.MetaID); ok && meta.Leadership().Leader == 0 {
		return errors.New("the meta shard has no leader that this node knows of")
	}
	return nil
}

func (s *server) close() {
	if s.peers != nil {
		s.peers.close()
	}
	if s.dialer != nil {
		_ = s.dialer.Close()
	}
	if s.transport != nil {
		s.transport.Close()
	}
	if s.env != nil {
		s.env.Close()
	}
	if s.engine != nil {
		if err := s.engine.Close(); err != nil {
			s.log.Error("store not closed cleanly", "err", err)
		}
	}
	for _, l := range []net.Listener{s.listener, s.httpListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}
