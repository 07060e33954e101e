package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/shard"
)

// slowNode accepts streams as node 2 and reads frames only when told to.
type slowNode struct {
	read  chan struct{} // closed: read on
	greet bool

	mu     sync.Mutex
	frames [][]byte
	hellos []hello
}

func (s *slowNode) Messages(stream *api.RawStream) error {
	first, err := stream.Receive(helloBytesMax)
	if err != nil {
		return err
	}
	h, err := decodeHello(first)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.hellos = append(s.hellos, h)
	s.mu.Unlock()
	if s.greet {
		if err := stream.Send(appendGreeting(nil, &greeting{Cluster: testCluster, Node: 2, Incarnation: 1}), nil); err != nil {
			return err
		}
	}
	select {
	case <-s.read:
	case <-stream.Context().Done():
		return nil
	}
	for {
		f, err := stream.Receive(api.PeerFrameBytesMax)
		if err != nil {
			return nil
		}
		s.mu.Lock()
		s.frames = append(s.frames, f)
		s.mu.Unlock()
	}
}

func (s *slowNode) Snapshot(*api.RawStream) error { return shard.ErrUnavailable }

func (s *slowNode) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames)
}

// serveSlow starts a slowNode at the address that f has for node 2.
func serveSlow(t *testing.T, f *grpcFixture, s *slowNode) (stop func()) {
	l := f.listen(2)
	server := grpc.NewServer(api.ServerOptions()...)
	api.RegisterPeerStream(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			server.Stop()
			<-served
		})
	}
	t.Cleanup(stop)
	return stop
}

// stall fills node 2's windows with one frame of 20 MiB, and gets a second one
// stuck behind it. Whatever is sent then waits.
func stall(t *testing.T, n *grpcNode) {
	huge := 20 << 20
	if !n.Send(2, huge, func(b []byte) []byte { return append(b, make([]byte, huge)...) }) {
		t.Fatal("the first message was dropped")
	}
	poll(t, "the first frame to leave", func() bool { return n.Stats().FramesSent == 1 })
	if !send(n, 2, "stuck") {
		t.Fatal("the second message was dropped")
	}
	poll(t, "the second frame to be taken", func() bool { return n.Stats().QueuedBytes == 0 })
	if s := n.Stats(); s.FramesSent != 1 {
		t.Fatalf("the second frame was sent: %+v", s)
	}
}

// TestPacking: whatever is sent while a frame is on its way leaves as one frame.
func TestPacking(t *testing.T) {
	f := newGRPCFixture(t)
	slow := &slowNode{read: make(chan struct{}), greet: true}
	serveSlow(t, f, slow)
	n := f.startGRPC(1, 1, newRecorder())
	stall(t, n)
	const count = 1000
	for i := range count {
		if !send(n, 2, fmt.Sprint(i)) {
			t.Fatal("dropped")
		}
	}
	close(slow.read)
	poll(t, "the frames", func() bool { return slow.count() == 3 })
	slow.mu.Lock()
	defer slow.mu.Unlock()
	r := newRecorder()
	if err := r.Receive(1, slow.frames[2][1:]); err != nil || len(r.received[1]) != count {
		t.Errorf("the third frame has %d messages, want %d; %v", len(r.received[1]), count, err)
	}
	if h := slow.hellos[0]; h.Cluster != testCluster || h.Node != 1 || h.Incarnation != 1 || h.Target != 2 || h.Address != f.address(1) {
		t.Errorf("hello %+v", h)
	}
}

