package transport

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// transfer is one snapshot on its way in memory. Sender and receiver take turns
// in steps of their own queues: the sender pulls a chunk, the receiver adds it and
// answers, the sender pulls the next. A lost part breaks it, as a broken
// stream would.
type transfer struct {
	from, to *Memory
	w        *way
	open     func() (raftgroup.OutgoingSnapshot, error)
	done     func(error)
	s        raftgroup.OutgoingSnapshot // touched in steps of from only
	sink     raftgroup.SnapshotSink     // touched in steps of to only

	// Under network.mu.
	large   bool   // it has or had a place in the sender's line for large ones
	placed  bool   // it has a place among those that are sent
	arrival uint64 // in that line
	settled bool   // the sender's end is decided
	broken  bool   // the receiver's sink is to be aborted
}

// SendSnapshot implements raftgroup.Transport. open and done are called in steps.
func (m *Memory) SendSnapshot(to shard.NodeID, open func() (raftgroup.OutgoingSnapshot, error), done func(error)) {
	n := m.network
	n.mu.Lock()
	defer n.mu.Unlock()
	tr := &transfer{from: m, open: open, done: done}
	w, target := n.reach(m, to)
	switch {
	case w == nil:
		tr.submitEnd(fmt.Errorf("%w: node %d does not answer", shard.ErrUnavailable, to))
		return
	case len(w.waiting) >= n.cfg.SnapshotsWaiting:
		tr.submitEnd(fmt.Errorf("%w: %d snapshots wait for node %d", shard.ErrBusy, n.cfg.SnapshotsWaiting, to))
		return
	}
	tr.w, tr.to = w, target
	w.waiting = append(w.waiting, tr)
	n.startTransfers(w)
}

// SetSnapshotRate changes how many bytes of large snapshots are sent in a second, and
// how many are received.
func (m *Memory) SetSnapshotRate(bytesPerSecond int64) {
	m.pacer.setRate(bytesPerSecond)
	m.intake.setRate(bytesPerSecond)
}

// startTransfers begins what waits, up to the limit; under mu.
func (n *Network) startTransfers(w *way) {
	for len(w.waiting) > 0 && len(w.transfers) < n.cfg.SnapshotsSending {
		tr := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.transfers = append(w.transfers, tr)
		tr.from.queue.Submit(tr.begin)
	}
}

// startLarge begins the large ones whose turn has come; under mu.
func (m *Memory) startLarge() {
	for {
		tr, arrival, ok := m.large.next(m.network.env.Now())
		if !ok {
			return
		}
		tr.arrival, tr.placed = arrival, true
		m.queue.Submit(tr.begin)
	}
}

// begin opens the snapshot. One that turns out to be large leaves the way's places
// for the line of the whole node. A step of the sender.
func (tr *transfer) begin() {
	if tr.over() || tr.from.hasCrashed() {
		return
	}
	s, err := tr.open()
	if err != nil {
		tr.fail(err)
		return
	}
	n := tr.from.network
	n.mu.Lock()
	if tr.broken || tr.settled {
		n.mu.Unlock()
		_ = s.Chunks.Close()
		return
	}
	if s.Large && !tr.large {
		tr.large = true
		tr.leaveWay()
		tr.from.largeOnes = append(tr.from.largeOnes, tr)
		tr.from.large.add(tr)
		tr.from.startLarge()
		n.startTransfers(tr.w)
		n.mu.Unlock()
		_ = s.Chunks.Close()
		return
	}
	n.mu.Unlock()
	tr.s = s
	if len(s.Header) > SnapshotChunkBytesMax {
		tr.fail(fmt.Errorf("a snapshot's header has %d bytes, the limit is %d", len(s.Header), SnapshotChunkBytesMax))
		return
	}
	tr.carry(frameSnapshotHead, appendSnapshotHead(nil, s.Header, s.Large))
}

