package transport

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

var _ env.Env = (*loop)(nil)

// memoryNodes joins nodes 1 to n with incarnation 1.
func memoryNodes(t *testing.T, network *Network, n int) ([]*Memory, []*recorder) {
	nodes, recorders := make([]*Memory, n+1), make([]*recorder, n+1)
	for i := 1; i <= n; i++ {
		nodes[i], recorders[i] = joinMemory(t, network, shard.NodeID(i), 1)
	}
	return nodes, recorders
}

func joinMemory(t *testing.T, network *Network, node shard.NodeID, incarnation uint64) (*Memory, *recorder) {
	m, err := network.Join(node, incarnation)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder()
	m.Start(r)
	return m, r
}

// TestMemoryFates: the hook drops, delays and doubles; nothing arrives within
// the step that sends.
func TestMemoryFates(t *testing.T) {
	l := newLoop(1)
	var asked []Delivery
	fates := map[int]Fate{
		1: {Drop: true}, 2: {Delay: 30 * time.Millisecond}, 3: {Delay: 10 * time.Millisecond},
		4: {Again: true, AgainDelay: 20 * time.Millisecond}, 5: {Drop: true, Again: true},
	}
	network := NewNetwork(l, NetworkConfig{Hook: func(d Delivery) Fate {
		asked = append(asked, d)
		return fates[len(asked)-1]
	}})
	nodes, recorders := memoryNodes(t, network, 2)
	for i := range 6 {
		if !send(nodes[1], 2, fmt.Sprint(i)) {
			t.Fatal("dropped")
		}
	}
	if len(recorders[2].received) > 0 {
		t.Error("a message arrived before any step ran")
	}
	l.runAll()
	if got := fmt.Sprint(recorders[2].received[1]); got != "[0 4 3 4 2]" {
		t.Errorf("received %s", got)
	}
	if want := (Delivery{From: 1, To: 2, Bytes: 5}); len(asked) != 6 || asked[0] != want {
		t.Errorf("the hook was asked %+v", asked)
	}
	if s := nodes[1].Stats(); s.QueuedBytes != 0 {
		t.Errorf("%d bytes are still on their way", s.QueuedBytes)
	}
}

// TestMemoryPartition: one direction loses messages without a word, the other works.
func TestMemoryPartition(t *testing.T) {
	l := newLoop(1)
	network := NewNetwork(l, NetworkConfig{})
	nodes, recorders := memoryNodes(t, network, 2)
	network.Partition(1, 2, true)
	if !send(nodes[1], 2, "lost") || !send(nodes[2], 1, "found") {
		t.Error("dropped with a word")
	}
	o := newOutcome()
	sendSource(nodes[1], 2, nil, &source{}, o.done)
	l.runAll()
	if err := o.wait(t); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a snapshot into the partition: %v", err)
	}
	network.Partition(1, 2, false)
	send(nodes[1], 2, "healed")
	l.runAll()
	if got := fmt.Sprint(recorders[2].received[1], recorders[1].received[2]); got != "[healed] [found]" {
		t.Errorf("received %s", got)
	}
}

// TestMemoryIsolate: a node off the network is reported, by the same rules as one
// that ended, and loses what was on its way.
func TestMemoryIsolate(t *testing.T) {
	l := newLoop(1)
	network := NewNetwork(l, NetworkConfig{})
	nodes, recorders := memoryNodes(t, network, 3)
	send(nodes[1], 2, "on its way")
	network.Isolate(2, true)
	for range 10 {
		if send(nodes[1], 2, "x") || send(nodes[2], 3, "x") {
			t.Error("accepted")
		}
	}
	l.runAll()
	if recorders[1].unreachable[2] != 1 || recorders[2].unreachable[3] != 1 || recorders[3].unreachable[2] != 0 {
		t.Errorf("reports %v %v %v", recorders[1].unreachable, recorders[2].unreachable, recorders[3].unreachable)
	}
	if len(recorders[2].received) > 0 {
		t.Errorf("received %v", recorders[2].received)
	}
	// While it lasts, now and then.
	l.AfterFunc(6*time.Second, l.NewQueue("test"), func() { send(nodes[1], 2, "x"); send(nodes[1], 2, "x") })
	l.runAll()
	if recorders[1].unreachable[2] != 2 {
		t.Errorf("%d reports", recorders[1].unreachable[2])
	}
	network.Isolate(2, false)
	if !send(nodes[1], 2, "back") {
		t.Error("refused after it is back")
	}
	l.runAll()
	if fmt.Sprint(recorders[2].received[1]) != "[back]" {
		t.Errorf("received %v", recorders[2].received)
	}
}

