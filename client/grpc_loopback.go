package client

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/shard"
)

// loopbackCredentials are plaintext that does not leave the machine: whatever
// an address was written like, where the connection leads decides.
type loopbackCredentials struct {
	credentials.TransportCredentials // plaintext
}

func (c loopbackCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		return nil, nil, notLoopback(a.String())
	}
	return c.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

func (c loopbackCredentials) Clone() credentials.TransportCredentials {
	return loopbackCredentials{c.TransportCredentials.Clone()}
}

// checkLoopback refuses an address that says itself that it leads elsewhere, so
// that nobody waits for a connection that would not be used.
func checkLoopback(address string) error {
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
