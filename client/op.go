package client

import (
	"bytes"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// op is one operation on its way. Its identity (session, sequence, birth) and
// its bytes are fixed when it is submitted; route and target belong to the
// attempt.
//
// At any time an op is in exactly one place, and whoever moves it says so in
// place. While node is set the op is queued or sent there, and the fields of its
// place are guarded by the node's lock, because a stream fills its frames from
// outside the core's queue. All else belongs to the turn.
type op struct {
	kind    shard.Kind
	command []byte         // encoded; of a span, what the attempt asks of its shard
	key     []byte         // full key that routes it; of a span, the bound at which it begins
	scan    *shard.Command // a scan or delete-range as the caller asked for it
	clip    shard.Span     // the part of its span that the attempt asks for
	system  bool           // in the system keyspace: the meta shard's
	whole   bool           // a scan that one shard must cover
	size    int            // bytes that count against the core's bound; 0: not counted
	inside  func(shard.Result, error)
	done    completer // nil if inside is set

	node *node // where the op is queued or sent; nil: neither

	// The op's place: under node.mu while node is set.
	place      place
	list       *opList // in which it is: awaiting, resting and queued
	prev, next *op
	link       *link // while sent
	id         uint64
	attempts   int // how often it was put into a frame

	// What is known of a write (retry.go).
	retries int            // how often it may be sent again after an answer was lost
	marked  bool           // the next attempt carries the retry mark, and so does every later one
	maybe   bool           // an attempt may have taken effect, and its answer is lost
	birth   shard.Revision // of a user's write that is not marked; else MaxRevision

	// The attempt.
	target  shard.Target
	hops    int             // attempts since the last rest
	rests   int             // backoffs so far
	faults  int             // answers that only a read may take as a reason to go elsewhere
	avoid   shard.ReplicaID // refused the attempt before though it is said to lead; 0: none
	detour  bool            // the attempt asks a shard that does not cover the key
	doubted bool            // the directory was asked because of a refusal, since the last rest
	patient bool            // resting because a node is busy: news of its route do not help
	// anywhere: any replica may serve it; false after one said that it cannot.
	anywhere bool
	last     error // what the last attempt that did not take effect was told

	deadline alarm
	rest     alarm

	core   *Core
	result shard.Result
	err    error
}

// completer is told, from a step, that an op has its result or error.
type completer interface{ complete(o *op) }

// callback is a completer for callers of Do.
type callback func(shard.Result, error)

func (f callback) complete(o *op) { f(o.result, o.err) }

type place byte

const (
	placeNone     place = iota // in somebody's hands
	placeAwaiting              // for the first contact, or for the directory
	placeResting               // until its rest alarm, or until news of its route
	placeQueued                // in its node's out: provably not sent
	placeSent                  // in a frame: may take effect at any time
	placeDone
)

func (o *op) write() bool { return o.kind.Write() }

// before tells that the op is routed by the keys just below its key.
func (o *op) before() bool { return o.scan != nil && o.scan.Reverse }

// within tells whether the op is routed into a span.
func (o *op) within(s shard.Span) bool {
	if o.before() {
		return bytes.Compare(s.Start, o.key) < 0 && bytes.Compare(o.key, s.End) <= 0
	}
	return s.Contains(o.key)
}

// aim points the op at a replica of a route; a span is cut to the shard's. That of
// a delete-range stays as it is once an attempt may have taken effect: all later
// ones must be the same operation.
func (o *op) aim(r *router.Route, replica shard.ReplicaID) {
	o.target = r.Target()
	o.target.Replica = replica
	if o.scan == nil || o.marked {
		return
	}
	o.clip = shard.Span{Start: o.scan.Start, End: o.scan.End}
	if bytes.Compare(o.clip.Start, r.Descriptor.Span.Start) < 0 {
		o.clip.Start = r.Descriptor.Span.Start
	}
	if bytes.Compare(r.Descriptor.Span.End, o.clip.End) < 0 {
		o.clip.End = r.Descriptor.Span.End
	}
	part := *o.scan
	part.Start, part.End = o.clip.Start, o.clip.End
	o.command = shard.AppendCommand(o.command[:0], &part)
}

// resume completes the result about a span: a page or piece that reached the end
// of the shard's part goes on in the next shard if the caller's range does.
func (o *op) resume(res *shard.Result) {
	switch {
	case o.scan == nil || res.Resume != nil:
	case !o.scan.Reverse && bytes.Compare(o.clip.End, o.scan.End) < 0:
		res.Resume = bytes.Clone(o.clip.End)
	case o.scan.Reverse && bytes.Compare(o.scan.Start, o.clip.Start) < 0:
		res.Resume = bytes.Clone(o.clip.Start)
	}
}

// alarmed implements alarmOwner.
func (o *op) alarmed(a *alarm) {
	if a == &o.deadline {
		o.core.deadlinePassed(o)
		return
	}
	o.core.rested(o)
}

// opList is a list in order of arrival. An op is in at most one.
type opList struct {
	head, tail *op
	len        int
}

func (l *opList) push(o *op) {
	o.list, o.prev, o.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = o
	} else {
		l.head = o
	}
	l.tail = o
	l.len++
}

// pop takes the first op, nil if there is none.
func (l *opList) pop() *op {
	o := l.head
	if o != nil {
		l.remove(o)
	}
	return o
}

func (l *opList) remove(o *op) {
	if o.list != l {
		panic("an operation is removed from a list that it is not in")
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		l.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		l.tail = o.prev
	}
	o.list, o.prev, o.next = nil, nil, nil
	l.len--
}
