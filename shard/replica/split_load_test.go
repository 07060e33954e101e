package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

// at finds the replica that covers a key, and the target of a request for it.
func (n *node) at(key []byte) (*Replica, shard.Target) {
	for _, r := range n.store.Replicas() {
		if d := r.descriptor.Load(); d != nil && d.Span.Contains(key) {
			return r, shard.Target{Shard: r.id, Version: d.Epoch.Version, Replica: r.self, Term: r.Leadership().Term}
		}
	}
	return nil, shard.Target{}
}

// TestSplitsUnderLoad splits shards while callers write, read and scan, on several workers.
func TestSplitsUnderLoad(t *testing.T) {
	n := &node{t: t, fs: vfs.NewMem(), retention: 30 * time.Millisecond, workers: 3}
	n.start()
	n.store.SetCheckInterval(20 * time.Millisecond)
	var drained sync.WaitGroup
	drained.Go(func() {
		for range n.leads {
		}
	})
	defer func() {
		n.stop()
		close(n.leads)
		drained.Wait()
	}()
	const callers = 12
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var writes, retries atomic.Int64
	do := func(key []byte, c shard.Command) (shard.Response, shard.Target) {
		for {
			r, target := n.at(key)
			if r == nil {
				retries.Add(1)
				continue
			}
			done := make(chan *answer, 1)
			n.store.Execute(shard.Request{ID: 1, Target: target, Command: shard.AppendCommand(nil, &c)}, func(p shard.Response) {
				a := new(answer)
				a.take(p)
				done <- a
			})
			p := (<-done).Response
			var wrong *shard.WrongShardError
			var not *shard.NotLeaderError
			if errors.As(p.Err, &wrong) || errors.As(p.Err, &not) || errors.Is(p.Err, shard.ErrBusy) || errors.Is(p.Err, shard.ErrDropped) || errors.Is(p.Err, shard.ErrUnavailable) {
				retries.Add(1)
				time.Sleep(100 * time.Microsecond)
				continue
			}
			return p, target
		}
	}
	for caller := range callers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(caller), 3))
			last := map[string]string{}
			newest := shard.Revision(0)
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("\x02%c%03d %d", 'a'+rnd.IntN(shards), rnd.IntN(500), caller)
				if rnd.IntN(2) == 0 {
					c := put(key, fmt.Sprint(caller, " ", k))
					c.Op = shard.OpID{Session: shard.Session(caller + 1), Sequence: uint64(k + 1)}
					if rnd.IntN(5) == 0 {
						c = shard.Command{Kind: shard.KindDelete, Key: []byte(key), Op: c.Op}
					}
					p, target := do([]byte(key), c)
					if p.Err != nil || p.Result.Revision <= newest {
						t.Errorf("put: %+v after %d at %+v", p, newest, target)
						return
					}
					newest = p.Result.Revision
					if c.Kind == shard.KindDelete {
						delete(last, key)
					} else {
						last[key] = string(c.Value)
					}
					writes.Add(1)
					continue
				}
				p, target := do([]byte(key), get(key))
				want, written := last[key]
				if p.Err != nil || p.Result.Found != written || string(p.Result.Value) != want {
					t.Errorf("get %q: %+v at %+v, want %q", key, p, target, want)
					return
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	id := shard.ID(100)
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		key := []byte(fmt.Sprintf("\x02%c%03d", 'a'+rnd.IntN(shards), rnd.IntN(500)))
		r, _ := n.at(key)
		if r == nil {
			continue
		}
		d := r.descriptor.Load()
		if bytes.Equal(d.Span.Start, key) || id > 400 {
			time.Sleep(time.Millisecond)
			continue
		}
		done := make(chan error, 1)
		id++
		r.Split(shard.Split{Shard: r.id, Epoch: d.Epoch, Key: key, Right: id}, func(_, _ shard.Descriptor, err error) { done <- err })
		if err := <-done; err != nil {
			t.Log(err)
		}
		time.Sleep(time.Duration(rnd.IntN(15)) * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	differ := 0
	for _, r := range n.store.Replicas() {
		if r.Differs() {
			differ++
		}
	}
	s := n.store.Stats()
	t.Logf("%d replicas, %d writes, %d retries, %d differ; %d dropped, %d same, %d sweeps", len(n.store.Replicas()), writes.Load(), retries.Load(), differ, s.VersionsDropped, s.ChecksSame, s.Sweeps)
	if differ > 0 {
		t.Error("differences")
	}
}
