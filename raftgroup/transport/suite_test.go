package transport

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// fixture makes nodes that can reach one another.
type fixture interface {
	// start begins a process of a node.
	start(node shard.NodeID, incarnation uint64, r *recorder) raftgroup.Transport
	// stop ends the node's process.
	stop(node shard.NodeID)
	stats(node shard.NodeID) Stats
}

// TestSuite holds what is true of both transports.
func TestSuite(t *testing.T) {
	for name, newFixture := range map[string]func(*testing.T) fixture{
		"memory": func(t *testing.T) fixture { return newMemoryFixture(t) },
		"grpc":   func(t *testing.T) fixture { return newGRPCFixture(t) },
	} {
		t.Run(name, func(t *testing.T) {
			for test, run := range map[string]func(*testing.T, fixture){
				"Messages":            suiteMessages,
				"UnknownNode":         suiteUnknownNode,
				"NodeComesBack":       suiteNodeComesBack,
				"MalformedFrame":      suiteMalformedFrame,
				"Snapshot":            suiteSnapshot,
				"SnapshotRefused":     suiteSnapshotRefused,
				"SnapshotBreaks":      suiteSnapshotBreaks,
				"SnapshotSourceFails": suiteSnapshotSourceFails,
				"ManySnapshots":       suiteManySnapshots,
				"LargeSnapshots":      suiteLargeSnapshots,
				"NoRoom":              suiteNoRoom,
				"NoRoomThenLost":      suiteNoRoomThenLost,
			} {
				t.Run(test, func(t *testing.T) { run(t, newFixture(t)) })
			}
		})
	}
}

type memoryFixture struct {
	t       *testing.T
	network *Network
	nodes   map[shard.NodeID]*Memory
}

func newMemoryFixture(t *testing.T) *memoryFixture {
	l := newLoop(1)
	l.background(t)
	return &memoryFixture{t: t, network: NewNetwork(l, NetworkConfig{SnapshotPause: 5 * time.Millisecond}), nodes: map[shard.NodeID]*Memory{}}
}

func (f *memoryFixture) start(node shard.NodeID, incarnation uint64, r *recorder) raftgroup.Transport {
	m, err := f.network.Join(node, incarnation)
	if err != nil {
		f.t.Fatal(err)
	}
	m.Start(r)
	f.nodes[node] = m
	return m
}
func (f *memoryFixture) stop(node shard.NodeID)        { f.nodes[node].Close() }
func (f *memoryFixture) stats(node shard.NodeID) Stats { return f.nodes[node].Stats() }

// grpcFixture runs nodes with real connections over loopback.
type grpcFixture struct {
	t      testing.TB
	adjust func(*Config) // may be nil

	mu    sync.Mutex
	book  map[shard.NodeID]string
	nodes map[shard.NodeID]*grpcNode
}

type grpcNode struct {
	*GRPC
	server *grpc.Server
	served chan error
}

func newGRPCFixture(t testing.TB) *grpcFixture {
	f := &grpcFixture{t: t, book: map[shard.NodeID]string{}, nodes: map[shard.NodeID]*grpcNode{}}
	t.Cleanup(func() {
		for node := range f.nodes {
			f.stop(node)
		}
	})
	return f
}

func (f *grpcFixture) address(node shard.NodeID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book[node]
}

// reserve fixes the address of a node before it starts.
func (f *grpcFixture) listen(node shard.NodeID) net.Listener {
	address := f.address(node)
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.book[node] = l.Addr().String()
	f.mu.Unlock()
	return l
}

func (f *grpcFixture) config(node shard.NodeID, incarnation uint64) Config {
	cfg := Config{
		Cluster: testCluster, Node: node, Incarnation: incarnation,
		Addresses:   f.address,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		BackoffMin:  time.Millisecond, BackoffMax: 20 * time.Millisecond, SnapshotPause: 5 * time.Millisecond,
	}
	if f.adjust != nil {
		f.adjust(&cfg)
	}
	return cfg
}

func (f *grpcFixture) start(node shard.NodeID, incarnation uint64, r *recorder) raftgroup.Transport {
	return f.startGRPC(node, incarnation, r).GRPC
}

