package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// withoutRetries: a lost answer is the caller's.
func withoutRetries(c *client.CoreConfig) { c.MaxRetries = -1 }

// world is a core, a pretended cluster, and the network between them.
type world struct {
	t       *testing.T
	env     *clienttest.Env
	net     *clienttest.Network
	cluster *clienttest.Cluster
	core    *client.Core
}

func newWorld(t *testing.T, cluster *clienttest.Cluster, change ...func(*client.CoreConfig)) *world {
	t.Helper()
	w := &world{t: t, env: clienttest.NewEnv(1), cluster: cluster}
	w.net = clienttest.NewNetwork(w.env, cluster)
	cfg := client.CoreConfig{Env: w.env, Dialer: w.net, Endpoints: []string{cluster.AddressOf(1)}, Logger: quiet()}
	for _, f := range change {
		f(&cfg)
	}
	w.core = client.NewCore(cfg)
	t.Cleanup(w.end)
	return w
}

// end closes the core: everything that it holds must go.
func (w *world) end() {
	w.core.Close()
	w.env.Pass(0)
	if n := w.core.Alarms(); n != 0 {
		w.t.Errorf("a closed core has %d alarms set", n)
	}
	w.env.Pass(5 * time.Second)
	if ops, bytes := w.core.Held(); ops != 0 || bytes != 0 {
		w.t.Errorf("a closed core holds %d operations of %d bytes", ops, bytes)
	}
	if n := w.net.Streams(); n != 0 {
		w.t.Errorf("%d streams are left open", n)
	}
	for _, err := range w.net.Faults {
		w.t.Error(err)
	}
	for id, n := range w.cluster.Executed() {
		if n > 1 {
			w.t.Errorf("write %v took effect %d times", id, n)
		}
	}
}

// pending is an operation under way.
type pending struct {
	w      *world
	cancel func()
	begun  time.Duration
	took   time.Duration
	done   bool
	res    shard.Result
	err    error
}

func (w *world) do(cmd shard.Command, timeout time.Duration) *pending {
	return w.doWith(cmd, client.DoOptions{Timeout: timeout})
}

func (w *world) doWith(cmd shard.Command, o client.DoOptions) *pending {
	p := &pending{w: w, begun: w.env.Now()}
	p.cancel = w.core.DoWith(cmd, o, func(res shard.Result, err error) {
		if p.done {
			w.t.Error("done was called twice")
		}
		p.done, p.res, p.err, p.took = true, res, err, w.env.Now()-p.begun
	})
	return p
}

func put(key, value string) shard.Command {
	return shard.Command{Kind: shard.KindPut, Key: shard.UserKey([]byte(key)), Value: []byte(value)}
}

func get(key string) shard.Command {
	return shard.Command{Kind: shard.KindGet, Key: shard.UserKey([]byte(key))}
}

// wait lets time pass until p is done.
func (p *pending) wait() *pending {
	p.w.t.Helper()
	if !p.w.env.Run(time.Minute, func() bool { return p.done }) {
		p.w.t.Fatal("not done within a minute")
	}
	return p
}

func (p *pending) ok() shard.Result {
	p.w.t.Helper()
	if p.wait(); p.err != nil {
		p.w.t.Fatal(p.err)
	}
	return p.res
}

// fails waits for an error that is all of want and none of not.
func (p *pending) fails(want []error, not ...error) {
	p.w.t.Helper()
	p.wait()
	for _, e := range want {
		if !errors.Is(p.err, e) {
			p.w.t.Fatalf("error %v, want one that is %v", p.err, e)
		}
	}
	for _, e := range not {
		if errors.Is(p.err, e) {
			p.w.t.Fatalf("error %v, want one that is not %v", p.err, e)
		}
	}
}

// warm makes sure that the core knows the way to every shard.
func (w *world) warm() {
	w.t.Helper()
	for _, s := range w.cluster.Shards()[1:] {
		w.do(shard.Command{Kind: shard.KindGet, Key: append(s.Descriptor.Span.Start, 'x')}, 0).ok()
		w.do(shard.Command{Kind: shard.KindPut, Key: append(s.Descriptor.Span.Start, 'x')}, 0).ok()
	}
}

func (w *world) shardOf(key string) *clienttest.Shard {
	return w.cluster.ShardOf(shard.UserKey([]byte(key)))
}

