package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// cluster is a few hosts over real engines on in-memory disks that lose what
// was not synced, driven by one loop.
type cluster struct {
	t     testing.TB
	env   *loop
	nodes []*testNode // node i has ID i+1
	cut   map[[2]shard.NodeID]bool
	// lossPercent of messages vanish.
	lossPercent uint64
	// doublePercent of messages arrive twice.
	doublePercent uint64
	// filter, if set, tells whether a message is let through.
	filter func(from, to shard.NodeID, e *envelope) bool
	// sending, if set, sees each message as it leaves its host.
	sending func(from *testNode, e *envelope)
	config  func(*Config)
	// snapshotsSent by all nodes.
	snapshotsSent int
	// queueDelay is how long a snapshot waits in line, snapshotDelay how long it is on
	// its way.
	queueDelay, snapshotDelay time.Duration
	// breaks, if set, may break a snapshot's stream before its i-th chunk.
	breaks func(i int) error
	// asynchronous engines commit as in production: syncs are waited for elsewhere.
	asynchronous bool
}

type testNode struct {
	c           *cluster
	id          shard.NodeID
	fs          *vfs.MemFS
	engine      *storage.Engine
	host        *Host
	machines    map[shard.ID]*register
	incarnation uint64
	env         *life // since the store was opened
	sources     []ChunkSource
	wrap        func(vfs.FS) vfs.FS // the disk, if set
}

func newCluster(t testing.TB, seed uint64, nodes int) *cluster {
	c := &cluster{t: t, env: newLoop(seed), cut: map[[2]shard.NodeID]bool{}}
	for i := range nodes {
		c.nodes = append(c.nodes, &testNode{c: c, id: shard.NodeID(i + 1), fs: vfs.NewCrashableMem()})
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	return c
}

func (n *testNode) open() {
	n.env = &life{loop: n.c.env}
	var err error
	fs := vfs.FS(n.fs)
	if n.wrap != nil {
		fs = n.wrap(fs)
	}
	n.engine, err = storage.Open(storage.Config{Dir: "store", FS: fs, MemoryBytes: 32 << 20, Env: n.env, Simulated: !n.c.asynchronous,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { n.c.t.Errorf("node %d: %v", n.id, err) }})
	if err != nil {
		n.c.t.Fatal(err)
	}
}

// start opens the store if it is not, and loads all groups.
func (n *testNode) start() {
	if n.engine == nil {
		n.open()
	}
	n.incarnation++
	n.machines = map[shard.ID]*register{}
	cfg := Config{Node: n.id, Incarnation: n.incarnation, Env: n.env, Engine: n.engine,
		Transport: &loopTransport{n: n, incarnation: n.incarnation},
		Nodes:     n.c.ids,
		Covers: func(id shard.ID, key []byte) bool {
			return n.covered(id, shard.Span{Start: key, End: append(bytes.Clone(key), 0)}) != 0
		},
		ReserveSpan: func(state *storage.ReplicaState) (func(), error) {
			if other := n.covered(state.Descriptor.ID, state.Descriptor.Span); other != 0 {
				return nil, fmt.Errorf("its span is shard %d's: %w", other, shard.ErrBusy)
			}
			return func() {}, nil
		},
		NewMachine: func(g *Group, state *storage.ReplicaState) (Machine, error) {
			m := newRegister(n.c.t, n.engine, g, state)
			n.machines[g.Shard()] = m
			return m, nil
		}}
	if n.c.config != nil {
		n.c.config(&cfg)
	}
	var err error
	if n.host, err = NewHost(cfg); err != nil {
		n.c.t.Fatal(err)
	}
	if err := n.host.Load(); err != nil {
		n.c.t.Fatal(err)
	}
}

// covered is another shard than id that covers a part of span here; 0: none does.
func (n *testNode) covered(id shard.ID, span shard.Span) shard.ID {
	for other, m := range n.machines {
		if other != id && !m.removed && m.state != nil && m.state.Descriptor.Span.Overlaps(span) {
			return other
		}
	}
	return 0
}

func (n *testNode) stop() {
	if n.host != nil {
		n.host.Close()
		n.host = nil
	}
	for _, s := range n.sources { // as a transport does that is closed
		s.Close()
	}
	n.sources = nil
	if n.engine != nil {
		n.env.over = true
		if err := n.engine.Close(); err != nil {
			n.c.t.Errorf("close node %d: %v", n.id, err)
		}
		n.engine = nil
	}
}

// crash stops the node and loses everything that was not synced.
func (n *testNode) crash() {
	after := n.fs.CrashClone(vfs.CrashCloneCfg{})
	n.stop()
	n.fs = after
}

func (c *cluster) start() {
	for _, n := range c.nodes {
		n.start()
	}
}

func (c *cluster) node(id shard.NodeID) *testNode { return c.nodes[id-1] }

// bootstrap writes the first replicas of a shard: replica i on node i.
func (c *cluster) bootstrap(id shard.ID, nodes ...shard.NodeID) {
	d := shard.Descriptor{ID: id, Span: registerSpan(id), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 1}
	for _, n := range nodes {
		d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplica, Node: n, Role: shard.Voter})
		d.NextReplica++
	}
	for _, r := range d.Replicas {
		n := c.node(r.Node)
		if n.engine == nil {
			n.open()
		}
		b := n.engine.NewBatch()
		b.PutInitialReplica(r.ID, &storage.ReplicaState{Applied: 10, AppliedTerm: 1, Descriptor: d})
		n.commitSync(b)
	}
}

