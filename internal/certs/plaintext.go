package certs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/shard"
)

// Plaintext are the credentials of gRPC connections without certificates. They
// do not leave the machine: whatever an address was written like, where the
// connection leads decides.
func Plaintext() credentials.TransportCredentials { return plaintext{insecure.NewCredentials()} }

type plaintext struct {
	credentials.TransportCredentials
}

func (c plaintext) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		return nil, nil, notLoopback(a.String())
	}
	return c.TransportCredentials.ClientHandshake(ctx, authority, &plainDialled{Conn: conn, address: authority})
}

func (c plaintext) Clone() credentials.TransportCredentials {
	return plaintext{c.TransportCredentials.Clone()}
}

// CheckLoopback refuses an address that says itself that it leads elsewhere, so
// that nobody waits for a connection that would not be used.
func CheckLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return &shard.InvalidError{Field: "endpoint", Reason: fmt.Sprintf("%q is not host:port", address)}
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
		return notLoopback(address)
	}
	return nil
}

func notLoopback(address string) error {
	return &shard.InvalidError{Field: "endpoint", Reason: fmt.Sprintf("%s is not on this machine, and connections without certificates are made to loopback addresses only; name certificates (--certs-dir)", address)}
}

// What a side reads first tells what the other one speaks: HTTP/2 begins with a
// frame whose length fits three bytes and is small, HTTP/1 with letters, TLS with
// the type and version of a record.
const (
	tlsAlert     = 0x15
	tlsHandshake = 0x16
	tlsMajor     = 0x03
)

// plainDialled notices that a TLS port answers.
type plainDialled struct {
	net.Conn
	address string
	heard   bool
}

func (c *plainDialled) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard {
		c.heard = true
		if (p[0] == tlsAlert || p[0] == tlsHandshake) && (n == 1 || p[1] == tlsMajor) {
			return 0, denied("%s speaks TLS; name certificates (--certs-dir)", c.address)
		}
	}
	return n, err
}

// ListenPlaintext serves plaintext on a port, and tells callers that speak TLS,
// and the log, that this is not spoken here.
func ListenPlaintext(l net.Listener, log *slog.Logger) net.Listener {
	return &plainListener{Listener: l, refusals: &Refusals{Log: log}}
}

type plainListener struct {
	net.Listener
	refusals *Refusals
}

func (l *plainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &plainAccepted{Conn: conn, refusals: l.refusals}, nil
}

type plainAccepted struct {
	net.Conn
	refusals *Refusals
	heard    bool
}

var errSpeaksTLS = errors.New("the caller speaks TLS on a plaintext port")

func (c *plainAccepted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard {
		c.heard = true
		if p[0] == tlsHandshake {
			c.refusals.Say(c.RemoteAddr(), "it speaks TLS, and this node was started with --insecure")
			_ = c.SetWriteDeadline(time.Now().Add(linger))
			_, _ = io.WriteString(c.Conn, "this port speaks plaintext\n") // to TLS that is no record, which tells it
			return 0, errSpeaksTLS
		}
	}
	return n, err
}
