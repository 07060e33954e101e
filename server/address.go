package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/kiloraft/kiloraft/shard"
)

// listen binds a TCP address; flag is the one that gave it.
func listen(flag, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{Control: giveUpEarly}).Listen(context.Background(), "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s: the address is taken by another process; choose another port", flag, address)
	}
	return nil, fmt.Errorf("%s %s: %w", flag, address, err)
}

// advertised is where others reach a node: what its operator says or, without
// that, where it listens, if that leads to one machine.
func advertised(advertise, listen string, bound net.Addr) (string, error) {
	flag := "--advertise"
	if advertise == "" {
		host, _, err := net.SplitHostPort(listen)
		if err != nil {
			return "", &shard.InvalidError{Field: "--listen", Reason: fmt.Sprintf("%q is not HOST:PORT", listen)}
		}
		_, port, err := net.SplitHostPort(bound.String())
		if err != nil {
			return "", err
		}
		flag, advertise = "--listen", net.JoinHostPort(host, port)
	}
	host, _, err := net.SplitHostPort(advertise)
	if err != nil {
		return "", &shard.InvalidError{Field: flag, Reason: fmt.Sprintf("%q is not HOST:PORT", advertise)}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "", &shard.InvalidError{Field: flag, Reason: advertise + " leads nowhere from other machines; say by --advertise where they reach this node"}
	}
	return advertise, nil
}

// onLoopback refuses a bound port that other machines can reach. It decides, whatever the
// address was written like: "localhost" is what the machine's resolver makes of it.
func onLoopback(flag string, l net.Listener) error {
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return notLoopback(flag, l.Addr().String())
	}
	return nil
}

func notLoopback(flag, address string) error {
	return &shard.InvalidError{Field: flag, Reason: fmt.Sprintf("%s is not a loopback address, and --insecure serves loopback addresses only", address)}
}

// checkLoopback refuses an address that says itself that other machines can reach it,
// before anything is touched.
func checkLoopback(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return &shard.InvalidError{Field: flag, Reason: fmt.Sprintf("%q is not HOST:PORT", address)}
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return notLoopback(flag, address)
	}
	return nil
}
