package transport

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

var testCluster = shard.ClusterID{1, 2, 3}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// recorder is a host that remembers what a transport delivers.
type recorder struct {
	mu          sync.Mutex
	changed     *sync.Cond
	received    map[shard.NodeID][]string // messages in order
	frames      map[shard.NodeID][]int    // messages per frame
	unreachable map[shard.NodeID]int
	sinks       []*sink
	open        int // sinks that are neither finished nor aborted
	openMax     int

	// What the host answers; set before it starts.
	refuseSnapshot error
	refuseLarge    bool
	addErr         error
	finishErr      error
	hold           chan struct{} // Add waits for it to be closed, if not nil
	receiveErr     func(frame []byte) error
}

func newRecorder() *recorder {
	r := &recorder{received: map[shard.NodeID][]string{}, frames: map[shard.NodeID][]int{}, unreachable: map[shard.NodeID]int{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// Messages of the tests: length, bytes.
func message(text string) (size int, encode func([]byte) []byte) {
	return 4 + len(text), func(b []byte) []byte {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		return append(b, text...)
	}
}

func (r *recorder) Receive(from shard.NodeID, frame []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.changed.Broadcast()
	if r.receiveErr != nil {
		if err := r.receiveErr(frame); err != nil {
			return err
		}
	}
	// A frame is the receiver's own: nobody else may see what it does to it.
	whole := frame
	defer func() { clear(whole) }()
	n := 0
	for len(frame) > 0 {
		if len(frame) < 4 || uint32(len(frame)-4) < binary.BigEndian.Uint32(frame) {
			return fmt.Errorf("%w: test message", shard.ErrMalformed)
		}
		size := binary.BigEndian.Uint32(frame)
		r.received[from] = append(r.received[from], string(frame[4:4+size]))
		frame = frame[4+size:]
		n++
	}
	r.frames[from] = append(r.frames[from], n)
	return nil
}

func (r *recorder) PeerUnreachable(node shard.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreachable[node]++
	r.changed.Broadcast()
}

// sink takes a snapshot.
type sink struct {
	r        *recorder
	from     shard.NodeID
	header   string
	large    bool
	content  bytes.Buffer
	finished int
	aborted  []error
}

func (r *recorder) ReceiveSnapshot(from shard.NodeID, header []byte, large bool) (raftgroup.SnapshotSink, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuseSnapshot != nil {
		return nil, r.refuseSnapshot
	}
	if r.refuseLarge && large {
		return nil, fmt.Errorf("no room: %w", shard.ErrBusy)
	}
	s := &sink{r: r, from: from, header: string(header), large: large}
	clear(header) // the receiver's own, as chunks are
	r.sinks = append(r.sinks, s)
	r.open++
	r.openMax = max(r.openMax, r.open)
	r.changed.Broadcast()
	return s, nil
}

func (s *sink) Add(chunk []byte) error {
	if s.r.hold != nil {
		<-s.r.hold
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	defer s.r.changed.Broadcast()
	if s.r.addErr != nil {
		return s.r.addErr
	}
	s.content.Write(chunk)
	clear(chunk)
	return nil
}

func (s *sink) Finish() error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	defer s.r.changed.Broadcast()
	s.finished++
	s.r.open--
	return s.r.finishErr
}

func (s *sink) Abort(err error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	defer s.r.changed.Broadcast()
	s.aborted = append(s.aborted, err)
	s.r.open--
}

// await waits until cond holds; cond is called under r.mu.
func (r *recorder) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		r.mu.Lock()
		late = true
		r.mu.Unlock()
		r.changed.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !cond() {
		if late {
			t.Fatalf("waited in vain: %s", what)
		}
		r.changed.Wait()
	}
}

// poll waits for a condition that nobody signals.
func poll(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// source yields chunks, then err or io.EOF. It poisons a chunk once the next
// one is asked for, as its owner may.
type source struct {
	chunks [][]byte
	err    error
	hold   chan struct{} // the second Next waits for it, if not nil
	crowd  *crowd        // counts it from its second opening to its closing, if not nil

	large bool

	mu     sync.Mutex
	opened int
	nexts  int
	closed int
	sent   int // chunks since it was opened
	last   []byte
}

// sendSource sends a snapshot that src yields each time it is opened.
func sendSource(tr raftgroup.Transport, to shard.NodeID, header []byte, src *source, done func(error)) {
	tr.SendSnapshot(to, func() (raftgroup.OutgoingSnapshot, error) {
		src.mu.Lock()
		defer src.mu.Unlock()
		src.opened++
		src.sent = 0
		if src.crowd != nil && src.opened == 2 {
			src.crowd.enter()
		}
		return raftgroup.OutgoingSnapshot{Header: header, Large: src.large, Chunks: src}, nil
	}, done)
}

// closedWell tells whether it is closed as often as it was opened.
func (s *source) closedWell() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened == s.closed
}

func (s *source) Next() ([]byte, error) {
	s.mu.Lock()
	s.nexts++
	second := s.nexts == 2
	s.mu.Unlock()
	if second && s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.last)
	if len(s.chunks) == s.sent {
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	}
	s.last = bytes.Clone(s.chunks[s.sent])
	s.sent++
	return s.last, nil
}

func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	if s.crowd != nil && s.closed == 2 {
		s.crowd.now.Add(-1)
	}
	return nil
}

