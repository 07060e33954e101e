package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/bench"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// callPatience bounds a question to the cluster, and opPatience one operation of the load.
	callPatience = 10 * time.Second
	opPatience   = 10 * time.Second
	// lookEvery is between two looks at the cluster.
	lookEvery = time.Second
)

// scene is a cluster with a load on it.
type scene struct {
	task
	endpoints []string
	client    *client.Client
	store     *watched // the client, for loads
	conn      *grpc.ClientConn
	began     time.Time
}

func openScene(ctx context.Context, t task) (*scene, error) {
	s := &scene{task: t, endpoints: strings.Split(os.Getenv("KILORAFT_ENDPOINTS"), ","), began: time.Now()}
	var err error
	// The first node is there for as long as the scene is.
	s.conn, err = grpc.NewClient("passthrough:///"+s.endpoints[0], append(api.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, err
	}
	if s.client, err = client.Open(ctx, client.Options{Endpoints: s.endpoints}); err != nil {
		s.close()
		return nil, err
	}
	s.store = &watched{Client: s.client}
	for _, text := range t.Scale.Settings {
		name, value, _ := strings.Cut(text, "=")
		if err := s.set(ctx, name, value); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *scene) close() {
	if s.client != nil {
		_ = s.client.Close() // nothing is left to be lost
	}
	_ = s.conn.Close()
}

// say tells those who wait how far it has come.
func (s *scene) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "elastic: %s: %4.0fs  %s\n", s.Part, time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *scene) set(ctx context.Context, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	_, err := pb.NewAdminClient(s.conn).SetSetting(ctx, &pb.SetSettingRequest{Name: name, Value: value})
	return api.Error(err)
}

func (s *scene) nodes(ctx context.Context) ([]*pb.NodeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	answer, err := pb.NewClusterClient(s.conn).ListNodes(ctx, &pb.ListNodesRequest{})
	return answer.GetNodes(), api.Error(err)
}

// shards lists those of users, in order of key.
func (s *scene) shards(ctx context.Context) ([]*pb.ShardInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	answer, err := pb.NewClusterClient(s.conn).ListShards(ctx, &pb.ListShardsRequest{})
	users := slices.DeleteFunc(answer.GetShards(), func(i *pb.ShardInfo) bool {
		start := i.GetDescriptor_().GetStart()
		return len(start) == 0 || start[0] != shard.UserKeyspace
	})
	return users, api.Error(err)
}

// holding is what a node has of users' shards.
type holding struct {
	Node     uint64 `json:"node"`
	Replicas int    `json:"replicas"`
	Leaders  int    `json:"leaders"`
	Bytes    uint64 `json:"bytes"` // of its replicas: estimates
	Disk     uint64 `json:"disk"`  // bytes in use
	ops      float64
}

// holdings looks at what each node has, in order of ID.
func (s *scene) holdings(ctx context.Context) (list []holding, shards int, err error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, 0, err
	}
	all, err := s.shards(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, n := range nodes {
		h := holding{Node: n.GetId(), Disk: n.GetBytes(), ops: n.GetCounters()["operations_total"] + n.GetCounters()["reads_total"]}
		for _, one := range all {
			if one.GetLeaderNode() == h.Node {
				h.Leaders++
			}
			for _, r := range one.GetReplicas() {
				if r.GetNode() == h.Node {
					h.Replicas++
					h.Bytes += r.GetBytes()
				}
			}
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b holding) int { return cmp.Compare(a.Node, b.Node) })
	return list, len(all), nil
}

// config is a load that is the same in every part but for its size.
func (s *scene) config() bench.Config {
	return bench.Config{Workload: bench.Mixed, Clients: 256, Keys: s.Scale.Keys, ValueBytes: 256, Distribution: bench.Uniform, Timeout: opPatience, Seed: 1}
}

const (
	warmup = 2 * time.Second
	// rateClients are so many that an operation under a rate seldom waits for a free one.
	rateClients = 1024
)

// peak writes all keys, and measures how many operations per second the cluster answers.
func (s *scene) peak(ctx context.Context) (float64, error) {
	s.say("writing %s keys, then measuring the peak for %v", bench.Count(s.Scale.Keys), s.Scale.Peak)
	c := s.config()
	c.Load, c.Warmup, c.Duration = true, warmup, s.Scale.Peak
	r, err := bench.Run(ctx, s.store, c)
	switch {
	case err != nil:
		return 0, err
	case r.Errors > 0:
		return 0, fmt.Errorf("measuring the peak: %d operations failed; the first error: %s", r.Errors, r.FirstErrors[0])
	}
	return r.OpsPerSec, nil
}

// under runs a load, and do from the moment on at which it is measured. It returns when
// both are over. With do's context the load has ended, or was told to.
func (s *scene) under(ctx context.Context, c bench.Config, do func(context.Context)) (*bench.Report, error) {
	c.Clients = rateClients
	done := make(chan struct{})
	go func() {
		defer close(done)
		if sleep(ctx, c.Warmup) {
			do(ctx)
		}
	}()
	r, err := bench.Run(ctx, s.store, c)
	<-done
	return r, err
}

// until runs a load until do has returned, but no longer than the load is to last.
func (s *scene) until(ctx context.Context, c bench.Config, do func(context.Context)) (*bench.Report, error) {
	ctx, stop := context.WithTimeout(ctx, c.Warmup+c.Duration)
	defer stop()
	return s.under(ctx, c, func(ctx context.Context) {
		do(ctx)
		stop()
	})
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