func (tr *transfer) leaveWay() {
	same := func(o *transfer) bool { return o == tr }
	tr.w.transfers = slices.DeleteFunc(tr.w.transfers, same)
	tr.w.waiting = slices.DeleteFunc(tr.w.waiting, same)
}

// leaveLine gives up a large one's place; under mu.
func (tr *transfer) leaveLine() {
	m := tr.from
	if tr.placed {
		tr.placed = false
		m.large.done()
	}
	same := func(o *transfer) bool { return o == tr }
	m.large.remove(same)
	m.largeOnes = slices.DeleteFunc(m.largeOnes, same)
}

// putOff has a large one tried again after a pause: its receiver has no room. A step
// of the sender.
func (tr *transfer) putOff() {
	n := tr.from.network
	n.mu.Lock()
	if tr.broken || tr.settled {
		n.mu.Unlock()
		return
	}
	m := tr.from
	m.counters.snapshotsPutOff.Add(1)
	pause := n.cfg.SnapshotPause/2 + time.Duration(n.env.Uint64()%uint64(n.cfg.SnapshotPause))
	tr.placed = false
	m.large.putOff(tr, tr.arrival, n.env.Now()+pause)
	m.startLarge()
	n.mu.Unlock()
	s := tr.s
	tr.s = raftgroup.OutgoingSnapshot{}
	_ = s.Chunks.Close()
	n.env.AfterFunc(pause, m.queue, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !m.ended {
			m.startLarge()
		}
	})
}

// breakTransfers breaks every transfer from or to m; under mu.
func (n *Network) breakTransfers(m *Memory) {
	broke := fmt.Errorf("%w: the stream of a snapshot broke", shard.ErrUnavailable)
	var broken []*transfer
	for _, p := range n.processes() {
		nodes := make([]shard.NodeID, 0, len(p.ways))
		for node := range p.ways { //order-free: sorted below
			nodes = append(nodes, node)
		}
		slices.Sort(nodes)
		for _, node := range nodes {
			for _, tr := range slices.Concat(p.ways[node].transfers, p.ways[node].waiting) {
				if tr.from == m || tr.to == m {
					broken = append(broken, tr)
				}
			}
		}
		for _, tr := range p.largeOnes {
			if tr.from == m || tr.to == m {
				broken = append(broken, tr)
			}
		}
	}
	for _, tr := range broken {
		tr.breakOff(broke)
	}
}

// breakOff ends both sides with err; under mu. Once only.
func (tr *transfer) breakOff(err error) {
	if tr.broken || tr.settled {
		return
	}
	tr.broken = true
	tr.submitEnd(err)
	tr.to.queue.Submit(func() { tr.abort(err) })
}

// abort ends the sink, in a step of the receiver.
func (tr *transfer) abort(err error) {
	if tr.sink == nil {
		return
	}
	sink := tr.sink
	tr.sink = nil
	tr.to.counters.snapshotsAborted.Add(1)
	if !tr.to.hasCrashed() {
		sink.Abort(err)
	}
}

func (m *Memory) hasCrashed() bool {
	m.network.mu.Lock()
	defer m.network.mu.Unlock()
	return m.crashed
}

// submitEnd tells the sender the outcome, in a step; under mu. Once only.
func (tr *transfer) submitEnd(err error) {
	if tr.settled {
		return
	}
	tr.settled = true
	if tr.w != nil {
		tr.leaveWay()
		tr.leaveLine()
	}
	tr.from.queue.Submit(func() {
		if tr.from.hasCrashed() {
			return
		}
		if tr.s.Chunks != nil {
			_ = tr.s.Chunks.Close() // the outcome is the receiver's to tell
		}
		if err != nil {
			tr.from.counters.snapshotsFailed.Add(1)
		} else {
			tr.from.counters.snapshotsSent.Add(1)
		}
		tr.done(err)
	})
	if w := tr.w; w != nil && !tr.from.ended {
		tr.from.network.startTransfers(w)
		tr.from.startLarge()
	}
}

