package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// attempt is one that reached the leader which it names.
type attempt struct {
	node   shard.NodeID
	id     shard.OpID
	birth  shard.Revision
	marked bool
}

// watch notes the attempts of writes to user keys, and fails the test when one
// without the mark is carried out after one of the same operation with it.
func (w *world) watch(answer func(shard.NodeID, *shard.Command) (shard.Response, bool)) *[]attempt {
	var all []attempt
	marked := map[shard.OpID]bool{}
	w.cluster.Change(func() {
		w.cluster.Answer = func(n shard.NodeID, q *shard.Request, c *shard.Command) (shard.Response, bool) {
			s := w.cluster.ShardOf(c.Anchor())
			if m, _ := s.Descriptor.ReplicaOn(n); !c.Kind.Write() || c.System() || m.ID != s.Leader || q.Target.Term != s.Term {
				return shard.Response{}, false
			}
			all = append(all, attempt{n, c.Op, c.Birth, c.Retry})
			if marked[c.Op] && !c.Retry {
				w.t.Errorf("an attempt without the mark after one with it: %+v", all)
			}
			marked[c.Op] = marked[c.Op] || c.Retry
			if answer == nil {
				return shard.Response{}, false
			}
			return answer(n, c)
		}
	})
	return &all
}

// effects is how often writes took effect altogether.
func (w *world) effects() (n int) {
	for _, times := range w.cluster.Executed() {
		n += times
	}
	return n
}

// A write whose answer is lost is sent again, and takes effect once, whether the
// first attempt did or not.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	for name, lose := range map[string]func(w *world, address string){
		"the answer was lost": func(w *world, address string) { w.net.Deaf[address] = true },
		"the attempt was lost": func(w *world, address string) {
			w.net.Silent[address] = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			before := w.effects()
			seen := w.watch(nil)
			address := w.leaderOf("a")
			lose(w, address)
			p := w.do(put("a", "v"), 0)
			w.env.Pass(10 * time.Millisecond)
			if p.done {
				t.Fatal("done without an answer")
			}
			clear(w.net.Deaf)
			clear(w.net.Silent)
			w.net.Break(address)
			res := p.ok()
			got := w.do(get("a"), 0).ok()
			if string(got.Value) != "v" || got.Revision != res.Revision || w.effects() != before+1 {
				t.Errorf("written at %d, read %q at %d, %d effects", res.Revision, got.Value, got.Revision, w.effects()-before)
			}
			last := (*seen)[len(*seen)-1]
			if !last.marked {
				t.Errorf("the last attempt carries no mark: %+v", *seen)
			}
			for _, a := range *seen {
				if a.id != last.id || a.birth != last.birth {
					t.Errorf("attempts of one operation differ: %+v", *seen)
				}
			}
			if s := w.core.Stats(); s.Undetermined != 0 || s.RetriesUnanswered != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Each kind of write gives the second attempt the outcome of the first.
func TestTheOutcomeIsThatOfTheFirstAttempt(t *testing.T) {
	key := func(k string) []byte { return shard.UserKey([]byte(k)) }
	for name, cmd := range map[string]shard.Command{
		"put":    put("a", "v"),
		"delete": {Kind: shard.KindDelete, Key: key("a")},
		"swap": {Kind: shard.KindBatch, Compares: []shard.Compare{{Kind: shard.CompareValue, Key: key("a"), Value: []byte("old")}},
			Then: []shard.BatchOp{{Kind: shard.KindPut, Key: key("a"), Value: []byte("v")}}},
		"delete-range": {Kind: shard.KindDeleteRange, Start: key("a"), End: key("c"), Limit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			w.do(put("a", "old"), 0).ok()
			w.do(put("b", "old"), 0).ok()
			before := w.effects()
			first := true
			w.watch(func(_ shard.NodeID, c *shard.Command) (shard.Response, bool) {
				if first {
					first = false
					w.net.Deaf[w.leaderOf("a")] = true
				}
				return shard.Response{}, false
			})
			p := w.do(cmd, 0)
			w.env.Pass(10 * time.Millisecond)
			clear(w.net.Deaf)
			w.net.Break(w.leaderOf("a"))
			res := p.ok()
			if w.effects() != before+1 || res.Revision == 0 {
				t.Errorf("%+v, %d effects", res, w.effects()-before)
			}
			switch cmd.Kind {
			case shard.KindBatch:
				if !res.Found {
					t.Error("the compare does not hold after its own write")
				}
			case shard.KindDeleteRange:
				if res.Count != 1 || string(res.Resume) != "\x02a\x00" || !w.do(get("b"), 0).ok().Found {
					t.Errorf("%+v", res)
				}
			}
		})
	}
}

