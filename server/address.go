package server

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/kiloraft/kiloraft/shard"
)

// listen binds a TCP address; flag is the one that gave it.
func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s: the address is taken by another process; choose another port", flag, address)
	}
	return nil, fmt.Errorf("%s %s: %w", flag, address, err)
}

// checkLoopback refuses an address that other machines can reach.
func checkLoopback(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return &shard.InvalidError{Field: flag, Reason: fmt.Sprintf("%q is not HOST:PORT", address)}
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return &shard.InvalidError{Field: flag, Reason: fmt.Sprintf("%s is not a loopback address, and --insecure serves loopback addresses only", address)}
	}
	return nil
}
