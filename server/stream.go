package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// The answers of one client stream that wait for the client to read them are
// bounded; a client that does not read is cut off rather than buffered for ever.
const unreadBytesMax = 64 << 20

// frameBytesTarget is where a response frame is closed and sent, unless a single
// response is larger.
const frameBytesTarget = 1 << 20

// frames recycles the buffers of response frames once gRPC has written them.
var frames api.FramePool

// frameStream is the raw bidirectional stream of frames that operations travel
// on; see api.RawStream. Send takes the frame over and recycles it into pool.
type frameStream interface {
	Send(frame []byte, pool *api.FramePool) error
	Receive(bytesMax int) ([]byte, error)
}

// executor carries out a stream's requests; *replica.Stream is one.
type executor interface {
	Execute(q shard.Request, reply func(shard.Response))
	// OnNews has news called now and then with the newest revision.
	OnNews(news func(newest shard.Revision))
	Close()
}

// host is what client streams ask of their node.
type host struct {
	cluster     shard.ClusterID
	node        shard.NodeID
	incarnation uint64
	newest      func() shard.Revision // that the node knows to have been handed out
	open        func(session shard.Session, stream uint64) (executor, error)
}

func (h *host) greeting() shard.Greeting {
	return shard.Greeting{Cluster: h.cluster, Node: h.node, Incarnation: h.incarnation, Newest: h.newest()}
}

// operations serves client streams.
type operations struct {
	node *node.Node
	log  *slog.Logger
	stop <-chan struct{} // closed when the server stops
}

func (o *operations) Stream(s *api.RawStream) error {
	id := o.node.Identity()
	store, trusted := o.node.Store(), fromNode(s.Context())
	h := &host{cluster: id.Cluster, node: id.Node, incarnation: id.Incarnation, newest: store.Newest,
		open: func(session shard.Session, number uint64) (executor, error) {
			return store.OpenStream(session, number, trusted)
		}}
	err := serveOperations(s, h, o.stop)
	if err != nil && s.Context().Err() == nil {
		o.log.Info("a client stream was cut off", "err", err)
	}
	return err
}

// serveOperations runs one client stream until it ends. The client's hello comes
// first; only when the stream is open, and older ones of the session superseded, does
// the greeting go out, which is what allows the client to send requests: so there
// is none on a stream that the store does not know, and a client that reached the
// wrong cluster has sent nothing. Responses leave in whatever order they come, as
// many in a frame as were waiting.
func serveOperations(s frameStream, h *host, stop <-chan struct{}) error {
	type opening struct {
		x   executor
		err error
	}
	openings := make(chan opening, 1)
	go func() {
		x, err := openOperations(s, h)
		openings <- opening{x, err}
	}()
	var x executor
	select {
	case o := <-openings:
		if o.err != nil {
			return endOfStream(o.err)
		}
		x = o.x
	case <-stop:
		go func() { // ends with s, which ends with this function
			if o := <-openings; o.err == nil {
				o.x.Close()
			}
		}()
		return shard.ErrUnavailable
	}
	defer x.Close()
	// The first to end ends the stream, and with it the others.
	ended := make(chan error, 2)
	out := newResponses(h.newest)
	defer out.close()
	x.OnNews(out.news)
	go func() { ended <- out.sendTo(s) }()
	go func() { ended <- receiveRequests(s, func(q shard.Request) { x.Execute(q, out.add) }) }()
	select {
	case err := <-ended:
		return endOfStream(err)
	case <-out.overflown:
		return &shard.InvalidError{Field: "stream", Reason: "has too many unread answers; read them while sending"}
	case <-stop:
		return shard.ErrUnavailable
	}
}