// leaderOf is the address of the node that leads a key's shard.
func (w *world) leaderOf(key string) string {
	s := w.shardOf(key)
	m, _ := s.Descriptor.Replica(s.Leader)
	return w.cluster.AddressOf(m.Node)
}

func TestPutGetDeleteScan(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 8))
	var last shard.Revision
	for i := range 40 {
		key := string(binary.BigEndian.AppendUint16(nil, uint16(i*1600)))
		rev := w.do(put(key, fmt.Sprint("value ", i)), 0).ok().Revision
		if rev <= last {
			t.Fatalf("revision %d after %d", rev, last)
		}
		last = rev
		if res := w.do(get(key), 0).ok(); !res.Found || string(res.Value) != fmt.Sprint("value ", i) || res.Revision != rev {
			t.Fatalf("%q: %+v", key, res)
		}
	}
	w.do(shard.Command{Kind: shard.KindDelete, Key: shard.UserKey([]byte("\x00\x00"))}, 0).ok()
	if res := w.do(get("\x00\x00"), 0).ok(); res.Found {
		t.Fatal("found after delete")
	}
	for _, reverse := range []bool{false, true} {
		span := shard.UserSpan()
		var keys []string
		pages := 0
		for {
			res := w.do(shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End, Reverse: reverse, Limit: 3}, 0).ok()
			pages++
			for _, r := range res.Rows {
				keys = append(keys, string(r.Key))
			}
			if res.Resume == nil {
				break
			}
			if reverse {
				span.End = res.Resume
			} else {
				span.Start = res.Resume
			}
		}
		if len(keys) != 39 || pages < 14 {
			t.Fatalf("reverse %v: %d keys in %d pages", reverse, len(keys), pages)
		}
		for i := range keys[1:] {
			if (keys[i] < keys[i+1]) == reverse {
				t.Fatalf("keys %q and %q are out of order", keys[i], keys[i+1])
			}
		}
	}
}

func TestManyCallersAtStartNeedFewLookups(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 48))
	var all []*pending
	for i := range 256 {
		all = append(all, w.do(put(string([]byte{byte(i * 37), byte(i)}), "v"), time.Second))
	}
	for _, p := range all {
		p.ok()
	}
	s := w.core.Stats()
	if s.DirectoryLookups > 3*client.LookupsMax || s.DirectoryScans > 3*client.LookupsMax {
		t.Errorf("%d lookups and %d scans of the directory for 256 callers and 48 shards", s.DirectoryLookups, s.DirectoryScans)
	}
	if extra := s.Attempts - 256 - s.DirectoryLookups - s.DirectoryScans; extra > 2 {
		t.Errorf("%d attempts too many: %+v", extra, s)
	}
	if s.Frames > 40 {
		t.Errorf("%d frames", s.Frames)
	}
	if s.InfoRequests != 1 {
		t.Errorf("%d questions to endpoints", s.InfoRequests)
	}
}

func TestALeaderHintIsFollowedAtOnce(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 2))
	w.warm()
	before := w.core.Stats()
	w.cluster.Change(func() { w.shardOf("a").Lead(2) })
	p := w.do(put("a", "v"), 0)
	p.ok()
	if p.took > 5*w.net.Latency {
		t.Errorf("took %v, a hint costs one round trip of %v", p.took, 2*w.net.Latency)
	}
	if s := w.core.Stats(); s.RetriesNotLeader != before.RetriesNotLeader+1 || s.Attempts != before.Attempts+2 {
		t.Errorf("before %+v, after %+v", before, s)
	}
}

func TestWithoutAHintTheNextReplicaIsTried(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 2))
	w.warm()
	w.cluster.Change(func() { w.cluster.Mute = true; w.shardOf("a").Leader = 3 })
	p := w.do(get("a"), 0)
	p.ok()
	if p.took < time.Millisecond || p.took > 200*time.Millisecond {
		t.Errorf("took %v", p.took)
	}
	if s := w.core.Stats(); s.RetriesNotLeader < 1 || s.RetriesNotLeader > 4 {
		t.Errorf("%d refusals", s.RetriesNotLeader)
	}
}

