package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// counting numbers writes as package revision does, which lies to the right.
type counting struct {
	mu   sync.Mutex
	last shard.Revision
}

func (c *counting) Draw(n int, done func(shard.Revision, error)) {
	c.mu.Lock()
	first := c.last + 1
	c.last += shard.Revision(n)
	c.mu.Unlock()
	done(first, nil)
}

func (c *counting) Newest() shard.Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *counting) HandedOut(r shard.Revision, done func(bool, error)) { done(r <= c.Newest(), nil) }

// nobody is a network without other nodes.
type nobody struct{}

func (nobody) Send(shard.NodeID, int, func([]byte) []byte) bool { return false }
func (nobody) SendSnapshot(_ shard.NodeID, _ func() (raftgroup.OutgoingSnapshot, error), done func(error)) {
	done(errors.New("there is nobody"))
}

// node is one node with real groups, over a disk in memory.
type node struct {
	t      *testing.T
	fs     vfs.FS
	env    *prod.Env
	engine *storage.Engine
	host   *raftgroup.Host
	store  *Store
	leads  chan shard.ID // a shard for each gain of leadership

	retention time.Duration
	workers   int
	revisions counting // goes on when the node starts again
}

const shards = 4

func bounds(i int) shard.Span {
	return shard.Span{Start: []byte{shard.UserKeyspace, byte('a' + i)}, End: []byte{shard.UserKeyspace, byte('a' + i + 1)}}
}

func (n *node) start() {
	n.env = prod.New()
	n.leads = make(chan shard.ID, 1000)
	var err error
	n.engine, err = storage.Open(storage.Config{Dir: "store", FS: n.fs, Env: n.env, MemoryBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		n.t.Fatal(err)
	}
	records, err := n.engine.Replicas()
	if err != nil {
		n.t.Fatal(err)
	}
	if len(records) == 0 {
		b := n.engine.NewBatch()
		for i := range shards {
			b.PutInitialReplica(1, &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{
				ID: shard.ID(i + 2), Span: bounds(i), Epoch: shard.Epoch{Version: 1, ConfVersion: 1},
				Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}})
		}
		if err := n.engine.Commit(b); err != nil {
			n.t.Fatal(err)
		}
	}
	n.store = NewStore(Config{Node: 1, Env: n.env, Engine: n.engine, Revisions: &n.revisions, Reads: n.env.NewPool("reads", 2), Retention: n.retention, DropRate: 1 << 30,
		DescriptorChanged: func(d shard.Descriptor, leading bool, _ uint64) {
			if leading {
				n.leads <- d.ID
			}
		}})
	n.host, err = raftgroup.NewHost(raftgroup.Config{Node: 1, Incarnation: 1, Env: n.env, Engine: n.engine, Transport: nobody{}, NewMachine: n.store.NewMachine,
		Workers: n.workers, ReserveSpan: n.store.ReserveSpan, Covers: n.store.Covers})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.host.Load(); err != nil {
		n.t.Fatal(err)
	}
	for led := map[shard.ID]bool{}; len(led) < shards; {
		select {
		case id := <-n.leads:
			led[id] = true
		case <-time.After(time.Minute):
			n.t.Fatalf("only %v are led", led)
		}
	}
}

