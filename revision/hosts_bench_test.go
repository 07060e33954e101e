package revision

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// metaNode is one node whose host drives a voter of the meta shard, and nothing else.
type metaNode struct {
	id     shard.NodeID
	env    *prod.Env
	engine *storage.Engine
	store  *replica.Store
	host   *raftgroup.Host
	grants *Grants
	draws  *Draws
}

// Note implements Notes by the host, which is made after the draws.
func (n *metaNode) Note(to shard.NodeID, note []byte) bool { return n.host.Note(to, note) }

// noWay is a KV that reaches nobody, and counts who tried: a draw that took
// another way than a note.
type noWay struct{ asked atomic.Int64 }

func (k *noWay) Do(_ shard.Command, _ time.Duration, done func(shard.Result, error)) func() {
	k.asked.Add(1)
	done(shard.Result{}, shard.ErrUnavailable)
	return func() {}
}

// peering makes each node's transport, and connects them.
type peering interface {
	join(n *metaNode) interface {
		raftgroup.Transport
		Start(raftgroup.Receiver)
	}
	close()
}

const metaNodes = 3

// startMeta starts three nodes with real hosts and stores, on disks in memory: what
// is granted touches a disk once in some million revisions.
func startMeta(b *testing.B, peers peering, kv *noWay) []*metaNode {
	d := shard.Descriptor{ID: shard.MetaID, Span: shard.SystemSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: metaNodes + 1}
	for id := shard.NodeID(1); id <= metaNodes; id++ {
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(id), Node: id, Role: shard.Voter})
	}
	var nodes []*metaNode
	for id := shard.NodeID(1); id <= metaNodes; id++ {
		n := &metaNode{id: id, env: prod.New()}
		var err error
		if n.engine, err = storage.Open(storage.Config{Dir: "store", FS: vfs.NewMem(), Env: n.env, MemoryBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			b.Fatal(err)
		}
		batch := n.engine.NewBatch()
		batch.PutInitialReplica(shard.ReplicaID(id), &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: d})
		if err := n.engine.Commit(batch); err != nil {
			b.Fatal(err)
		}
		n.grants = NewGrants(GrantsConfig{Meta: func() (Meta, bool) { return MetaIn(n.store) }})
		n.draws = NewDraws(DrawsConfig{Env: n.env, Queue: n.env.NewQueue("draws"), KV: kv, Grants: n.grants, Notes: n})
		n.store = replica.NewStore(replica.Config{Node: id, Env: n.env, Engine: n.engine, Revisions: n.draws, Grants: n.grants, Reads: n.env.NewPool("reads", 2)})
		to := peers.join(n)
		if n.host, err = raftgroup.NewHost(raftgroup.Config{Node: id, Incarnation: 1, Env: n.env, Engine: n.engine, Transport: to,
			NewMachine: n.store.NewMachine, ReserveSpan: n.store.ReserveSpan, Note: n.draws.Note}); err != nil {
			b.Fatal(err)
		}
		if err := n.host.Load(); err != nil {
			b.Fatal(err)
		}
		to.Start(n.host)
		nodes = append(nodes, n)
	}
	b.Cleanup(func() {
		peers.close()
		for _, n := range nodes {
			n.store.Close()
			n.host.Close()
		}
		for _, n := range nodes {
			n.env.Close()
			if err := n.engine.Close(); err != nil {
				b.Error(err)
			}
		}
	})
	return nodes
}

// inMemory connects nodes within the process.
type inMemory struct {
	env *prod.Env
	net *transport.Network
	all []*transport.Memory
}

func newInMemory() *inMemory {
	e := prod.New()
	return &inMemory{env: e, net: transport.NewNetwork(e, transport.NetworkConfig{})}
}

func (m *inMemory) join(n *metaNode) interface {
	raftgroup.Transport
	Start(raftgroup.Receiver)
} {
	t, err := m.net.Join(n.id, 1)
	if err != nil {
		panic(err)
	}
	m.all = append(m.all, t)
	return t
}

func (m *inMemory) close() {
	for _, t := range m.all {
		t.Close()
	}
	m.env.Close()
}

// overGRPC connects nodes by the loopback interface.
type overGRPC struct {
	mu      sync.Mutex
	book    map[shard.NodeID]string
	all     []*transport.GRPC
	servers []*grpc.Server
	serving sync.WaitGroup
}

func (g *overGRPC) address(n shard.NodeID) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.book[n]
}