func TestAnElectionIsWaitedFor(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 2))
	w.warm()
	w.cluster.Change(func() { w.shardOf("a").Leader = 0 })
	p := w.do(put("a", "v"), 0)
	w.env.Pass(3 * time.Second)
	if p.done {
		t.Fatal("done without a leader")
	}
	if n := w.core.Stats().RetriesNotLeader; n > 25 {
		t.Errorf("%d attempts in three seconds", n)
	}
	w.cluster.Change(func() { w.shardOf("a").Lead(2) })
	p.ok()
}

func TestNewsWakeThoseWhoRest(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 2))
	w.warm()
	w.cluster.Change(func() { w.shardOf("a").Leader = 0 })
	p := w.do(put("a", "v"), 0)
	w.env.Pass(3 * time.Second) // by now it rests for half a second each time
	w.cluster.Change(func() { w.shardOf("a").Lead(2) })
	now := w.env.Now()
	w.do(put("aa", "v"), 0).ok()
	p.ok()
	if d := w.env.Now() - now; d > 20*time.Millisecond {
		t.Errorf("it went on %v after another one had found the leader", d)
	}
}

func TestASplitIsLearntFromTheAnswer(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	before := w.core.Stats()
	w.cluster.Split(shard.UserKey([]byte("m")))
	for _, key := range []string{"z", "a", "m", "l"} {
		w.do(put(key, "v"), 0).ok()
	}
	s := w.core.Stats()
	if s.DirectoryLookups != before.DirectoryLookups || s.RetriesWrongShard != before.RetriesWrongShard+1 {
		t.Errorf("before %+v, after %+v", before, s)
	}
	span := shard.UserSpan()
	if res := w.do(shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End}, 0).ok(); string(res.Resume) != "\x02m" {
		t.Errorf("a scan of the left side resumes at %q", res.Resume)
	}
}

// A write that a split overtook costs one round trip more: the answer names the leader of
// the new shard, and its term.
func TestARoutingMissCostsOneRoundTrip(t *testing.T) {
	for leader := range shard.ReplicaID(3) {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		w.do(put("z", "v"), 0).ok()
		w.cluster.Split(shard.UserKey([]byte("m")))
		w.cluster.Change(func() {
			right := w.cluster.ShardOf(shard.UserKey([]byte("z")))
			right.Leader, right.Term = leader+1, 17
		})
		before, attempts := w.core.Stats(), 0
		w.cluster.Change(func() {
			w.cluster.Answer = func(shard.NodeID, *shard.Request, *shard.Command) (shard.Response, bool) {
				attempts++
				return shard.Response{}, false
			}
		})
		w.do(put("z", "w"), 0).ok()
		if s := w.core.Stats(); attempts != 2 || s.DirectoryLookups != before.DirectoryLookups || s.RetriesNotLeader != before.RetriesNotLeader {
			t.Errorf("leader %d: %d attempts, before %+v, after %+v", leader+1, attempts, before, s)
		}
	}
}

func TestWithoutDescriptorsTheDirectoryIsAsked(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.cluster.Change(func() { w.cluster.Mute = true })
	w.cluster.Split(shard.UserKey([]byte("m")))
	p := w.do(put("z", "v"), 0)
	w.env.Pass(time.Second) // the directory lags
	if p.done {
		t.Fatal("done by a directory that does not know the split")
	}
	if n := w.core.Stats().DirectoryLookups; n > 40 {
		t.Errorf("%d lookups in a second", n)
	}
	w.cluster.Publish()
	p.ok()
}

func TestAnUncoveredKeyIsWaitedFor(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.cluster.Split(shard.UserKey([]byte("m")))
	// The directory knows the left side's new descriptor, and not yet the right side.
	right := w.cluster.Shards()[2]
	w.cluster.Change(func() { right.Descriptor.Span.Start = shard.UserKey([]byte("n")) })
	w.cluster.Publish()
	var all []*pending
	for i := range 50 {
		all = append(all, w.do(put(fmt.Sprint("m", i), "v"), 0))
	}
	w.env.Pass(2 * time.Second)
	if n := w.core.Stats().DirectoryLookups; n > 60 {
		t.Errorf("%d lookups by 50 operations in two seconds", n)
	}
	w.cluster.Change(func() {
		right.Descriptor.Span.Start = shard.UserKey([]byte("m"))
		right.Descriptor.Epoch.Version++
	})
	w.cluster.Publish()
	for _, p := range all {
		p.ok()
	}
}

