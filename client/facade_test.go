package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openDirect(t testing.TB, cluster *clienttest.Cluster) *client.Client {
	t.Helper()
	c, err := client.Open(context.Background(), client.Options{
		Endpoints: []string{cluster.AddressOf(1), cluster.AddressOf(2)}, Logger: quiet(), Dialer: &clienttest.Direct{Cluster: cluster},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSuiteInOneProcess(t *testing.T) {
	for _, shards := range []int{1, 13} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			cluster := clienttest.NewCluster(1, 3, shards)
			clienttest.Run(t, func(t *testing.T) *client.Client { return openDirect(t, cluster) })
		})
	}
}

// TestSuiteWhileLeadersMoveAndShardsSplit: users notice nothing.
func TestSuiteWhileLeadersMoveAndShardsSplit(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 3)
	var n int
	cluster.Change(func() {
		cluster.Answer = func(shard.NodeID, *shard.Request, *shard.Command) (shard.Response, bool) {
			if n++; n%500 == 0 { // the lock is held
				all := cluster.Shards()
				s := all[n/500%len(all)]
				s.Lead(s.Leader%3 + 1)
			}
			return shard.Response{}, false
		}
	})
	splits := 0
	clienttest.Run(t, func(t *testing.T) *client.Client {
		splits++
		c := openDirect(t, cluster)
		// The client learns the shards, and then they are others.
		if _, err := c.MultiGet(context.Background(), [][]byte{{'A'}, {0xff}}); err != nil {
			t.Fatal(err)
		}
		cluster.Split(shard.UserKey([]byte{byte('A' + splits), byte(splits)}))
		cluster.Publish()
		return c
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	var invalid *shard.InvalidError
	if _, err := client.Open(context.Background(), client.Options{}); !errors.As(err, &invalid) {
		t.Errorf("no endpoints: %v", err)
	}
	if _, err := client.Open(context.Background(), client.Options{Endpoints: []string{"192.0.2.7:7400"}}); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "--certs-dir") {
		t.Errorf("plaintext to another machine: %v", err)
	}
	if _, err := client.Open(context.Background(), client.Options{Endpoints: []string{"7400"}}); !errors.As(err, &invalid) {
		t.Errorf("no port: %v", err)
	}
	o := client.Options{Endpoints: []string{"nowhere:1", "nobody:2"}, DialTimeout: 30 * time.Millisecond, Logger: quiet(), Dialer: &clienttest.Direct{Cluster: clienttest.NewCluster(1, 3, 1)}}
	_, err := client.Open(context.Background(), o)
	var unreachable *client.UnreachableError
	if !errors.As(err, &unreachable) || !errors.Is(err, context.DeadlineExceeded) || err.Error() != "no endpoint answered (context deadline exceeded): nowhere:1: connection refused; nobody:2: connection refused" {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.DialTimeout = time.Hour
	if _, err := client.Open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAContextEndsAWaitingCall: without a leader a call waits for its context.
func TestAContextEndsAWaitingCall(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 1)
	c := openDirect(t, cluster)
	defer c.Close()
	cluster.Change(func() { cluster.Shards()[1].Leader = 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Put(ctx, []byte("user/17"), nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, shard.ErrUndetermined) {
		t.Errorf("put: %v", err)
	}
	if text := err.Error(); !strings.HasPrefix(text, `put "user/17": context deadline exceeded after `) || !strings.Contains(text, "the leader is not known here") {
		t.Errorf("the error says %q", text)
	}
	if _, err := c.MultiGet(ctx, [][]byte{[]byte("a"), []byte("b")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("multi-get: %v", err)
	}
}

// TestCloseUnderLoad: whoever waits is told, and nobody is left behind.
func TestCloseUnderLoad(t *testing.T) {
	c := openDirect(t, clienttest.NewCluster(1, 3, 4))
	var wg sync.WaitGroup
	var begun atomic.Int64
	loaded := make(chan struct{})
	for i := range 50 {
		wg.Go(func() {
			for {
				if begun.Add(1) == 1000 {
					close(loaded)
				}
				if _, err := c.Put(context.Background(), fmt.Append(nil, i), nil); err != nil {
					if !errors.Is(err, client.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	<-loaded
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestAClientOnACoreLeavesItOpen(t *testing.T) {
	owner := openDirect(t, clienttest.NewCluster(1, 3, 4))
	defer owner.Close()
	c := client.FromCore(owner.Core())
	if _, err := c.Put(context.Background(), []byte("a"), []byte("v")); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := owner.Get(context.Background(), []byte("a")); err != nil {
		t.Error(err)
	}
}

// TestCallsAllocateLittle: a put or get in the client costs a handful of
// allocations, those of the pretended cluster's frames included.
func TestCallsAllocateLittle(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 4)
	c := openDirect(t, cluster)
	defer c.Close()
	key, value, ctx := []byte("key"), make([]byte, 256), context.Background()
	answers := cluster.Commands()
	// The least of several runs: a garbage collection empties the pools.
	least := func(call func() error) float64 {
		n := 1e9
		for range 10 {
			n = min(n, testing.AllocsPerRun(50, func() {
				if err := call(); err != nil {
					t.Fatal(err)
				}
			}))
		}
		return n
	}
	puts := least(func() error { _, err := c.Put(ctx, key, value); return err })
	gets := least(func() error { _, err := c.Get(ctx, key); return err })
	if cluster.Commands()-answers < 1000 {
		t.Error("commands were not executed")
	}
	if puts > allocationsMax || gets > allocationsMax {
		t.Errorf("%v allocations per put, %v per get", puts, gets)
	}
}

func benchmark(b *testing.B, call func(c *client.Client, key []byte) error) {
	for _, callers := range []int{1, 256} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			cluster := clienttest.NewCluster(1, 3, 48)
			value := make([]byte, 256)
			cluster.Change(func() { // answers at once
				cluster.Answer = func(_ shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
					switch c.Kind {
					case shard.KindPut:
						return shard.Response{Result: shard.Result{Revision: 9}}, true
					case shard.KindGet:
						return shard.Response{Result: shard.Result{Revision: 9, Found: true, Value: value}}, true
					}
					return shard.Response{}, false
				}
			})
			c := openDirect(b, cluster)
			defer c.Close()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for i := range callers {
				wg.Go(func() {
					key := fmt.Appendf(nil, "%c%030d", i, i)
					for left.Add(-1) >= 0 {
						if err := call(c, key); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			if s := c.Core().Stats(); s.Frames > 0 {
				b.ReportMetric(float64(s.Attempts)/float64(s.Frames), "ops/frame")
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	value := make([]byte, 256)
	benchmark(b, func(c *client.Client, key []byte) error {
		_, err := c.Put(context.Background(), key, value)
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(c *client.Client, key []byte) error {
		_, err := c.Get(context.Background(), key)
		return err
	})
}
