package transport

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/shard"
)

// TestSnapshotLimits: a few are sent at once, a bounded number waits, and the next
// one is refused at once.
func TestSnapshotLimits(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.SnapshotsSending, c.SnapshotsWaiting = 3, 10 }
	r := newRecorder()
	r.hold = make(chan struct{})
	f.startGRPC(2, 1, r)
	n := f.startGRPC(1, 1, newRecorder())
	results := make(chan error, 100)
	start := func() {
		sendSource(n, 2, nil, &source{chunks: [][]byte{{1}}}, func(err error) { results <- err })
	}
	for range 3 {
		start()
	}
	r.await(t, "three at once", func() bool { return r.open == 3 })
	for range 10 {
		start()
	}
	if s := n.Stats(); s.QueuedSnapshots != 10 || s.SendingSnapshots != 3 {
		t.Errorf("%d snapshots are queued, %d are sent", s.QueuedSnapshots, s.SendingSnapshots)
	}
	start()
	select {
	case err := <-results:
		if !errors.Is(err, shard.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the snapshot too many was not refused")
	}
	close(r.hold)
	for range 13 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.openMax != 3 || len(r.sinks) != 13 {
		t.Errorf("%d snapshots, %d at once", len(r.sinks), r.openMax)
	}
}

// TestSnapshotDoesNotDelayMessages: a receiver that takes a snapshot slowly still
// gets messages.
func TestSnapshotDoesNotDelayMessages(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	r.hold = make(chan struct{})
	f.startGRPC(2, 1, r)
	n := f.startGRPC(1, 1, newRecorder())
	chunks, _ := chunksOf(16, 1<<20)
	o := newOutcome()
	sendSource(n, 2, nil, &source{chunks: chunks}, o.done)
	r.await(t, "the snapshot", func() bool { return r.open == 1 })
	poll(t, "a full window", func() bool { return n.Stats().SnapshotBytesSent > 8<<20 })
	send(n, 2, "quick")
	r.await(t, "the message", func() bool { return len(r.received[1]) == 1 })
	close(r.hold)
	if err := o.wait(t); err != nil {
		t.Error(err)
	}
}

// TestSnapshotStalls: a side that makes no progress is given up by the other one.
func TestSnapshotStalls(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) {
		if c.Node == 1 {
			c.SnapshotStall = 50 * time.Millisecond
		}
	}
	r := newRecorder()
	r.hold = make(chan struct{})
	f.startGRPC(2, 1, r)
	n := f.startGRPC(1, 1, newRecorder())
	o := newOutcome()
	sendSource(n, 2, nil, &source{chunks: [][]byte{{1}}}, o.done)
	if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) || !errors.Is(err, errStalled) {
		t.Errorf("a receiver that does not move: %v", err)
	}
	close(r.hold)
	// All of it had been sent before: the receiver may take it or not.
	r.await(t, "its end", func() bool { return r.open == 0 })

	// Node 1 receives from a peer that falls silent.
	s := openSnapshot(t, dialRaw(t, f.address(1)), helloOf(7, 1, 1), []byte{frameSnapshotHead, 0})
	err := verdict(s)
	if !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a sender that does not move: %v", err)
	}
}

// TestLargeSnapshotsAreTakenSlowly: a node takes large snapshots no faster than its rate,
// however fast others send; small ones and messages pass, and Close does not wait.
func TestLargeSnapshotsAreTakenSlowly(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) {
		if c.Node == 1 {
			c.SnapshotRate = 1
		}
	}
	r := newRecorder()
	slow := f.startGRPC(1, 1, r)
	n := f.startGRPC(2, 1, newRecorder())
	chunks, _ := chunksOf(3, 10_000)
	large, small := newOutcome(), newOutcome()
	sendSource(n, 1, nil, &source{chunks: chunks, large: true}, large.done)
	r.await(t, "the first chunk", func() bool { return len(r.sinks) == 1 && r.sinks[0].content.Len() > 0 })
	if wait := slow.intake.book(time.Since(slow.began), 0); wait < time.Hour {
		t.Errorf("after 10,000 bytes at a byte a second the next ones wait %v", wait)
	}
	sendSource(n, 1, nil, &source{chunks: chunks}, small.done)
	if err := small.wait(t); err != nil {
		t.Errorf("a small one meanwhile: %v", err)
	}
	send(n, 1, "quick")
	r.await(t, "a message meanwhile", func() bool { return len(r.received[2]) == 1 })
	f.stop(1)
	if err := large.wait(t); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("the large one, when its receiver stops: %v", err)
	}
}