// answering has every node answer user commands with err, count times in all.
func (w *world) answering(count int, err error) {
	w.cluster.Change(func() {
		w.cluster.Answer = func(_ shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
			if c.Kind == shard.KindScan || count == 0 {
				return shard.Response{}, false
			}
			count--
			return shard.Response{Err: err}, true
		}
	})
}

func TestErrorsThatProveThatNothingHappenedAreRepeated(t *testing.T) {
	for _, c := range []struct {
		err        error
		count      int
		from, upTo time.Duration
	}{
		{shard.ErrBusy, 1, 5 * time.Millisecond, 20 * time.Millisecond},
		{shard.ErrBusy, 10, 1500 * time.Millisecond, 6 * time.Second},
		{shard.ErrDropped, 1, 0, 2 * time.Millisecond},
		{shard.ErrNoRevision, 1, time.Millisecond, 20 * time.Millisecond},
		{shard.ErrNoRevision, 12, 1500 * time.Millisecond, 6 * time.Second},
		{shard.ErrUnavailable, 1, time.Millisecond, 50 * time.Millisecond},
		{&shard.NotLeaderError{Shard: 2}, 3, 3 * time.Millisecond, 100 * time.Millisecond},
		{&shard.WrongShardError{Shard: 2}, 1, 0, 5 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.err, " ", c.count), func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			w.answering(c.count, c.err)
			p := w.do(put("a", "v"), 0)
			p.ok()
			if s := w.core.Stats(); s.RetriesUnanswered != 0 {
				t.Errorf("%d attempts were marked", s.RetriesUnanswered)
			} else if c.err == shard.ErrNoRevision && s.RetriesNotLeader > 0 {
				t.Error("another replica was asked, though the leader is well")
			}
			if p.took < c.from || p.took > c.upTo {
				t.Errorf("took %v, want %v to %v", p.took, c.from, c.upTo)
			}
		})
	}
}

func TestErrorsThatProveNothingEndAWriteAndNotARead(t *testing.T) {
	for _, err := range []error{shard.ErrUndetermined, shard.ErrStopped, &shard.InternalError{Reason: "test"}} {
		t.Run(err.Error(), func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1), withoutRetries)
			w.warm()
			w.answering(1, err)
			p := w.do(put("a", "v"), 0).wait()
			if p.err == nil || !strings.HasPrefix(p.err.Error(), err.Error()) {
				t.Errorf("a write ends with %v", p.err)
			}
			if undetermined := err != shard.ErrStopped; errors.Is(p.err, shard.ErrUndetermined) != undetermined {
				t.Errorf("a write ends with %v, undetermined should be %v", p.err, undetermined)
			}
			w.answering(1, err)
			w.do(get("a"), 0).ok()
			w.answering(-1, err)
			if p := w.do(get("a"), 0).wait(); p.err == nil || p.err.Error() != err.Error() {
				t.Errorf("a read that nobody can do ends with %v", p.err)
			}
		})
	}
	for _, err := range []error{shard.ErrCompacted, shard.ErrFutureRevision, &shard.InvalidError{Field: "key", Reason: "test"}} {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.answering(1, err)
		if p := w.do(get("a"), 0).wait(); p.err == nil || p.err.Error() != err.Error() {
			t.Errorf("a read ends with %v, want %v", p.err, err)
		}
	}
}

func TestALostAnswer(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1), withoutRetries)
	w.warm()
	address := w.leaderOf("a")
	w.net.Deaf[address] = true
	write, read := w.do(put("a", "lost"), 0), w.do(get("a"), 0)
	w.env.Pass(10 * time.Millisecond)
	if write.done || read.done {
		t.Fatal("done without an answer")
	}
	delete(w.net.Deaf, address)
	w.net.Break(address)
	write.fails([]error{shard.ErrUndetermined})
	if res := read.ok(); string(res.Value) != "lost" {
		t.Errorf("the read says %q", res.Value)
	}
	if s := w.core.Stats(); s.Undetermined != 1 || s.RetriesLost != 1 {
		t.Errorf("%+v", s)
	}
}