func (f *grpcFixture) startGRPC(node shard.NodeID, incarnation uint64, r *recorder) *grpcNode {
	l := f.listen(node)
	cfg := f.config(node, incarnation)
	cfg.Address = l.Addr().String()
	tr, err := NewGRPC(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	n := &grpcNode{GRPC: tr, server: grpc.NewServer(api.ServerOptions()...), served: make(chan error, 1)}
	tr.RegisterWith(n.server)
	if r != nil {
		tr.Start(r)
	}
	go func() { n.served <- n.server.Serve(l) }()
	f.nodes[node] = n
	return n
}

func (f *grpcFixture) stop(node shard.NodeID) {
	n := f.nodes[node]
	delete(f.nodes, node)
	n.Close()
	n.server.Stop()
	if err := <-n.served; err != nil && err != grpc.ErrServerStopped {
		f.t.Error(err)
	}
}

func (f *grpcFixture) stats(node shard.NodeID) Stats { return f.nodes[node].Stats() }

func suiteMessages(t *testing.T, f fixture) {
	recorders := map[shard.NodeID]*recorder{1: newRecorder(), 2: newRecorder(), 3: newRecorder()}
	transports := map[shard.NodeID]raftgroup.Transport{}
	for node := shard.NodeID(1); node <= 3; node++ {
		transports[node] = f.start(node, 1, recorders[node])
	}
	const count = 2000
	var senders sync.WaitGroup
	for from := shard.NodeID(1); from <= 3; from++ {
		for to := shard.NodeID(1); to <= 3; to++ {
			if from == to {
				continue
			}
			senders.Add(1)
			go func() {
				defer senders.Done()
				for i := range count {
					if !transports[from].Send(to, 4+len(fmt.Sprint(i)), encodeOf(fmt.Sprint(i))) {
						t.Errorf("%d to %d: message %d was dropped", from, to, i)
					}
				}
			}()
		}
	}
	senders.Wait()
	for node, r := range recorders {
		r.await(t, "all messages", func() bool {
			total := 0
			for _, m := range r.received {
				total += len(m)
			}
			return total == 2*count
		})
		r.mu.Lock()
		for from, messages := range r.received {
			for i, m := range messages {
				if m != fmt.Sprint(i) {
					t.Fatalf("%d got %q from %d as message %d", node, m, from, i)
				}
			}
		}
		if len(r.unreachable) > 0 {
			t.Errorf("%d was told that nodes are unreachable: %v", node, r.unreachable)
		}
		r.mu.Unlock()
	}
	for node := range recorders {
		poll(t, "the counts", func() bool {
			s := f.stats(node)
			return s.MessagesSent == 2*count && s.MessagesDropped == 0 && s.FramesSent <= s.MessagesSent && s.Connects == 2 && s.QueuedBytes == 0
		})
	}
}

func encodeOf(text string) func([]byte) []byte {
	_, encode := message(text)
	return encode
}

func send(tr raftgroup.Transport, to shard.NodeID, text string) bool {
	size, encode := message(text)
	return tr.Send(to, size, encode)
}

func suiteUnknownNode(t *testing.T, f fixture) {
	tr := f.start(1, 1, newRecorder())
	for _, to := range []shard.NodeID{0, 1, 9} {
		if send(tr, to, "x") {
			t.Errorf("a message to node %d was accepted", to)
		}
		o, src := newOutcome(), &source{chunks: [][]byte{[]byte("x")}}
		sendSource(tr, to, nil, src, o.done)
		if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) {
			t.Errorf("snapshot to node %d: %v", to, err)
		}
		if src.opened != 0 {
			t.Errorf("the source was opened %d times", src.opened)
		}
	}
	if s := f.stats(1); s.MessagesDropped != 3 || s.SnapshotsFailed != 3 {
		t.Errorf("stats %+v", s)
	}
}