// crowd counts sources that are sent at once.
type crowd struct{ now, most atomic.Int64 }

func (c *crowd) enter() {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
}

// outcome waits for a snapshot's done, and notices a second call.
type outcome struct {
	ch    chan error
	calls sync.Mutex
	n     int
}

func newOutcome() *outcome { return &outcome{ch: make(chan error, 16)} }

func (o *outcome) done(err error) {
	o.calls.Lock()
	o.n++
	o.calls.Unlock()
	o.ch <- err
}

func (o *outcome) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-o.ch:
		return err
	case <-time.After(patience):
		t.Fatal("a snapshot's done was not called")
		return nil
	}
}

func (o *outcome) once(t *testing.T) {
	t.Helper()
	o.calls.Lock()
	defer o.calls.Unlock()
	if o.n != 1 {
		t.Errorf("done was called %d times", o.n)
	}
}

var errTest = errors.New("made up by the test")

// loop is an environment on one goroutine: virtual time, one seed.
type loop struct {
	mu    sync.Mutex
	cond  *sync.Cond
	now   time.Duration
	seq   uint64
	steps stepHeap
	rng   *rand.Rand
	ended bool
	trace func(q string, at time.Duration)
}

type loopStep struct {
	at    time.Duration
	seq   uint64
	queue string
	run   func()
}

type stepHeap []loopStep

func (h stepHeap) Len() int { return len(h) }
func (h stepHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h stepHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *stepHeap) Push(x any)   { *h = append(*h, x.(loopStep)) }
func (h *stepHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newLoop(seed uint64) *loop {
	l := &loop{rng: rand.New(rand.NewPCG(seed, 1))}
	l.cond = sync.NewCond(&l.mu)
	return l
}

type loopQueue struct {
	l    *loop
	name string
}

type loopTimer struct{}

func (loopTimer) Stop() bool { return false }

func (l *loop) Now() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *loop) AfterFunc(d time.Duration, q env.Queue, step func()) env.Timer {
	l.push(max(d, 0), q.(loopQueue).name, step)
	return loopTimer{}
}

func (l *loop) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Uint64()
}

func (l *loop) NewQueue(name string) env.Queue       { return loopQueue{l, name} }
func (l *loop) NewPool(name string, _ int) env.Queue { return loopQueue{l, name} }
func (q loopQueue) Submit(step func())               { q.l.push(0, q.name, step) }

func (l *loop) push(d time.Duration, queue string, step func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	heap.Push(&l.steps, loopStep{at: l.now + d, seq: l.seq, queue: queue, run: step})
	l.cond.Signal()
}

// step runs the next step, if there is one.
func (l *loop) step() bool {
	l.mu.Lock()
	if l.steps.Len() == 0 {
		l.mu.Unlock()
		return false
	}
	s := heap.Pop(&l.steps).(loopStep)
	l.now = s.at
	l.mu.Unlock()
	if l.trace != nil {
		l.trace(s.queue, s.at)
	}
	s.run()
	return true
}

// runAll runs steps until none is left.
func (l *loop) runAll() {
	for l.step() {
	}
}

// background runs steps as they come until the test ends.
func (l *loop) background(t testing.TB) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			l.mu.Lock()
			for l.steps.Len() == 0 && !l.ended {
				l.cond.Wait()
			}
			ended := l.ended
			l.mu.Unlock()
			if ended {
				return
			}
			l.step()
		}
	}()
	t.Cleanup(func() {
		l.mu.Lock()
		l.ended = true
		l.cond.Signal()
		l.mu.Unlock()
		<-stopped
	})
}
