package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// server is a bound socket and what runs behind it.
type server interface {
	// serve blocks until the server is closed and all that it started has ended. ctx
	// ends the connections.
	serve(ctx context.Context)
	// admit says who is let in from now on; before, nobody is but the host itself. Connections that are there go on.
	admit(reach) error
	// Close gives the place back before it returns.
	Close() error
}

// sleeper is a server that need not run before its first client comes.
type sleeper interface {
	server
	// descriptor returns the file at which the client shows.
	descriptor() (int, error)
}

// descriptorOf returns the number of an open file. It is that file's as long as nobody closes it.
func descriptorOf(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var out int
	err = raw.Control(func(fd uintptr) { out = int(fd) })
	return out, err
}

// sockets opens the real servers.
type sockets struct {
	serveAll    bool
	serveAllV6  bool
	noProxy     bool
	dialTimeout time.Duration
	legacy      time.Duration // what a client that was reset left behind waits at least so long, and at most twice as long, for a container that does not read
	udpIdle     time.Duration
	udpSessions int
	sessions    *share // of UDP
	lent        *lentPorts
	conns       *share // TCP connections in flight
	log         *slog.Logger
	mode        func(state.Exposure) state.Publish
	undiverted  func() string // nil for never
	nets        atomic.Pointer[nets]
	pairs       pairs
	questions   questions
	told        sync.Map // features of which lacks has told
}

// open binds b's socket. Errors are those of socket(2), setsockopt(2), bind(2) and listen(2).
func (o *sockets) open(ctx context.Context, b binding, outside bool) (server, error) {
	switch {
	case b.port.Proto == state.SCTP:
		return o.openSCTP(b)
	case o.noProxy && !outside:
		return take(b)
	case b.port.Proto == state.TCP:
		return o.openTCP(b)
	}
	return o.openUDP(ctx, b)
}

// logOf names the socket in what is logged. It is made when there is something to log: a logger takes more than a socket.
func (o *sockets) logOf(b binding) *slog.Logger {
	return o.log.With("endpoint", b.endpoint.Short(), "port", b.place().String())
}

// servesAll reports whether no rule leads clients of b to the container. None leads from one family to the other.
func (o *sockets) servesAll(b binding) bool {
	return b.addr.Addr().Is4() != b.target.Addr().Is4() || o.unruled(b)
}

// unruled reports whether no rule of ours sees clients of b at all.
func (o *sockets) unruled(b binding) bool { return o.serveAll || o.serveAllV6 && b.addr.Addr().Is6() }

// configure sets up a socket of UDP. The net package does it between socket(2) and bind(2), so that there is no moment without.
func configure(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if failed = shelter(int(fd)); failed != nil {
			return
		}
		// A socket must learn which address a client used, to answer from it, and by which link it came.
		if network == "udp4" {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return errors.Join(err, failed)
}

// shelter keeps what does not come by the loopback interface from a socket. Whoever else may come is admitted later.
func shelter(fd int) error {
	if err := attach(fd, guard); err != nil {
		return fmt.Errorf("attaching the loopback filter: %w", err)
	}
	return nil
}

// nothing drops every packet.
var nothing = []bpf.Instruction{bpf.RetConstant{Val: 0}}

const (
	loopbackIndex = 1
	wholePacket   = 1<<32 - 1 // the filter's result is how many bytes to keep
)

// guard passes what came in by the loopback interface and drops the rest.
var guard = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: loopbackIndex, SkipFalse: 1},
	bpf.RetConstant{Val: wholePacket},
	bpf.RetConstant{Val: 0},
}

func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}
