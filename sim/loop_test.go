package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLoopQueueKeepsOrderAndPoolDoesNot(t *testing.T) {
	inOrder, mixed := true, false
	for seed := range uint64(20) {
		l := NewLoop(seed, NewTrace(nil))
		e := l.NewEnv("n1", 1_000_000)
		q, p := e.NewQueue("q"), e.NewPool("p", 4)
		var qs, ps []int
		for i := range 20 {
			q.Submit(func() { qs = append(qs, i) })
			p.Submit(func() { ps = append(ps, i) })
		}
		if _, err := l.Run(time.Second, 1000, nil); err != nil {
			t.Fatal(err)
		}
		if len(qs) != 20 || len(ps) != 20 {
			t.Fatalf("ran %d and %d steps of 20 each", len(qs), len(ps))
		}
		for i := range 20 {
			inOrder = inOrder && qs[i] == i
			mixed = mixed || ps[i] != i
		}
	}
	if !inOrder || !mixed {
		t.Fatalf("queue in order: %v, pool mixed: %v; want both", inOrder, mixed)
	}
}

func TestLoopSeedDecidesOrder(t *testing.T) {
	run := func(seed uint64) string {
		l := NewLoop(seed, NewTrace(nil))
		var s strings.Builder
		for n := range 3 {
			e := l.NewEnv(fmt.Sprint("n", n), 1_000_000)
			for k := range 4 {
				q := e.NewQueue(fmt.Sprint("q", k))
				q.Submit(func() { fmt.Fprint(&s, n, ".", k, " ") })
			}
		}
		if _, err := l.Run(time.Second, 1000, nil); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s%x", s.String(), l.trace.Hash())
	}
	orders := make(map[string]bool)
	for seed := range uint64(10) {
		a, b := run(seed), run(seed)
		if a != b {
			t.Fatalf("seed %d: %s, then %s", seed, a, b)
		}
		orders[a] = true
	}
	if len(orders) < 9 {
		t.Fatalf("10 seeds gave %d orders", len(orders))
	}
}

func TestLoopCrashDiscardsWhatIsPending(t *testing.T) {
	l := NewLoop(1, NewTrace(nil))
	e := l.NewEnv("n1", 1_000_000)
	q := e.NewQueue("q")
	ran := 0
	q.Submit(func() { ran++ })
	e.AfterFunc(time.Second, q, func() { ran++ })
	e.NewPool("p", 1).Submit(func() { ran++ })
	e.Close()
	q.Submit(func() { ran++ })
	if e.AfterFunc(time.Second, q, func() { ran++ }).Stop() {
		t.Error("a timer of a closed environment was pending")
	}
	if _, err := l.Run(time.Minute, 1000, nil); err != nil {
		t.Fatal(err)
	}
	if ran != 0 {
		t.Fatalf("%d steps ran after the crash", ran)
	}
}

func TestLoopPauseHoldsBackAndKeepsOrder(t *testing.T) {
	l := NewLoop(1, NewTrace(nil))
	e := l.NewEnv("n1", 1_000_000)
	q := e.NewQueue("q")
	var at []time.Duration
	var order []int
	for i := range 5 {
		e.AfterFunc(time.Duration(i)*10*time.Millisecond, q, func() { order = append(order, i); at = append(at, l.Now()) })
	}
	e.Pause(time.Second)
	if _, err := l.Run(time.Minute, 1000, nil); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(order) != "[0 1 2 3 4]" || at[0] < time.Second {
		t.Fatalf("order %v at %v", order, at)
	}
}

func TestLoopTimers(t *testing.T) {
	l := NewLoop(1, NewTrace(nil))
	e := l.NewEnv("n1", 1_000_000)
	q := e.NewQueue("q")
	start := e.Now()
	var fired time.Duration
	e.AfterFunc(time.Second, q, func() { fired = e.Now() - start })
	stopped := e.AfterFunc(time.Second, q, func() { t.Error("a stopped timer fired") })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop: want true once, then false")
	}
	if _, err := l.Run(time.Minute, 1000, nil); err != nil {
		t.Fatal(err)
	}
	if fired < time.Second || fired > time.Second+stallMax {
		t.Fatalf("fired after %v", fired)
	}
}

func TestLoopClockRates(t *testing.T) {
	l := NewLoop(1, NewTrace(nil))
	fast := l.NewEnv("n1", 1_100_000)
	q := fast.NewQueue("q")
	start := fast.Now()
	var at, read time.Duration
	fast.AfterFunc(11*time.Second, q, func() { at, read = l.Now(), fast.Now()-start })
	if _, err := l.Run(time.Minute, 1000, nil); err != nil {
		t.Fatal(err)
	}
	if at < 10*time.Second || at > 10*time.Second+stallMax || read < 11*time.Second {
		t.Fatalf("11 s on a clock that runs a tenth fast: %v of virtual time, the clock read %v", at, read)
	}
}

func TestLoopStepLimit(t *testing.T) {
	l := NewLoop(1, NewTrace(nil))
	e := l.NewEnv("n1", 1_000_000)
	q := e.NewQueue("q")
	var spin func()
	spin = func() { q.Submit(spin) }
	spin()
	if _, err := l.Run(time.Hour, 1000, nil); err == nil {
		t.Fatal("a loop that spins was not noticed")
	}
}
