package server

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kiloraft/kiloraft/api"
)

// Connections that a port accepts give up on what is not acknowledged.
func TestAcceptedConnectionsGiveUpEarly(t *testing.T) {
	l, err := listen("--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if controlErr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	if got != int(api.UnacknowledgedMax.Milliseconds()) {
		t.Errorf("it gives up after %d ms", got)
	}
}