func (n *node) stop() {
	n.host.Close()
	n.env.Close()
	if err := n.engine.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// call executes a command on the shard that it belongs to, and waits.
func (n *node) call(i int, c shard.Command) shard.Response {
	done := make(chan *answer, 1)
	n.store.Execute(shard.Request{ID: 1, Target: n.target(i), Command: shard.AppendCommand(nil, &c)}, func(p shard.Response) {
		a := new(answer)
		a.take(p)
		done <- a
	})
	return (<-done).Response
}

func (n *node) target(i int) shard.Target {
	r, ok := n.store.Replica(shard.ID(i + 2))
	if !ok {
		n.t.Errorf("shard %d is not here", i+2)
		return shard.Target{}
	}
	return shard.Target{Shard: r.id, Version: 1, Replica: 1, Term: r.Leadership().Term}
}

// Over real groups and a real engine: callers read what was acknowledged,
// before and after a restart, while the membership changes.
func TestOverRealGroups(t *testing.T) {
	n := &node{t: t, fs: vfs.NewMem()}
	n.start()
	const callers, each = 16, 40
	key := func(caller, k int) string {
		return fmt.Sprintf("\x02%c caller %d key %d", 'a'+caller%shards, caller, k%10)
	}
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			last := shard.Revision(0)
			for k := range each {
				i := caller % shards
				p := n.call(i, put(key(caller, k), fmt.Sprint("value ", k)))
				if p.Err != nil || p.Result.Revision <= last {
					t.Errorf("put: %+v after revision %d", p, last)
					return
				}
				last = p.Result.Revision
				if p := n.call(i, get(key(caller, k))); p.Err != nil || string(p.Result.Value) != fmt.Sprint("value ", k) || p.Result.Revision != last {
					t.Errorf("get: %+v, put at %d", p, last)
					return
				}
				if caller == 0 && k == each/2 {
					r, _ := n.store.Replica(2)
					s, _ := r.State()
					changed := make(chan error, 1)
					r.ChangeMembership(shard.MembershipChange{Shard: 2, Epoch: s.Descriptor.Epoch,
						Changes: []shard.Change{{Kind: shard.AddLearner, Replica: 2, Node: 2}}}, func(err error) { changed <- err })
					if err := <-changed; err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	n.stop()

	n.start()
	for i := range shards {
		span := bounds(i)
		p := n.call(i, shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End})
		if p.Err != nil || len(p.Result.Rows) != callers/shards*10 {
			t.Errorf("shard %d: %d rows, %v", i+2, len(p.Result.Rows), p.Err)
		}
		if p := n.call(i, put(key(i, 0), "after")); p.Err != nil || p.Result.Revision <= callers*each {
			t.Errorf("%+v", p)
		}
	}
	r, _ := n.store.Replica(2)
	if s, ok := r.State(); !ok || len(s.Descriptor.Replicas) != 2 || s.Descriptor.Epoch.ConfVersion != 2 {
		t.Errorf("%+v", s)
	}

	// Whoever waits when the host closes hears of it once.
	var sent, answered atomic.Int64
	for range 200 {
		for i := range shards {
			for _, c := range []shard.Command{put(key(i, 0), "last"), get(key(i, 0))} {
				sent.Add(1)
				n.store.Execute(shard.Request{Target: n.target(i), Command: shard.AppendCommand(nil, &c)}, func(shard.Response) { answered.Add(1) })
			}
		}
	}
	n.host.Close()
	// Reads that were confirmed before are still being served.
	for n.store.Stats().Reads > 0 {
		again := make(chan struct{})
		n.store.cfg.Reads.Submit(func() { close(again) })
		<-again
	}
	if sent.Load() != answered.Load() {
		t.Errorf("%d requests, %d answers", sent.Load(), answered.Load())
	}
	if s := n.store.Stats(); s.Reads != 0 || s.Writes != 0 || s.WriteBytes != 0 {
		t.Errorf("outstanding: %+v", s)
	}
	n.env.Close()
	if err := n.engine.Close(); err != nil {
		t.Fatal(err)
	}
}

// Over real groups and a real engine, versions are dropped while their keys are
// written and read, as fast as the floor rises.
func TestDroppingOverRealGroups(t *testing.T) {
	n := &node{t: t, fs: vfs.NewMem(), retention: time.Hour}
	n.start()
	defer n.stop()
	const each, keys = 150, 10
	key := func(i, k int) string { return fmt.Sprintf("\x02%c key %d", 'a'+i, k%keys) }
	rise := func(round int) { // the floor comes up to what is written
		n.store.SetRetention(time.Duration(round % 2))
		looked := make(chan struct{})
		n.store.upkeep.queue.Submit(func() { close(looked) })
		<-looked
	}
	var left atomic.Int64
	left.Store(shards)
	var wg sync.WaitGroup
	for i := range shards {
		wg.Go(func() {
			defer left.Add(-1)
			for k := range each {
				value := fmt.Sprint("value ", k)
				p := n.call(i, put(key(i, k), value))
				got := n.call(i, get(key(i, k)))
				page := n.call(i, shard.Command{Kind: shard.KindScan, Start: bounds(i).Start, End: bounds(i).End})
				if p.Err != nil || string(got.Result.Value) != value || page.Err != nil || len(page.Result.Rows) != min(k+1, keys) || page.Result.Revision != p.Result.Revision {
					t.Errorf("%+v, %+v, %d rows, %v", p, got, len(page.Result.Rows), page.Err)
					return
				}
			}
		})
	}
	round := 0
	for ; left.Load() > 0; round++ {
		rise(round)
	}
	wg.Wait()
	// A rest that is small beside what must stay is left.
	for ; n.store.Stats().VersionsDropped < shards*(each-2*keys); round++ {
		rise(round)
	}
	for i := range shards {
		x, err := n.store.InspectKey([]byte(key(i, 0)))
		if err != nil || len(x.Versions) > keys || x.Floor > x.LastRevision {
			t.Errorf("%+v, %v", x, err)
		}
	}
}