// TestMemoryCrash: a crashed process hears nothing any more, not even its own
// callbacks; the others notice; what it had sent arrives until its node starts again.
func TestMemoryCrash(t *testing.T) {
	l := newLoop(1)
	delay := time.Duration(0)
	network := NewNetwork(l, NetworkConfig{Hook: func(Delivery) Fate { return Fate{Delay: delay} }})
	nodes, recorders := memoryNodes(t, network, 3)
	send(nodes[3], 1, "so that 3 is connected")
	l.runAll()

	delay = time.Millisecond
	send(nodes[1], 2, "arrives")
	send(nodes[2], 1, "too late")
	own, others := newOutcome(), newOutcome()
	sendSource(nodes[1], 2, nil, &source{chunks: [][]byte{{1}, {2}}}, own.done)
	sendSource(nodes[2], 1, nil, &source{chunks: [][]byte{{1}, {2}}}, others.done)
	for recorders[1].open+recorders[2].open < 2 {
		l.step()
	}
	nodes[1].Crash()
	l.runAll()
	if err := others.wait(t); !errors.Is(err, shard.ErrUnavailable) {
		t.Errorf("a snapshot to the crashed node: %v", err)
	}
	if own.n != 0 || len(recorders[1].sinks[0].aborted) != 0 || len(recorders[1].unreachable) != 0 {
		t.Error("a crashed node was called")
	}
	if len(recorders[2].sinks[0].aborted) != 1 {
		t.Error("a snapshot from the crashed node was not aborted")
	}
	if recorders[3].unreachable[1] != 1 || recorders[2].unreachable[1] != 1 {
		t.Errorf("reports %v %v", recorders[3].unreachable, recorders[2].unreachable)
	}
	if send(nodes[1], 2, "x") {
		t.Error("a crashed node sends")
	}
	if fmt.Sprint(recorders[2].received[1]) != "[arrives]" {
		t.Errorf("received %v", recorders[2].received)
	}
}

// TestMemoryIncarnations: a later process cuts the earlier one off, together with
// what it had sent; none can join twice or in the past.
func TestMemoryIncarnations(t *testing.T) {
	l := newLoop(1)
	network := NewNetwork(l, NetworkConfig{})
	nodes, recorders := memoryNodes(t, network, 2)
	send(nodes[1], 2, "from the past")
	send(nodes[2], 1, "to the past")
	later, r := joinMemory(t, network, 1, 2)
	if send(nodes[1], 2, "x") {
		t.Error("a process that was replaced sends")
	}
	send(later, 2, "now")
	send(nodes[2], 1, "to the later one")
	l.runAll()
	if got := fmt.Sprint(recorders[2].received[1], recorders[1].received[2], r.received[2]); got != "[now] [] [to the later one]" {
		t.Errorf("received %s", got)
	}
	if recorders[2].unreachable[1] != 1 {
		t.Errorf("the break was reported %d times", recorders[2].unreachable[1])
	}
	for incarnation, want := range map[uint64]Reason{1: StaleIncarnation, 2: CopiedStore} {
		_, err := network.Join(1, incarnation)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("incarnation %d: %v", incarnation, err)
		}
	}
	later.Crash()
	if _, err := network.Join(1, 2); err == nil {
		t.Error("an incarnation came twice")
	}
}

// TestMemoryBounds: queue and line of snapshots are bounded as over gRPC.
func TestMemoryBounds(t *testing.T) {
	l := newLoop(1)
	network := NewNetwork(l, NetworkConfig{QueueBytesMax: 100, SnapshotsSending: 2, SnapshotsWaiting: 3})
	nodes, recorders := memoryNodes(t, network, 2)
	accepted := 0
	for send(nodes[1], 2, "123456") {
		accepted++
	}
	if accepted != 10 {
		t.Errorf("%d messages of 10 bytes fitted into 100", accepted)
	}
	results := []error{}
	for range 6 {
		sendSource(nodes[1], 2, nil, &source{chunks: [][]byte{{1}}}, func(err error) { results = append(results, err) })
	}
	l.runAll()
	if len(results) != 6 || !errors.Is(results[0], shard.ErrBusy) {
		t.Errorf("results %v", results)
	}
	for _, err := range results[1:] {
		if err != nil {
			t.Error(err)
		}
	}
	if recorders[2].openMax != 2 || len(recorders[2].received[1]) != 10 {
		t.Errorf("%d snapshots at once, %d messages", recorders[2].openMax, len(recorders[2].received[1]))
	}
	if !send(nodes[1], 2, "123456") {
		t.Error("the room was not given back")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("an encoder that broke its word went unnoticed")
			}
		}()
		nodes[1].Send(2, 1, func(b []byte) []byte { return append(b, 1, 2) })
	}()
}

