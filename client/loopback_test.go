package client

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials/insecure"
)

// leadsTo is a connection that says where it leads.
type leadsTo struct {
	net.Conn
	address net.Addr
}

func (c leadsTo) RemoteAddr() net.Addr { return c.address }

// TestPlaintextStaysOnLoopback: a name may lead anywhere, so the connection
// itself is looked at, before anything is sent on it.
func TestPlaintextStaysOnLoopback(t *testing.T) {
	creds := loopbackCredentials{insecure.NewCredentials()}
	for ip, stays := range map[string]bool{"127.0.0.1": true, "127.8.9.1": true, "::1": true, "192.0.2.7": false, "2001:db8::1": false, "0.0.0.0": false} {
		conn := leadsTo{address: &net.TCPAddr{IP: net.ParseIP(ip), Port: 7400}}
		_, _, err := creds.Clone().ClientHandshake(context.Background(), "name", conn)
		if stays != (err == nil) || err != nil && !strings.Contains(err.Error(), "--certs-dir") {
			t.Errorf("a connection to %s: %v", ip, err)
		}
	}
	for address, ok := range map[string]bool{"localhost:7400": true, "127.0.0.1:7400": true, "[::1]:7400": true, "some-name:7400": true, "192.0.2.7:7400": false, "7400": false} {
		if err := checkLoopback(address); ok != (err == nil) {
			t.Errorf("address %s: %v", address, err)
		}
	}
}