// A first attempt that arrives after a marked one was answered, because its stream
// stalled, does nothing.
func TestALateOlderAttemptAfterANewerOneWasAnswered(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	before := w.effects()
	w.watch(nil)
	address := w.leaderOf("a")
	w.net.Stall(address)
	p := w.do(put("a", "first"), 0)
	w.env.Pass(10 * time.Millisecond)
	w.net.Break(address)
	res := p.ok()
	// Another write follows, which the late one would undo.
	w.do(put("a", "second"), 0).ok()
	w.net.Release()
	w.env.Pass(time.Second)
	if got := w.do(get("a"), 0).ok(); string(got.Value) != "second" || got.Revision <= res.Revision || w.effects() != before+2 {
		t.Errorf("read %q at %d, %d effects", got.Value, got.Revision, w.effects()-before)
	}
}

// The stream that a late attempt came on was greeted before any attempt was sent:
// the node knows which streams are older.
func TestNoOperationBeforeTheGreeting(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	greeted := map[string]bool{}
	last := uint64(0)
	w.net.Sent = func(address string, frame []byte) {
		if h, err := shard.DecodeHello(frame); err == nil {
			if h.Stream <= last {
				t.Errorf("stream %d is opened after stream %d", h.Stream, last)
			}
			last, greeted[address] = h.Stream, false
			w.env.After(2*w.net.Latency-1, func() { greeted[address] = true })
			return
		}
		if !greeted[address] {
			t.Errorf("a frame before the greeting to %s", address)
		}
	}
	w.warm()
	for i := range 3 {
		w.net.Break(w.cluster.AddressOf(shard.NodeID(i + 1)))
		w.do(put("a", "v"), 0).ok()
	}
}

func TestARetryAfterALeaderChange(t *testing.T) {
	for _, tookEffect := range []bool{true, false} {
		t.Run(fmt.Sprint("the old leader's attempt took effect: ", tookEffect), func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			before := w.effects()
			seen := w.watch(nil)
			old := w.leaderOf("a")
			if tookEffect {
				w.net.Deaf[old] = true
			} else {
				w.net.Stall(old)
			}
			p := w.do(put("a", "v"), 0)
			w.env.Pass(10 * time.Millisecond)
			w.cluster.Change(func() { w.shardOf("a").Lead(w.shardOf("a").Leader%3 + 1) })
			w.net.Down[old] = true
			w.net.Break(old)
			p.ok()
			clear(w.net.Down)
			clear(w.net.Deaf)
			w.net.Release() // the first attempt names another term
			w.env.Pass(time.Second)
			if w.effects() != before+1 {
				t.Errorf("%d effects by %+v", w.effects()-before, *seen)
			}
			if last := (*seen)[len(*seen)-1]; tookEffect && (!last.marked || len(*seen) < 2 || last.node == (*seen)[0].node) {
				t.Errorf("attempts %+v", *seen)
			}
		})
	}
}

// A server that cannot tell is asked again, in place of the caller's guess.
func TestServersThatCannotTell(t *testing.T) {
	for _, cause := range []error{shard.ErrUndetermined, shard.ErrStopped, &shard.InternalError{Reason: "test"}} {
		t.Run(cause.Error(), func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			before := w.effects()
			left := 3
			seen := w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
				left--
				return shard.Response{Err: cause}, left >= 0
			})
			w.do(put("a", "v"), 0).ok()
			if n := len(*seen); n != 4 || (*seen)[0].marked || !(*seen)[1].marked || !(*seen)[3].marked || w.effects() != before+1 {
				t.Errorf("attempts %+v, %d effects", *seen, w.effects()-before)
			}
			// For ever: the caller is told after MaxRetries.
			left, *seen = 1000, nil
			p := w.doWith(put("a", "v"), client.DoOptions{MaxRetries: 5}).wait()
			if len(*seen) != 6 || errors.Is(p.err, shard.ErrUndetermined) != (cause != shard.ErrStopped) {
				t.Errorf("%v after attempts %+v", p.err, *seen)
			}
		})
	}
}