func TestWhatWasNotSentSurvivesABrokenStream(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1), withoutRetries)
	w.warm()
	address := w.leaderOf("a")
	// The first frame is on its way, so that the second write waits for the next.
	sent := w.do(put("a", "1"), 0)
	w.env.Pass(time.Microsecond)
	queued := w.do(put("b", "2"), 0)
	w.env.Pass(time.Microsecond)
	w.net.Break(address)
	sent.fails([]error{shard.ErrUndetermined})
	queued.ok()
	if res := w.do(get("a"), 0).ok(); res.Found {
		t.Error("the frame was lost, and its write took effect")
	}
}

func TestADeadLeaderIsSkipped(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	address := w.leaderOf("a")
	w.net.Down[address] = true
	w.net.Break(address)
	p := w.do(put("a", "v"), 0)
	w.env.Pass(500 * time.Millisecond)
	w.cluster.Change(func() { w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1) })
	p.ok()
	opened := w.net.Opened
	w.env.Pass(time.Millisecond)
	for range 100 {
		p := w.do(put("a", "v"), 0)
		p.ok()
		if p.took > time.Millisecond {
			t.Fatalf("a put took %v while another node is dead", p.took)
		}
	}
	if n := w.net.Opened - opened; n > 3 {
		t.Errorf("%d connections were tried", n)
	}
}

func TestASilentNodeIsGivenUp(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.do(get("x"), 0).ok() // another replica may lead later
	w.net.Silent[w.leaderOf("a")] = true
	w.net.Break(w.leaderOf("a"))
	p := w.do(put("a", "v"), 0)
	w.env.Pass(100 * time.Millisecond)
	w.cluster.Change(func() { w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1) })
	p.ok()
	if p.took > 5*time.Second {
		t.Errorf("took %v", p.took)
	}
}

// A node may fall silent while its connection stays. It is asked, and given up long before the
// connection is.
func TestANodeThatFallsSilentIsGivenUp(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	before := w.effects()
	w.net.Silent[w.leaderOf("a")] = true
	write, read := w.do(put("a", "v"), 0), w.do(get("a"), 0)
	w.env.Pass(100 * time.Millisecond)
	w.cluster.Change(func() { w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1) })
	write.ok()
	read.ok()
	if write.took > 3100*time.Millisecond || read.took > 3100*time.Millisecond {
		t.Errorf("the write took %v, the read %v", write.took, read.took)
	}
	if n := w.effects() - before; n != 1 {
		t.Errorf("the write took effect %d times", n)
	}
}

// Operations that wait for a shorter time than a link may say nothing are given up before the
// node is asked. It is asked nevertheless, so that those that follow go elsewhere.
func TestShortOperationsFindOutThatANodeIsSilent(t *testing.T) {
	for _, timeout := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		w.net.Silent[w.leaderOf("a")] = true
		w.cluster.Change(func() { w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1) })
		var p *pending
		for range 3 {
			p = w.do(get("a"), timeout).wait()
			w.env.Pass(2 * time.Second)
		}
		if p.err != nil {
			t.Errorf("within %v: %v", timeout, p.err)
		}
	}
}

// A link over which bytes arrive is not given up, although no frame is whole yet and there is
// no answer to a question.
func TestASlowLinkIsNotGivenUp(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	address, opened, infos := w.leaderOf("a"), w.net.Opened, w.net.Infos
	w.net.Silent[address], w.net.Slow[address] = true, true
	w.do(get("a"), 20*time.Second).wait()
	if w.net.Opened != opened || w.net.Infos == infos {
		t.Errorf("%d streams opened, %d questions", w.net.Opened-opened, w.net.Infos-infos)
	}
}

// That another node answers at the address says nothing of the one that the link leads to.
func TestAnotherNodeDoesNotVouchForASilentOne(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 4, 1))
	w.warm()
	address := w.leaderOf("a")
	var other shard.NodeID
	w.cluster.Change(func() {
		for n := shard.NodeID(1); n <= 4; n++ {
			if _, ok := w.shardOf("a").Descriptor.ReplicaOn(n); !ok {
				other = n
			}
		}
		w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1)
	})
	w.net.Stall(address)
	w.net.Place(w.cluster, other, address)
	p := w.do(get("a"), 0)
	p.ok()
	if p.took > 1500*time.Millisecond {
		t.Errorf("it took %v", p.took)
	}
}