// suiteNodeComesBack: a node that ends is reported, once, and reached again when
// it has started again; what was sent in between is gone.
func suiteNodeComesBack(t *testing.T, f fixture) {
	r1, r2 := newRecorder(), newRecorder()
	tr := f.start(1, 1, r1)
	f.start(2, 1, r2)
	if !send(tr, 2, "before") {
		t.Fatal("dropped")
	}
	r2.await(t, "the message", func() bool { return len(r2.received[1]) == 1 })

	f.stop(2)
	r1.await(t, "the report", func() bool { return r1.unreachable[2] == 1 })
	if send(tr, 2, "between") {
		t.Error("a message to a node that was just reported unreachable was accepted")
	}

	again := newRecorder()
	f.start(2, 2, again)
	poll(t, "the way back", func() bool { return send(tr, 2, "after") })
	again.await(t, "a message", func() bool { return len(again.received[1]) > 0 })
	again.mu.Lock()
	if again.received[1][0] != "after" {
		t.Errorf("the new process got %q", again.received[1])
	}
	again.mu.Unlock()
	r1.mu.Lock()
	if r1.unreachable[2] != 1 {
		t.Errorf("reported %d times within moments", r1.unreachable[2])
	}
	r1.mu.Unlock()
	if s := f.stats(1); s.Connects != 2 || s.Disconnects != 1 {
		t.Errorf("stats %+v", s)
	}
}

// suiteMalformedFrame: what the host refuses is reported to the sender, and
// later messages arrive.
func suiteMalformedFrame(t *testing.T, f fixture) {
	r1, r2 := newRecorder(), newRecorder()
	r2.receiveErr = func(frame []byte) error {
		if bytes.Contains(frame, []byte("poison")) {
			return fmt.Errorf("%w: poison", shard.ErrMalformed)
		}
		return nil
	}
	tr := f.start(1, 1, r1)
	f.start(2, 1, r2)
	if !send(tr, 2, "poison") {
		t.Fatal("dropped")
	}
	r1.await(t, "the report", func() bool { return r1.unreachable[2] == 1 })
	poll(t, "the way back", func() bool { return send(tr, 2, "good") })
	r2.await(t, "a good message", func() bool { return len(r2.received[1]) > 0 })
}

func chunksOf(n, size int) (chunks [][]byte, all []byte) {
	for i := range n {
		c := bytes.Repeat([]byte{byte(i + 1)}, size)
		chunks = append(chunks, c)
		all = append(all, c...)
	}
	return chunks, all
}

func suiteSnapshot(t *testing.T, f fixture) {
	r := newRecorder()
	tr := f.start(1, 1, newRecorder())
	f.start(2, 1, r)
	for i, c := range []struct{ chunks, size int }{{0, 0}, {1, 0}, {1, 1}, {100, 10_000}, {3, SnapshotChunkBytesMax}} {
		chunks, all := chunksOf(c.chunks, c.size)
		o, src := newOutcome(), &source{chunks: chunks}
		header := fmt.Sprintf("header %d", i)
		sent := []byte(header)
		sendSource(tr, 2, sent, src, o.done)
		if err := o.wait(t); err != nil {
			t.Fatalf("%d chunks of %d bytes: %v", c.chunks, c.size, err)
		}
		r.mu.Lock()
		s := r.sinks[i]
		if s.header != header || s.from != 1 || !bytes.Equal(s.content.Bytes(), all) || s.finished != 1 || len(s.aborted) > 0 {
			t.Errorf("%d chunks of %d bytes: header %q from %d, %d bytes, finished %d, aborted %v", c.chunks, c.size, s.header, s.from, s.content.Len(), s.finished, s.aborted)
		}
		r.mu.Unlock()
		o.once(t)
		if src.closed != 1 || string(sent) != header {
			t.Errorf("the source was closed %d times, the header became %q", src.closed, sent)
		}
	}
	poll(t, "the counts", func() bool {
		return f.stats(1).SnapshotsSent == 5 && f.stats(2).SnapshotsReceived == 5 && f.stats(1).QueuedSnapshots+f.stats(1).SendingSnapshots == 0
	})
}

// suiteSnapshotRefused: the receiver's reason reaches the sender as it is.
func suiteSnapshotRefused(t *testing.T, f fixture) {
	for node, prepare := range map[shard.NodeID]func(*recorder){
		2: func(r *recorder) { r.refuseSnapshot = shard.ErrBusy },
		3: func(r *recorder) { r.addErr = shard.ErrBusy },
		4: func(r *recorder) { r.finishErr = shard.ErrBusy },
	} {
		r := newRecorder()
		prepare(r)
		f.start(node, 1, r)
	}
	tr := f.start(1, 1, newRecorder())
	for node := shard.NodeID(2); node <= 4; node++ {
		chunks, _ := chunksOf(12, 1<<20) // more than any window holds
		o, src := newOutcome(), &source{chunks: chunks}
		sendSource(tr, node, []byte("header"), src, o.done)
		if err := o.wait(t); !errors.Is(err, shard.ErrBusy) {
			t.Errorf("node %d: %v", node, err)
		}
		o.once(t)
		if src.closed != 1 {
			t.Errorf("node %d: the source was closed %d times", node, src.closed)
		}
	}
}