// Refusals after an attempt whose answer was lost say nothing about that one, and
// the mark stays.
func TestARefusalAfterALostAnswer(t *testing.T) {
	for _, c := range []struct {
		refusal error
		final   bool
	}{
		{&shard.InvalidError{Field: "key", Reason: "test"}, true}, {shard.ErrSpansShards, true}, {shard.ErrMalformed, true}, {shard.ErrRangeTooWide, true},
		{shard.ErrBusy, false}, {shard.ErrDropped, false}, {shard.ErrNoRevision, false}, {shard.ErrUnavailable, false},
		{&shard.NotLeaderError{Shard: 2}, false}, {&shard.WrongShardError{Shard: 2}, false},
	} {
		t.Run(c.refusal.Error(), func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			answers := []error{shard.ErrUndetermined, c.refusal}
			seen := w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
				if len(answers) == 0 {
					return shard.Response{}, false
				}
				err := answers[0]
				answers = answers[1:]
				return shard.Response{Err: err}, true
			})
			p := w.do(put("a", "v"), 0)
			if c.final {
				p.fails([]error{shard.ErrUndetermined})
				return
			}
			p.ok()
			if n := len(*seen); n != 3 || !(*seen)[1].marked || !(*seen)[2].marked {
				t.Errorf("attempts %+v", *seen)
			}
		})
	}
}

func TestWithoutRetriesALostAnswerIsUndetermined(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	seen := w.watch(nil)
	address := w.leaderOf("a")
	w.net.Deaf[address] = true
	p := w.doWith(put("a", "v"), client.DoOptions{MaxRetries: -1})
	w.env.Pass(10 * time.Millisecond)
	clear(w.net.Deaf)
	w.net.Break(address)
	p.fails([]error{shard.ErrUndetermined})
	w.env.Pass(time.Second)
	if len(*seen) != 1 || (*seen)[0].marked {
		t.Errorf("attempts %+v", *seen)
	}
}

// Keys of the system keyspace have no versions in which to look.
func TestSystemWritesAreNotRepeated(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	span := shard.SystemSpan()
	cmd := shard.Command{Kind: shard.KindPut, Key: append(append([]byte{}, span.Start...), "set/x"...), Value: []byte("v")}
	w.do(cmd, 0).ok()
	attempts := 0
	w.cluster.Change(func() {
		w.cluster.Answer = func(_ shard.NodeID, _ *shard.Request, c *shard.Command) (shard.Response, bool) {
			if c.Kind == shard.KindPut {
				attempts++
			}
			return shard.Response{Err: shard.ErrUndetermined}, c.Kind == shard.KindPut
		}
	})
	w.do(cmd, 0).fails([]error{shard.ErrUndetermined})
	if attempts != 1 {
		t.Errorf("%d attempts", attempts)
	}
}

// The deadline holds while attempts go on, and says what is not known.
func TestADeadlineDuringARetry(t *testing.T) {
	undetermined := []error{shard.ErrUndetermined, context.DeadlineExceeded}
	const timeout = 100 * time.Millisecond
	in := func(t *testing.T, p *pending) {
		t.Helper()
		if p.took < timeout || p.took > timeout+2*client.Tick {
			t.Errorf("the deadline of %v came after %v", timeout, p.took)
		}
	}
	t.Run("resting", func(t *testing.T) {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		first := true
		w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
			err := error(shard.ErrBusy)
			if first {
				err, first = shard.ErrUndetermined, false
			}
			return shard.Response{Err: err}, true
		})
		p := w.do(put("a", "v"), timeout)
		p.fails(undetermined)
		in(t, p)
	})
	t.Run("the last answer is lost too", func(t *testing.T) {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		address := w.leaderOf("a")
		w.net.Deaf[address] = true
		p := w.do(put("a", "v"), timeout)
		w.env.Pass(10 * time.Millisecond)
		w.net.Break(address)
		p.fails(undetermined)
		in(t, p)
	})
	t.Run("nobody is there", func(t *testing.T) {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		p := w.do(put("a", "v"), timeout)
		w.env.Pass(w.net.Latency / 2)
		for i := range 3 {
			w.net.Down[w.cluster.AddressOf(shard.NodeID(i+1))] = true
			w.net.Break(w.cluster.AddressOf(shard.NodeID(i + 1)))
		}
		p.fails(undetermined)
		in(t, p)
	})
	t.Run("closed", func(t *testing.T) {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1))
		w.warm()
		w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
			return shard.Response{Err: shard.ErrUndetermined}, true
		})
		p := w.do(put("a", "v"), 0)
		w.env.Pass(50 * time.Millisecond)
		w.core.Close()
		p.fails([]error{client.ErrClosed, shard.ErrUndetermined})
	})
}