// endOfStream is the error of a stream; that the client has sent all is none.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// openOperations answers a client's hello. The caller closes what it returns.
func openOperations(s frameStream, h *host) (executor, error) {
	first, err := s.Receive(shard.FrameBytesMax)
	if err != nil {
		return nil, err
	}
	hello, err := shard.DecodeHello(first)
	if err != nil {
		return nil, err
	}
	if hello.Cluster != h.cluster {
		return nil, &shard.InvalidError{Field: "cluster", Reason: hello.Cluster.String() + " was asked for, but this node belongs to " + h.cluster.String()}
	}
	if self := h.greeting().Node; hello.Node != self {
		// The greeting tells the client who answers here; the error ends the stream.
		err := s.Send(shard.AppendGreeting(nil, h.greeting()), nil)
		return nil, errors.Join(&shard.InvalidError{Field: "node", Reason: fmt.Sprintf("%d was asked for, but this is node %d", hello.Node, self)}, err)
	}
	x, err := h.open(hello.Session, hello.Stream)
	if err != nil {
		return nil, err
	}
	if err := s.Send(shard.AppendGreeting(nil, h.greeting()), nil); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

func receiveRequests(s frameStream, each func(shard.Request)) error {
	for {
		frame, err := s.Receive(shard.FrameBytesMax)
		if err != nil {
			return err
		}
		if err := shard.DecodeRequests(frame, each); err != nil {
			return err
		}
	}
}

// responses packs answers into frames. add may be called from any step.
type responses struct {
	mu     sync.Mutex
	wake   sync.Cond
	frame  []byte   // being filled; empty or begun
	full   [][]byte // closed frames that wait
	bytes  int      // in frame and full
	closed bool
	newest func() shard.Revision
	told   shard.Revision // by the last frame that was begun

	overflown chan struct{} // closed when the client left too much unread
}

func newResponses(newest func() shard.Revision) *responses {
	r := &responses{newest: newest, overflown: make(chan struct{})}
	r.wake.L = &r.mu
	return r
}

func (r *responses) add(p shard.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if size := payload(&p); size > smallPayload && r.bytes+size > unreadBytesMax/2 {
		p = shard.Response{ID: p.ID, Err: tooMuch(&p)}
	}
	before := len(r.frame)
	if before == 0 {
		r.beginLocked(r.newest())
	}
	r.frame = shard.AppendResponse(r.frame, &p)
	r.bytes += len(r.frame) - before
	if len(r.frame) >= frameBytesTarget {
		r.full = append(r.full, r.frame)
		r.frame = nil
	}
	if r.bytes > unreadBytesMax {
		r.closed = true
		r.frame, r.full = nil, nil
		close(r.overflown)
	}
	r.wake.Signal()
}

func (r *responses) beginLocked(newest shard.Revision) {
	r.frame = shard.BeginResponses(frames.Buffer(), newest)
	r.told = newest
}

// news tells the client how far revisions have got, by a frame without answers,
// unless it has heard it or a frame waits that tells about as much.
func (r *responses) news(newest shard.Revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || newest <= r.told || len(r.frame) > 0 || len(r.full) > 0 {
		return
	}
	r.beginLocked(newest)
	r.bytes += len(r.frame)
	r.wake.Signal()
}

// smallPayload is what an answer may carry however much waits.
const smallPayload = 1 << 10

// payload is about what an answer carries of users' data.
func payload(p *shard.Response) int {
	n := len(p.Result.Value)
	for i := range p.Result.Rows {
		n += len(p.Result.Rows[i].Key) + len(p.Result.Rows[i].Value)
	}
	return n
}

// tooMuch is what an operation is answered instead of its result when the client
// has not read enough of the ones before: many small requests that are answered at
// the same moment may have large results, and a stream that is cut for them would
// leave its writes without answers. Whatever wrote nothing may be asked for again. A
// batch that has written, which is told by rows without keys and its revision, has
// taken effect: its client is not told the outcome, and finds it out by a later attempt.
func tooMuch(p *shard.Response) error {
	rows := p.Result.Rows
	if len(rows) > 0 && len(rows[0].Key) == 0 && p.Result.Revision != 0 {
		return shard.ErrUndetermined
	}
	return shard.ErrBusy
}

func (r *responses) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.wake.Signal()
}

// next waits for a frame; nil at the end.
func (r *responses) next() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && len(r.frame) == 0 && len(r.full) == 0 {
		r.wake.Wait()
	}
	if r.closed {
		return nil
	}
	var frame []byte
	if len(r.full) > 0 {
		frame, r.full = r.full[0], r.full[1:]
	} else {
		frame, r.frame = r.frame, nil
	}
	r.bytes -= len(frame)
	return frame
}

func (r *responses) sendTo(s frameStream) error {
	for {
		// Those who are about to answer come first, and share this frame: a
		// frame and its system call cost far more than an answer.
		runtime.Gosched()
		frame := r.next()
		if frame == nil {
			return nil
		}
		if err := s.Send(frame, &frames); err != nil {
			return err
		}
	}
}
