package publish

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errOnlyByRules says that a port of SCTP would lead nowhere.
var errOnlyByRules = errors.New("only firewall rules lead sctp to a container")

// unserved is a place of SCTP: taken, and served by the firewall alone. Its socket is bound and never
// listens, so that the kernel refuses what comes around the firewall. It has none where the kernel
// has no SCTP: then no other program of the host can have the port.
type unserved struct{ socket *os.File }

func (unserved) serve(ctx context.Context) { <-ctx.Done() }

func (u unserved) Close() error {
	if u.socket == nil {
		return nil
	}
	return u.socket.Close()
}

// openSCTP takes the place of b.
func (o *sockets) openSCTP(b binding) (server, error) {
	if o.serveAll {
		return nil, errOnlyByRules
	}
	socket, err := bound(b.addr, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		return unserved{socket}, nil
	}
	if !errors.Is(err, syscall.EPROTONOSUPPORT) && !errors.Is(err, syscall.ESOCKTNOSUPPORT) {
		return nil, err
	}
	// UDP says what bind(2) says to an address that the host has not.
	if socket, err = bound(netip.AddrPortFrom(b.addr.Addr(), 0), unix.SOCK_DGRAM, unix.IPPROTO_UDP); err != nil {
		return nil, err
	}
	return unserved{}, socket.Close()
}

// bound returns a socket of one family. With port 0 it has an address and no port.
func bound(at netip.AddrPort, kind, proto int) (*os.File, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), at.String())
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && at.Port() == 0 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), socket.Close())
	}
	return socket, nil
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
}
