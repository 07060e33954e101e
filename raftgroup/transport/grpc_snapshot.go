package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	header []byte
	source raftgroup.ChunkSource
	done   func(error)
}

// endSnapshot closes the source and reports the outcome.
func (t *GRPC) endSnapshot(task snapshotTask, err error) {
	if closeErr := task.source.Close(); err == nil && closeErr != nil {
		t.log.log(slog.LevelWarn, 0, "closing the source of a snapshot that was sent", closeErr)
	}
	if err != nil {
		t.counters.snapshotsFailed.Add(1)
	} else {
		t.counters.snapshotsSent.Add(1)
	}
	task.done(err)
}

// enqueueSnapshot puts a snapshot in line. After an error nothing was done.
func (p *peer) enqueueSnapshot(task snapshotTask) error {
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

// sendSnapshots sends one waiting snapshot after another while the link holds.
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
		p.snapshots[0] = snapshotTask{}
		p.snapshots = p.snapshots[1:]
		p.mu.Unlock()
		err := p.sendSnapshot(l, task)
		if err != nil {
			err = fmt.Errorf("snapshot to node %d: %w", p.node, err)
			p.t.log.log(slog.LevelWarn, p.node, "a snapshot was not taken", err)
		}
		p.t.endSnapshot(task, err)
	}
}

// sendSnapshot streams one snapshot and waits for the verdict. Everything is sent
// without waiting for the greeting: who is there was checked when the link was made,
// and the other side checks the hello before it looks further.
func (p *peer) sendSnapshot(l *link, task snapshotTask) error {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	stall := time.AfterFunc(p.t.cfg.SnapshotStall, func() { cancel(errStalled) })
	defer stall.Stop()
	err := p.streamSnapshot(ctx, l, task, func() { stall.Reset(p.t.cfg.SnapshotStall) })
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

// streamSnapshot sends everything and returns the receiver's verdict. When it
// returns an error and ctx ends, the receiver aborts.
func (p *peer) streamSnapshot(ctx context.Context, l *link, task snapshotTask, moved func()) error {
	stream, err := api.OpenPeerSnapshot(ctx, l.conn)
	if err != nil {
		return err
	}
	sent := p.sendChunks(stream, task, moved)
	if sent != nil && sent != io.EOF {
		return sent
	}
	// io.EOF: the receiver ended the stream, and says why.
	err = p.awaitVerdict(stream)
	if err == nil && sent == io.EOF {
		return fmt.Errorf("%w: a verdict on a snapshot that was not sent yet", shard.ErrMalformed)
	}
	return err
}

var errStalled = errors.New("no progress for too long")

// sendChunks sends all frames of a snapshot; moved is called after each.
func (p *peer) sendChunks(stream *api.RawStream, task snapshotTask, moved func()) error {
	pool := &p.t.frames
	send := func(frame []byte) error {
		size := len(frame)
		if err := stream.Send(frame, pool); err != nil {
			return api.Error(err)
		}
		p.t.counters.snapshotBytesSent.Add(uint64(size))
		moved()
		return nil
	}
	if len(task.header) > SnapshotChunkBytesMax {
		return fmt.Errorf("a snapshot's header has %d bytes, the limit is %d", len(task.header), SnapshotChunkBytesMax)
	}
	if err := send(p.hello()); err != nil {
		return err
	}
	if err := send(append(append(pool.Buffer(), frameSnapshotHead), task.header...)); err != nil {
		return err
	}
	var chunks, bytes uint64
	for {
		chunk, err := task.source.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the snapshot: %w", err)
		}
		if len(chunk) > SnapshotChunkBytesMax {
			return fmt.Errorf("a chunk of a snapshot has %d bytes, the limit is %d", len(chunk), SnapshotChunkBytesMax)
		}
		if err := send(append(append(pool.Buffer(), frameSnapshotChunk), chunk...)); err != nil {
			return err
		}
		chunks++
		bytes += uint64(len(chunk))
	}
	if err := send(appendSnapshotEnd(pool.Buffer(), chunks, bytes)); err != nil {
		return err
	}
	return stream.CloseSend()
}

// awaitVerdict reads the answers: a greeting, then that all was taken.
func (p *peer) awaitVerdict(stream *api.RawStream) error {
	answer, err := stream.Receive(helloBytesMax)
	if err == nil {
		_, err = decodeAnswer(answer)
	}
	if err != nil {
		return noEOF(err)
	}
	taken, err := stream.Receive(helloBytesMax)
	if err != nil {
		return noEOF(err)
	}
	if len(taken) != 1 || taken[0] != frameSnapshotTaken {
		return fmt.Errorf("%w: not a verdict on a snapshot", shard.ErrMalformed)
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
	if head[0] != frameSnapshotHead {
		return fmt.Errorf("%w: a snapshot without a header", shard.ErrMalformed)
	}
	sink, err := t.receive().ReceiveSnapshot(in.from, head[1:])
	if err != nil {
		t.counters.snapshotsAborted.Add(1)
		return err
	}
	if err := fill(sink, next, stall); err != nil {
		t.counters.snapshotsAborted.Add(1)
		t.log.log(slog.LevelWarn, in.from, "a snapshot from a node was given up", err)
		return err
	}
	t.counters.snapshotsReceived.Add(1)
	return in.stream.Send([]byte{frameSnapshotTaken}, nil)
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
