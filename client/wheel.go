package client

import (
	"math/bits"
	"time"
)

const (
	// tick is the resolution of deadlines and backoffs: they come up to one tick
	// late, never early.
	tick       = 2 * time.Millisecond
	wheelSlots = 1024
)

// alarm is one entry of a wheel. Its owner embeds it, so that neither setting
// nor clearing one allocates.
type alarm struct {
	owner      alarmOwner
	at         time.Duration
	slot       int // meaningful while set
	set        bool
	prev, next *alarm
}

// alarmOwner is told when its alarm is due. The alarm is cleared before.
type alarmOwner interface{ alarmed(a *alarm) }

// alarmFunc makes a function an owner.
type alarmFunc func()

func (f alarmFunc) alarmed(*alarm) { f() }

// wheel holds alarms in slots of one tick each; an alarm further away than one
// turn of the wheel stays in its slot for as many turns. Most alarms are cleared
// before they are due, which costs as little as setting them: one timer of the
// environment serves them all.
type wheel struct {
	slots [wheelSlots]*alarm
	used  [wheelSlots / 64]uint64 // a bit for each slot that is not empty
	count int
	swept int64 // every tick up to this one was looked at
}

// put sets a, which is not set, to time at.
func (w *wheel) put(a *alarm, at time.Duration) {
	t := max(int64((at+tick-1)/tick), w.swept+1)
	a.at, a.slot, a.set = at, int(t%wheelSlots), true
	a.prev, a.next = nil, w.slots[a.slot]
	if a.next != nil {
		a.next.prev = a
	}
	w.slots[a.slot] = a
	w.used[a.slot/64] |= 1 << (a.slot % 64)
	w.count++
}

// clear takes a out, if it is set.
func (w *wheel) clear(a *alarm) {
	if !a.set {
		return
	}
	a.set = false
	w.count--
	if a.next != nil {
		a.next.prev = a.prev
	}
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		w.slots[a.slot] = a.next
		if a.next == nil {
			w.used[a.slot/64] &^= 1 << (a.slot % 64)
		}
	}
	a.prev, a.next = nil, nil
}

// due takes out every alarm of a time up to now and appends it to list.
func (w *wheel) due(now time.Duration, list []*alarm) []*alarm {
	last := int64(now / tick)
	first := max(w.swept+1, last-wheelSlots+1)
	for t := first; t <= last && w.count > 0; t++ {
		for a := w.slots[t%wheelSlots]; a != nil; {
			next := a.next
			if a.at <= now {
				w.clear(a)
				list = append(list, a)
			}
			a = next
		}
	}
	w.swept = max(w.swept, last)
	return list
}

// next is when to look again: no alarm is due before. ok is false if none is set.
func (w *wheel) next() (at time.Duration, ok bool) {
	if w.count == 0 {
		return 0, false
	}
	from := int((w.swept + 1) % wheelSlots)
	for i := 0; i <= len(w.used); i++ {
		word := (from/64 + i) % len(w.used)
		set := w.used[word]
		switch i {
		case 0:
			set &= ^uint64(0) << (from % 64)
		case len(w.used):
			set &= 1<<(from%64) - 1
		}
		if set != 0 {
			slot := word*64 + bits.TrailingZeros64(set)
			ahead := (slot - from + wheelSlots) % wheelSlots
			return time.Duration(w.swept+1+int64(ahead)) * tick, true
		}
	}
	panic("alarms are set, and no slot is used")
}
