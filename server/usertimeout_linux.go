package server

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kiloraft/kiloraft/api"
)

// giveUpEarly has the system end connections on which what was sent is not
// acknowledged in time; those that a port accepts inherit it. gRPC sees to it by
// itself only on connections that are bare sockets, and behind handshakes and
// other wrappers they are not.
func giveUpEarly(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(api.UnacknowledgedMax.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}
