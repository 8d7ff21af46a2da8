package unixsocket

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Peer returns the process at the other end of a connection, if it is root's or of this process's own user: the mode of the socket's
// file keeps all others out, unless somebody has changed it.
func Peer(c net.Conn) (pid int, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is not a unix socket", c.LocalAddr())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	switch {
	case failed != nil:
		return 0, os.NewSyscallError("getsockopt", failed)
	case who.Uid != 0 && int(who.Uid) != os.Geteuid():
		return 0, fmt.Errorf("only root may ask here, not the user with the id %d", who.Uid)
	}
	return int(who.Pid), nil
}