// TestQueueBound: a node that does not read costs a bounded amount of memory; what
// does not fit is refused, and what waits when the node is lost is counted and reported.
func TestQueueBound(t *testing.T) {
	f := newGRPCFixture(t)
	const bound = 24 << 20
	f.adjust = func(c *Config) { c.QueueBytesMax = bound; c.BackoffMin, c.BackoffMax = time.Hour, time.Hour }
	slow := &slowNode{read: make(chan struct{}), greet: true}
	stop := serveSlow(t, f, slow)
	r := newRecorder()
	n := f.startGRPC(1, 1, r)
	stall(t, n)
	chunk := strings.Repeat("x", 100_000)
	accepted := 0
	for send(n, 2, chunk) {
		accepted++
		if q := n.Stats().QueuedBytes; q > bound {
			t.Fatalf("%d bytes wait, the bound is %d", q, bound)
		}
	}
	if want := bound / 100_004; accepted > want || accepted < want-5 {
		t.Errorf("%d messages were accepted, about %d fit", accepted, want)
	}
	if !send(n, 2, "small") {
		t.Error("a message that fits was refused")
	}
	if s := n.Stats(); s.MessagesDropped != 1 {
		t.Errorf("%d messages were dropped, want 1", s.MessagesDropped)
	}
	stop()
	r.await(t, "the report", func() bool { return r.unreachable[2] == 1 })
	if s := n.Stats(); s.MessagesDropped != uint64(accepted)+3 || s.QueuedBytes != 0 {
		// One refused, all accepted, the small one, and the one that was stuck.
		t.Errorf("accepted %d, stats %+v", accepted, s)
	}
	if send(n, 2, "late") {
		t.Error("a message to a lost node was accepted")
	}
}

// TestTooLarge: a message that no frame can hold is refused, not queued.
func TestTooLarge(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.QueueBytesMax = 1 << 30 }
	f.startGRPC(2, 1, newRecorder())
	n := f.startGRPC(1, 1, newRecorder())
	if n.Send(2, api.PeerFrameBytesMax, func(b []byte) []byte { t.Error("encoded"); return b }) {
		t.Error("a message larger than any frame was accepted")
	}
}

// TestUnreachableReports: one report per transition; more only while it lasts.
func TestUnreachableReports(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.ReportEvery = time.Hour }
	r := newRecorder()
	n := f.startGRPC(1, 1, r)
	f.listen(2).Close()
	poll(t, "several attempts", func() bool {
		send(n, 2, "x")
		return n.Stats().ConnectsFailed >= 5
	})
	r.mu.Lock()
	if r.unreachable[2] != 1 {
		t.Errorf("%d attempts made %d reports", n.Stats().ConnectsFailed, r.unreachable[2])
	}
	r.mu.Unlock()
	f.stop(1)

	f.adjust = func(c *Config) { c.ReportEvery = time.Nanosecond }
	again := f.startGRPC(1, 2, r)
	poll(t, "repeated reports", func() bool {
		send(again, 2, "x")
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.unreachable[2] >= 4
	})
}

// TestNoGreeting: a node that never answers the hello is given up in time.
func TestNoGreeting(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) {
		c.HandshakeTimeout = 50 * time.Millisecond
		c.BackoffMin, c.BackoffMax = time.Hour, time.Hour
	}
	serveSlow(t, f, &slowNode{read: make(chan struct{})})
	r := newRecorder()
	n := f.startGRPC(1, 1, r)
	if !send(n, 2, "x") {
		t.Fatal("dropped while connecting")
	}
	o := newOutcome()
	sendSource(n, 2, nil, &source{}, o.done)
	if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) || !errors.Is(err, errNoAnswer) {
		t.Errorf("the snapshot in line got %v", err)
	}
	r.await(t, "the report", func() bool { return r.unreachable[2] == 1 })
	if s := n.Stats(); s.MessagesDropped != 1 || s.ConnectsFailed != 1 {
		t.Errorf("stats %+v", s)
	}
	// Until it answers nothing waits for it: not even for the next attempt.
	late := newOutcome()
	sendSource(n, 2, nil, &source{}, late.done)
	if err := late.wait(t); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a snapshot to a node that is down got %v", err)
	}
	o.once(t)
}

// TestLostSnapshotsStayLost: what failed with the node is not sent when it comes back.
func TestLostSnapshotsStayLost(t *testing.T) {
	f := newGRPCFixture(t)
	f.listen(2).Close()
	n := f.startGRPC(1, 1, newRecorder())
	o, src := newOutcome(), &source{chunks: [][]byte{{1}}}
	sendSource(n, 2, []byte("first"), src, o.done)
	if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a snapshot to a node that is away got %v", err)
	}
	r := newRecorder()
	f.startGRPC(2, 1, r)
	poll(t, "the way to node 2", func() bool { return send(n, 2, "x") })
	again := newOutcome()
	sendSource(n, 2, []byte("second"), &source{}, again.done)
	if err := again.wait(t); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	if len(r.sinks) != 1 || r.sinks[0].header != "second" {
		t.Errorf("%d snapshots arrived", len(r.sinks))
	}
	r.mu.Unlock()
	o.once(t)
}

