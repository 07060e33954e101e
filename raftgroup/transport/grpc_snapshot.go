package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// SnapshotChunkBytesMax bounds a chunk, and a header, of a snapshot.
const SnapshotChunkBytesMax = 4 << 20

// snapshotTask is a snapshot on its way out. endSnapshot is called exactly once
// for each.
type snapshotTask struct {
	p    *peer
	open func() (raftgroup.OutgoingSnapshot, error)
	done func(error)
}

// endSnapshot reports the outcome.
func (t *GRPC) endSnapshot(task *snapshotTask, err error) {
	if err != nil {
		t.counters.snapshotsFailed.Add(1)
	} else {
		t.counters.snapshotsSent.Add(1)
	}
	task.done(err)
}

// enqueueSnapshot puts a snapshot in line. After an error nothing was done.
func (p *peer) enqueueSnapshot(task *snapshotTask) error {
	p.mu.Lock()
	switch {
	case p.ctx.Err() != nil:
		p.mu.Unlock()
		return shard.ErrUnavailable
	case p.down:
		p.want()
		p.mu.Unlock()
		return fmt.Errorf("%w: node %d does not answer", shard.ErrUnavailable, p.node)
	case len(p.snapshots) >= p.t.cfg.SnapshotsWaiting:
		p.mu.Unlock()
		return fmt.Errorf("%w: %d snapshots wait for node %d", shard.ErrBusy, p.t.cfg.SnapshotsWaiting, p.node)
	}
	p.snapshots = append(p.snapshots, task)
	signal(p.wake)
	p.mu.Unlock()
	p.startSnapshots()
	return nil
}

// startSnapshots starts as many senders as there are snapshots waiting, up to
// the limit.
func (p *peer) startSnapshots() {
	p.mu.Lock()
	l := p.link
	n := 0
	if l != nil {
		n = min(p.t.cfg.SnapshotsSending-p.sending, len(p.snapshots))
	}
	p.sending += max(n, 0)
	p.mu.Unlock()
	for range n {
		p.t.spawn(func() { p.sendSnapshots(l) })
	}
}

// sendSnapshots sends one waiting snapshot after another while the link holds. Those
// that turn out to be large go into the line of the whole node instead: whatever time
// they take there, the small ones behind them do not wait for it.
func (p *peer) sendSnapshots(l *link) {
	for {
		p.mu.Lock()
		if len(p.snapshots) == 0 || p.link != l {
			p.sending--
			p.mu.Unlock()
			// One may have been put in line for a newer link while this sender
			// still counted.
			p.startSnapshots()
			return
		}
		task := p.snapshots[0]
		p.snapshots[0] = nil
		p.snapshots = p.snapshots[1:]
		p.mu.Unlock()
		s, err := task.open()
		if err == nil && s.Large {
			p.t.closeChunks(s)
			p.t.enqueueLarge(task, l)
			continue
		}
		if err == nil {
			err = p.sendSnapshot(l, s, nil)
		}
		p.t.endSnapshot(task, p.named(err))
	}
}

// named logs why a snapshot was not sent, and says to whom.
func (p *peer) named(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("snapshot to node %d: %w", p.node, err)
	p.t.log.log(slog.LevelWarn, p.node, "a snapshot was not taken", err)
	return err
}

func (t *GRPC) closeChunks(s raftgroup.OutgoingSnapshot) {
	if err := s.Chunks.Close(); err != nil {
		t.log.log(slog.LevelWarn, 0, "closing the source of a snapshot", err)
	}
}

// enqueueLarge puts a snapshot into the node's line for large ones.
func (t *GRPC) enqueueLarge(task *snapshotTask, l *link) {
	p := task.p
	p.mu.Lock()
	if p.link != l { // what waited for the link has been dropped
		p.mu.Unlock()
		t.endSnapshot(task, fmt.Errorf("%w: the connection to node %d broke", shard.ErrUnavailable, p.node))
		return
	}
	t.largeMu.Lock()
	t.large.add(task)
	t.largeMu.Unlock()
	p.mu.Unlock()
	t.startLarge()
}

// takeLarge takes what waits for a peer out of the line; under the peer's mu.
func (t *GRPC) takeLarge(p *peer) []*snapshotTask {
	t.largeMu.Lock()
	defer t.largeMu.Unlock()
	return t.large.remove(func(task *snapshotTask) bool { return task.p == p })
}

// startLarge starts a sender for each large snapshot whose turn has come.
func (t *GRPC) startLarge() {
	for {
		t.largeMu.Lock()
		task, arrival, ok := t.large.next(time.Since(t.began))
		t.largeMu.Unlock()
		if !ok {
			return
		}
		t.spawn(func() { t.sendLarge(task, arrival) })
	}
}

// errNoRoom: the receiver has as many large snapshots as it takes. Nothing was sent.
var errNoRoom = errors.New("the receiver has no room for a snapshot now")

