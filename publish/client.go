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

// A backend connection that bears the client's own address and port (IP_TRANSPARENT) shows the container who its client is. What
// the container answers is for the client, and comes to us because the firewall marks what is for such a socket and a routing rule
// leads what is marked to the host (state.MarkDivert).

// Where that cannot be, the backend connection is an ordinary one, and the container sees the bridge's address.

// astrayWait is how long a container may take to answer as to its client. One that sends its answers elsewhere, as by a VPN of its
// own, never does. The kernel repeats a lost SYN after the same time.
const astrayWait = time.Second

// astrayFor is how long that is remembered: so long no further client waits.
const astrayFor = time.Minute

// asClient reports whether the container can be shown the client. Of the host itself and of who is on a link of ours it cannot:
// answers to them do not pass the bridge, or pass it to somebody else.
func (a *admission) asClient(client netip.Addr) bool {
	switch {
	case !a.reach().asClient, client.Is4() != a.b.target.Addr().Is4(), client.IsLoopback(), client.IsLinkLocalUnicast():
		return false
	case time.Since(epoch) < time.Duration(a.astray.Load()):
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

// dialAs connects to the container as the client.
func (a *admission) dialAs(ctx context.Context, client netip.AddrPort, wait time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: wait, Control: transparent}
	network, local := a.b.port.Proto.String(), net.Addr(net.TCPAddrFromAddrPort(client))
	if a.b.port.Proto == state.UDP {
		local = net.UDPAddrFromAddrPort(client)
	}
	d.LocalAddr = local
	return d.DialContext(ctx, network, a.b.target.String())
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

// recourse reports whether an ordinary connection may do where one as the client failed. Any other failure is the container's.
func (a *admission) recourse(err error) bool {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EADDRINUSE):
		// The client uses this port for another connection to the same port of the container, or a program of the host has it.
		return true
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return a.o.lacks("CAP_NET_ADMIN")
	case errors.Is(err, syscall.ENOPROTOOPT):
		return a.o.lacks("transparent sockets in its kernel (IP_TRANSPARENT)")
	}
	return timedOut(err)
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

func (p *pairs) give(v pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, v)
}
