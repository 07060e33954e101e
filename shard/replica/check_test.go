package replica

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

func nothing(raftgroup.Result, error) {}

// A check on demand ends with the digest compared; the leader's own is the same.
func TestCheckOnDemand(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.do(g, put("\x02c", "1"))
	var index uint64
	calls := 0
	h.store.Check(7, func(i uint64, err error) {
		calls++
		if index = i; err != nil {
			t.Error(err)
		}
	})
	g.turn(t)
	if calls != 1 || index != g.index || r.Checked().State != CheckComputing || r.Checked().Index != index {
		t.Fatalf("%d calls, index %d of %d, %+v", calls, index, g.index, r.Checked())
	}
	h.do(g, put("\x02d", "later"))
	h.settle(time.Second, g)
	if c := r.Checked(); c.State != CheckSame || c.Versions != 1 || len(c.Digest) != 32 || r.Differs() {
		t.Errorf("%+v", c)
	}
	// A difference is kept until a check that comes to its end finds none.
	verify := func(digest string, state CheckState, differs bool) {
		t.Helper()
		h.store.Check(7, func(uint64, error) {})
		g.turn(t)
		own := r.Checked().Index
		g.mu.Lock()
		g.proposals = nil
		g.mu.Unlock()
		h.steps.run()
		r.proposeUpkeep(r.leadership.Load().Term, r.descriptor.Load().Epoch.Version, &shard.Command{Kind: shard.KindVerify, Digested: own, Applied: own, Value: []byte(digest)}, nothing)
		g.mu.Lock()
		g.proposals = g.proposals[len(g.proposals)-1:]
		g.mu.Unlock()
		g.turn(t)
		h.steps.run()
		if c := r.Checked(); c.State != state || r.Differs() != differs {
			t.Errorf("%+v, differs %v", c, r.Differs())
		}
	}
	verify("another digest", CheckDiffers, true)
	if s := h.store.Stats(); s.ChecksDiffer != 1 || s.ChecksSame != 1 || s.Digests != 2 {
		t.Errorf("%+v", s)
	}
	h.store.Check(7, func(uint64, error) {})
	g.turn(t)
	if !r.Differs() {
		t.Error("forgotten before the next comparison")
	}
	h.settle(time.Second, g)
	if r.Differs() || r.Checked().State != CheckSame {
		t.Errorf("%+v", r.Checked())
	}
}

// Checks come by themselves at their interval, and not at all without one.
func TestChecksComeAtTheirInterval(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	h.do(g, put("\x02c", "1"))
	h.settle(20*time.Second, g)
	if n := h.store.Stats().Digests; n != 0 {
		t.Fatalf("%d digests without an interval", n)
	}
	h.store.SetCheckInterval(10 * time.Second)
	h.settle(105*time.Second, g)
	if n := h.store.Stats().ChecksSame; n < 9 || n > 11 || r.Checked().State != CheckSame {
		t.Errorf("%d comparisons in 105 s, one each 10 s; %+v", n, r.Checked())
	}
	h.store.SetCheckInterval(0)
	before := h.store.Stats().Digests
	h.settle(30*time.Second, g)
	if n := h.store.Stats().Digests; n != before {
		t.Errorf("%d digests after it was switched off", n-before)
	}
}

// What a node computes at a time is bounded, and let go of when the store is closed;
// who does not lead begins nothing.
func TestDigestsAreBounded(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	for range digestsMax + 2 {
		h.store.Check(7, func(_ uint64, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		g.turn(t)
	}
	if n := len(h.store.checks.jobs); n != digestsMax {
		t.Errorf("%d digests in line", n)
	}
	if c := r.Checked(); c.State != CheckNotCompared || !strings.Contains(c.Reason, "too many") {
		t.Errorf("%+v", c)
	}
	h.store.Close() // the engine's own closing fails the test if a view is left open
	h.steps.run()
	h.store.Check(7, func(uint64, error) {})
	g.turn(t)
	if n := len(h.store.checks.jobs); n != 0 {
		t.Errorf("%d digests in line of a closed store", n)
	}
	g.follow()
	var notLeader *shard.NotLeaderError
	var wrong *shard.WrongShardError
	h.store.Check(7, func(_ uint64, err error) {
		if !errors.As(err, &notLeader) {
			t.Errorf("at a follower: %v", err)
		}
	})
	h.store.Check(8, func(_ uint64, err error) {
		if !errors.As(err, &wrong) {
			t.Errorf("of a shard that is not here: %v", err)
		}
	})
}

// A replica that never came by a check is not compared, which is no difference.
func TestCheckPassedOver(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	r.proposeUpkeep(term, r.descriptor.Load().Epoch.Version, &shard.Command{Kind: shard.KindVerify, Digested: 3, Applied: 3, Value: []byte("digest")}, nothing)
	g.turn(t)
	h.steps.run()
	if c := r.Checked(); c.State != CheckNotCompared || r.Differs() || !strings.Contains(c.Reason, "by a snapshot") {
		t.Errorf("%+v", c)
	}
}

// A snapshot that is installed over what a digest is being computed of makes it no
// difference, and nothing that is wrong with the store.
func TestCheckOfReplacedContent(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	h.do(g, put("\x02c", "1"))
	h.store.Check(7, func(uint64, error) {})
	g.turn(t)
	if c := r.Checked(); c.State != CheckComputing {
		t.Fatalf("%+v", c)
	}
	s := h.engine.NewSnapshot()
	x, err := s.Export(7)
	if err != nil {
		t.Fatal(err)
	}
	i, err := h.engine.NewImport(7, r.self)
	if err != nil {
		t.Fatal(err)
	}
	for {
		chunk, err := x.Next()
		if err == io.EOF {
			break
		}
		if err := errors.Join(err, i.Add(chunk)); err != nil {
			t.Fatal(err)
		}
	}
	g.machine.InstallBegin()
	state, err := i.Finish()
	if err := errors.Join(err, i.Install(state.Descriptor.Span), i.Close(), x.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	g.machine.InstallEnd(&state)
	h.steps.run()
	if c := r.Checked(); c.State != CheckNotCompared || r.Differs() || !strings.Contains(c.Reason, "by a snapshot") {
		t.Errorf("%+v", c)
	}
}

// Keys without versions are compared only at the same applied index.
func TestCheckOfTheSystemAtAnotherIndex(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(1, "\x01", "\x02")
	h.store.Check(1, func(uint64, error) {})
	g.turn(t)
	own := r.Checked()
	h.steps.run()
	g.mu.Lock()
	g.proposals = nil
	g.mu.Unlock()
	r.proposeUpkeep(term, r.descriptor.Load().Epoch.Version, &shard.Command{Kind: shard.KindVerify, Digested: own.Index, Applied: own.Applied + 1, Value: []byte("digest")}, nothing)
	g.turn(t)
	h.steps.run()
	if c := r.Checked(); c.State != CheckNotCompared || r.Differs() || !strings.Contains(c.Reason, "another applied index") {
		t.Errorf("%+v", c)
	}
}