// TestMemorySnapshotDrops: whichever part is lost, both sides end once and agree
// that it failed; unless only the last answer was lost.
func TestMemorySnapshotDrops(t *testing.T) {
	const parts = 2 * 4 // header, two chunks, end; each with an answer
	for drop := range parts + 1 {
		l := newLoop(1)
		asked := 0
		network := NewNetwork(l, NetworkConfig{Hook: func(d Delivery) Fate {
			if !d.Snapshot {
				t.Error("not a part of a snapshot")
			}
			asked++
			return Fate{Drop: asked == drop+1, Delay: time.Millisecond}
		}})
		nodes, recorders := memoryNodes(t, network, 2)
		o, src := newOutcome(), &source{chunks: [][]byte{{1}, {2}}}
		sendSource(nodes[1], 2, []byte("h"), src, o.done)
		l.runAll()
		err := o.wait(t)
		o.once(t)
		if (err == nil) != (drop == parts) || !src.closedWell() || src.opened != 1 {
			t.Errorf("part %d lost: %v, closed %d", drop, err, src.closed)
		}
		for _, s := range recorders[2].sinks {
			if took := drop >= parts-1; (s.finished == 1) != took || (len(s.aborted) == 1) == took {
				t.Errorf("part %d lost: finished %d, aborted %v", drop, s.finished, s.aborted)
			}
		}
		if s := nodes[1].Stats(); s.QueuedSnapshots+s.SendingSnapshots != 0 {
			t.Errorf("part %d lost: %d snapshots are still queued, %d sent", drop, s.QueuedSnapshots, s.SendingSnapshots)
		}
	}
}

// TestMemoryLargeSnapshotsAreTakenSlowly: what two nodes send to a third together takes
// as long as the third one's rate says.
func TestMemoryLargeSnapshotsAreTakenSlowly(t *testing.T) {
	l := newLoop(1)
	network := NewNetwork(l, NetworkConfig{SnapshotRate: 1000})
	nodes, _ := memoryNodes(t, network, 3)
	for from := shard.NodeID(1); from <= 2; from++ {
		chunks, _ := chunksOf(10, 1000)
		o := newOutcome()
		sendSource(nodes[from], 3, nil, &source{chunks: chunks, large: true}, o.done)
		defer func() {
			if err := o.wait(t); err != nil {
				t.Error(err)
			}
		}()
	}
	l.runAll()
	if now := l.Now(); now < 19*time.Second || now > 22*time.Second {
		t.Errorf("20,000 bytes at 1,000 a second took %v", now)
	}
}

// TestMemoryDeterministic: the same seed gives the same trace of steps and
// deliveries, with crashes and losses in between.
func TestMemoryDeterministic(t *testing.T) {
	run := func(seed uint64) (trace string) {
		l := newLoop(seed)
		l.trace = func(queue string, at time.Duration) { trace += fmt.Sprintln(queue, at) }
		network := NewNetwork(l, NetworkConfig{Hook: func(d Delivery) Fate {
			x := l.Uint64()
			return Fate{Drop: x%17 == 0, Again: x%13 == 0, Delay: time.Duration(x % 1000), AgainDelay: time.Duration(x % 777)}
		}})
		nodes, recorders := memoryNodes(t, network, 4)
		for round := range 300 {
			for i := 1; i <= 4; i++ {
				to := shard.NodeID(l.Uint64()%4 + 1)
				if to == shard.NodeID(i) {
					continue
				}
				sent := send(nodes[i], to, fmt.Sprint(round))
				trace += fmt.Sprintln("send", i, to, sent)
				if l.Uint64()%10 == 0 {
					large := l.Uint64()%2 == 0
					open := func() (raftgroup.OutgoingSnapshot, error) {
						return raftgroup.OutgoingSnapshot{Large: large, Chunks: &fixedSource{n: 3}}, nil
					}
					nodes[i].SendSnapshot(to, open, func(err error) { trace += fmt.Sprintln("snapshot", i, err) })
				}
			}
			for range l.Uint64() % 20 {
				l.step()
			}
			if l.Uint64()%20 == 0 {
				victim := int(l.Uint64()%4 + 1)
				nodes[victim].Crash()
				nodes[victim], recorders[victim] = joinMemory(t, network, shard.NodeID(victim), uint64(round+2))
			}
		}
		l.runAll()
		for i := 1; i <= 4; i++ {
			trace += fmt.Sprintln(recorders[i].received, recorders[i].unreachable, len(recorders[i].sinks), nodes[i].Stats())
		}
		return trace
	}
	first := run(42)
	for range 3 {
		if run(42) != first {
			t.Fatal("the same seed gave another trace")
		}
	}
	if run(43) == first {
		t.Error("another seed gave the same trace")
	}
}

// fixedSource yields n small chunks.
type fixedSource struct{ n int }

func (s *fixedSource) Next() ([]byte, error) {
	if s.n == 0 {
		return nil, io.EOF
	}
	s.n--
	return []byte{byte(s.n)}, nil
}
func (s *fixedSource) Close() error { return nil }
