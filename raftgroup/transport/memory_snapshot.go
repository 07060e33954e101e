package transport

import (
	"fmt"
	"io"
	"slices"

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
	header   []byte
	source   raftgroup.ChunkSource
	done     func(error)
	sink     raftgroup.SnapshotSink // touched in steps of to only

	// Under network.mu.
	settled bool // the sender's end is decided
	broken  bool // the receiver's sink is to be aborted
}

// SendSnapshot implements raftgroup.Transport. done is called in a step.
func (m *Memory) SendSnapshot(to shard.NodeID, header []byte, source raftgroup.ChunkSource, done func(error)) {
	n := m.network
	n.mu.Lock()
	defer n.mu.Unlock()
	tr := &transfer{from: m, header: header, source: source, done: done}
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

// startTransfers begins what waits, up to the limit; under mu.
func (n *Network) startTransfers(w *way) {
	for len(w.waiting) > 0 && len(w.transfers) < n.cfg.SnapshotsSending {
		tr := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.transfers = append(w.transfers, tr)
		tr.from.queue.Submit(func() { tr.carry(frameSnapshotHead, tr.header) })
	}
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
	if w := tr.w; w != nil {
		same := func(o *transfer) bool { return o == tr }
		w.transfers = slices.DeleteFunc(w.transfers, same)
		w.waiting = slices.DeleteFunc(w.waiting, same)
		if !tr.from.ended {
			tr.from.network.startTransfers(w)
		}
	}
	tr.from.queue.Submit(func() {
		if tr.from.hasCrashed() {
			return
		}
		_ = tr.source.Close() // the outcome is the receiver's to tell
		if err != nil {
			tr.from.counters.snapshotsFailed.Add(1)
		} else {
			tr.from.counters.snapshotsSent.Add(1)
		}
		tr.done(err)
	})
}

// carry brings one part to the receiver; a step of the sender. The part is copied.
func (tr *transfer) carry(kind byte, part []byte) {
	n := tr.from.network
	if len(part) > SnapshotChunkBytesMax {
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
	n.after(f.Delay, tr.to, func() { tr.take(kind, part) })
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
		tr.sink, err = receiver.ReceiveSnapshot(tr.from.node, part)
		if err != nil {
			tr.sink = nil
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
	chunk, err := tr.source.Next()
	switch err {
	case nil:
		tr.carry(frameSnapshotChunk, chunk)
	case io.EOF:
		tr.carry(frameSnapshotEnd, nil)
	default:
		tr.fail(fmt.Errorf("reading the snapshot: %w", err))
	}
}
