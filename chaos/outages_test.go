package main

import (
	"testing"
	"time"
)

func TestTolls(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var long []int
	o := newOutages(2, start, func(where int, _ time.Duration) { long = append(long, where) })
	for s := 0.0; s < 40; s += 0.01 {
		if s < 10 || s >= 14 { // range 0 is gone for 4 s from 10 on
			o.completed(0, at(s))
		}
		if s < 12 || s >= 20 { // and range 1 for 8 s from 12 on
			o.completed(1, at(s))
		}
	}
	o.over(at(45)) // both, in the end
	for _, e := range []episode{
		{"early", gap{at(1), at(2)}},      // no gap begins until its aftermath is over
		{"first", gap{at(10), at(11)}},    // both gaps begin
		{"within", gap{at(15), at(15.5)}}, // what is left of the second one
		{"before", gap{at(8), at(9.5)}},   // both begin in its aftermath, or just
		{"after", gap{at(22), at(23)}},
		{"last", gap{at(41), at(42)}},
		{"first", gap{at(30), at(31)}}, // the longest counts
	} {
		o.episode(e.kind, e.begin, e.end)
	}
	near := func(d time.Duration, seconds float64) bool {
		off := d - time.Duration(seconds*float64(time.Second))
		return off > -50*time.Millisecond && off < 50*time.Millisecond
	}
	got := o.tolls([]string{"early", "first", "within", "before", "after", "last", "never"})
	for i, want := range []struct {
		count    int
		all, one float64
	}{{1, 0, 0}, {2, 2, 8}, {1, 0, 5}, {1, 0, 4}, {1, 0, 0}, {1, 4, 4}, {0, 0, 0}} {
		if g := got[i]; g.count != want.count || !near(g.all, want.all) || !near(g.one, want.one) {
			t.Errorf("%+v, want %+v", g, want)
		}
	}
	if total := o.total(); total.count != 7 || !near(total.all, 5) || !near(total.one, 8) {
		t.Errorf("%+v", total)
	}
	if len(long) != 1 || long[0] != 1 {
		t.Errorf("long ones: %v", long)
	}
}