// One that answers questions is not given up, however long it cannot answer operations; and
// one that nothing is asked of is left alone.
func TestANodeThatWaitsIsNotGivenUp(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	opened, infos := w.net.Opened, w.net.Infos
	w.env.Pass(time.Minute)
	if w.net.Infos != infos {
		t.Errorf("idle, it was asked %d times", w.net.Infos-infos)
	}
	w.net.Deaf[w.leaderOf("a")] = true
	p := w.do(get("a"), 30*time.Second)
	p.wait()
	if p.took < 30*time.Second || w.net.Opened != opened {
		t.Errorf("after %v: %v, %d streams opened", p.took, p.err, w.net.Opened-opened)
	}
	if n := w.net.Infos - infos; n < 2 || n > 12 {
		t.Errorf("it was asked %d times in 30 s", n)
	}
}

func TestDeadlines(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	undetermined, late := []error{shard.ErrUndetermined, context.DeadlineExceeded}, []error{context.DeadlineExceeded}
	const timeout = 100 * time.Millisecond

	// Refused each time: provably not done.
	w.answering(-1, shard.ErrBusy)
	p := w.do(put("a", "v"), timeout)
	p.fails(late, shard.ErrUndetermined, shard.ErrBusy)
	if p.took < timeout || p.took > timeout+2*client.Tick {
		t.Errorf("the deadline of %v came after %v", timeout, p.took)
	}
	w.answering(0, nil)

	// Sent, and no answer.
	w.net.Deaf[w.leaderOf("a")] = true
	write, read := w.do(put("a", "v"), timeout), w.do(get("a"), timeout)
	write.fails(undetermined)
	read.fails(late, shard.ErrUndetermined)
	delete(w.net.Deaf, w.leaderOf("a"))

	// Answered after all: nobody is told twice.
	w.net.Latency = 300 * time.Millisecond
	w.do(put("a", "v"), timeout).fails(undetermined)
	w.env.Pass(2 * time.Second)
	w.net.Latency = 200 * time.Microsecond

	// Nowhere to go.
	for i := range 3 {
		w.net.Down[w.cluster.AddressOf(shard.NodeID(i+1))] = true
		w.net.Break(w.cluster.AddressOf(shard.NodeID(i + 1)))
	}
	w.do(put("a", "v"), timeout).fails(late, shard.ErrUndetermined)
	clear(w.net.Down)
	w.do(put("a", "v"), time.Minute).ok()
}

func TestBeforeFirstContactDeadlinesHoldToo(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1), func(c *client.CoreConfig) { c.Endpoints = []string{"nowhere"} })
	w.do(put("a", "v"), 50*time.Millisecond).fails([]error{context.DeadlineExceeded}, shard.ErrUndetermined)
	p := w.do(put("a", "v"), 0)
	w.env.Pass(10 * time.Second)
	if n := w.net.Infos; n < 5 || n > 20 {
		t.Errorf("%d questions in ten seconds", n)
	}
	w.core.AddNodes(map[shard.NodeID]string{2: "node-2"})
	p.ok()
	if got := w.core.Nodes(); len(got) != 3 || got[3] != "node-3" {
		t.Errorf("nodes %v", got)
	}
	if w.core.Cluster() != w.cluster.ID {
		t.Error("no cluster was pinned")
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	// Before anything was sent.
	p := w.do(put("a", "v"), 0)
	p.cancel()
	p.cancel()
	p.fails([]error{context.Canceled}, shard.ErrUndetermined)
	// After.
	w.net.Deaf[w.leaderOf("a")] = true
	write, read := w.do(put("a", "v"), 0), w.do(get("a"), 0)
	w.env.Pass(10 * time.Millisecond)
	write.cancel()
	read.cancel()
	write.fails([]error{context.Canceled, shard.ErrUndetermined})
	read.fails([]error{context.Canceled}, shard.ErrUndetermined)
	delete(w.net.Deaf, w.leaderOf("a"))
	// After the answer: nothing.
	p = w.do(put("a", "v"), 0)
	p.ok()
	p.cancel()
	w.env.Pass(time.Second)
}