// rawPeer opens streams to a node by hand.
type rawPeer struct {
	t    *testing.T
	conn *grpc.ClientConn
}

func dialRaw(t *testing.T, address string) rawPeer {
	conn, err := grpc.NewClient("passthrough:///"+address, append(api.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return rawPeer{t, conn}
}

// context ends when the test has run out of patience.
func (p rawPeer) context() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	return ctx
}

func (p rawPeer) open(frames ...[]byte) *api.RawStream {
	p.t.Helper()
	s, err := api.OpenPeerMessages(p.context(), p.conn)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range frames {
		if err := s.Send(f, nil); err != nil && err != io.EOF {
			p.t.Fatal(err)
		}
	}
	return s
}

func helloOf(node shard.NodeID, incarnation, process uint64) []byte {
	return appendHello(nil, &hello{Cluster: testCluster, Node: node, Incarnation: incarnation, Process: process, Target: 1, Address: "elsewhere:1"})
}

func frameOf(texts ...string) []byte {
	b := []byte{frameMessages}
	for _, text := range texts {
		b = encodeOf(text)(b)
	}
	return b
}

// answer is the first frame that the acceptor sends.
func answer(t *testing.T, s *api.RawStream) (greeting, error) {
	t.Helper()
	b, err := s.Receive(helloBytesMax)
	if err != nil {
		return greeting{}, err
	}
	return decodeAnswer(b)
}

// TestAcceptorRefuses: each wrong hello gets its reason; the server and the
// streams of others go on.
func TestAcceptorRefuses(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	var logged bytes.Buffer
	f.adjust = func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) }
	n := f.startGRPC(1, 1, r)
	p := dialRaw(t, f.address(1))
	good := p.open(helloOf(7, 5, 70))
	if g, err := answer(t, good); err != nil || g.Node != 1 || g.Cluster != testCluster || g.Incarnation != 1 {
		t.Fatalf("%+v, %v", g, err)
	}
	for what, c := range map[string]struct {
		hello []byte
		want  Reason
	}{
		"cluster":     {appendHello(nil, &hello{Cluster: shard.ClusterID{9}, Node: 7, Incarnation: 5, Process: 70, Target: 1}), WrongCluster},
		"target":      {appendHello(nil, &hello{Cluster: testCluster, Node: 7, Incarnation: 5, Process: 70, Target: 3}), WrongNode},
		"own":         {helloOf(1, 1, 1), OwnNode},
		"incarnation": {helloOf(7, 4, 60), StaleIncarnation},
		"copy":        {helloOf(7, 5, 71), CopiedStore},
	} {
		for range 3 {
			s := p.open(c.hello, frameOf("must not arrive"))
			_, err := answer(t, s)
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Reason != c.want || refused.Text == "" {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := s.Receive(helloBytesMax); err != io.EOF {
				t.Errorf("%s: the stream goes on: %v", what, err)
			}
		}
	}
	if err := good.Send(frameOf("fine"), nil); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the good message", func() bool { return len(r.received[7]) == 1 })
	r.mu.Lock()
	if len(r.received) != 1 || r.received[7][0] != "fine" {
		t.Errorf("received %v", r.received)
	}
	r.mu.Unlock()
	if s := n.Stats(); s.Refused != 15 {
		t.Errorf("%d refused, want 15", s.Refused)
	}
	f.stop(1)
	// Two nodes (7 and 1) were refused, each three times or more: one line each.
	if lines := strings.Count(logged.String(), "refused a stream"); lines != 2 {
		t.Errorf("%d log lines:\n%s", lines, logged.String())
	}
}

// TestRefusedNodeLearns: the callback tells a node that others refuse it, and
// leaders are told that its messages do not arrive.
func TestRefusedNodeLearns(t *testing.T) {
	f := newGRPCFixture(t)
	r2 := newRecorder()
	f.startGRPC(2, 1, r2)
	type refusal struct {
		by  shard.NodeID
		why Reason
	}
	refusals := make(chan refusal, 1000)
	f.adjust = func(c *Config) {
		c.Cluster = shard.ClusterID{66}
		c.Refused = func(by shard.NodeID, why *RefusedError) { refusals <- refusal{by, why.Reason} }
	}
	r1 := newRecorder()
	n := f.startGRPC(1, 1, r1)
	send(n, 2, "foreign")
	select {
	case got := <-refusals:
		if got != (refusal{2, WrongCluster}) {
			t.Errorf("%+v", got)
		}
	case <-time.After(patience):
		t.Fatal("the node was not told")
	}
	r1.await(t, "the report", func() bool { return r1.unreachable[2] == 1 })
	r2.mu.Lock()
	if len(r2.received) > 0 {
		t.Errorf("received %v", r2.received)
	}
	r2.mu.Unlock()
}

