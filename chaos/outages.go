package main

import (
	"sync"
	"time"
)

// outages finds out for how long nothing was done: of each range of keys, which has
// clients of its own, and of all of them.
type outages struct {
	mu       sync.Mutex
	last     []time.Time // when an operation was completed; by range, and at the end of all
	gaps     [][]gap
	episodes []episode
	// long is told of a range that was unavailable for long, when that is over.
	long func(where int, d time.Duration)
}

// gap is a time without a completed operation.
type gap struct{ begin, end time.Time }

// episode is one fault, from its beginning to the end of its healing.
type episode struct {
	kind string
	gap
}

// gapMin is the shortest gap that is kept.
const gapMin = 50 * time.Millisecond

// gapLong is longer than an election, or a start, takes.
const gapLong = 6 * time.Second

// aftermath is how long after its healing a fault is still blamed for a gap that begins.
const aftermath = 2 * time.Second

func newOutages(ranges int, now time.Time, long func(int, time.Duration)) *outages {
	o := &outages{long: long, last: make([]time.Time, ranges+1), gaps: make([][]gap, ranges+1)}
	for i := range o.last {
		o.last[i] = now
	}
	return o
}

// completed notes that an operation on a range succeeded.
func (o *outages) completed(where int, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(where, now)
	o.note(len(o.last)-1, now)
}

func (o *outages) note(i int, now time.Time) {
	d := now.Sub(o.last[i])
	if d >= gapMin {
		o.gaps[i] = append(o.gaps[i], gap{o.last[i], now})
	}
	if d >= gapLong && i < len(o.last)-1 {
		o.long(i, d)
	}
	o.last[i] = now
}

// over ends the time that is looked at.
func (o *outages) over(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.last {
		o.note(i, now)
	}
}

func (o *outages) episode(kind string, begin, end time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.episodes = append(o.episodes, episode{kind, gap{begin, end}})
}

// toll is what a kind of fault has cost.
type toll struct {
	kind  string
	count int
	all   time.Duration // the longest gap of all ranges
	one   time.Duration // and of any
}

// longest is the longest gap of some ranges that a fault may be blamed for: what of it lies
// after the fault's beginning.
func longest(gaps []gap, e gap) (max time.Duration) {
	for _, g := range gaps {
		begin := g.begin
		if begin.Before(e.begin) {
			begin = e.begin
		}
		if d := g.end.Sub(begin); d > max && g.begin.Before(e.end.Add(aftermath)) {
			max = d
		}
	}
	return max
}

// tolls are in the order of the kinds that are given; other kinds are left out.
func (o *outages) tolls(kinds []string) []toll {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []toll
	for _, kind := range kinds {
		t := toll{kind: kind}
		for _, e := range o.episodes {
			if e.kind != kind {
				continue
			}
			t.count++
			t.add(o.gaps, e.gap)
		}
		all = append(all, t)
	}
	return all
}

func (t *toll) add(gaps [][]gap, e gap) {
	for i := range gaps {
		if i == len(gaps)-1 {
			t.all = max(t.all, longest(gaps[i], e))
		} else {
			t.one = max(t.one, longest(gaps[i], e))
		}
	}
}

// total is the toll of the whole time.
func (o *outages) total() toll {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := toll{kind: "whole run", count: len(o.episodes)}
	for _, gaps := range o.gaps {
		if len(gaps) > 0 {
			t.add(o.gaps, gap{begin: time.Time{}, end: gaps[len(gaps)-1].end})
		}
	}
	return t
}
