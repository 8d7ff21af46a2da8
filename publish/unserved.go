package publish

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// unserved is a place that is taken, and served by the firewall alone. Its socket, if it has one, is bound and does
// not listen, so that the kernel refuses what comes around the firewall.
type unserved struct{ socket *os.File }

func (unserved) serve(ctx context.Context) { <-ctx.Done() }

// admit implements server: only rules lead anybody to the container.
func (unserved) admit(reach) error { return nil }

func (u unserved) Close() error {
	if u.socket == nil {
		return nil
	}
	return u.socket.Close()
}

// mistaken reports whether a socket cannot serve whom it is to serve, or serves though it is not to.
func (o *sockets) mistaken(s *socket, r reach) bool {
	_, idle := s.server.(unserved)
	return o.noProxy && s.port.Proto != state.SCTP && idle == r.outside
}

// take binds the place of b for TCP or UDP.
func take(b binding) (server, error) {
	if b.port.Proto == state.UDP {
		return takeUDP(b)
	}
	return takeTCP(b)
}

// takeUDP has a filter drop all packets: a bound socket gets them whether or not somebody reads.
func takeUDP(b binding) (server, error) {
	socket, err := bound(b.addr, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	if err := attach(int(socket.Fd()), nothing); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return unserved{socket}, nil
}

// takeTCP binds with SO_REUSEADDR: connections that ended a moment ago keep the port from who has not got it, for a minute. It must
// not stay, or another program with it could take the port as long as nobody listens. The kernel forgets that the port was bound with
// it when its socket listens, which it does for a moment, behind a filter that drops all.
func takeTCP(b binding) (server, error) {
	fd, err := bind(b.addr, unix.SOCK_STREAM, unix.IPPROTO_TCP, func(fd int) error {
		return errors.Join(reuse(fd, 1), attach(fd, nothing))
	})
	if err != nil {
		return nil, err
	}
	err = os.NewSyscallError("listen", unix.Listen(fd, 0))
	if err == nil {
		err = errors.Join(reuse(fd, 0), os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RD)))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return unserved{os.NewFile(uintptr(fd), b.addr.String())}, nil
}

func reuse(fd, on int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on))
}

// bound returns a socket of one family. With port 0 it has an address and no port.
func bound(at netip.AddrPort, kind, proto int) (*os.File, error) {
	fd, err := bind(at, kind, proto, func(fd int) error {
		if at.Port() == 0 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), at.String()), nil
}

// bind returns the file descriptor of a bound socket of one family. prepare has it before it is bound, so that there is no
// moment without its settings.
func bind(at netip.AddrPort, kind, proto int, prepare func(fd int) error) (int, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = prepare(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		return 0, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
}