// TestWrongNodeAtAddress: a stale address book must not deliver to the wrong node.
func TestWrongNodeAtAddress(t *testing.T) {
	f := newGRPCFixture(t)
	r3 := newRecorder()
	f.startGRPC(3, 1, r3)
	f.mu.Lock()
	f.book[2] = f.book[3]
	f.mu.Unlock()
	r1 := newRecorder()
	n := f.startGRPC(1, 1, r1)
	send(n, 2, "for node 2")
	r1.await(t, "the report", func() bool { return r1.unreachable[2] == 1 })
	r3.mu.Lock()
	if len(r3.received) > 0 {
		t.Errorf("node 3 received %v", r3.received)
	}
	r3.mu.Unlock()
	// Told the right address, it does not wait out the backoff for long.
	r2 := newRecorder()
	f.mu.Lock()
	delete(f.book, 2)
	f.mu.Unlock()
	f.startGRPC(2, 1, r2)
	n.SetAddress(2, f.address(2))
	poll(t, "the way to node 2", func() bool { return send(n, 2, "for node 2") })
	r2.await(t, "the message", func() bool { return len(r2.received[1]) > 0 })
}

// TestAcceptorSurvivesGarbage: foreign bytes end their own stream only.
func TestAcceptorSurvivesGarbage(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.HandshakeTimeout = 100 * time.Millisecond }
	r := newRecorder()
	f.startGRPC(1, 1, r)
	p := dialRaw(t, f.address(1))
	good := p.open(helloOf(7, 1, 1))
	if _, err := answer(t, good); err != nil {
		t.Fatal(err)
	}
	node := shard.NodeID(10)
	for what, frames := range map[string][][]byte{
		"silence":             {},
		"empty hello":         {{}},
		"random hello":        {bytes.Repeat([]byte{0xa7}, 100)},
		"long hello":          {append(helloOf(10, 1, 1), make([]byte, helloBytesMax)...)},
		"huge hello":          {make([]byte, api.PeerFrameBytesMax+1)},
		"greeting":            {appendGreeting(nil, &greeting{Cluster: testCluster, Node: 10})},
		"empty frame":         {helloOf(10, 1, 1), {}},
		"second hello":        {helloOf(11, 1, 1), helloOf(11, 1, 1)},
		"random frame":        {helloOf(12, 1, 1), bytes.Repeat([]byte{0xa7}, 100)},
		"snapshot as message": {helloOf(13, 1, 1), {frameSnapshotHead}},
		"truncated messages":  {helloOf(14, 1, 1), frameOf("abc")[:6]},
		"oversize frame":      {helloOf(15, 1, 1), make([]byte, api.PeerFrameBytesMax+1)},
	} {
		s := p.open(frames...)
		var err error
		for err == nil {
			_, err = s.Receive(helloBytesMax) // perhaps a greeting first
		}
		if err == io.EOF {
			t.Errorf("%s: the stream ended without an error", what)
		}
		node++
	}
	if err := good.Send(frameOf("fine"), nil); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the good message", func() bool { return len(r.received[7]) == 1 })
}

