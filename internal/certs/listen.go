package certs

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// HandshakeTimeout is how long a connection may take to show who it is.
	HandshakeTimeout = 10 * time.Second
	// handshakesMax is how many may be at it at a time on one port.
	handshakesMax = 512
	// linger is how long a refused connection is read from at most: if it were closed with
	// bytes unread, the other side might never see why.
	linger           = 3 * time.Second
	lingerBytesLimit = 64 << 10
)

// Listener is a port with TLS. Accept returns connections of which the handshake
// is done and the certificate verified, each a *tls.Conn; it returns errors of the
// port below as they come, and net.ErrClosed at the end.
type Listener struct {
	net.Listener // the port
	source       *Source
	protocols    []string
	refusals     *Refusals
	timeout      time.Duration
	max          int

	results chan accepted
	ctx     context.Context // ends with Close
	end     context.CancelCauseFunc
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending list.List // of context.CancelCauseFunc, oldest first
}

type accepted struct {
	conn net.Conn
	err  error
}

var (
	errTooMany = errors.New("it was the oldest of too many connections that had not shown who they are")
	errClosing = errors.New("the node stops")
	errTooSlow = fmt.Errorf("it did not show who it is within %v", HandshakeTimeout)
)

// ListenGRPC serves gRPC on a port; the server also needs Accepting.
func (s *Source) ListenGRPC(l net.Listener, log *slog.Logger) *Listener {
	return s.listen(l, log, HandshakeTimeout, handshakesMax, protocol)
}

// ListenHTTP serves HTTP on a port.
func (s *Source) ListenHTTP(l net.Listener, log *slog.Logger) *Listener {
	return s.listen(l, log, HandshakeTimeout, handshakesMax, "http/1.1")
}

func (s *Source) listen(port net.Listener, log *slog.Logger, timeout time.Duration, max int, protocols ...string) *Listener {
	l := &Listener{Listener: port, source: s, protocols: protocols, refusals: &Refusals{Log: log}, timeout: timeout, max: max, results: make(chan accepted)}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	l.running.Go(l.accept)
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.results:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the port and what has not been accepted, and returns when nothing
// of the listener runs any more.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.Listener.Close()
	l.end(errClosing)
	l.running.Wait()
	return err
}

// deliver hands a result to Accept, if that is still called.
func (l *Listener) deliver(a accepted) bool {
	select {
	case l.results <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// accept starts a handshake for each connection.
func (l *Listener) accept() {
	for {
		raw, err := l.Listener.Accept()
		switch {
		case err == nil:
			l.begin(raw)
		case errors.Is(err, net.ErrClosed):
			l.end(errClosing)
			return
		case !l.deliver(accepted{err: err}):
			return
		}
	}
}

func (l *Listener) begin(raw net.Conn) {
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		cancel(nil)
		_ = raw.Close()
		return
	}
	if l.pending.Len() >= l.max {
		oldest := l.pending.Front()
		l.pending.Remove(oldest)
		oldest.Value.(context.CancelCauseFunc)(errTooMany)
	}
	place := l.pending.PushBack(cancel)
	l.running.Go(func() {
		defer cancel(nil)
		l.welcome(ctx, raw)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pending.Remove(place) // does nothing if it had to give way
	})
}

// welcome completes the handshake of a connection and delivers it, or refuses it.
func (l *Listener) welcome(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, errTooSlow)
	defer cancel()
	conn := tls.Server(raw, l.source.bundle().serve(l.protocols))
	err := conn.HandshakeContext(ctx) // closes raw when ctx ends
	switch {
	case err == nil:
		if !l.deliver(accepted{conn: conn}) {
			_ = raw.Close()
		}
		return
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); cause != errClosing {
			l.refusals.Say(raw.RemoteAddr(), cause.Error())
		}
	default:
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // else it left by itself, as those do that only look whether a port is open
			l.refusals.Say(raw.RemoteAddr(), refusalOf(err))
		}
		explainPlaintext(raw, err)
		lingerOn(ctx, raw)
	}
	_ = raw.Close()
}

// serve is the configuration of one accepted connection.
func (b *bundle) serve(protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{b.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              b.roots,
		NextProtos:             protocols,
		SessionTicketsDisabled: true, // a resumed session would skip what was changed since
		// Small first records are for browsers.
		DynamicRecordSizingDisabled: true,
	}
}

// refusalOf says in words why a handshake has failed.
func refusalOf(err error) string {
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0:
		c := verify.UnverifiedCertificates[0]
		return fmt.Sprintf("its certificate, of %v, %s", IdentityOf(c), why(verify.Err, c, time.Now()))
	case errors.As(err, &record):
		return "it does not speak TLS; clients need --certs-dir"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return "it refuses this node: " + alert.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}

// explainPlaintext answers a caller that speaks plaintext in its own language: to
// HTTP in words, to anything else, gRPC for one, by a TLS alert, which shows what is
// spoken here.
func explainPlaintext(raw net.Conn, err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	_ = raw.SetWriteDeadline(time.Now().Add(linger))
	answer := "\x15\x03\x03\x00\x02\x02\x0a" // fatal, unexpected message
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		answer = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks TLS: use https:// and a client certificate.\n"
	}
	_, _ = io.WriteString(raw, answer) // if it fails, nobody listens
}

// lingerOn reads on for a moment after the last word was written.
func lingerOn(ctx context.Context, raw net.Conn) {
	t, ok := raw.(*net.TCPConn)
	if !ok || t.CloseWrite() != nil || t.SetReadDeadline(time.Now().Add(linger)) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	_, _ = io.CopyN(io.Discard, raw, lingerBytesLimit)
}

// Accepting are the credentials of a gRPC server whose port is a Listener. They
// tell the server who calls; see CallerOf.
func Accepting() credentials.TransportCredentials { return accepting{} }

type accepting struct{}

func (accepting) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, errors.New("the connection is not from a listener with certificates")
	}
	state := t.ConnectionState()
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 || state.NegotiatedProtocol != protocol {
		return nil, nil, errors.New("the connection does not speak gRPC, or has shown no certificate")
	}
	return conn, infoOf(&state), nil
}

func (accepting) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for accepting")
}

func (accepting) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (accepting) Clone() credentials.TransportCredentials { return accepting{} }

// OverrideServerName implements credentials.TransportCredentials; it has no use here.
func (accepting) OverrideServerName(string) error { return nil }