func openSnapshot(t *testing.T, p rawPeer, frames ...[]byte) *api.RawStream {
	t.Helper()
	s, err := api.OpenPeerSnapshot(p.context(), p.conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := s.Send(f, nil); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	return s
}

// verdict is how the acceptor ends a snapshot's stream: nil if it took it.
func verdict(s *api.RawStream) error {
	for {
		b, err := s.Receive(helloBytesMax)
		if err != nil {
			return err
		}
		if len(b) == 1 && b[0] == frameSnapshotTaken {
			return nil
		}
	}
}

// TestSnapshotMustBeWhole: a snapshot that is cut short, or whose end does not
// match, is aborted and never finished; a foreign sender is refused before its header counts.
func TestSnapshotMustBeWhole(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	f.startGRPC(1, 1, r)
	p := dialRaw(t, f.address(1))
	greets, head := helloOf(7, 1, 1), []byte{frameSnapshotHead, 0, 'h'}
	chunk := []byte{frameSnapshotChunk, 'a', 'b'}
	end := func(chunks, bytes uint64) []byte { return appendSnapshotEnd(nil, chunks, bytes) }
	foreign := appendHello(nil, &hello{Cluster: shard.ClusterID{9}, Node: 7, Incarnation: 1, Process: 1, Target: 1})
	for what, c := range map[string]struct {
		frames [][]byte
		sinks  int
	}{
		"foreign":         {[][]byte{foreign, head, chunk, end(1, 2)}, 0},
		"only a hello":    {[][]byte{greets}, 0},
		"half a header":   {[][]byte{greets, {frameSnapshotHead}, chunk, end(1, 2)}, 0},
		"unknown class":   {[][]byte{greets, {frameSnapshotHead, 2, 'h'}, chunk, end(1, 2)}, 0},
		"no header":       {[][]byte{greets, chunk, end(1, 2)}, 0},
		"empty frame":     {[][]byte{greets, {}}, 0},
		"no end":          {[][]byte{greets, head, chunk}, 1},
		"chunk missing":   {[][]byte{greets, head, chunk, end(2, 4)}, 1},
		"bytes missing":   {[][]byte{greets, head, chunk, end(1, 3)}, 1},
		"chunk too many":  {[][]byte{greets, head, chunk, chunk, end(1, 2)}, 1},
		"bad end":         {[][]byte{greets, head, chunk, {frameSnapshotEnd}}, 1},
		"another frame":   {[][]byte{greets, head, {frameMessages}, end(0, 0)}, 1},
		"second header":   {[][]byte{greets, head, head, end(0, 0)}, 1},
		"empty chunk":     {[][]byte{greets, head, {}, end(0, 0)}, 1},
		"oversize chunk":  {[][]byte{greets, head, append([]byte{frameSnapshotChunk}, make([]byte, SnapshotChunkBytesMax+1)...), end(1, SnapshotChunkBytesMax+1)}, 1},
		"oversize header": {[][]byte{greets, append([]byte{frameSnapshotHead, 0}, make([]byte, SnapshotChunkBytesMax+1)...)}, 0},
	} {
		r.mu.Lock()
		r.sinks = nil
		r.mu.Unlock()
		s := openSnapshot(t, p, c.frames...)
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := verdict(s); err == nil {
			t.Errorf("%s: taken", what)
		}
		r.await(t, what+": the abort", func() bool { return r.open == 0 })
		r.mu.Lock()
		if len(r.sinks) != c.sinks {
			t.Errorf("%s: %d sinks were opened", what, len(r.sinks))
		}
		for _, sink := range r.sinks {
			if sink.finished != 0 || len(sink.aborted) != 1 {
				t.Errorf("%s: finished %d times, aborted %d times", what, sink.finished, len(sink.aborted))
			}
		}
		r.mu.Unlock()
	}
	if err := verdict(openSnapshot(t, p, greets, head, chunk, chunk, end(2, 4))); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
}

// TestSnapshotOfOlderProcess: a snapshot from before a node started again is cut.
func TestSnapshotOfOlderProcess(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	f.startGRPC(1, 1, r)
	p := dialRaw(t, f.address(1))
	s := openSnapshot(t, p, helloOf(7, 1, 1), []byte{frameSnapshotHead, 0})
	r.await(t, "the sink", func() bool { return r.open == 1 })
	// A stream of messages of the same process does not disturb it.
	if _, err := answer(t, p.open(helloOf(7, 1, 1))); err != nil {
		t.Fatal(err)
	}
	if err := s.Send([]byte{frameSnapshotChunk, 'x'}, nil); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the chunk", func() bool { return r.sinks[0].content.Len() == 1 })
	if _, err := answer(t, p.open(helloOf(7, 2, 2))); err != nil {
		t.Fatal(err)
	}
	if err := verdict(s); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("the older snapshot ended with %v", err)
	}
	r.await(t, "the abort", func() bool { return len(r.sinks[0].aborted) == 1 })
}

// BenchmarkSmallSnapshots measures snapshots of one small chunk.
func BenchmarkSmallSnapshots(b *testing.B) {
	f := newGRPCFixture(b)
	f.startGRPC(2, 1, newRecorder())
	n := f.startGRPC(1, 1, newRecorder())
	results := make(chan error, 1000)
	chunk := make([]byte, 300)
	b.ReportAllocs()
	b.ResetTimer()
	started := 0
	for done := 0; done < b.N; {
		for started < b.N && started-done < 1000 {
			sendSource(n, 2, nil, &source{chunks: [][]byte{chunk}}, func(err error) { results <- err })
			started++
		}
		if err := <-results; err != nil {
			b.Fatal(err)
		}
		done++
	}
}