// TestNewerStreamReplacesOlder: a process that connects again, or has started
// again, takes over; frames of the older stream are not delivered any more.
func TestNewerStreamReplacesOlder(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	var seen []Peer
	var mu sync.Mutex
	f.adjust = func(c *Config) {
		c.PeerSeen = func(p Peer) { mu.Lock(); seen = append(seen, p); mu.Unlock() }
	}
	f.startGRPC(1, 1, r)
	p := dialRaw(t, f.address(1))
	var older *api.RawStream
	for i, h := range [][]byte{helloOf(7, 1, 10), helloOf(7, 1, 10), helloOf(7, 2, 20), helloOf(7, 9, 30)} {
		s := p.open(h)
		if _, err := answer(t, s); err != nil {
			t.Fatal(err)
		}
		if older != nil {
			if _, err := older.Receive(helloBytesMax); !errors.Is(err, shard.ErrUnavailable) {
				t.Errorf("step %d: the older stream ended with %v", i, err)
			}
			_ = older.Send(frameOf("from the past"), nil) // an error is as good
		}
		if err := s.Send(frameOf(fmt.Sprint(i)), nil); err != nil {
			t.Fatal(err)
		}
		r.await(t, "the message", func() bool { return len(r.received[7]) == i+1 })
		older = s
	}
	r.mu.Lock()
	if got := strings.Join(r.received[7], " "); got != "0 1 2 3" {
		t.Errorf("received %q", got)
	}
	r.mu.Unlock()
	mu.Lock()
	if want := (Peer{Node: 7, Address: "elsewhere:1", Incarnation: 9}); len(seen) != 4 || seen[3] != want {
		t.Errorf("seen %+v", seen)
	}
	mu.Unlock()
}

// TestSupersede: when a node introduces itself as started again, the way out to its
// earlier process is given up.
func TestSupersede(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.BackoffMin, c.BackoffMax = time.Hour, time.Hour }
	slow := &slowNode{read: make(chan struct{}), greet: true}
	serveSlow(t, f, slow)
	r := newRecorder()
	n := f.startGRPC(1, 1, r)
	send(n, 2, "x")
	poll(t, "the connection", func() bool { return n.Stats().Connects == 1 })
	p := dialRaw(t, f.address(1))
	if _, err := answer(t, p.open(helloOf(2, 2, 99))); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the report", func() bool { return r.unreachable[2] == 1 })
	// It connects again at once, backoff or not; who answers as the earlier
	// process is not talked to.
	poll(t, "the next attempt", func() bool { return n.Stats().ConnectsFailed == 1 })
	if s := n.Stats(); s.Connects != 1 || s.Disconnects != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestLearnedAddress: a node that nobody has an address of is answered at the
// one that it advertises.
func TestLearnedAddress(t *testing.T) {
	f := newGRPCFixture(t)
	r1, r2 := newRecorder(), newRecorder()
	f.adjust = func(c *Config) {
		if c.Node == 1 {
			c.Addresses = nil
		}
	}
	n1 := f.startGRPC(1, 1, r1)
	n2 := f.startGRPC(2, 1, r2)
	if send(n1, 2, "x") {
		t.Error("a message to an unknown node was accepted")
	}
	send(n2, 1, "hello")
	r1.await(t, "the message", func() bool { return len(r1.received[2]) == 1 })
	if !send(n1, 2, "back") {
		t.Error("the address was not learned")
	}
	r2.await(t, "the answer", func() bool { return len(r2.received[1]) == 1 })
}

// TestForget: a node that is forgotten is not sent to, and its goroutine ends.
func TestForget(t *testing.T) {
	f := newGRPCFixture(t)
	f.adjust = func(c *Config) { c.Addresses = nil }
	r := newRecorder()
	f.startGRPC(2, 1, r)
	n := f.startGRPC(1, 1, newRecorder())
	n.SetAddress(2, f.address(2))
	send(n, 2, "x")
	r.await(t, "the message", func() bool { return len(r.received[1]) == 1 })
	p := (*n.peers.Load())[2]
	n.SetAddress(2, "")
	if send(n, 2, "x") || len(*n.peers.Load()) != 0 {
		t.Error("the node is still known")
	}
	if p.send(1, nil) || p.enqueueSnapshot(&snapshotTask{}) == nil {
		t.Error("a forgotten peer takes work")
	}
	n.SetAddress(2, f.address(2))
	poll(t, "the way back", func() bool { return send(n, 2, "y") })
	r.await(t, "the message", func() bool { return len(r.received[1]) == 2 })
}

// TestNotStarted: before Start nothing flows, and a node that waits is served after.
func TestNotStarted(t *testing.T) {
	f := newGRPCFixture(t)
	n1 := f.startGRPC(1, 1, nil)
	n2 := f.startGRPC(2, 1, newRecorder())
	if send(n1, 2, "x") {
		t.Error("sent before Start")
	}
	send(n2, 1, "early")
	poll(t, "the refusal", func() bool { return n1.Stats().Refused > 0 })
	r := newRecorder()
	n1.Start(r)
	poll(t, "a message", func() bool {
		send(n2, 1, "now")
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.received[2]) > 0
	})
}

