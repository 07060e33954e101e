package bench

import (
	"context"
	"sync/atomic"
	"time"
)

// schedule says when a client begins its next operation.
//
// In an open loop all clients share one sequence of due times; whoever is free
// takes the next. Falling behind does not move due times: the wait for a free
// client is part of an operation's latency, as it would be for a user.
type schedule struct {
	start, measured, end time.Time
	interval             float64 // nanoseconds between due times; 0: closed loop
	taken                atomic.Uint64
}

func newSchedule(start time.Time, c *Config) *schedule {
	s := &schedule{start: start, measured: start.Add(c.Warmup)}
	s.end = s.measured.Add(c.Duration)
	if c.Rate > 0 {
		s.interval = float64(time.Second) / c.Rate
	}
	return s
}

// due is when the k-th operation is due, from 0.
func (s *schedule) due(k uint64) time.Time {
	return s.start.Add(time.Duration(float64(k) * s.interval))
}

// next waits until an operation is due and returns when that was. It returns
// false at the end of the run.
func (s *schedule) next(ctx context.Context, w *waiter) (time.Time, bool) {
	now := time.Now()
	if ctx.Err() != nil || !now.Before(s.end) {
		return now, false
	}
	if s.interval == 0 {
		return now, true
	}
	due := s.due(s.taken.Add(1) - 1)
	if !due.Before(s.end) {
		return due, false
	}
	return due, w.until(ctx, due)
}

// neverBegun counts the operations of the measured phase that were due by at,
// and that no client was free to begin.
func (s *schedule) neverBegun(at time.Time) uint64 {
	if s.interval == 0 {
		return 0
	}
	if at.After(s.end) {
		at = s.end
	}
	if at.Before(s.measured) {
		return 0
	}
	first := max(s.taken.Load(), s.index(s.measured))
	if last := s.index(at); last > first {
		return last - first
	}
	return 0
}

// index is how many operations are due before t.
func (s *schedule) index(t time.Time) uint64 {
	n := uint64(float64(t.Sub(s.start)) / s.interval)
	for s.due(n).Before(t) {
		n++
	}
	return n
}

// waiter waits with one timer for all of a client's waits.
type waiter struct{ timer *time.Timer }

// until waits for a moment. It returns false if ctx ends first.
func (w *waiter) until(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return true
	}
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	select {
	case <-w.timer.C:
		return true
	case <-ctx.Done():
		w.timer.Stop()
		return false
	}
}

// deadlines hands out contexts with a deadline between one and 1.1 time-outs
// away: one context serves many operations, because making one for each costs as
// much as a good part of the operation itself.
type deadlines struct {
	parent  context.Context
	timeout time.Duration

	current context.Context
	cancel  context.CancelFunc
	until   time.Time // when current is too old to be used for a new operation
}

func (d *deadlines) at(now time.Time) context.Context {
	if d.current == nil || !now.Before(d.until) {
		d.stop()
		slack := d.timeout / 10
		d.until = now.Add(slack)
		d.current, d.cancel = context.WithDeadline(d.parent, now.Add(d.timeout+slack))
	}
	return d.current
}

func (d *deadlines) stop() {
	if d.cancel != nil {
		d.cancel()
	}
}
