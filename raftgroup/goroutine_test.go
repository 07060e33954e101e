package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// threads is an env.Env on goroutines, as in production: one per queue.
type threads struct {
	start time.Time
	rnd   atomic.Uint64
	stop  chan struct{}
	all   sync.WaitGroup
}

func newThreads() *threads { return &threads{start: time.Now(), stop: make(chan struct{})} }

// close ends all queues and waits for them.
func (e *threads) close() {
	close(e.stop)
	e.all.Wait()
}

func (e *threads) Now() time.Duration { return time.Since(e.start) }
func (e *threads) Uint64() uint64 {
	z := e.rnd.Add(0x9e3779b97f4a7c15)
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	return z ^ (z >> 31)
}
func (e *threads) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	return time.AfterFunc(d, func() { q.Submit(step) })
}
func (e *threads) NewQueue(string) env.Queue { return e.NewPool("", 1) }
func (e *threads) NewPool(_ string, n int) env.Queue {
	q := &threadQueue{wake: make(chan struct{}, n), e: e}
	for range n {
		e.all.Add(1)
		go q.run()
	}
	return q
}

type threadQueue struct {
	e     *threads
	mu    sync.Mutex
	steps []func()
	wake  chan struct{}
}

func (q *threadQueue) Submit(step func()) {
	q.mu.Lock()
	q.steps = append(q.steps, step)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *threadQueue) run() {
	defer q.e.all.Done()
	for {
		q.mu.Lock()
		var step func()
		if len(q.steps) > 0 {
			step = q.steps[0]
			q.steps = q.steps[1:]
		}
		q.mu.Unlock()
		if step != nil {
			step()
			continue
		}
		select {
		case <-q.wake:
		case <-q.e.stop:
			return
		}
	}
}

// direct is a Transport between hosts of one process: a queue per pair of
// nodes, a frame of what has gathered.
type direct struct {
	from  shard.NodeID
	hosts *[4]*Host
	out   [4]struct {
		mu    sync.Mutex
		frame []byte
		q     env.Queue
	}
	snapshots env.Queue
}

func newDirect(e *threads, from shard.NodeID, hosts *[4]*Host) *direct {
	d := &direct{from: from, hosts: hosts, snapshots: e.NewPool("", 2)}
	for i := range d.out {
		d.out[i].q = e.NewQueue("")
	}
	return d
}

func (d *direct) Send(to shard.NodeID, _ int, encode func([]byte) []byte) bool {
	o := &d.out[to]
	o.mu.Lock()
	defer o.mu.Unlock()
	first := len(o.frame) == 0
	o.frame = encode(o.frame)
	if first {
		o.q.Submit(func() {
			o.mu.Lock()
			frame := o.frame
			o.frame = nil
			o.mu.Unlock()
			if err := d.hosts[to].Receive(d.from, frame); err != nil {
				panic(err)
			}
		})
	}
	return true
}

func (d *direct) SendSnapshot(to shard.NodeID, open func() (OutgoingSnapshot, error), done func(error)) {
	d.snapshots.Submit(func() {
		done(func() error {
			s, err := open()
			if err != nil {
				return err
			}
			defer s.Chunks.Close()
			sink, err := d.hosts[to].ReceiveSnapshot(d.from, s.Header, s.Large)
			if err != nil {
				return err
			}
			for {
				chunk, err := s.Chunks.Next()
				if errors.Is(err, io.EOF) {
					return sink.Finish()
				}
				if err == nil {
					err = sink.Add(chunk)
				}
				if err != nil {
					sink.Abort(err)
					return err
				}
			}
		}())
	})
}

// trio is three hosts on goroutines.
type trio struct {
	env      *threads
	engines  [4]*storage.Engine
	hosts    [4]*Host
	mu       sync.Mutex
	changed  *sync.Cond // a leadership
	machines map[[2]uint64]*counter
}

// counter is a machine that counts and can be asked from outside.
type counter struct {
	register
	c       *trio
	leading uint64 // the term in which it leads, or 0; guarded by c.mu
}

func (m *counter) LeaderChanged(l Leadership) {
	m.c.mu.Lock()
	m.leading = 0
	if l.Leading {
		m.leading = l.Term
	}
	m.c.mu.Unlock()
	m.c.changed.Broadcast()
}