// An operation that the caller chose is carried out once, whichever clients send it.
func TestAChosenOperationSentAgainByAnotherClient(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	before := w.effects()
	seen := w.watch(nil)
	birth := w.do(shard.Command{Kind: shard.KindDraw, Limit: 1}, 0).ok().Revision
	op := client.Operation{ID: shard.OpID{Session: 99, Sequence: 7}, Birth: birth}
	w.net.Deaf[w.leaderOf("a")] = true
	first := w.doWith(put("a", "v"), client.DoOptions{Operation: op, Timeout: 10 * time.Millisecond})
	first.fails([]error{shard.ErrUndetermined})
	clear(w.net.Deaf)
	wrote := w.do(get("a"), 0).ok().Revision
	w.do(put("a", "later"), 0).ok()

	core := client.NewCore(client.CoreConfig{Env: w.env, Dialer: w.net, Endpoints: []string{w.cluster.AddressOf(2)}, Logger: quiet()})
	other := &world{t: t, env: w.env, net: w.net, cluster: w.cluster, core: core}
	if res := other.doWith(put("a", "v"), client.DoOptions{Operation: op}).ok(); res.Revision != wrote {
		t.Errorf("sent again it is written at %d, and was at %d", res.Revision, wrote)
	}
	if got := w.do(get("a"), 0).ok(); string(got.Value) != "later" || w.effects() != before+2 {
		t.Errorf("%q, %d effects", got.Value, w.effects()-before)
	}
	for _, a := range *seen {
		if a.id == op.ID && (!a.marked || a.birth != birth) {
			t.Errorf("an attempt of a chosen operation: %+v", a)
		}
	}
	var invalid *shard.InvalidError
	if p := other.doWith(put("a", "something else"), client.DoOptions{Operation: op}).wait(); !errors.As(p.err, &invalid) || invalid.Field != "operation" || errors.Is(p.err, shard.ErrUndetermined) {
		t.Errorf("the same operation with another value: %v", p.err)
	}
	// Older than the retention: nobody can tell any more, and the caller hears it at once.
	w.cluster.Change(func() { w.cluster.Floor = birth + 1 })
	n := len(*seen)
	p := other.doWith(put("a", "v"), client.DoOptions{Operation: op})
	p.fails([]error{shard.ErrUndetermined})
	var lost *shard.OutcomeLostError
	if !errors.As(p.err, &lost) || len(*seen) != n+1 || p.took > 10*w.net.Latency {
		t.Errorf("%v after %v and %d attempts", p.err, p.took, len(*seen)-n)
	}
	core.Close()
	w.env.Pass(time.Second)
}

// A session that knows no revision yet learns one before its first attempt is
// sent: with birth 0 an attempt could not be repeated once a floor has risen.
func TestTheFirstWriteOfASessionCanBeRepeated(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.cluster.Change(func() { w.cluster.Floor = 1 })
	lost := false
	seen := w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
		if !lost {
			lost, w.net.Deaf[w.leaderOf("a")] = true, true
		}
		return shard.Response{}, false
	})
	p := w.do(put("a", "v"), 0)
	w.env.Run(time.Second, func() bool { return lost })
	clear(w.net.Deaf)
	w.net.Break(w.leaderOf("a"))
	p.ok()
	if n := len(*seen); n != 2 || (*seen)[0].birth == 0 || (*seen)[0].birth != (*seen)[1].birth || (*seen)[0].id != (*seen)[1].id || w.effects() != 1 {
		t.Errorf("attempts %+v, %d effects", *seen, w.effects())
	}
}