func (g *overGRPC) join(n *metaNode) interface {
	raftgroup.Transport
	Start(raftgroup.Receiver)
} {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	g.mu.Lock()
	g.book[n.id] = l.Addr().String()
	g.mu.Unlock()
	t, err := transport.NewGRPC(transport.Config{Cluster: shard.ClusterID{1}, Node: n.id, Incarnation: 1, Address: l.Addr().String(), Addresses: g.address,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, BackoffMin: time.Millisecond})
	if err != nil {
		panic(err)
	}
	s := grpc.NewServer(api.ServerOptions()...)
	t.RegisterWith(s)
	g.all, g.servers = append(g.all, t), append(g.servers, s)
	g.serving.Go(func() { _ = s.Serve(l) })
	return t
}

func (g *overGRPC) close() {
	for i := range g.all {
		g.all[i].Close()
		g.servers[i].Stop()
	}
	g.serving.Wait()
}

// draw asks a node's draws for revisions until it is given some, and waits.
func (n *metaNode) draw(b *testing.B, count int) {
	for end := time.Now().Add(time.Minute); ; {
		told := make(chan error, 1)
		n.draws.Draw(count, func(_ shard.Revision, err error) { told <- err })
		err := <-told
		if err == nil {
			return
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// drawers are the nodes that do not lead the meta shard.
func drawers(b *testing.B, nodes []*metaNode) (others []*metaNode) {
	for end := time.Now().Add(time.Minute); len(others) != metaNodes-1; {
		if time.Now().After(end) {
			b.Fatal("no leader is known to all")
		}
		others = nil
		for _, n := range nodes {
			if meta, ok := MetaIn(n.store); ok && !meta.Leadership().Leading && meta.Leadership().Node != 0 {
				others = append(others, n)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range others {
		n.draw(b, 1)
	}
	return others
}

// BenchmarkDrawsBetweenHosts is what one leader of the meta shard grants to the two
// other nodes, each of which has a number of writers that wait for a revision all
// the time: question and answer are notes among real messages of real hosts. An
// operation is one draw of all writers of a node.
func BenchmarkDrawsBetweenHosts(b *testing.B) {
	for _, way := range []struct {
		name  string
		peers func() peering
	}{
		{"memory", func() peering { return newInMemory() }},
		{"grpc", func() peering { return &overGRPC{book: map[shard.NodeID]string{}} }},
	} {
		for _, writers := range []int{1, 16, 256, 4096} {
			b.Run(fmt.Sprintf("%s/writers=%d", way.name, writers), func(b *testing.B) {
				kv := new(noWay)
				others := drawers(b, startMeta(b, way.peers(), kv))
				kv.asked.Store(0)
				var draws, revisions uint64
				for _, n := range others {
					d, r := n.draws.Drawn()
					draws, revisions = draws-d, revisions-r
				}
				var left, running atomic.Int64
				var failed atomic.Pointer[error]
				left.Store(int64(b.N))
				running.Store(int64(len(others)))
				over := make(chan struct{})
				b.ResetTimer()
				for _, n := range others {
					waiting, round := 0, func() {}
					last := shard.Revision(0)
					told := func(first shard.Revision, err error) {
						if err == nil && first <= last {
							err = fmt.Errorf("revision %d after %d", first, last)
							failed.CompareAndSwap(nil, &err)
						}
						last = max(last, first) // 0: a draw that got lost, whose writers ask again
						if waiting--; waiting == 0 {
							round()
						}
					}
					round = func() {
						if left.Add(-1) < 0 || failed.Load() != nil {
							if running.Add(-1) == 0 {
								close(over)
							}
							return
						}
						waiting = writers
						for range writers {
							n.draws.Draw(1, told)
						}
					}
					n.draws.cfg.Queue.Submit(round)
				}
				<-over
				b.StopTimer()
				if err := failed.Load(); err != nil {
					b.Fatal(*err)
				}
				for _, n := range others {
					d, r := n.draws.Drawn()
					draws, revisions = draws+d, revisions+r
				}
				if lost := kv.asked.Load(); lost > 0 {
					b.ReportMetric(float64(lost), "lost-draws")
				}
				b.ReportMetric(float64(revisions)/b.Elapsed().Seconds(), "revisions/s")
				b.ReportMetric(float64(revisions)/float64(max(draws, 1)), "revisions/draw")
			})
		}
	}
}
