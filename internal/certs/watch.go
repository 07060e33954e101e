package certs

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/shard"
)

// Watched are credentials of one gRPC connection that remember why it was
// denied, of which gRPC keeps the text alone if it is an error of the connection
// itself; and how much has arrived, of which gRPC tells with whole messages only.
type Watched struct {
	credentials.TransportCredentials
	denied *atomic.Pointer[shard.DeniedError]
	bytes  *atomic.Uint64
}

// Watch watches credentials.
func Watch(c credentials.TransportCredentials) Watched {
	return Watched{c, new(atomic.Pointer[shard.DeniedError]), new(atomic.Uint64)}
}

// Bytes is how many bytes have arrived since the handshake.
func (w Watched) Bytes() uint64 { return w.bytes.Load() }

// Reason is why a call with error err has failed: because the connection was
// denied, if it was, else err. nil stays nil.
func (w Watched) Reason(err error) error {
	if denied := w.denied.Load(); err != nil && denied != nil {
		return denied
	}
	return err
}

func (w Watched) note(err error) {
	var denied *shard.DeniedError
	if errors.As(err, &denied) {
		w.denied.Store(denied)
	}
}

// ClientHandshake implements credentials.TransportCredentials.
func (w Watched) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		w.note(err)
		return nil, nil, err
	}
	w.denied.Store(nil)
	return watchedConn{conn, w}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (w Watched) Clone() credentials.TransportCredentials {
	return Watched{w.TransportCredentials.Clone(), w.denied, w.bytes}
}

type watchedConn struct {
	net.Conn
	watched Watched
}

func (c watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.watched.bytes.Add(uint64(n))
	if err != nil {
		c.watched.note(err)
	}
	return n, err
}
