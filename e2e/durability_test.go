package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// writers put distinct keys for as long as they are told to, and remember what
// was acknowledged.
type writers struct {
	client *client.Client
	stop   atomic.Bool
	wg     sync.WaitGroup
	acked  [][]string // per writer
	failed atomic.Int64
}

func startWriters(c *client.Client, n int) *writers {
	w := &writers{client: c, acked: make([][]string, n)}
	for i := range n {
		w.wg.Go(func() { w.write(i) })
	}
	return w
}

func (w *writers) write(i int) {
	for k := 0; !w.stop.Load(); k++ {
		key := fmt.Sprintf("%c-%d-%d", 'a'+k%26, i, k)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := w.client.Put(ctx, []byte(key), []byte("value of "+key))
		cancel()
		if err != nil {
			w.failed.Add(1)
			continue
		}
		w.acked[i] = append(w.acked[i], key)
	}
}

// finish stops the writers and returns every acknowledged key.
func (w *writers) finish() []string {
	w.stop.Store(true)
	w.wg.Wait()
	var all []string
	for _, keys := range w.acked {
		all = append(all, keys...)
	}
	return all
}

// TestAcknowledgedWritesSurviveKills kills one node, then another once the first
// is back, then all of them, under load. Every acknowledged write must be there.
func TestAcknowledgedWritesSurviveKills(t *testing.T) {
	c := startCluster(t, 3, 8)
	w := startWriters(c.client(), 16)
	for _, victim := range c.nodes[:2] {
		time.Sleep(2 * time.Second) // load between the faults
		victim.kill()
		time.Sleep(2 * time.Second)
		victim.start()
		c.waitWhole()
	}
	time.Sleep(time.Second)
	for _, p := range c.nodes {
		p.kill()
	}
	acked := w.finish()
	for _, p := range c.nodes {
		p.start()
	}
	c.waitWhole()
	if len(acked) < 1000 {
		t.Fatalf("only %d writes were acknowledged (%d failed): no load to speak of", len(acked), w.failed.Load())
	}
	verify(t, c.client(), acked)
	t.Logf("%d acknowledged writes, all there; %d failed", len(acked), w.failed.Load())
}

func verify(t *testing.T, c *client.Client, keys []string) {
	t.Helper()
	const batch = 1000
	for start := 0; start < len(keys); start += batch {
		part := keys[start:min(start+batch, len(keys))]
		query := make([][]byte, len(part))
		for i, k := range part {
			query[i] = []byte(k)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		got, err := c.MultiGet(ctx, query)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range part {
			if string(got[i].Value) != "value of "+k {
				t.Fatalf("acknowledged write of %q is lost: found %q at revision %d", k, got[i].Value, got[i].Revision)
			}
		}
	}
}
