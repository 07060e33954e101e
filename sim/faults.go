package sim

import (
	"strconv"
	"strings"
	"time"
)

// Fault is a kind of fault. A new one is a name here, a line in the table below, and
// the function that the line names.
type Fault uint8

const (
	Crash      Fault = iota // one node; what it did not sync is lost
	CrashAll                // all nodes at once
	Partition               // a node from the others, symmetric or in one direction, or from one of them
	PartClient              // a client from a node
	Drop                    // peers' frames
	Double                  // peers' frames
	Slow                    // frames that overtake one another
	FlipFrame               // a bit of a part of a snapshot on its way; what else is sent has TLS's checksums alone
	Pause                   // a process stops and goes on
	Break                   // streams of clients end
	Ambush                  // a node crashes right after something has left it
	SlowDisk                // syncs and reads take their time
	SlowRounds              // a node's rounds take their time, and find much mail
	DiskError               // a write or a sync fails, and all after it until the node is restarted
	FlipDisk                // a bit of a file of a node that is down
	Wipe                    // a node loses its disk and joins again as another one
	Client                  // a client ends, and another one takes its place
	Sync                    // syncs that nobody asked for: a crash then keeps a prefix
	EarlySync               // syncs that are over before the next commit: a crash then keeps an append without what was applied in its round
	Transfer                // leadership is handed over
	Drift                   // clocks that run at different rates
	Jump                    // clocks that jump
	Ask                     // placement is asked for moves, and to drain nodes; whoever drives it changes
	Move                    // replicas are moved to other nodes
	Split                   // shards are split
	LeftDown                // a node is not healed in the end
	faultKinds
)

// faultTable says of each fault how likely a seed is to see it, and how often it
// strikes then.
//
// perMille is the number of seeds in a thousand that enable it. strike is carried out
// every so often, on average, and tells whether it did anything; nil: the fault is not
// one of moments. Splits are spread over the run. spare: it takes a cluster with more nodes than replicas of a shard.
var faultTable = [faultKinds]struct {
	name     string
	perMille int
	spare    bool
	every    time.Duration
	strike   func(*Nemesis) bool
}{
	Crash:      {"crash", 750, false, 4 * time.Second, (*Nemesis).crashOne},
	CrashAll:   {"crash-all", 250, false, 10 * time.Second, (*Nemesis).crashAll},
	Partition:  {"partition", 500, false, 5 * time.Second, (*Nemesis).partition},
	PartClient: {"part-client", 500, false, 5 * time.Second, (*Nemesis).partClient},
	Drop:       {"drop", 500, false, 0, nil},
	Double:     {"double", 500, false, 0, nil},
	Slow:       {"slow", 500, false, 0, nil},
	FlipFrame:  {"flip-frame", 250, false, 0, nil},
	Pause:      {"pause", 500, false, 6 * time.Second, (*Nemesis).pause},
	Break:      {"break", 500, false, 3 * time.Second, (*Nemesis).breakStreams},
	Ambush:     {"ambush", 500, false, 0, nil},
	SlowDisk:   {"slow-disk", 500, false, 3 * time.Second, (*Nemesis).slowDisk},
	SlowRounds: {"slow-rounds", 500, false, 3 * time.Second, (*Nemesis).slowRounds},
	DiskError:  {"disk-error", 300, false, 4 * time.Second, (*Nemesis).breakDisk},
	FlipDisk:   {"flip-disk", 200, false, 3 * time.Second, (*Nemesis).flipDisk},
	Wipe:       {"wipe", 200, false, 3 * time.Second, (*Nemesis).wipe},
	Client:     {"client", 500, false, 2 * time.Second, (*Nemesis).replaceClient},
	Sync:       {"sync", 500, false, 50 * time.Millisecond, (*Nemesis).sync},
	EarlySync:  {"early-sync", 500, false, 0, nil},
	Transfer:   {"transfer", 500, false, 400 * time.Millisecond, (*Nemesis).transfer},
	Drift:      {"drift", 500, false, 0, nil},
	Jump:       {"jump", 300, false, 2 * time.Second, (*Nemesis).jump},
	Ask:        {"ask", 500, true, 700 * time.Millisecond, (*Nemesis).askSomething},
	Move:       {"move", 750, true, 300 * time.Millisecond, (*Nemesis).moveOne},
	Split:      {"split", 1000, false, 0, (*Nemesis).splitOne},
	LeftDown:   {"left-down", 150, false, 0, nil},
}

func (k Fault) String() string { return faultTable[k].name }

// Faults is the set of faults that a run may see. Each seed enables some of them: a
// bug that one fault hides from another shows in the seeds that have only one.
type Faults uint64

// FaultsOf is a set.
func FaultsOf(kinds ...Fault) (f Faults) {
	for _, k := range kinds {
		f |= 1 << k
	}
	return f
}

// Has tells whether a kind is in the set.
func (f Faults) Has(k Fault) bool { return f>>k&1 != 0 }

// placed tells whether placement has to do more than to begin with: people ask it, or
// nodes are given up.
func (f Faults) placed() bool { return f.Has(Ask) || f.Has(Wipe) || f.Has(FlipDisk) || f.Has(LeftDown) }

func (f Faults) String() string {
	var s []string
	for k := range faultKinds {
		if f.Has(k) {
			s = append(s, k.String())
		}
	}
	return strings.Join(s, ",")
}

// drawFaults enables each fault with its own probability. One seed in eight has
// none but splits, and shows what the others cost.
func drawFaults(l *Loop, spare bool) (f Faults) {
	if l.rand.IntN(8) == 0 {
		return FaultsOf(Split)
	}
	for k := range faultKinds {
		if row := &faultTable[k]; l.chance(row.perMille) && (spare || !row.spare) {
			f |= FaultsOf(k)
		}
	}
	return f
}

// Struck counts what faults did, by kind.
type Struck [faultKinds]int

// Total is the number of all, of whatever kind.
func (s *Struck) Total() (n int) {
	for _, c := range s {
		n += c
	}
	return n
}

// String lists the kinds that struck.
func (s *Struck) String() string {
	var b []string
	for k, n := range s {
		if n > 0 {
			b = append(b, Fault(k).String()+" "+strconv.Itoa(n))
		}
	}
	return strings.Join(b, ", ")
}