// carry brings one part to the receiver; a step of the sender. The part is copied.
// Those of a large snapshot are held back as the rate demands.
func (tr *transfer) carry(kind byte, part []byte) {
	n := tr.from.network
	if kind == frameSnapshotChunk && len(part) > SnapshotChunkBytesMax {
		tr.fail(fmt.Errorf("a part of a snapshot has %d bytes, the limit is %d", len(part), SnapshotChunkBytesMax))
		return
	}
	f := n.fate(Delivery{From: tr.from.node, To: tr.to.node, Bytes: len(part), Snapshot: true})
	if f.Drop {
		tr.fail(fmt.Errorf("%w: the stream of a snapshot broke", shard.ErrUnavailable))
		return
	}
	tr.from.counters.snapshotBytesSent.Add(uint64(len(part)))
	part = slices.Clone(part)
	if bit := f.Flip - 1; bit >= 0 && kind == frameSnapshotChunk {
		part[bit/8] ^= 1 << (bit % 8)
	}
	delay := f.Delay
	if kind == frameSnapshotChunk {
		if tr.s.Large {
			delay += max(tr.from.pacer.book(n.env.Now(), len(part)), tr.to.intake.book(n.env.Now(), len(part)))
		} else {
			tr.from.pacer.count(n.env.Now(), len(part))
		}
	}
	n.after(delay, tr.to, func() { tr.take(kind, part) })
}

// fail breaks the transfer, from any step.
func (tr *transfer) fail(err error) {
	tr.from.network.mu.Lock()
	defer tr.from.network.mu.Unlock()
	tr.breakOff(err)
}

// over tells whether the transfer has ended.
func (tr *transfer) over() bool {
	tr.from.network.mu.Lock()
	defer tr.from.network.mu.Unlock()
	return tr.broken || tr.settled
}

// take is the receiver's step for one part.
func (tr *transfer) take(kind byte, part []byte) {
	receiver, alive := tr.to.alive()
	if tr.over() || !alive {
		return
	}
	tr.to.counters.snapshotBytesRead.Add(uint64(len(part)))
	var err error
	switch kind {
	case frameSnapshotHead:
		var header []byte
		var large bool
		if header, large, err = decodeSnapshotHead(part); err == nil {
			tr.sink, err = receiver.ReceiveSnapshot(tr.from.node, header, large)
		}
		if err != nil {
			tr.sink = nil
		}
		if large && errors.Is(err, shard.ErrBusy) {
			tr.from.queue.Submit(tr.putOff)
			return
		}
	case frameSnapshotChunk:
		err = tr.sink.Add(part)
	case frameSnapshotEnd:
		sink := tr.sink
		tr.sink = nil
		if err = sink.Finish(); err == nil {
			tr.to.counters.snapshotsReceived.Add(1)
		} else {
			tr.to.counters.snapshotsAborted.Add(1)
		}
	}
	if err != nil {
		tr.fail(err)
		return
	}
	n := tr.from.network
	f := n.fate(Delivery{From: tr.to.node, To: tr.from.node, Snapshot: true})
	if f.Drop {
		tr.fail(fmt.Errorf("%w: the stream of a snapshot broke", shard.ErrUnavailable))
		return
	}
	n.after(f.Delay, tr.from, func() { tr.next(kind) })
}

// next is the sender's step after an answer to a part of the given kind.
func (tr *transfer) next(answered byte) {
	if tr.over() {
		return
	}
	if answered == frameSnapshotEnd {
		n := tr.from.network
		n.mu.Lock()
		defer n.mu.Unlock()
		tr.submitEnd(nil)
		return
	}
	chunk, err := tr.s.Chunks.Next()
	switch err {
	case nil:
		tr.carry(frameSnapshotChunk, chunk)
	case io.EOF:
		tr.carry(frameSnapshotEnd, nil)
	default:
		tr.fail(fmt.Errorf("reading the snapshot: %w", err))
	}
}