// sendLarge sends a large snapshot, or puts it off if the receiver has no room.
func (t *GRPC) sendLarge(task *snapshotTask, arrival uint64) {
	p := task.p
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	err := fmt.Errorf("%w: the connection broke", shard.ErrUnavailable)
	if l != nil {
		var s raftgroup.OutgoingSnapshot
		if s, err = task.open(); err == nil {
			err = p.sendSnapshot(l, s, &t.pacer)
		}
	}
	if errors.Is(err, errNoRoom) && t.putOff(task, arrival, l) {
		t.startLarge() // one for another receiver
		return
	}
	t.largeMu.Lock()
	t.large.done()
	t.largeMu.Unlock()
	t.startLarge()
	t.endSnapshot(task, p.named(err))
}

// putOff puts a snapshot back in its place for a pause; false if the link is gone,
// whose waiting snapshots have been dropped.
func (t *GRPC) putOff(task *snapshotTask, arrival uint64, l *link) bool {
	p := task.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != l {
		return false
	}
	t.counters.snapshotsPutOff.Add(1)
	pause := t.cfg.SnapshotPause/2 + rand.N(t.cfg.SnapshotPause)
	t.largeMu.Lock()
	t.large.putOff(task, arrival, time.Since(t.began)+pause)
	t.largeMu.Unlock()
	time.AfterFunc(pause+time.Millisecond, t.startLarge)
	return true
}

// sendSnapshot streams one snapshot, closes it, and waits for the verdict. A small one
// is sent without waiting for the greeting: who is there was checked when the link was
// made, and the other side checks the hello before it looks further. A large one, which
// has a pacer, waits until the receiver says that it has room.
func (p *peer) sendSnapshot(l *link, s raftgroup.OutgoingSnapshot, paced *pacer) error {
	defer p.t.closeChunks(s)
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	stall := time.AfterFunc(p.t.cfg.SnapshotStall, func() { cancel(errStalled) })
	defer stall.Stop()
	out := &snapshotStream{p: p, ctx: ctx, s: s, paced: paced, moved: func() { stall.Reset(p.t.cfg.SnapshotStall) }}
	err := out.run(l)
	var remote *api.RemoteError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, context.Cause(ctx))
	case errors.As(err, &remote) && remote.Unwrap() == nil:
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err) // gRPC's own words: the connection broke
	}
	return err
}

// snapshotStream is one snapshot being sent.
type snapshotStream struct {
	p      *peer
	ctx    context.Context
	s      raftgroup.OutgoingSnapshot
	paced  *pacer
	moved  func() // there was progress
	stream *api.RawStream
	ready  bool // the receiver has said that it has room
}

// run sends everything and returns the receiver's verdict. When it returns an error
// and ctx ends, the receiver aborts.
func (o *snapshotStream) run(l *link) error {
	var err error
	if o.stream, err = api.OpenPeerSnapshot(o.ctx, l.conn); err != nil {
		return err
	}
	sent := o.sendHead()
	if sent == nil && o.paced != nil {
		if err := o.awaitReady(); err != nil {
			if errors.Is(err, shard.ErrBusy) {
				err = fmt.Errorf("%w: %w", errNoRoom, err)
			}
			return err
		}
	}
	if sent == nil {
		sent = o.sendChunks()
	}
	if sent != nil && sent != io.EOF {
		return sent
	}
	// io.EOF: the receiver ended the stream, and says why.
	err = o.awaitVerdict()
	if err == nil && sent == io.EOF {
		return fmt.Errorf("%w: a verdict on a snapshot that was not sent yet", shard.ErrMalformed)
	}
	return err
}

var errStalled = errors.New("no progress for too long")

func (o *snapshotStream) send(frame []byte) error {
	size := len(frame)
	if err := o.stream.Send(frame, &o.p.t.frames); err != nil {
		return api.Error(err)
	}
	o.p.t.counters.snapshotBytesSent.Add(uint64(size))
	o.moved()
	return nil
}

// sendHead introduces node and snapshot.
func (o *snapshotStream) sendHead() error {
	if len(o.s.Header) > SnapshotChunkBytesMax {
		return fmt.Errorf("a snapshot's header has %d bytes, the limit is %d", len(o.s.Header), SnapshotChunkBytesMax)
	}
	if err := o.send(o.p.hello()); err != nil {
		return err
	}
	return o.send(appendSnapshotHead(o.p.t.frames.Buffer(), o.s.Header, o.s.Large))
}

// sendChunks sends all chunks and the end.
func (o *snapshotStream) sendChunks() error {
	pool := &o.p.t.frames
	var chunks, bytes uint64
	for {
		chunk, err := o.s.Chunks.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the snapshot: %w", err)
		}
		if len(chunk) > SnapshotChunkBytesMax {
			return fmt.Errorf("a chunk of a snapshot has %d bytes, the limit is %d", len(chunk), SnapshotChunkBytesMax)
		}
		if err := o.pace(len(chunk)); err != nil {
			return err
		}
		if err := o.send(append(append(pool.Buffer(), frameSnapshotChunk), chunk...)); err != nil {
			return err
		}
		chunks++
		bytes += uint64(len(chunk))
	}
	if err := o.send(appendSnapshotEnd(pool.Buffer(), chunks, bytes)); err != nil {
		return err
	}
	return o.stream.CloseSend()
}

