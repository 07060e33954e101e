package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// load is clients that write and read while the cluster changes. An operation that
// the client library gives up on is a failed operation.
type load struct {
	client *client.Client
	stop   atomic.Bool
	wg     sync.WaitGroup
	ops    atomic.Int64

	mu     sync.Mutex
	failed []string
	newest map[string]string // acknowledged, by key; each key has one writer
}

// operationPatience is what a user who waits would call a failure.
const operationPatience = 10 * time.Second

// startLoad runs workers clients through a client that knows of some nodes only;
// it finds the others by itself.
func startLoad(t *testing.T, endpoints string, workers int) *load {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Options{Endpoints: strings.Split(endpoints, ",")})
	if err != nil {
		t.Fatal(err)
	}
	l := &load{client: c, newest: map[string]string{}}
	for id := range workers {
		l.wg.Go(func() { l.run(id) })
	}
	t.Cleanup(func() {
		l.stop.Store(true)
		l.wg.Wait()
		_ = c.Close()
	})
	return l
}

func (l *load) run(id int) {
	rnd := rand.New(rand.NewPCG(uint64(id), 9))
	for n := 0; !l.stop.Load(); n++ {
		// Keys of all shards: their first byte decides.
		key := fmt.Sprintf("%c%02d/%d", rnd.IntN(256), id, rnd.IntN(2))
		if rnd.IntN(2) == 0 {
			l.put(key, fmt.Sprintf("%d-%d", id, n))
		} else {
			l.get(key)
		}
	}
}

func (l *load) put(key, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), operationPatience)
	defer cancel()
	if _, err := l.client.Put(ctx, []byte(key), []byte(value)); err != nil {
		l.fail(fmt.Sprintf("put %q: %v", key, err))
		return
	}
	l.ops.Add(1)
	l.mu.Lock()
	l.newest[key] = value
	l.mu.Unlock()
}

func (l *load) get(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), operationPatience)
	defer cancel()
	l.mu.Lock()
	want, written := l.newest[key]
	l.mu.Unlock()
	if !written {
		return
	}
	kv, err := l.client.Get(ctx, []byte(key))
	switch {
	case err != nil:
		l.fail(fmt.Sprintf("get %q: %v", key, err))
	case string(kv.Value) != want:
		l.fail(fmt.Sprintf("get %q: %q, and %q was acknowledged", key, kv.Value, want))
	default:
		l.ops.Add(1)
	}
}

func (l *load) fail(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) < 20 {
		l.failed = append(l.failed, what)
	}
}

// end stops the load, and demands that no operation has failed and that all that
// was acknowledged is there.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop.Store(true)
	l.wg.Wait()
	for key := range l.newest {
		if len(l.failed) > 3 {
			break // each of them waits for long
		}
		l.get(key)
	}
	for _, f := range l.failed {
		t.Error(f)
	}
	t.Logf("%d operations", l.ops.Load())
	if l.ops.Load() < 200 {
		t.Errorf("only %d operations: no load to speak of", l.ops.Load())
	}
}
