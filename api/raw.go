package api

import (
	"context"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/kiloraft/kiloraft/shard"
)

// rawSubtype is the content-subtype of raw streams: a server picks the codec of
// a stream by it, so that protobuf services on the same server keep theirs.
const rawSubtype = "kiloraft-raw"

func init() { encoding.RegisterCodecV2(rawCodec{}) }

// rawCodec passes frames through as they are.
type rawCodec struct{}

// outgoing is a frame on its way out; pool gets the buffer back when gRPC has
// written it.
type outgoing struct {
	frame []byte
	pool  mem.BufferPool // nil: left to the garbage collector
}

// incoming receives a frame.
type incoming struct {
	frame []byte
}

func (rawCodec) Name() string { return rawSubtype }

// Marshal hands the frame's own buffer to gRPC: nothing is copied until it
// reaches the connection's write buffer.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outgoing)
	if !ok {
		return nil, fmt.Errorf("a raw stream carries frames, not %T", v)
	}
	return mem.BufferSlice{mem.NewBuffer(&out.frame, out.pool)}, nil
}

// Unmarshal copies the pieces in which a frame arrived into one fresh slice:
// the one copy that lets the receiver keep slices of it.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("a raw stream carries frames, not %T", v)
	}
	in.frame = data.Materialize()
	return nil
}

// FramePool recycles the buffers of outgoing frames. The zero value is ready.
// It is safe for concurrent use.
type FramePool struct{ pool sync.Pool }

const (
	// framePoolBytesMin is the capacity of a fresh buffer. gRPC gives back only
	// buffers of more than 1 KiB.
	framePoolBytesMin = 8 << 10
	// framePoolBytesMax keeps one huge frame from staying in memory.
	framePoolBytesMax = 2 << 20
)

// Buffer is an empty slice to append a frame to; it belongs to the caller
// until it is sent.
func (p *FramePool) Buffer() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, framePoolBytesMin)
}

// Recycle takes back a buffer that was not sent.
func (p *FramePool) Recycle(b []byte) { p.Put(&b) }

// Get implements mem.BufferPool.
func (p *FramePool) Get(length int) *[]byte {
	b := p.Buffer()
	if cap(b) < length {
		b = make([]byte, length)
	}
	b = b[:length]
	return &b
}

// Put implements mem.BufferPool: gRPC calls it when a frame is written out.
func (p *FramePool) Put(b *[]byte) {
	if cap(*b) >= framePoolBytesMin && cap(*b) <= framePoolBytesMax {
		p.pool.Put(b)
	}
}

// RawStream is a bidirectional stream of frames, on either side. One goroutine
// may send while another receives; neither end is safe for more than that.
// Frames are delivered whole and in order, or the stream breaks.
type RawStream struct {
	stream interface { // grpc.ClientStream or grpc.ServerStream
		Context() context.Context
		SendMsg(m any) error
		RecvMsg(m any) error
	}
	closeSend func() error
}

// Context of the call. On the server it ends with the handler's return.
func (s *RawStream) Context() context.Context { return s.stream.Context() }

// Send hands a frame to gRPC and takes ownership of its buffer: the caller must
// not touch it again. When it is written out it goes to pool, which may be nil.
// Send waits while more than about 64 KiB of the stream are on their way. io.EOF
// means that the other side ended the stream; on the client, Receive tells why.
func (s *RawStream) Send(frame []byte, pool *FramePool) error {
	out := &outgoing{frame: frame}
	if pool != nil {
		out.pool = pool
	}
	return s.stream.SendMsg(out)
}

// Receive waits for the next frame, which is the caller's to keep. A frame of
// more than bytesMax is an error that wraps shard.ErrMalformed. io.EOF means
// that the other side has sent all it had. Other errors are explained as by Error.
func (s *RawStream) Receive(bytesMax int) ([]byte, error) {
	var in incoming
	if err := s.stream.RecvMsg(&in); err != nil {
		if err == io.EOF {
			return nil, err
		}
		return nil, Error(err)
	}
	if len(in.frame) > bytesMax {
		return nil, fmt.Errorf("%w: a frame of %d bytes, the limit of the stream is %d", shard.ErrMalformed, len(in.frame), bytesMax)
	}
	return in.frame, nil
}

// CloseSend tells the server that no more frames follow. On a server it does nothing.
func (s *RawStream) CloseSend() error {
	if s.closeSend == nil {
		return nil
	}
	return s.closeSend()
}

func openRaw(ctx context.Context, conn grpc.ClientConnInterface, method string, opts []grpc.CallOption) (*RawStream, error) {
	opts = append([]grpc.CallOption{grpc.ForceCodecV2(rawCodec{}), grpc.CallContentSubtype(rawSubtype)}, opts...)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, opts...)
	if err != nil {
		return nil, Error(err)
	}
	return &RawStream{stream: stream, closeSend: stream.CloseSend}, nil
}
