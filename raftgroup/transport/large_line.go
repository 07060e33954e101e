package transport

import (
	"slices"
	"time"
)

// largeLine is the order in which one node sends its large snapshots, a few at a time
// over all receivers. One whose receiver has no room now keeps its place and is tried
// again after a pause, while those behind it that go to others pass. So nobody waits
// for a receiver that is not his, and nobody is overtaken by his own kind for ever.
//
// Not safe for concurrent use: its owner has a lock.
type largeLine[T comparable] struct {
	sendingMax int
	sending    int
	waiting    []inLine[T] // in order of arrival
	arrivals   uint64
}

type inLine[T comparable] struct {
	task    T
	arrival uint64
	from    time.Duration // not before
}

// add puts a task at the end, and returns its arrival.
func (l *largeLine[T]) add(task T) uint64 {
	l.arrivals++
	l.waiting = append(l.waiting, inLine[T]{task: task, arrival: l.arrivals})
	return l.arrivals
}

// next takes the first task that may be sent now; false if there is none, or no
// place. Whoever takes one calls done or putOff.
func (l *largeLine[T]) next(now time.Duration) (task T, arrival uint64, ok bool) {
	if l.sending >= l.sendingMax {
		return task, 0, false
	}
	for i, w := range l.waiting {
		if w.from <= now {
			l.waiting = slices.Delete(l.waiting, i, i+1)
			l.sending++
			return w.task, w.arrival, true
		}
	}
	return task, 0, false
}

// done gives the place of a task back.
func (l *largeLine[T]) done() { l.sending-- }

// putOff puts a task back where it was, not to be taken before the given time.
func (l *largeLine[T]) putOff(task T, arrival uint64, from time.Duration) {
	l.sending--
	at, _ := slices.BinarySearchFunc(l.waiting, arrival, func(w inLine[T], a uint64) int {
		if w.arrival < a {
			return -1
		}
		return 1
	})
	l.waiting = slices.Insert(l.waiting, at, inLine[T]{task: task, arrival: arrival, from: from})
}

// remove takes the tasks that match out of the line.
func (l *largeLine[T]) remove(match func(T) bool) (removed []T) {
	l.waiting = slices.DeleteFunc(l.waiting, func(w inLine[T]) bool {
		if match(w.task) {
			removed = append(removed, w.task)
			return true
		}
		return false
	})
	return removed
}
