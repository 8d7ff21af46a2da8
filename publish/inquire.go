package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Inquirer asks the rules for forwarded packets about a client that comes to a socket of ours, where they would not see it;
// inquiry.Desk is one. With an error it is not known, and the client is not served.
type Inquirer interface {
	Admits(ctx context.Context, v state.Visit) (bool, error)
}

// questions is who is asked, and when.
type questions struct {
	wanted func(v6 bool) bool // nil for never
	to     Inquirer
	// failed is why the last one could not be put, nil if it could.
	failed atomic.Pointer[string]
	// held are the bytes of datagrams that wait for an answer.
	held atomic.Int64
}

// asks reports whether the rules are asked about a client that comes by a link. They never see who comes from the host itself; and where no
// rule leads to the container (another family, or no rules of ours), there is nothing to ask.
func (a *admission) asks(link int) bool {
	r := a.reach()
	return r.outside && !r.containers && link != loopbackIndex && a.o.questions.want(a.b.addr.Addr().Is6())
}

func (q *questions) want(v6 bool) bool { return q.to != nil && q.wanted != nil && q.wanted(v6) }

// passes asks about a client. Who waited for an answer while the rules went comes in without.
func (a *admission) passes(ctx context.Context, client, at netip.AddrPort, link int) bool {
	q := &a.o.questions
	yes, err := q.to.Admits(ctx, state.Visit{Proto: a.b.port.Proto, Client: client, At: at, Link: link})
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil:
		q.failed.Store(nil)
	default:
		text := err.Error()
		if last := q.failed.Swap(&text); last == nil || *last != text {
			a.o.logOf(a.b).Warn("clients of published ports are not served: the rules in DOCKER-USER cannot be asked about them", "error", err)
		}
	}
	return yes || !q.want(a.b.addr.Addr().Is6())
}

// admits reports whether a connection is to be served.
func (t *tcpServer) admits(ctx context.Context, client *net.TCPConn) bool {
	if !t.asks(0) {
		return true
	}
	link := t.arrival(client)
	if link == loopbackIndex {
		return true
	}
	from, at := unmapped(client.RemoteAddr().(*net.TCPAddr).AddrPort()), unmapped(client.LocalAddr().(*net.TCPAddr).AddrPort())
	return t.passes(ctx, from, at, link)
}

// arrival returns the link by which a client came, 0 if that is not known.
func (t *tcpServer) arrival(client *net.TCPConn) int {
	link, err := arrivalOf(client, t.b.addr.Addr().Is6())
	if err != nil {
		t.o.logOf(t.b).Debug("asking by which link a client came", "error", err)
	}
	return link
}

// arrivalOf returns the link by which the handshake of a connection came, which the kernel keeps for who asks with the options of RFC 2292.
func arrivalOf(c *net.TCPConn, v6 bool) (link int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var control []byte
	var failed error
	err = raw.Control(func(fd uintptr) {
		level, wanted, options := unix.SOL_IP, unix.IP_PKTINFO, unix.IP_PKTOPTIONS
		if v6 {
			level, wanted, options = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_2292PKTOPTIONS
		}
		if failed = unix.SetsockoptInt(int(fd), level, wanted, 1); failed != nil {
			return
		}
		control, failed = optionOf(fd, level, options)
		_ = unix.SetsockoptInt(int(fd), level, wanted, 0)
	})
	if err = errors.Join(err, os.NewSyscallError("getsockopt", failed)); err != nil {
		return 0, err
	}
	if v6 {
		var cm ipv6.ControlMessage
		err = cm.Parse(control)
		return cm.IfIndex, err
	}
	var cm ipv4.ControlMessage
	err = cm.Parse(control)
	return cm.IfIndex, err
}

// optionOf reads an option of a socket that is no number.
func optionOf(fd uintptr, level, option int) ([]byte, error) {
	var buf [256]byte
	length := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil, errno
	}
	return buf[:length], nil
}

// What waits for answers of UDP is bounded: sources may be invented.
const (
	heldFlows = 4096    // of one socket
	heldEach  = 16      // datagrams of one flow
	heldBytes = 8 << 20 // of all sockets
)

// waitingRoom has the datagrams of clients about whom somebody was asked.
type waitingRoom struct {
	mu    sync.Mutex
	flows map[flow][][]byte // guarded by mu
	// deciding counts those whose datagrams are not forwarded or forgotten yet.
	deciding atomic.Int64
}

// hold keeps a datagram until its client was asked about, and asks if it is the first. What there is no room for is lost.
func (u *udpServer) hold(f flow, link int, datagram []byte) {
	room := &u.waiting
	room.mu.Lock()
	defer room.mu.Unlock()
	held, asked := room.flows[f]
	if len(held) >= heldEach || !asked && len(room.flows) >= heldFlows {
		return
	}
	if size := int64(len(datagram)); u.o.questions.held.Add(size) > heldBytes {
		u.o.questions.held.Add(-size)
		return
	}
	if room.flows == nil {
		room.flows = map[flow][][]byte{}
	}
	room.flows[f] = append(held, append([]byte{}, datagram...))
	if !asked {
		room.deciding.Add(1)
		u.running.Go(func() { u.decide(f, link) })
	}
}

// decide asks about a client, and forwards or forgets what it has sent meanwhile.
func (u *udpServer) decide(f flow, link int) {
	defer u.waiting.deciding.Add(-1)
	at := netip.AddrPortFrom(f.local, u.b.addr.Port())
	passes := u.passes(context.Background(), f.client, at, link)
	u.waiting.mu.Lock()
	held := u.waiting.flows[f]
	delete(u.waiting.flows, f)
	u.waiting.mu.Unlock()
	for _, datagram := range held {
		u.o.questions.held.Add(-int64(len(datagram)))
		if passes {
			u.forward(f, datagram)
		}
	}
}

// knows reports whether a flow has a session.
func (u *udpServer) knows(f flow) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.sessions[f]
	return ok
}