func TestASlowOperationHoldsUpNoOther(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.cluster.Change(func() {
		w.cluster.Answer = func(_ shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
			if string(c.Key) == "\x02slow" {
				return shard.Response{Err: shard.ErrBusy}, true
			}
			return shard.Response{}, false
		}
	})
	slow := w.do(put("slow", "v"), 0)
	for range 200 {
		p := w.do(put("fast", "v"), 0)
		p.ok()
		if p.took > time.Millisecond {
			t.Fatalf("took %v beside a slow one", p.took)
		}
	}
	slow.cancel()
	for range 10 {
		if p := w.do(put("fast", "v"), 0); p.ok().Revision == 0 || p.took > time.Millisecond {
			t.Fatalf("took %v after another was cancelled", p.took)
		}
	}
	slow.fails([]error{context.Canceled}, shard.ErrUndetermined)
}

func TestWhatIsOutstandingIsBounded(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1), func(c *client.CoreConfig) { c.QueueOpsMax, c.QueueBytesMax = 10, 8<<10 })
	w.warm()
	w.cluster.Change(func() { w.shardOf("a").Leader = 0 })
	var ps []*pending
	for range 10 {
		ps = append(ps, w.do(put("a", "v"), time.Second))
	}
	w.do(put("a", "v"), time.Second).fails([]error{shard.ErrBusy})
	for _, p := range ps {
		p.fails([]error{context.DeadlineExceeded})
	}
	large := w.do(put("a", string(make([]byte, 7<<10))), time.Second)
	w.do(put("a", string(make([]byte, 2<<10))), time.Second).fails([]error{shard.ErrBusy})
	large.fails([]error{context.DeadlineExceeded})
}

func TestFramesAreBounded(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	var most, count, requests int
	w.net.Sent = func(_ string, frame []byte) {
		n := 0
		if err := shard.DecodeRequests(frame, func(shard.Request) { n++ }); err != nil {
			t.Error(err)
		}
		if len(frame) > client.FrameBytes && n > 1 {
			t.Errorf("a frame of %d bytes holds %d requests", len(frame), n)
		}
		if len(frame) > shard.FrameBytesMax {
			t.Errorf("a frame of %d bytes", len(frame))
		}
		most, count, requests = max(most, n), count+1, requests+n
	}
	var ps []*pending
	for i := range 100 {
		size := 64 << 10
		if i == 50 {
			size = shard.ValueBytesMax
		}
		ps = append(ps, w.do(put(fmt.Sprint(i), string(make([]byte, size))), 0))
	}
	for _, p := range ps {
		p.ok()
	}
	if requests != 100 || count > 12 || most < 14 {
		t.Errorf("%d requests in %d frames, %d in the fullest", requests, count, most)
	}
}

func TestCommandsAreChecked(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	for _, c := range []shard.Command{
		put("", "v"), put("a", string(make([]byte, shard.ValueBytesMax+1))), get(string(make([]byte, shard.KeyBytesMax+1))),
		{Kind: shard.KindScan}, {Kind: 99, Key: []byte("\x02a")},
	} {
		var invalid *shard.InvalidError
		if p := w.do(c, 0).wait(); !errors.As(p.err, &invalid) {
			t.Errorf("kind %d: %v", c.Kind, p.err)
		}
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.net.Deaf[w.leaderOf("a")] = true
	sent, read := w.do(put("a", "v"), 0), w.do(get("a"), 0)
	w.env.Pass(time.Millisecond)
	queued := w.do(put("a", "v"), 0)
	w.core.Close()
	w.core.Close()
	sent.fails([]error{client.ErrClosed, shard.ErrUndetermined})
	read.fails([]error{client.ErrClosed}, shard.ErrUndetermined)
	queued.fails([]error{client.ErrClosed}, shard.ErrUndetermined)
	w.do(put("a", "v"), 0).fails([]error{client.ErrClosed}, shard.ErrUndetermined)
	queued.cancel()
}

// A node without a replica of the meta shard tells others where that is by what
// its own client knows.
func TestCoreKnowsTheMetaShard(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	if _, _, ok := w.core.Meta(); ok {
		t.Error("the meta shard is known before the first contact")
	}
	w.warm()
	want := w.cluster.Info(1)
	if d, leader, ok := w.core.Meta(); !ok || d.ID != shard.MetaID || d.Epoch != want.Meta.Epoch || leader != want.MetaLeader {
		t.Errorf("the core knows %v, led by node %d, %v", d, leader, ok)
	}
}
