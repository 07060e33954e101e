package replica

import (
	"sync"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// getsPerView is how many gets one step serves from one view: enough to share
// the cost of opening it, few enough that a view is never held for long.
const getsPerView = 128

// readQueue gathers the confirmed reads of all replicas. A view spans the whole
// engine, so that one serves gets of many shards. A scan, which may take a
// thousand times as long, has a step and a view of its own.
//
// What is queued is bounded by the store's budget for reads.
type readQueue struct {
	store     *Store
	serveGets func() // bound once
	serveScan func()

	mu      sync.Mutex
	gets    fifo
	scans   fifo // each has a step submitted for it
	running int  // steps submitted or running that serve gets
}

func (q *readQueue) init(s *Store) {
	q.store = s
	q.serveGets, q.serveScan = q.getStep, q.scanStep
}

// confirmed queues reads as their group hands them over; the slice is the
// group's. Once the lock is released the reads may be served and used again.
func (q *readQueue) confirmed(confirmed []raftgroup.Read) {
	scans := 0
	q.mu.Lock()
	for _, x := range confirmed {
		scans += q.push(x.(*read))
	}
	q.release(scans)
}

// submit is confirmed for reads that were deferred.
func (q *readQueue) submit(reads []*read) {
	if len(reads) == 0 {
		return
	}
	scans := 0
	q.mu.Lock()
	for _, rd := range reads {
		scans += q.push(rd)
	}
	q.release(scans)
}

// again queues a read that has to be read from a newer view.
func (q *readQueue) again(rd *read) {
	q.mu.Lock()
	q.release(q.push(rd))
}

func (q *readQueue) push(rd *read) (scans int) {
	if rd.command.Kind == shard.KindScan {
		q.scans.push(rd)
		return 1
	}
	q.gets.push(rd)
	return 0
}

// release ends the lock and submits the steps that the queue calls for.
func (q *readQueue) release(scans int) {
	gets := 0
	want := min((q.gets.len()+getsPerView-1)/getsPerView, q.store.cfg.ReadsAtOnce)
	for q.running < want {
		q.running++
		gets++
	}
	q.mu.Unlock()
	pool := q.store.cfg.Reads
	for range gets {
		pool.Submit(q.serveGets)
	}
	for range scans {
		pool.Submit(q.serveScan)
	}
}

// getStep serves a run of gets from one view.
func (q *readQueue) getStep() {
	var run [getsPerView]*read
	q.mu.Lock()
	taken := q.gets.take(run[:])
	q.mu.Unlock()
	q.serve(run[:taken])
	q.mu.Lock()
	more := q.gets.len() > 0
	if !more {
		q.running--
	}
	q.mu.Unlock()
	if more {
		q.store.cfg.Reads.Submit(q.serveGets)
	}
}

func (q *readQueue) scanStep() {
	var one [1]*read
	q.mu.Lock()
	taken := q.scans.take(one[:])
	q.mu.Unlock()
	q.serve(one[:taken])
}

// serve notes the generations, opens a view, and answers from it: in this order.
func (q *readQueue) serve(run []*read) {
	kept := run[:0]
	for _, rd := range run {
		if rd.note() {
			kept = append(kept, rd)
		}
	}
	if len(kept) == 0 {
		return
	}
	v := q.store.openView()
	for _, rd := range kept {
		rd.serve(v)
	}
	if err := v.Close(); err != nil {
		q.store.cfg.Logger.Error("closing a view of the store", "error", err)
	}
}

// fifo is a queue of reads whose memory is used again when it has run empty.
type fifo struct {
	items []*read
	head  int
}

func (f *fifo) len() int { return len(f.items) - f.head }

func (f *fifo) push(rd *read) {
	// Without this a queue that never runs empty would grow for ever.
	if f.head > 0 && f.head >= len(f.items)/2 && len(f.items) == cap(f.items) {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, rd)
}

func (f *fifo) take(into []*read) int {
	n := copy(into, f.items[f.head:])
	clear(f.items[f.head : f.head+n])
	f.head += n
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return n
}