// suiteSnapshotBreaks: either end goes away in the middle; the other one ends
// its part once, with an error.
func suiteSnapshotBreaks(t *testing.T, f fixture) {
	for round, victim := range []shard.NodeID{2, 1} {
		incarnation := uint64(round + 1)
		r := newRecorder()
		tr := f.start(1, incarnation, newRecorder())
		f.start(2, incarnation, r)
		chunks, _ := chunksOf(3, 100)
		o, src := newOutcome(), &source{chunks: chunks, hold: make(chan struct{})}
		sendSource(tr, 2, []byte("header"), src, o.done)
		r.await(t, "the first chunk", func() bool { return len(r.sinks) == 1 && r.sinks[0].content.Len() == 100 })
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			f.stop(victim)
		}()
		// A transport that closes waits for the source; it sends nothing more.
		poll(t, "the end of the node", func() bool { return !send(tr, 2, "probe") })
		close(src.hold)
		if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) {
			t.Errorf("victim %d: the sender got %v", victim, err)
		}
		<-stopped
		r.await(t, "the receiver's abort", func() bool { return len(r.sinks[0].aborted) == 1 })
		r.mu.Lock()
		if r.sinks[0].finished > 0 {
			t.Error("a partial snapshot was finished")
		}
		r.mu.Unlock()
		o.once(t)
		if src.closed != 1 {
			t.Errorf("the source was closed %d times", src.closed)
		}
		f.stop(3 - victim)
	}
	// For the fixture's own end.
	f.start(1, 9, newRecorder())
	f.start(2, 9, newRecorder())
}

func suiteSnapshotSourceFails(t *testing.T, f fixture) {
	r := newRecorder()
	tr := f.start(1, 1, newRecorder())
	f.start(2, 1, r)
	big := make([]byte, SnapshotChunkBytesMax+1)
	for i, c := range []struct {
		header []byte
		src    *source
		want   error
	}{
		{[]byte("h"), &source{chunks: [][]byte{[]byte("some")}, err: errTest}, errTest},
		{[]byte("h"), &source{chunks: [][]byte{big}}, nil},
		{big, &source{}, nil},
	} {
		o := newOutcome()
		sendSource(tr, 2, c.header, c.src, o.done)
		err := o.wait(t)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("case %d: %v", i, err)
		}
		o.once(t)
	}
	r.await(t, "all sinks' end", func() bool {
		for _, s := range r.sinks {
			if s.finished > 0 {
				t.Fatal("a partial snapshot was finished")
			}
			if len(s.aborted) == 0 {
				return false
			}
		}
		return true
	})
}

// suiteManySnapshots: thousands of small snapshots to two nodes, a few at a time.
func suiteManySnapshots(t *testing.T, f fixture) {
	tr := f.start(1, 1, newRecorder())
	recorders := map[shard.NodeID]*recorder{2: newRecorder(), 3: newRecorder()}
	f.start(2, 1, recorders[2])
	f.start(3, 1, recorders[3])
	const each = 1000
	results := make(chan error, 2*each)
	for i := range each {
		for to := shard.NodeID(2); to <= 3; to++ {
			sendSource(tr, to, []byte(fmt.Sprint(i)), &source{chunks: [][]byte{make([]byte, 300)}}, func(err error) { results <- err })
		}
	}
	for range 2 * each {
		select {
		case err := <-results:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("not all snapshots ended")
		}
	}
	for node, r := range recorders {
		r.mu.Lock()
		if len(r.sinks) != each || r.openMax > 8 {
			t.Errorf("node %d took %d snapshots, %d at once", node, len(r.sinks), r.openMax)
		}
		r.mu.Unlock()
	}
}