// pace waits until a chunk may be sent.
func (o *snapshotStream) pace(n int) error {
	now := time.Since(o.p.t.began)
	if o.paced == nil {
		o.p.t.pacer.count(now, n)
		return nil
	}
	return hold(o.ctx, o.paced.book(now, n))
}

// hold waits, unless ctx ends.
func hold(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitReady reads the greeting and that there is room, once.
func (o *snapshotStream) awaitReady() error {
	if o.ready {
		return nil
	}
	answer, err := o.stream.Receive(helloBytesMax)
	if err == nil {
		_, err = decodeAnswer(answer)
	}
	if err != nil {
		return noEOF(err)
	}
	if err := o.expect(frameSnapshotReady); err != nil {
		return err
	}
	o.ready = true
	return nil
}

// awaitVerdict reads the answers up to the last one, that all was taken.
func (o *snapshotStream) awaitVerdict() error {
	if err := o.awaitReady(); err != nil {
		return err
	}
	return o.expect(frameSnapshotTaken)
}

func (o *snapshotStream) expect(kind byte) error {
	frame, err := o.stream.Receive(helloBytesMax)
	if err != nil {
		return noEOF(err)
	}
	if len(frame) != 1 || frame[0] != kind {
		return fmt.Errorf("%w: not an answer to a snapshot", shard.ErrMalformed)
	}
	return nil
}

// noEOF: a stream that ended without a verdict broke.
func noEOF(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%w: the stream ended without a verdict", shard.ErrUnavailable)
	}
	return err
}

// takeSnapshot feeds a snapshot to the receiver's sink. The sink is ended
// exactly once: finished after an end frame whose counts agree, aborted otherwise.
func (t *GRPC) takeSnapshot(in *inbound) error {
	stall := time.AfterFunc(t.cfg.SnapshotStall, func() { in.cutOnce.Do(func() { close(in.cut) }) })
	defer stall.Stop()
	next := func() ([]byte, error) {
		frame, err := in.stream.Receive(SnapshotChunkBytesMax + 1)
		switch {
		case err == io.EOF:
			return nil, fmt.Errorf("%w: a snapshot was cut short", shard.ErrUnavailable)
		case err != nil:
			return nil, err
		case in.replaced() || t.ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", shard.ErrUnavailable, errReplaced)
		case len(frame) == 0:
			return nil, fmt.Errorf("%w: an empty frame in a snapshot", shard.ErrMalformed)
		}
		stall.Reset(t.cfg.SnapshotStall)
		t.counters.snapshotBytesRead.Add(uint64(len(frame)))
		return frame, nil
	}
	head, err := next()
	if err != nil {
		return err
	}
	header, large, err := decodeSnapshotHead(head)
	if err != nil {
		return err
	}
	sink, err := t.receive().ReceiveSnapshot(in.from, header, large)
	if err != nil {
		t.counters.snapshotsAborted.Add(1)
		return err
	}
	if err := in.stream.Send([]byte{frameSnapshotReady}, nil); err != nil {
		sink.Abort(err)
		t.counters.snapshotsAborted.Add(1)
		return err
	}
	if large {
		next = t.slowed(next)
	}
	if err := fill(sink, next, stall); err != nil {
		t.counters.snapshotsAborted.Add(1)
		t.log.log(slog.LevelWarn, in.from, "a snapshot from a node was given up", err)
		return err
	}
	t.counters.snapshotsReceived.Add(1)
	return in.stream.Send([]byte{frameSnapshotTaken}, nil)
}

// slowed has the frames of a large snapshot come no faster than the node's rate. The
// senders know their own rates only: to a node that comes back after a while all the
// others send. What is not read is not sent on; it is the stream's own window that fills,
// and messages pass.
func (t *GRPC) slowed(next func() ([]byte, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		frame, err := next()
		if err == nil {
			err = hold(t.ctx, t.intake.book(time.Since(t.began), len(frame)))
		}
		return frame, err
	}
}

// fill adds chunks to sink up to the end frame, and ends sink.
func fill(sink raftgroup.SnapshotSink, next func() ([]byte, error), stall *time.Timer) error {
	var chunks, bytes uint64
	abort := func(err error) error {
		sink.Abort(err)
		return err
	}
	for {
		frame, err := next()
		if err != nil {
			return abort(err)
		}
		switch frame[0] {
		case frameSnapshotChunk:
			if err := sink.Add(frame[1:]); err != nil {
				return abort(err)
			}
			chunks++
			bytes += uint64(len(frame) - 1)
		case frameSnapshotEnd:
			wantChunks, wantBytes, err := decodeSnapshotEnd(frame)
			if err == nil && (wantChunks != chunks || wantBytes != bytes) {
				err = fmt.Errorf("%w: a snapshot of %d chunks and %d bytes arrived with %d and %d", shard.ErrMalformed, wantChunks, wantBytes, chunks, bytes)
			}
			if err != nil {
				return abort(err)
			}
			stall.Stop() // installing takes as long as it takes
			return sink.Finish()
		default:
			return abort(fmt.Errorf("%w: frame %d in a snapshot", shard.ErrMalformed, frame[0]))
		}
	}
}