// A delete-range keeps the bounds that an attempt was sent with; a shard that was
// split inside them cannot carry it out any more.
func TestADeleteRangeKeepsItsBounds(t *testing.T) {
	key := func(k string) []byte { return shard.UserKey([]byte(k)) }
	cmd := shard.Command{Kind: shard.KindDeleteRange, Start: key("a"), End: key("z"), Limit: 10}
	for _, c := range []struct {
		name string
		lost bool
	}{{"no attempt may have taken effect", false}, {"one may", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, clienttest.NewCluster(1, 3, 1))
			w.warm()
			for _, k := range []string{"b", "c", "p", "q"} {
				w.do(put(k, "v"), 0).ok()
			}
			first := true
			w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
				err := error(shard.ErrBusy)
				if c.lost {
					err = shard.ErrUndetermined
				}
				was := first
				first = false
				return shard.Response{Err: err}, was
			})
			p := w.do(cmd, 0)
			w.env.Run(time.Second, func() bool { return !first })
			w.cluster.Split(key("m"))
			if c.lost {
				p.fails([]error{shard.ErrUndetermined})
				return
			}
			if res := p.ok(); res.Count != 2 || string(res.Resume) != "\x02m" {
				t.Errorf("%+v", res)
			}
		})
	}
}

// A batch goes to the shard of its first key, and is refused if the others lie
// elsewhere; sent again across a split it is undetermined.
func TestBatchesAndSplits(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	batch := shard.Command{Kind: shard.KindBatch}
	for _, k := range []string{"a", "z"} {
		batch.Then = append(batch.Then, shard.BatchOp{Kind: shard.KindPut, Key: shard.UserKey([]byte(k))})
	}
	w.do(batch, 0).ok()
	first := true
	seen := w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
		was := first
		first = false
		return shard.Response{Err: shard.ErrUndetermined}, was
	})
	p := w.doWith(batch, client.DoOptions{MaxRetries: 3})
	w.env.Run(time.Second, func() bool { return !first })
	w.cluster.Split(shard.UserKey([]byte("m")))
	p.fails([]error{shard.ErrUndetermined})
	var lost *shard.OutcomeLostError
	if !errors.As(p.err, &lost) || len(*seen) > 3 {
		t.Errorf("%v after %d attempts", p.err, len(*seen))
	}
	// So is one of whose attempts nobody here knows.
	op := client.Operation{ID: shard.OpID{Session: 99, Sequence: 7}}
	if p := w.doWith(batch, client.DoOptions{Operation: op}).wait(); !errors.As(p.err, &lost) || errors.Is(p.err, shard.ErrSpansShards) {
		t.Errorf("a chosen batch over two shards that were one: %v", p.err)
	}
	n := len(*seen)
	w.do(batch, 0).fails([]error{shard.ErrSpansShards}, shard.ErrUndetermined)
	if len(*seen) != n+1 {
		t.Errorf("%d attempts of a batch over two shards", len(*seen)-n)
	}
}

// Where no shard was ever split, a chosen batch over several was never carried out.
func TestAChosenBatchOverShardsThatWereNeverSplit(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 2))
	w.warm()
	seen := w.watch(nil)
	batch := shard.Command{Kind: shard.KindBatch}
	for _, k := range []string{"a", "\xf0"} {
		batch.Then = append(batch.Then, shard.BatchOp{Kind: shard.KindPut, Key: shard.UserKey([]byte(k))})
	}
	op := client.Operation{ID: shard.OpID{Session: 99, Sequence: 7}}
	w.doWith(batch, client.DoOptions{Operation: op}).fails([]error{shard.ErrSpansShards}, shard.ErrUndetermined)
	if len(*seen) != 1 {
		t.Errorf("%d attempts", len(*seen))
	}
}

