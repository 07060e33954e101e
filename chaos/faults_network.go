package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// networkFaults are what happens to the network. Those that need a cell lose packets, the
// others are the switchboard's.
var networkFaults = []fault{
	{kind: "partition", least: 2 * time.Second, most: 6 * time.Second, inflict: partition},
	{kind: "one-way", least: 2 * time.Second, most: 6 * time.Second, inflict: cutOneWay},
	{kind: "bridge", least: 2 * time.Second, most: 6 * time.Second, inflict: bridge},
	{kind: "delay", least: 2 * time.Second, most: 5 * time.Second, inflict: delay},
	{kind: "loss", least: 2 * time.Second, most: 5 * time.Second, inflict: lose},
	{kind: "unplug", least: time.Second, most: 6 * time.Second, cell: true, inflict: unplug},
	{kind: "holes", least: 2 * time.Second, most: 6 * time.Second, cell: true, inflict: dropPackets},
}

// pair is a way, from one to another.
type pair [2]int

// across are the ways between two groups, in both directions.
func across(a, b []int) (ways []pair) {
	for _, x := range a {
		for _, y := range b {
			ways = append(ways, pair{x, y}, pair{y, x})
		}
	}
	return ways
}

// each does something to every one of some ways.
func each(ways []pair, do func(from, to int) error) error {
	var errs []error
	for _, w := range ways {
		errs = append(errs, do(w[0], w[1]))
	}
	return errors.Join(errs...)
}

// cut cuts ways, and returns what mends them.
func (b *switchboard) cut(ways []pair) (mend func() error) {
	return b.spoil(ways, func(w *way, times int) { w.cuts += times })
}

// spoil makes ways worse, and returns what takes that back.
func (b *switchboard) spoil(ways []pair, alter func(w *way, times int)) (mend func() error) {
	change := func(times int) error {
		return each(ways, func(from, to int) error {
			b.change(from, to, func(w *way) { alter(w, times) })
			return nil
		})
	}
	_ = change(1) // nothing in it can fail
	return func() error { return change(-1) }
}

// split draws which nodes are few and which are many. The clients are with the many, or
// reach everybody.
func (f *fire) split(rnd *rand.Rand) (few, many []int) {
	order := rnd.Perm(len(f.nodes))
	size := 1 + rnd.IntN((len(f.nodes)-1)/2)
	for k, i := range order {
		if k < size {
			few = append(few, f.nodes[i].number)
		} else {
			many = append(many, f.nodes[i].number)
		}
	}
	if rnd.IntN(2) == 0 {
		many = append(many, outside)
	}
	return few, many
}

func partition(f *fire, rnd *rand.Rand) (string, func() error, error) {
	few, many := f.split(rnd)
	return fmt.Sprintf("%s | %s", group(few), group(many)), f.board.cut(across(few, many)), nil
}

// cutOneWay makes a node deaf or mute to the others.
func cutOneWay(f *fire, rnd *rand.Rand) (string, func() error, error) {
	order := rnd.Perm(len(f.nodes))
	one := f.nodes[order[0]].number
	deaf := rnd.IntN(2) == 0
	var ways []pair
	for _, i := range order[1:] {
		w := pair{one, f.nodes[i].number}
		if deaf {
			w = pair{w[1], w[0]}
		}
		ways = append(ways, w)
	}
	what := "sends in vain to"
	if deaf {
		what = "hears nothing of"
	}
	return fmt.Sprintf("node %d %s the others", one, what), f.board.cut(ways), nil
}

// bridge leaves one node that reaches everybody, between two groups that do not
// reach each other.
func bridge(f *fire, rnd *rand.Rand) (string, func() error, error) {
	order := rnd.Perm(len(f.nodes))
	var sides [2][]int
	for k, i := range order[1:] {
		sides[k%2] = append(sides[k%2], f.nodes[i].number)
	}
	return fmt.Sprintf("%s | %s, but node %d reaches all", group(sides[0]), group(sides[1]), f.nodes[order[0]].number),
		f.board.cut(across(sides[0], sides[1])), nil
}

// ways are those between all nodes, or those of one node that is drawn.
func (f *fire) ways(rnd *rand.Rand) (what string, ways []pair) {
	all := []int{}
	for _, n := range f.nodes {
		all = append(all, n.number)
	}
	one := f.nodes[rnd.IntN(len(f.nodes))].number
	if rnd.IntN(2) == 0 {
		return fmt.Sprintf("to and from node %d", one), across([]int{one}, append(without(all, one), outside))
	}
	for i, a := range all {
		ways = append(ways, across([]int{a}, all[i+1:])...)
	}
	return "between all nodes", ways
}

func delay(f *fire, rnd *rand.Rand) (string, func() error, error) {
	what, ways := f.ways(rnd)
	by := between(rnd, 5*time.Millisecond, 250*time.Millisecond).Round(time.Millisecond)
	return fmt.Sprintf("%v %s", by, what), f.board.spoil(ways, func(w *way, times int) { w.delay += time.Duration(times) * by }), nil
}

func lose(f *fire, rnd *rand.Rand) (string, func() error, error) {
	what, ways := f.ways(rnd)
	percent := 1 + rnd.IntN(15)
	return fmt.Sprintf("%d %% %s", percent, what), f.board.spoil(ways, func(w *way, times int) { w.loss += float64(times*percent) / 100 }), nil
}

func unplug(f *fire, rnd *rand.Rand) (string, func() error, error) {
	one := f.nodes[rnd.IntN(len(f.nodes))].number
	return fmt.Sprintf("node %d is off the network", one), func() error { return f.wires.plug(one) }, f.wires.unplug(one)
}

// dropPackets loses all packets between two groups, or in one direction only.
func dropPackets(f *fire, rnd *rand.Rand) (string, func() error, error) {
	few, many := f.split(rnd)
	many = without(many, outside)
	ways, arrow := across(few, many), "| "
	if rnd.IntN(2) == 0 {
		arrow = "–/→ "
		var there []pair
		for i := 0; i < len(ways); i += 2 {
			there = append(there, ways[i])
		}
		ways = there
	}
	return fmt.Sprintf("%s %s%s, packets are dropped", group(few), arrow, group(many)),
		func() error { return each(ways, f.wires.fill) }, each(ways, f.wires.dig)
}

func without(all []int, one int) (rest []int) {
	for _, n := range all {
		if n != one {
			rest = append(rest, n)
		}
	}
	return rest
}

// group names nodes, and clients, for people.
func group(members []int) string {
	var names []string
	for _, m := range members {
		if m == outside {
			names = append(names, "clients")
			continue
		}
		names = append(names, fmt.Sprint(m))
	}
	return strings.Join(names, " ")
}

func numbers(nodes []*node) string {
	var all []int
	for _, n := range nodes {
		all = append(all, n.number)
	}
	return group(all)
}

func list(names []string) string { return strings.Join(names, ", ") }
