package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// A backend connection that bears the client's own address (IP_TRANSPARENT) shows the container who its client is. What
// the container answers is for the client, and comes to us because the firewall marks what is for such a socket and a routing rule
// leads what is marked to the host (state.MarkDivert). It bears his port as well where that takes the port from nobody (dialAs).

// Where that cannot be, the backend connection is an ordinary one, and the container sees the bridge's address.

// astrayWait is how long a container may take to answer as to its client, until it has answered one. One that sends its answers elsewhere, as by
// a VPN of its own, never does. The kernel repeats a lost SYN after a second, and there is time for the answer to that: a loss is not to be taken
// for it. One that has answered clients and does not answer this one is busy, or will have nothing of him: that he is not to get around by
// coming as the bridge.
const astrayWait = 1500 * time.Millisecond

// astrayFor is how long that is remembered: so long no further client waits.
const astrayFor = time.Minute

// asClient reports whether the container can be shown the client. Of the host itself and of who is on a link of ours it cannot:
// answers to them do not pass the bridge, or pass it to somebody else.
func (a *admission) asClient(client netip.Addr) bool {
	switch {
	case !a.reach().asClient, client.Is4() != a.b.target.Addr().Is4(), client.IsLoopback(), client.IsLinkLocalUnicast():
		return false
	case !a.answers.Load() && time.Since(epoch) < time.Duration(a.astray.Load()):
		return false
	case a.o.undiverted != nil && a.o.lacks(a.o.undiverted()):
		return false
	}
	n := a.o.nets.Load()
	for _, s := range n.all {
		if s.Prefix.Contains(client) {
			return false
		}
	}
	return !isLocal(client)
}

// dialAs connects to the container as the client: with his own port too, unless that is taken. Then any will do. He can choose his port, and
// must not become somebody else by that.
func (a *admission) dialAs(ctx context.Context, client netip.AddrPort, wait time.Duration) (net.Conn, error) {
	conn, err := a.dialFrom(ctx, client, wait)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE) {
		// He uses the port for another connection to the same port of the container, or a program of the host has it.
		conn, err = a.dialFrom(ctx, netip.AddrPortFrom(client.Addr(), 0), wait)
	}
	return conn, err
}

// dialFrom connects to the container from an address that the host has not; port 0 is any.
func (a *admission) dialFrom(ctx context.Context, from netip.AddrPort, wait time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: wait, Control: transparent}
	switch port := from.Port(); {
	case a.b.port.Proto == state.UDP:
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
	case port == 0 || a.o.lends(port):
		d.Control = func(network, address string, c syscall.RawConn) error {
			return errors.Join(transparent(network, address, c), late(c, port))
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr(), 0))
	default:
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	return d.DialContext(ctx, a.b.port.Proto.String(), a.b.target.String())
}

// late has the socket get its port not before it is connected: that port, where the kernel can do so (6.3), or any. A port that a socket is bound
// to is lost to all connections of the host that ask for none, whatever they connect to, and for another minute after it is closed
// (linux/net/ipv4/inet_hashtables.c, __inet_hash_connect): clients could take all that the host has.
func late(c syscall.RawConn, port uint16) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
		if port != 0 {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, int(port)<<16|int(port))
		}
	})
	return errors.Join(err, failed)
}

// transparent lets a socket be bound to an address that the host has not. Sockets for other ports of the same client are no
// hindrance; a tuple that exists is to the kernel, with TCP.
func transparent(network, _ string, c syscall.RawConn) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if network == "tcp6" || network == "udp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = errors.Join(
			os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, 1)),
			os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)),
		)
	})
	return errors.Join(err, failed)
}

// recourse reports whether an ordinary connection may do where one as the client failed, for what the host lacks, or for answers that go
// elsewhere. Any other failure is the container's.
func (a *admission) recourse(err error) bool {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return a.o.lacks("CAP_NET_ADMIN")
	case errors.Is(err, syscall.ENOPROTOOPT):
		return a.o.lacks("transparent sockets in its kernel (IP_TRANSPARENT)")
	}
	return timedOut(err) && !a.answers.Load()
}

func timedOut(err error) bool {
	var timed net.Error
	return errors.As(err, &timed) && timed.Timeout()
}

// lacks says once of each feature that the host has not what containers need to see their clients. "" is none.
func (o *sockets) lacks(feature string) bool {
	if feature == "" {
		return false
	}
	if _, told := o.told.LoadOrStore(feature, true); !told {
		o.log.Warn("containers see the bridge's address in place of their clients': the host lacks something", "missing", feature)
	}
	return true
}

// strays notes that the container answers an ordinary connection and none of its client's.
func (a *admission) strays() {
	a.astray.Store(int64(time.Since(epoch) + astrayFor))
	a.o.logOf(a.b).Info("a container sends its answers to clients elsewhere than to the bridge: for a while it sees the bridge's address in place of theirs", "target", a.b.target)
}

// isLocal reports whether the host has the address: then it is what the kernel would send from to there. Nothing is sent.
func isLocal(a netip.Addr) bool {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	const discard = 9 // any port does
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(a, discard))); err != nil {
		return true
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return true
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		return a == netip.AddrFrom4(own.Addr)
	case *unix.SockaddrInet6:
		return a == netip.AddrFrom16(own.Addr)
	}
	return true
}

// pairs are the tuples of UDP sockets that bear a client's address. The kernel would let several have one, and give all answers
// to the last.
type pairs struct {
	mu    sync.Mutex
	taken map[pair]bool // guarded by mu
}

type pair struct{ client, target netip.AddrPort }

// take reports whether nobody had the pair.
func (p *pairs) take(v pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[v] {
		return false
	}
	if p.taken == nil {
		p.taken = map[pair]bool{}
	}
	p.taken[v] = true
	return true
}

// from reports whether a client has the port.
func (p *pairs) from(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for v := range p.taken {
		if v.client.Port() == port {
			return true
		}
	}
	return false
}

func (p *pairs) give(v pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, v)
}