// A node that answers that it cannot tell is no reason to doubt that it leads.
func TestAnAnswerThatCannotTellDoesNotMoveTheLeader(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	leader := w.shardOf("a").Leader
	first := true
	seen := w.watch(func(_ shard.NodeID, c *shard.Command) (shard.Response, bool) {
		was := first && c.Kind == shard.KindPut
		first = first && !was
		return shard.Response{Err: shard.ErrUndetermined}, was
	})
	w.do(put("a", "v"), 0).ok()
	w.do(get("a"), 0).ok()
	if n := len(*seen); n < 2 || w.core.Stats().RetriesNotLeader != 0 {
		t.Fatalf("attempts %+v, %+v", *seen, w.core.Stats())
	}
	for _, a := range *seen {
		if m, _ := w.shardOf("a").Descriptor.Replica(leader); a.node != m.Node {
			t.Errorf("an attempt at node %d, and %d leads: %+v", a.node, m.Node, *seen)
		}
	}
}

// A client's first process sends a swap, and ends before the answer; its second one
// is told that the condition does not hold. What the first one sent arrives only
// now, when it would hold: the second was told the truth for good.
func TestAChosenSwapOfAnEndedProcessArrivesLate(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.do(put("a", "zero"), 0).ok()
	birth := w.do(shard.Command{Kind: shard.KindDraw, Limit: 1}, 0).ok().Revision
	op := client.Operation{ID: shard.OpID{Session: 99, Sequence: 7}, Birth: birth}
	key := shard.UserKey([]byte("a"))
	swap := shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{{Kind: shard.CompareValue, Key: key, Value: []byte("one")}},
		Then: []shard.BatchOp{{Kind: shard.KindPut, Key: key, Value: []byte("swapped")}}, Else: []shard.BatchOp{{Kind: shard.KindGet, Key: key}}}
	w.net.Stall(w.leaderOf("a"))
	w.doWith(swap, client.DoOptions{Operation: op, Timeout: 10 * time.Millisecond}).fails([]error{shard.ErrUndetermined})

	core := client.NewCore(client.CoreConfig{Env: w.env, Dialer: w.net, Endpoints: []string{w.cluster.AddressOf(2)}, Logger: quiet()})
	second := &world{t: t, env: w.env, net: w.net, cluster: w.cluster, core: core}
	if res := second.doWith(swap, client.DoOptions{Operation: op}).ok(); res.Found || res.Revision != 0 || string(res.Rows[0].Value) != "zero" {
		t.Errorf("%+v", res)
	}
	second.do(put("a", "one"), 0).ok()
	w.net.Release()
	w.env.Pass(time.Second)
	if got := second.do(get("a"), 0).ok(); string(got.Value) != "one" {
		t.Errorf("%q", got.Value)
	}
	if res := second.doWith(swap, client.DoOptions{Operation: op}).ok(); res.Found || string(res.Rows[0].Value) != "zero" {
		t.Errorf("once more: %+v", res)
	}
	core.Close()
	w.env.Pass(time.Second)
}

// Any replica may serve a read at a revision; one that lags sends it to the leader.
func TestReadsAtARevisionGoToAnyReplica(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	r := w.do(put("a", "v"), 0).ok().Revision
	w.do(put("a", "w"), 0).ok()
	served := map[shard.NodeID]int{}
	w.cluster.Change(func() {
		w.cluster.Answer = func(n shard.NodeID, _ *shard.Request, c *shard.Command) (shard.Response, bool) {
			served[n]++
			return shard.Response{}, false
		}
	})
	read := get("a")
	read.Revision, read.AnyReplica = r, true
	for range 30 {
		if res := w.do(read, 0).ok(); string(res.Value) != "v" || res.Revision != r {
			t.Fatalf("%+v", res)
		}
	}
	if len(served) != 3 || served[1] != 10 {
		t.Errorf("served by %v", served)
	}
	w.cluster.Change(func() { w.cluster.Lags = map[shard.NodeID]bool{1: true, 2: true, 3: true} })
	before := w.core.Stats()
	for range 30 {
		if p := w.do(read, 0); string(p.ok().Value) != "v" || p.took > 5*w.net.Latency {
			t.Fatalf("%+v after %v", p.res, p.took)
		}
	}
	if n := w.core.Stats().Attempts - before.Attempts; n != 50 {
		t.Errorf("%d attempts for 30 reads, two in three of which meet a follower that lags", n)
	}
}
