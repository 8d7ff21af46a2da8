package publish

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// unserved is a place that is taken, and served by the firewall alone. Its socket, if it has one, is bound and never
// listens, so that the kernel refuses what comes around the firewall.
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

// take binds the place of b for TCP or UDP. A bound socket of UDP gets packets whether or not somebody reads
// them: a filter drops them. Of TCP it must not have SO_REUSEADDR, or another program could take the port
// as long as nobody listens.
func take(b binding) (server, error) {
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	if b.port.Proto == state.UDP {
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	}
	socket, err := bound(b.addr, kind, proto)
	if err != nil {
		return nil, err
	}
	if b.port.Proto == state.UDP {
		if err := attach(int(socket.Fd()), nothing); err != nil {
			return nil, errors.Join(err, socket.Close())
		}
	}
	return unserved{socket}, nil
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