// commitSync commits b and waits until it is durable.
func (n *testNode) commitSync(b *storage.Batch) {
	n.c.t.Helper()
	done := make(chan struct{})
	if err := n.engine.CommitSync(b, 0, func() { close(done) }); err != nil {
		n.c.t.Fatal(err)
	}
	if n.c.asynchronous {
		<-done
		return
	}
	n.c.until("a batch is synced", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

// until runs the loop until cond holds; a minute without is a failure.
func (c *cluster) until(what string, cond func() bool) {
	c.t.Helper()
	if !c.within(time.Minute, cond) {
		c.t.Fatalf("%v: not within a minute: %s", c.env.now, what)
	}
}

// within runs the loop until cond holds, and tells whether it did in time.
func (c *cluster) within(d time.Duration, cond func() bool) bool {
	for end := c.env.now + d; !cond(); {
		if c.env.now > end || !c.env.step() {
			return false
		}
	}
	return true
}

// ids lists all nodes.
func (c *cluster) ids() (ids []shard.NodeID) {
	for _, n := range c.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

func (c *cluster) runFor(d time.Duration) {
	for end := c.env.now + d; c.env.now < end && c.env.step(); {
	}
}

// leader is the node that leads the shard in the highest term, if any.
func (c *cluster) leader(id shard.ID) *testNode {
	var best *testNode
	for _, n := range c.nodes {
		if m := n.machine(id); m != nil && m.leadership.Leading &&
			(best == nil || m.leadership.Term > best.machine(id).leadership.Term) {
			best = n
		}
	}
	return best
}

func (n *testNode) machine(id shard.ID) *register {
	if n.host == nil {
		return nil
	}
	return n.machines[id]
}

func (n *testNode) group(id shard.ID) *Group {
	g, ok := n.host.Group(id)
	if !ok {
		n.c.t.Fatalf("node %d has no group %d", n.id, id)
	}
	return g
}

func (c *cluster) waitLeader(id shard.ID) *testNode {
	c.t.Helper()
	c.until(fmt.Sprintf("shard %d has a leader", id), func() bool { return c.leader(id) != nil })
	return c.leader(id)
}

// outcome is what became of one call.
type outcome struct {
	calls int
	res   Result
	err   error
	value string // of a read
}

func (o *outcome) done() bool { return o.calls > 0 }

// propose hands in "key=value" in the term in which the node leads.
func (n *testNode) propose(id shard.ID, op string) *outcome {
	_, o := n.proposal(id, op)
	return o
}

func (n *testNode) proposal(id shard.ID, op string) (*Proposal, *outcome) {
	o := &outcome{}
	p := &Proposal{Header: []byte(op[:len(op)/2]), Body: []byte(op[len(op)/2:]), Term: n.machine(id).leadership.Term,
		Done: func(res Result, err error) {
			if o.calls++; o.calls > 1 {
				n.c.t.Errorf("%s: Done called %d times", op, o.calls)
			}
			o.res, o.err = res, err
		}}
	if err := n.group(id).Propose(p); err != nil {
		o.calls, o.err = 1, err
	}
	return p, o
}

// read asks for a key's value, read when the read is confirmed.
func (n *testNode) read(id shard.ID, key string) *outcome {
	o := &outcome{}
	err := n.group(id).Read(&readRequest{done: func(m *register, err error) {
		if o.calls++; o.calls > 1 {
			n.c.t.Errorf("read %s: confirmed %d times", key, o.calls)
		}
		if o.err = err; err == nil {
			o.value = m.get(key)
		}
	}})
	if err != nil {
		o.calls, o.err = 1, err
	}
	return o
}

// put repeats an operation at whoever leads until it is applied.
func (c *cluster) put(id shard.ID, op string) {
	c.t.Helper()
	for {
		o := c.waitLeader(id).propose(id, op)
		c.until("put "+op, o.done)
		if o.err == nil {
			return
		}
		if errors.Is(o.err, shard.ErrUndetermined) {
			c.t.Fatalf("put %s: %v", op, o.err)
		}
	}
}

func (c *cluster) mustRead(id shard.ID, key, want string) {
	c.t.Helper()
	for {
		o := c.waitLeader(id).read(id, key)
		c.until("read "+key, o.done)
		if o.err != nil {
			continue
		}
		if o.value != want {
			c.t.Errorf("read %s: %q, want %q", key, o.value, want)
		}
		return
	}
}

// change proposes a membership change at whoever leads.
func (c *cluster) change(id shard.ID, changes ...shard.Change) error {
	c.t.Helper()
	l := c.waitLeader(id)
	m := l.machine(id)
	var result error
	done := false
	l.group(id).ProposeMembership(m.leadership.Term, shard.MembershipChange{Shard: id, Epoch: m.state.Descriptor.Epoch, Changes: changes},
		func(err error) { result, done = err, true })
	c.until("membership change", func() bool { return done })
	return result
}

// converged tells whether all replicas of the leader's descriptor have applied
// the same.
func (c *cluster) converged(id shard.ID) bool {
	l := c.leader(id)
	if l == nil {
		return false
	}
	lm := l.machine(id)
	for _, r := range lm.state.Descriptor.Replicas {
		m := c.node(r.Node).machine(id)
		if m == nil || m.state == nil || m.installing || m.Applied() != lm.Applied() {
			return false
		}
	}
	return true
}

// mustAgree waits until all replicas are equal.
func (c *cluster) mustAgree(id shard.ID) {
	c.t.Helper()
	c.until(fmt.Sprintf("shard %d converges", id), func() bool { return c.converged(id) })
	l := c.leader(id).machine(id)
	want := l.hash()
	for _, r := range l.state.Descriptor.Replicas {
		if got := c.node(r.Node).machine(id).hash(); got != want {
			c.t.Errorf("shard %d: node %d has content %x, the leader %x", id, r.Node, got, want)
		}
	}
}

// isolate cuts a node off in both directions; heal ends all cuts.
func (c *cluster) isolate(id shard.NodeID) {
	for _, n := range c.nodes {
		c.cut[[2]shard.NodeID{id, n.id}] = true
		c.cut[[2]shard.NodeID{n.id, id}] = true
	}
}

func (c *cluster) heal() { clear(c.cut) }

// loopTransport delivers frames after a millisecond or two, reordered.
type loopTransport struct {
	n           *testNode
	incarnation uint64
}

func (t *loopTransport) reach(to shard.NodeID) (*Host, bool) {
	c := t.n.c
	if int(to) > len(c.nodes) || c.cut[[2]shard.NodeID{t.n.id, to}] || t.n.incarnation != t.incarnation {
		return nil, false
	}
	h := c.node(to).host
	return h, h != nil
}

func (t *loopTransport) Send(to shard.NodeID, size int, encode func([]byte) []byte) bool {
	c := t.n.c
	frame := encode(nil)
	if len(frame) > size {
		c.t.Errorf("a message of %d bytes was announced with %d", len(frame), size)
	}
	e, _, err := nextMessage(frame)
	if err != nil {
		c.t.Errorf("an own message does not decode: %v", err)
	}
	if m := t.n.machines[e.shard]; m != nil && m.removed && m.g.replica == e.from && e.raft() {
		c.t.Errorf("replica %d of shard %d was removed and sends %v", e.from, e.shard, e.msg.Type)
	}
	if c.sending != nil {
		c.sending(t.n, &e)
	}
	if _, ok := t.reach(to); !ok {
		return false
	}
	if c.env.Uint64()%100 < c.lossPercent || c.filter != nil && !c.filter(t.n.id, to, &e) {
		return true
	}
	t.deliver(to, frame)
	if c.env.Uint64()%100 < c.doublePercent {
		t.deliver(to, frame)
	}
	return true
}

func (t *loopTransport) deliver(to shard.NodeID, frame []byte) {
	c := t.n.c
	delay := time.Millisecond + time.Duration(c.env.Uint64()%uint64(time.Millisecond))
	c.env.AfterFunc(delay, c.env.NewQueue(""), func() {
		if h, ok := t.reach(to); ok {
			if err := h.Receive(t.n.id, frame); err != nil {
				c.t.Errorf("receive: %v", err)
			}
		}
	})
}

// SendSnapshot waits for queueDelay in line, and is on its way for snapshotDelay.
func (t *loopTransport) SendSnapshot(to shard.NodeID, open func() (OutgoingSnapshot, error), done func(error)) {
	c := t.n.c
	c.snapshotsSent++
	c.env.AfterFunc(time.Millisecond+c.queueDelay, c.env.NewQueue(""), func() {
		s, err := open()
		if err != nil {
			done(err)
			return
		}
		t.n.sources = append(t.n.sources, s.Chunks)
		c.env.AfterFunc(time.Millisecond+c.snapshotDelay, c.env.NewQueue(""), func() { done(t.stream(to, s)) })
	})
}

func (t *loopTransport) stream(to shard.NodeID, s OutgoingSnapshot) error {
	defer s.Chunks.Close()
	c := t.n.c
	h, ok := t.reach(to)
	if !ok {
		return errors.New("unreachable")
	}
	if e, _, _ := nextMessage(s.Header); c.filter != nil && !c.filter(t.n.id, to, &e) {
		return errors.New("filtered")
	}
	sink, err := h.ReceiveSnapshot(t.n.id, s.Header, s.Large)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		chunk, err := s.Chunks.Next()
		if err == io.EOF {
			return sink.Finish()
		}
		if err == nil && c.breaks != nil {
			err = c.breaks(i)
		}
		if err == nil {
			err = sink.Add(append([]byte(nil), chunk...))
		}
		if err != nil {
			sink.Abort(err)
			return err
		}
	}
}
