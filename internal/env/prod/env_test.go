package prod

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQueueRunsOneAtATimeInOrder(t *testing.T) {
	e := New()
	defer e.Close()
	q := e.NewQueue("test")
	const submitters, each = 8, 2000
	var inside, seen int // unsynchronised on purpose: the race detector watches
	order := make([][]int, submitters)
	var wg sync.WaitGroup
	wg.Add(submitters * each)
	for s := range submitters {
		go func() {
			for i := range each {
				q.Submit(func() {
					defer wg.Done()
					inside++
					if inside != 1 {
						t.Errorf("%d steps of one queue run at once", inside)
					}
					order[s] = append(order[s], i)
					seen++
					inside--
				})
			}
		}()
	}
	wg.Wait()
	if seen != submitters*each {
		t.Fatalf("%d steps ran, submitted were %d", seen, submitters*each)
	}
	for s, got := range order {
		if !slices.IsSorted(got) {
			t.Errorf("steps of submitter %d ran out of order", s)
		}
	}
}

func TestQueueRunsWhatAStepSubmits(t *testing.T) {
	e := New()
	defer e.Close()
	q := e.NewQueue("test")
	done := make(chan []int)
	var got []int
	q.Submit(func() {
		q.Submit(func() { got = append(got, 2); q.Submit(func() { got = append(got, 3); done <- got }) })
		got = append(got, 1)
	})
	if got := <-done; !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("steps ran as %v", got)
	}
}

func TestQueueDropsABurstsMemory(t *testing.T) {
	q := newQueue()
	for range 4 * keptSteps {
		q.Submit(func() {})
	}
	burst := q.take(nil)
	q.Submit(func() {})
	q.take(burst)
	if c := cap(q.mu.pending); c > keptSteps {
		t.Errorf("a slice of capacity %d is kept after a burst, the bound is %d", c, keptSteps)
	}
}

func TestPoolRunsAtOnce(t *testing.T) {
	e := New()
	defer e.Close()
	const workers = 3
	p := e.NewPool("test", workers)
	// All workers meet: each step returns only once all of them have begun.
	var met, done sync.WaitGroup
	met.Add(workers)
	done.Add(workers)
	for range workers {
		p.Submit(func() {
			met.Done()
			met.Wait()
			done.Done()
		})
	}
	done.Wait()
}

func TestPoolNeverExceedsItsWorkers(t *testing.T) {
	e := New()
	defer e.Close()
	const workers, steps = 2, 5000
	p := e.NewPool("test", workers)
	var inside, ran atomic.Int64
	var wg sync.WaitGroup
	wg.Add(steps)
	for range steps {
		p.Submit(func() {
			defer wg.Done()
			if n := inside.Add(1); n > workers {
				t.Errorf("%d steps run at once in a pool of %d", n, workers)
			}
			ran.Add(1)
			inside.Add(-1)
		})
	}
	wg.Wait()
	if ran.Load() != steps {
		t.Errorf("%d steps ran, submitted were %d", ran.Load(), steps)
	}
}

func TestPoolThatIsNeverEmptyStaysBounded(t *testing.T) {
	p := newPool()
	p.Submit(func() {})
	for range 100_000 {
		p.Submit(func() {})
		if p.take() == nil {
			t.Fatal("no step")
		}
	}
	if c := cap(p.mu.pending); c > 1024 {
		t.Errorf("two pending steps hold a slice of capacity %d", c)
	}
}

func TestAfterFunc(t *testing.T) {
	e := New()
	defer e.Close()
	q := e.NewQueue("test")
	fired := make(chan time.Duration, 1)
	const d = 5 * time.Millisecond
	start := e.Now()
	e.AfterFunc(d, q, func() { fired <- e.Now() - start })
	if after := <-fired; after < d {
		t.Errorf("fired after %v, asked for %v", after, d)
	}
	e.AfterFunc(-time.Second, q, func() { fired <- 0 })
	<-fired
	never := e.AfterFunc(time.Hour, q, func() { t.Error("a stopped timer fired") })
	if !never.Stop() {
		t.Error("Stop did not prevent a timer that is an hour away")
	}
	if never.Stop() {
		t.Error("a second Stop claims to have prevented the step")
	}
}

func TestCloseWaitsForTheRunningStepAndDiscardsTheRest(t *testing.T) {
	for _, kind := range []string{"queue", "pool"} {
		t.Run(kind, func(t *testing.T) {
			e := New()
			q := e.NewQueue("test")
			if kind == "pool" {
				q = e.NewPool("test", 1)
			}
			began, proceed := make(chan struct{}), make(chan struct{})
			var finished, later atomic.Bool
			q.Submit(func() {
				close(began)
				<-proceed
				finished.Store(true)
			})
			q.Submit(func() { later.Store(true) })
			<-began
			closed := make(chan struct{})
			go func() {
				e.Close()
				if !finished.Load() {
					t.Error("Close returned while a step was running")
				}
				close(closed)
			}()
			for !isClosed(q) { // Close has reached the queue; only then may the step end
				q.Submit(func() {})
			}
			close(proceed)
			<-closed
			q.Submit(func() { later.Store(true) })
			e.NewQueue("late").Submit(func() { later.Store(true) })
			e.NewPool("late", 2).Submit(func() { later.Store(true) })
			e.Close()
			if later.Load() {
				t.Error("a step ran after Close")
			}
		})
	}
}

func isClosed(q any) bool {
	switch q := q.(type) {
	case *queue:
		return q.closed.Load()
	case *pool:
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.mu.closed
	}
	panic("neither queue nor pool")
}

func TestNowNeverGoesBack(t *testing.T) {
	e := New()
	defer e.Close()
	last := e.Now()
	for range 10_000 {
		now := e.Now()
		if now < last {
			t.Fatalf("the clock went back from %v to %v", last, now)
		}
		last = now
	}
}

func TestUint64Varies(t *testing.T) {
	e := New()
	seen := map[uint64]bool{}
	for range 1000 {
		seen[e.Uint64()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different numbers of 1000", len(seen))
	}
}

func BenchmarkQueueSubmit(b *testing.B) {
	e := New()
	defer e.Close()
	q := e.NewQueue("bench")
	step := func() {}
	b.ReportAllocs()
	for b.Loop() {
		q.Submit(step)
	}
	done := make(chan struct{})
	q.Submit(func() { close(done) })
	<-done
}

func BenchmarkQueueRoundTrip(b *testing.B) {
	e := New()
	defer e.Close()
	q := e.NewQueue("bench")
	done := make(chan struct{})
	step := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		q.Submit(step)
		<-done
	}
}

func BenchmarkPoolSubmit(b *testing.B) {
	e := New()
	defer e.Close()
	p := e.NewPool("bench", 2)
	var wg sync.WaitGroup
	step := func() { wg.Done() }
	b.ReportAllocs()
	for b.Loop() {
		wg.Add(1)
		p.Submit(step)
	}
	wg.Wait()
}

func BenchmarkNow(b *testing.B) {
	e := New()
	defer e.Close()
	for b.Loop() {
		_ = e.Now()
	}
}
