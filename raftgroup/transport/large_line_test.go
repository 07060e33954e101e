package transport

import (
	"fmt"
	"testing"
	"time"
)

// The line is in order of arrival, with a bounded number at once; who was put off keeps
// his place, and is passed meanwhile.
func TestLargeLine(t *testing.T) {
	l := largeLine[string]{sendingMax: 2}
	arrivals := map[string]uint64{}
	take := func(now time.Duration) string {
		task, arrival, ok := l.next(now)
		if !ok {
			return "-"
		}
		arrivals[task] = arrival
		return task
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	for _, task := range []string{"a", "b", "c", "d", "e"} {
		l.add(task)
	}
	expect("the first two", take(0)+take(0)+take(0), "ab-")
	l.putOff("a", arrivals["a"], 10)
	expect("one put off", take(0)+take(0), "c-")
	l.done()
	l.done()
	expect("its time has come", take(10)+take(10)+take(10), "ad-")
	l.putOff("d", arrivals["d"], 30)
	l.putOff("a", arrivals["a"], 20)
	expect("two put off", take(10)+take(10), "e-")
	expect("the earlier one first", take(30)+take(30), "a-")
	l.done()
	l.done()
	expect("the rest", take(30)+take(30), "d-")
	l.add("f")
	l.add("g")
	expect("removed", fmt.Sprint(l.remove(func(s string) bool { return s == "f" })), "[f]")
	expect("what is left", take(30)+take(30), "g-")
	l.done()
	l.done()
	if l.sending != 0 || len(l.waiting) != 0 {
		t.Errorf("%d are sent, %d wait", l.sending, len(l.waiting))
	}
}

// Large snapshots get what the rate allows, less what small ones took, but small
// ones never hold them up for long.
func TestPacer(t *testing.T) {
	var p pacer
	p.setRate(1000)
	now := time.Hour
	sent := 0
	for end := now + 10*time.Second; now < end; {
		now += p.book(now, 100)
		sent += 100
	}
	if sent < 10_000 || sent > 10_200 {
		t.Errorf("%d bytes in 10 s at 1000 a second", sent)
	}
	now += time.Minute
	first, second := p.book(now, 1000), p.book(now, 1000)
	if first != 0 || second < 900*time.Millisecond || second > time.Second {
		t.Errorf("after a pause the first waits %v, the second %v", first, second)
	}
	now += time.Minute
	p.count(now, 500)
	if wait := p.book(now, 1); wait < 400*time.Millisecond || wait > 500*time.Millisecond {
		t.Errorf("after 500 bytes of small ones a large one waits %v", wait)
	}
	now += time.Minute
	for range 100 {
		p.count(now, 1000)
	}
	if wait := p.book(now, 1); wait > paceDebtMax+time.Second {
		t.Errorf("after 100 s of small ones a large one waits %v", wait)
	}
	now += time.Minute
	p.setRate(1 << 40)
	if wait := p.book(now, 1<<20) + p.book(now, 1<<20); wait > time.Millisecond {
		t.Errorf("at a high rate it waits %v", wait)
	}
}