// suiteLargeSnapshots: of large snapshots two are sent at a time over all receivers.
func suiteLargeSnapshots(t *testing.T, f fixture) {
	tr := f.start(1, 1, newRecorder())
	recorders := map[shard.NodeID]*recorder{2: newRecorder(), 3: newRecorder(), 4: newRecorder()}
	for node, r := range recorders {
		f.start(node, 1, r)
	}
	results := make(chan error, 100)
	var sources []*source
	const each = 20
	var at crowd
	for range each {
		for to := shard.NodeID(2); to <= 4; to++ {
			chunks, _ := chunksOf(3, 100)
			src := &source{chunks: chunks, large: true, crowd: &at}
			sources = append(sources, src)
			sendSource(tr, to, nil, src, func(err error) { results <- err })
		}
	}
	for range 3 * each {
		select {
		case err := <-results:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("not all ended")
		}
	}
	if most := at.most.Load(); most != 2 {
		t.Errorf("%d at once", most)
	}
	for _, src := range sources {
		if !src.closedWell() || src.opened != 2 { // once to look, once to send
			t.Errorf("opened %d times, closed %d times", src.opened, src.closed)
		}
	}
	for node, r := range recorders {
		r.mu.Lock()
		for _, s := range r.sinks {
			if s.large && s.content.Len() != 300 {
				t.Errorf("node %d got %d bytes", node, s.content.Len())
			}
		}
		r.mu.Unlock()
	}
	poll(t, "the counts", func() bool { return f.stats(1).SendingSnapshots+f.stats(1).QueuedSnapshots == 0 })
}

// suiteNoRoom: a large snapshot whose receiver has no room stays in line, however often
// it is put off; those for others pass.
func suiteNoRoom(t *testing.T, f fixture) {
	tr := f.start(1, 1, newRecorder())
	full, free := newRecorder(), newRecorder()
	full.refuseLarge = true
	f.start(2, 1, full)
	f.start(3, 1, free)
	waiting := newOutcome()
	chunks, _ := chunksOf(12, 1<<20) // more than any window holds
	src := &source{chunks: chunks, large: true}
	sendSource(tr, 2, nil, src, waiting.done)
	for range 3 {
		sendSource(tr, 2, nil, &source{large: true}, func(error) {})
	}
	poll(t, "it is put off", func() bool { return f.stats(1).SnapshotsPutOff >= 6 })
	o := newOutcome()
	sendSource(tr, 3, nil, &source{chunks: [][]byte{{1}}, large: true}, o.done)
	if err := o.wait(t); err != nil {
		t.Errorf("one for another receiver: %v", err)
	}
	small := newOutcome()
	sendSource(tr, 2, nil, &source{chunks: [][]byte{{1}}}, small.done)
	if err := small.wait(t); err != nil {
		t.Errorf("a small one behind large ones: %v", err)
	}
	if s := f.stats(1); s.SnapshotBytesSent > 100<<10 {
		t.Errorf("%d bytes were sent to one who does not take them", s.SnapshotBytesSent)
	}
	full.mu.Lock()
	full.refuseLarge = false
	full.mu.Unlock()
	if err := waiting.wait(t); err != nil {
		t.Error(err)
	}
	waiting.once(t)
	poll(t, "all have ended", func() bool { return f.stats(1).SnapshotsSent == 6 })
	if !src.closedWell() {
		t.Errorf("opened %d times, closed %d times", src.opened, src.closed)
	}
}

// suiteNoRoomThenLost: what waits for a receiver ends with it.
func suiteNoRoomThenLost(t *testing.T, f fixture) {
	tr := f.start(1, 1, newRecorder())
	r := newRecorder()
	r.refuseLarge = true
	f.start(2, 1, r)
	outcomes := make([]*outcome, 5)
	for i := range outcomes {
		outcomes[i] = newOutcome()
		sendSource(tr, 2, nil, &source{large: true}, outcomes[i].done)
	}
	poll(t, "they are put off", func() bool { return f.stats(1).SnapshotsPutOff >= 6 })
	f.stop(2)
	for _, o := range outcomes {
		if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		o.once(t)
	}
	poll(t, "the counts", func() bool { return f.stats(1).SendingSnapshots+f.stats(1).QueuedSnapshots == 0 })
	f.start(2, 2, newRecorder()) // for the fixture's own end
}
