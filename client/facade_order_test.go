package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// answering has a cluster of real time answer commands of a kind with err, while
// it is not nil.
func answeringKind(cluster *clienttest.Cluster, kind shard.Kind, err func(n int) error) {
	n := 0
	cluster.Change(func() {
		cluster.Answer = func(_ shard.NodeID, _ *shard.Request, c *shard.Command) (shard.Response, bool) {
			if c.Kind != kind || c.System() {
				return shard.Response{}, false
			}
			n++
			e := err(n)
			return shard.Response{Err: e}, e != nil
		}
	})
}

func TestWithRetriesIsForOneCall(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 1)
	c := openDirect(t, cluster)
	defer c.Close()
	ctx := context.Background()
	attempts := 0
	answeringKind(cluster, shard.KindPut, func(n int) error { attempts = n; return shard.ErrUndetermined })
	for _, retries := range []int{0, 1, 3} {
		attempts = 0
		answeringKind(cluster, shard.KindPut, func(n int) error { attempts = n; return shard.ErrUndetermined })
		if _, err := c.Put(ctx, []byte("a"), nil, client.WithRetries(retries)); !errors.Is(err, shard.ErrUndetermined) || attempts != retries+1 {
			t.Errorf("%d retries: %d attempts, %v", retries, attempts, err)
		}
	}
	answeringKind(cluster, shard.KindPut, func(n int) error {
		if n <= 5 {
			return shard.ErrUndetermined
		}
		return nil
	})
	if _, err := c.Put(ctx, []byte("a"), nil); err != nil {
		t.Error(err)
	}
	var invalid *shard.InvalidError
	if _, err := c.Get(ctx, []byte("a"), client.WithRetries(3)); !errors.As(err, &invalid) {
		t.Errorf("a get with retries: %v", err)
	}
}

// A delete-range that fails half-way tells how far it got, and goes on from there.
func TestADeleteRangeThatIsInterrupted(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 4)
	c := openDirect(t, cluster)
	defer c.Close()
	ctx := context.Background()
	var pairs []client.KeyValue
	for i := range 4000 {
		pairs = append(pairs, client.KeyValue{Key: []byte(fmt.Sprintf("%c%05d", byte(i/1000*64), i))})
	}
	if _, errs := c.MultiPut(ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	for _, c2 := range []struct {
		err error
		is  error
	}{{&shard.InvalidError{Field: "test", Reason: "failed"}, nil}, {shard.ErrUndetermined, shard.ErrUndetermined}} {
		answeringKind(cluster, shard.KindDeleteRange, func(n int) error {
			if n > 1 {
				return c2.err
			}
			return nil
		})
		before, err := c.DeleteRange(ctx, nil, nil, client.WithRetries(0))
		var op *client.OpError
		if err == nil || !errors.As(err, &op) || before.Deleted != 1000 || before.Revision == 0 || before.Next == nil || c2.is != nil && !errors.Is(err, c2.is) {
			t.Errorf("%+v, %v", before, err)
		}
	}
	cluster.Change(func() { cluster.Answer = nil })
	res, err := c.DeleteRange(ctx, nil, nil)
	if err != nil || res.Deleted != 2000 {
		t.Errorf("%+v, %v", res, err)
	}
}

