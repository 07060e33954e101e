package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// fault is a kind of trouble. To add one, put it into a table: processFaults,
// networkFaults or chores.
type fault struct {
	kind string
	// least and most are how long it lasts, from when it is there to when its healing begins.
	least, most time.Duration
	// aside: it takes its time, and others begin meanwhile.
	aside bool
	// cell: it needs a network or a disk that only a cell has.
	cell bool
	// inflict begins it, and says what was done to whom. It draws from rnd whatever is to be
	// drawn. heal ends it, and nil says that nothing is left to be done. errBusy: there is
	// nobody left to do it to; any other error fails the run.
	inflict func(f *fire, rnd *rand.Rand) (what string, heal func() error, err error)
}

var errBusy = errors.New("all nodes have other faults")

// activeMax is how many faults may be there at a time, and how many chores.
const activeMax = 3

// fire is a run while faults are inflicted.
type fire struct {
	*cluster
	ctx     context.Context // ends when the time is over: then faults are healed
	outages *outages
	only    []string // kinds of faults to be inflicted; none: all
	say     func(format string, args ...any)
	burning sync.WaitGroup
	disks   sync.Mutex // held from when a disk is lost until what was on it is rebuilt
}

// deck deals faults: all kinds in an order that is drawn, then all of them again.
type deck struct {
	faults []fault
	rnd    *rand.Rand
	left   []int
}

func (d *deck) deal() *fault {
	if len(d.left) == 0 {
		d.left = d.rnd.Perm(len(d.faults))
	}
	i := d.left[0]
	d.left = d.left[1:]
	return &d.faults[i]
}

// plan is a fault with everything about it that is drawn.
type plan struct {
	*fault
	lasts   time.Duration
	pause   time.Duration // after it, before the next one
	overlap bool          // the next one begins before its end
	seed    uint64        // of what inflict draws
}

func (d *deck) plan() plan {
	kind := d.deal()
	return plan{fault: kind, lasts: between(d.rnd, kind.least, kind.most), pause: between(d.rnd, 500*time.Millisecond, 2*time.Second),
		overlap: kind.aside || d.rnd.IntN(3) == 0, seed: d.rnd.Uint64()}
}

func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rnd.Int64N(int64(most-least)+1))
}

// rage inflicts one fault after the other until the time is over, and returns when
// all are healed. Beside them chores are done.
func (f *fire) rage(seed uint64) {
	f.burning.Go(func() { f.inTurn(&deck{faults: f.possible(chores), rnd: rand.New(rand.NewPCG(seed, 2))}) })
	f.inTurn(&deck{faults: f.possible(slices.Concat(processFaults, networkFaults)), rnd: rand.New(rand.NewPCG(seed, 1))})
	f.burning.Wait()
}

// possible are the faults that can be had here.
func (f *fire) possible(all []fault) (can []fault) {
	var cannot []string
	for _, kind := range all {
		switch {
		case len(f.only) > 0 && !slices.Contains(f.only, kind.kind):
		case kind.cell && !f.cell:
			cannot = append(cannot, kind.kind)
		default:
			can = append(can, kind)
		}
	}
	if len(cannot) > 0 {
		f.say("left out, because there are no namespaces and mounts: %s", list(cannot))
	}
	return can
}

func (f *fire) inTurn(d *deck) {
	if len(d.faults) == 0 {
		<-f.ctx.Done()
	}
	slots := make(chan struct{}, activeMax) // one for each fault that is there
	var there sync.Map                      // their kinds: what a kind costs is not to be told of two at once
	for f.ctx.Err() == nil && !f.verdict.failed() {
		p := d.plan()
		if _, is := there.LoadOrStore(p.kind, true); is {
			f.sleep(p.pause)
			continue
		}
		slots <- struct{}{}
		heal := f.begin(p)
		end := func() {
			heal()
			there.Delete(p.kind)
			<-slots
		}
		if p.overlap {
			f.burning.Go(func() {
				f.sleep(p.lasts)
				end()
			})
			f.sleep(p.lasts / 3)
		} else {
			f.sleep(p.lasts)
			end()
		}
		f.sleep(p.pause)
	}
}

// sleep waits, but not longer than there is time left.
func (f *fire) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ctx.Done():
	}
}

// begin inflicts a fault and returns what heals it.
func (f *fire) begin(p plan) (heal func()) {
	began := time.Now()
	what, undo, err := p.inflict(f, rand.New(rand.NewPCG(p.seed, 3)))
	switch {
	case errors.Is(err, errBusy):
		return func() {}
	case err != nil:
		f.verdict.fail("%s: %v", p.kind, err)
		return func() {}
	}
	f.say("%-10s %s", p.kind, what)
	return func() {
		if undo != nil {
			if err := undo(); err != nil {
				f.verdict.fail("%s cannot be healed: %v", p.kind, err)
			}
		}
		f.outages.episode(p.kind, began, time.Now())
	}
}

// take takes up to count nodes, preferring those that come first in a drawn order, for
// something that nothing else may be done to them beside. The heal of the fault gives them back.
func (f *fire) take(rnd *rand.Rand, count int, suits func(*node) bool) ([]*node, error) {
	var taken []*node
	for _, i := range rnd.Perm(len(f.nodes)) {
		n := f.nodes[i]
		if len(taken) < count && (suits == nil || suits(n)) && n.occupy() {
			taken = append(taken, n)
		}
	}
	if len(taken) < count {
		giveBack(taken)
		return nil, errBusy
	}
	slices.SortFunc(taken, func(a, b *node) int { return a.number - b.number })
	return taken, nil
}

func (n *node) occupy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.busy {
		return false
	}
	n.busy = true
	return true
}

func giveBack(nodes []*node) {
	for _, n := range nodes {
		n.mu.Lock()
		n.busy = false
		n.mu.Unlock()
	}
}