func newTrio(t testing.TB, groups int, fs func() vfs.FS, dir string, tick time.Duration) *trio {
	c := &trio{env: newThreads(), machines: map[[2]uint64]*counter{}}
	c.changed = sync.NewCond(&c.mu)
	for n := 1; n <= 3; n++ {
		var err error
		c.engines[n], err = storage.Open(storage.Config{Dir: fmt.Sprintf("%sstore%d", dir, n), FS: fs(), MemoryBytes: 256 << 20, Env: c.env,
			Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
		if err != nil {
			t.Fatal(err)
		}
		b := c.engines[n].NewBatch()
		for id := shard.ID(1); id <= shard.ID(groups); id++ {
			b.PutInitialReplica(shard.ReplicaID(n), &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: shard.Descriptor{
				ID: id, Span: registerSpan(id), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 4,
				Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}, {ID: 2, Node: 2, Role: shard.Voter}, {ID: 3, Node: 3, Role: shard.Voter}}}})
		}
		if err := c.engines[n].Commit(b); err != nil {
			t.Fatal(err)
		}
		c.hosts[n], err = NewHost(Config{Node: shard.NodeID(n), Incarnation: 1, Env: c.env, Engine: c.engines[n],
			Transport: newDirect(c.env, shard.NodeID(n), &c.hosts), Tick: tick,
			NewMachine: func(g *Group, s *storage.ReplicaState) (Machine, error) {
				m := &counter{c: c, register: *newRegister(t, c.engines[n], g, s)}
				c.mu.Lock()
				c.machines[[2]uint64{uint64(n), uint64(g.Shard())}] = m
				c.mu.Unlock()
				return m, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= 3; n++ {
		if err := c.hosts[n].Load(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func memory() vfs.FS { return vfs.NewMem() }

func (c *trio) close(t testing.TB) {
	for n := 1; n <= 3; n++ {
		c.hosts[n].Close()
	}
	c.env.close()
	for n := 1; n <= 3; n++ {
		if err := c.engines[n].Close(); err != nil {
			t.Error(err)
		}
	}
}

// leader waits for a leader.
func (c *trio) leader(id shard.ID) (*Group, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for n := uint64(1); n <= 3; n++ {
			if m := c.machines[[2]uint64{n, uint64(id)}]; m.leading != 0 {
				return m.g, m.leading
			}
		}
		c.changed.Wait()
	}
}

// put proposes until it is applied, and returns the number of attempts.
func (c *trio) put(id shard.ID, op string) int {
	for try := 1; ; try++ {
		g, term := c.leader(id)
		done := make(chan error, 1)
		if err := g.Propose(&Proposal{Header: []byte(op), Term: term, Done: func(_ Result, err error) { done <- err }}); err != nil {
			continue
		}
		if <-done == nil {
			return try
		}
	}
}

// Goroutines do not grow with groups.
func TestNoGoroutinePerGroup(t *testing.T) {
	count := func(groups int) int {
		c := newTrio(t, groups, memory, "", 20*time.Millisecond)
		defer c.close(t)
		for id := shard.ID(1); id <= shard.ID(groups); id += 97 {
			c.put(id, "k=v")
		}
		return runtime.NumGoroutine()
	}
	few, many := count(2), count(2000)
	if many > few+20 {
		t.Errorf("%d goroutines with 2,000 groups per host, %d with 2", many, few)
	}
}

// Proposals, reads and transfers from many goroutines, on real ones. For -race.
func TestConcurrentUse(t *testing.T) {
	c := newTrio(t, 4, memory, "", 20*time.Millisecond)
	defer c.close(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			id := shard.ID(i%4 + 1)
			for k := range 40 {
				c.put(id, fmt.Sprintf("k%d=%d", i, k))
				g, _ := c.leader(id)
				done := make(chan struct{})
				if err := g.Read(&readRequest{done: func(*register, error) { close(done) }}); err == nil {
					<-done
				}
				if i == 0 && k%10 == 9 {
					moved := make(chan struct{})
					g.TransferLeader(g.Replica()%3+1, func(error) { close(moved) })
					<-moved
				}
				_ = g.Status()
				for n := 1; n <= 3; n++ {
					_ = c.hosts[n].Stats()
				}
			}
		}()
	}
	all.Wait()
}