// A range in which more was written and removed since it was looked at than one piece
// may pass is looked at again. What an earlier attempt did is not known then.
func TestADeleteRangeThatHasBecomeTooWide(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 1)
	c := openDirect(t, cluster)
	defer c.Close()
	ctx := context.Background()
	var pairs []client.KeyValue
	for i := range 2500 {
		pairs = append(pairs, client.KeyValue{Key: []byte(fmt.Sprintf("%05d", i))})
	}
	if _, errs := c.MultiPut(ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	answers := []error{nil, shard.ErrRangeTooWide, shard.ErrRangeTooWide}
	answeringKind(cluster, shard.KindDeleteRange, func(n int) error {
		if n <= len(answers) {
			return answers[n-1]
		}
		return nil
	})
	res, err := c.DeleteRange(ctx, []byte("00100"), []byte("02400"))
	if err != nil || res.Deleted != 2300 || res.Next != nil {
		t.Errorf("%+v, %v", res, err)
	}
	answers = []error{shard.ErrUndetermined, shard.ErrRangeTooWide}
	answeringKind(cluster, shard.KindDeleteRange, func(n int) error { return answers[n-1] })
	if res, err := c.DeleteRange(ctx, nil, nil); !errors.Is(err, shard.ErrUndetermined) || res.Deleted != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// Pieces whose answers are lost are repeated with the keys that they were about.
func TestADeleteRangeWhoseAnswersAreLost(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 4)
	c := openDirect(t, cluster)
	defer c.Close()
	ctx := context.Background()
	var pairs []client.KeyValue
	for i := range 3000 {
		pairs = append(pairs, client.KeyValue{Key: []byte(fmt.Sprintf("%c%05d", byte(i/1000*64), i))})
	}
	if _, errs := c.MultiPut(ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	// Every other attempt is carried out, and its answer lost.
	n := 0
	cluster.Change(func() {
		cluster.Answer = func(node shard.NodeID, q *shard.Request, cmd *shard.Command) (shard.Response, bool) {
			if cmd.Kind != shard.KindDeleteRange || cmd.Retry {
				return shard.Response{}, false
			}
			n++
			cluster.Apply(cmd)
			return shard.Response{Err: shard.ErrUndetermined}, true
		}
	})
	res, err := c.DeleteRange(ctx, nil, nil)
	if err != nil || res.Deleted != 3000 || n != 3 {
		t.Errorf("%+v after %d lost answers, %v", res, n, err)
	}
}

// A scan that is left, or whose context ends, leaves nothing behind; its pages are
// fetched ahead, of several shards at once, and not too many.
func TestPagesAreFetchedAhead(t *testing.T) {
	cluster := clienttest.NewCluster(1, 3, 16)
	c := openDirect(t, cluster)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var pairs []client.KeyValue
	for i := range 1600 {
		pairs = append(pairs, client.KeyValue{Key: []byte{byte(i / 100 * 16), byte(i % 100)}, Value: []byte{byte(i)}})
	}
	if _, errs := c.MultiPut(ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	var pages atomic.Int64
	revisions := map[shard.Revision]bool{}
	cluster.Change(func() {
		cluster.Answer = func(_ shard.NodeID, _ *shard.Request, cmd *shard.Command) (shard.Response, bool) {
			if cmd.Kind == shard.KindScan && !cmd.System() {
				pages.Add(1)
				revisions[cmd.Revision] = true
			}
			return shard.Response{}, false
		}
	})
	for _, reverse := range []bool{false, true} {
		pages.Store(0)
		clear(revisions)
		rows, most := 0, int64(0)
		for kv, err := range c.Scan(ctx, client.ScanOptions{PageRows: 10, Reverse: reverse}) {
			if err != nil {
				t.Fatal(err)
			}
			want := pairs[rows]
			if reverse {
				want = pairs[len(pairs)-1-rows]
			}
			if string(kv.Key) != string(want.Key) {
				t.Fatalf("row %d is %x, want %x", rows, kv.Key, want.Key)
			}
			if rows < 20 { // the second page is taken, and another one sent for
				most = max(most, pages.Load())
			}
			rows++
		}
		if rows != 1600 || len(revisions) != 1 || revisions[0] {
			t.Errorf("%d rows at revisions %v", rows, revisions)
		}
		if most < 3 || most > 6 {
			t.Errorf("%d pages were asked for before the third was needed", most)
		}
		pages.Store(0)
		for range c.Scan(ctx, client.ScanOptions{PageRows: 10, Reverse: reverse}) {
			break
		}
		ended, end := context.WithCancel(ctx)
		rows = 0
		for _, err := range c.Scan(ended, client.ScanOptions{PageRows: 10, Reverse: reverse}) {
			if rows++; rows == 25 {
				end()
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		end()
		if rows > 60 {
			t.Errorf("%d rows after the context had ended", rows)
		}
	}
	// Within one shard no revision is drawn: the first page says which.
	clear(revisions)
	var at shard.Revision
	for _, err := range c.Scan(ctx, client.ScanOptions{Start: []byte{16, 0}, End: []byte{17}, PageRows: 10, At: &at}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(revisions) != 2 || !revisions[0] || !revisions[at] || at == 0 {
		t.Errorf("read at %v, told %d", revisions, at)
	}
	if _, err := c.Revision(ctx); err != nil {
		t.Fatal(err)
	}
	cluster.Change(func() { cluster.Floor = at + 1 })
	for _, err := range c.Scan(ctx, client.ScanOptions{Revision: at}) {
		if !errors.Is(err, shard.ErrCompacted) {
			t.Errorf("a scan below the floor: %v", err)
		}
	}
	if _, err := c.GetAt(ctx, []byte{16}, at); !errors.Is(err, shard.ErrCompacted) {
		t.Errorf("a get below the floor: %v", err)
	}
}