// TestClose: after Close nothing is accepted, no callback comes, and waiting
// snapshots have failed.
func TestClose(t *testing.T) {
	f := newGRPCFixture(t)
	r := newRecorder()
	r.hold = make(chan struct{})
	defer close(r.hold)
	f.startGRPC(2, 1, r)
	n := f.startGRPC(1, 1, newRecorder())
	const count = 20
	results := make(chan error, count)
	for range count {
		sendSource(n, 2, nil, &source{chunks: [][]byte{{1}}}, func(err error) { results <- err })
	}
	r.await(t, "the first snapshots", func() bool { return r.open == 8 })
	full := newRecorder()
	full.refuseLarge = true
	f.startGRPC(3, 1, full)
	large := make(chan error, count)
	for range count {
		sendSource(n, 3, nil, &source{large: true}, func(err error) { large <- err })
	}
	poll(t, "large ones are put off", func() bool { return n.Stats().SnapshotsPutOff > 2 })
	n.Close()
	if len(large) != count {
		t.Errorf("%d of %d large snapshots ended before Close returned", len(large), count)
	}
	if len(results) != count {
		t.Errorf("%d of %d snapshots ended before Close returned", len(results), count)
	}
	for range count {
		if err := <-results; !errors.Is(err, shard.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if send(n, 2, "x") {
		t.Error("a closed transport takes messages")
	}
	o, src := newOutcome(), &source{}
	sendSource(n, 2, nil, src, o.done)
	if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) || src.opened != 0 {
		t.Errorf("%v, opened %d", err, src.opened)
	}
	n.Close()
	if _, err := answer(t, dialRaw(t, f.address(1)).open(helloOf(7, 1, 1))); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a closed transport answered %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	good := newGRPCFixture(t).config(1, 1)
	for what, spoil := range map[string]func(*Config){
		"cluster":     func(c *Config) { c.Cluster = shard.ClusterID{} },
		"node":        func(c *Config) { c.Node = 0 },
		"address":     func(c *Config) { c.Address = strings.Repeat("x", addressBytesMax+1) },
		"credentials": func(c *Config) { c.DialOptions = nil },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := NewGRPC(cfg); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// TestLimitedLog: the memory of what was logged is bounded.
func TestLimitedLog(t *testing.T) {
	l := newLimitedLog(slog.New(slog.DiscardHandler))
	for i := range 3 * logKeysLimit {
		l.log(slog.LevelInfo, shard.NodeID(i), "x", errTest)
		if len(l.last) > logKeysLimit {
			t.Fatalf("%d keys", len(l.last))
		}
	}
}

// BenchmarkMessages measures messages of 300 bytes, as a leader's appends would
// be, from one node to another over loopback.
func BenchmarkMessages(b *testing.B) {
	f := newGRPCFixture(b)
	var r countingReceiver
	r.done = make(chan struct{}, 1)
	r.want = b.N + 1
	l := f.listen(2)
	cfg := f.config(2, 1)
	receiver, err := NewGRPC(cfg)
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(api.ServerOptions()...)
	receiver.RegisterWith(server)
	receiver.Start(&r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		receiver.Close()
		server.Stop()
		<-served
	}()
	n := f.startGRPC(1, 1, newRecorder())
	const size = 300
	payload := make([]byte, size)
	encode := func(frame []byte) []byte { return append(frame, payload...) }
	n.Send(2, size, encode)
	for n.Stats().FramesSent == 0 {
		runtime.Gosched()
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		if n.Send(2, size, encode) {
			i++
		} else {
			runtime.Gosched()
		}
	}
	<-r.done
	b.StopTimer()
	s := n.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(s.MessagesSent)/float64(s.FramesSent), "messages/frame")
}

// countingReceiver counts messages of 300 bytes.
type countingReceiver struct {
	recorder
	got, want int
	done      chan struct{}
}

func (r *countingReceiver) Receive(_ shard.NodeID, frame []byte) error {
	r.got += len(frame) / 300
	if r.got >= r.want {
		select {
		case r.done <- struct{}{}:
		default:
		}
	}
	return nil
}
