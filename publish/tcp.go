package publish

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpServer proxies the connections of one listening socket. Until there is one to be proxied that is a mere file descriptor:
// a listener of the net package takes several times as much memory as all else that a published port needs.
type tcpServer struct {
	admission
	proxied  int       // connections in flight; guarded by share.mu
	toldFull time.Time // when it was last told that clients wait; belongs to serve

	mu       sync.Mutex
	fd       int              // the socket until there is a listener; guarded by mu, as is what follows
	listener *net.TCPListener // nil until the first accept
	closed   bool
}

// backlog is as much as the host allows (net.core.somaxconn), to which the kernel lowers it.
const backlog = 1<<16 - 1

// openTCP listens. No protocol is named that would make it a socket of MPTCP, whose subflows would not all have the filter.
func (o *sockets) openTCP(b binding) (server, error) {
	fd, err := bind(b.addr, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		return shelter(fd)
	})
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, errors.Join(os.NewSyscallError("listen", err), unix.Close(fd))
	}
	return &tcpServer{fd: fd, admission: admission{b: b, o: o}}, nil
}

func (t *tcpServer) descriptor() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current()
}

// current is descriptor for who has mu. Without it the first accept closes the descriptor, and the number is a client's.
func (t *tcpServer) current() (int, error) {
	if t.listener != nil {
		return descriptorOf(t.listener)
	}
	return t.fd, nil
}

func (t *tcpServer) admit(r reach) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd, err := t.current()
	if err != nil {
		return err
	}
	return t.admission.admit(fd, r)
}

func (t *tcpServer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.listener != nil:
		return t.listener.Close()
	case t.closed:
		return net.ErrClosed
	}
	t.closed = true
	return unix.Close(t.fd)
}

// unmapped is the address of a client: sockets of IPv4 tell it in the form of IPv6.
func unmapped(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// accept returns the next connection.
func (t *tcpServer) accept() (*net.TCPConn, error) {
	l, err := t.listen()
	if err != nil {
		return nil, err
	}
	return l.AcceptTCP()
}

// listen returns the listener of the socket. Its error is net.ErrClosed, or a lack of files.
func (t *tcpServer) listen() (*net.TCPListener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, net.ErrClosed
	case t.listener != nil:
		return t.listener, nil
	}
	// What FileListener returns has another descriptor of the socket.
	spare, err := unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(spare), "listener")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	t.listener = l.(*net.TCPListener)
	return t.listener, unix.Close(t.fd)
}

func (t *tcpServer) serve(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	failing := false
	for {
		client, err := t.accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Mostly a lack of files or memory: others must end before it gets better.
			if !failing {
				t.o.logOf(t.b).Warn("accepting a connection", "error", err)
			}
			failing = true
			pause(ctx)
			continue
		}
		failing = false
		if t.refuses(client) {
			abort(client)
			continue
		}
		// When too many are in flight the others wait in the socket's backlog.
		if !t.o.conns.begin(ctx, &t.proxied, t.full) {
			abort(client)
			return
		}
		running.Go(func() {
			defer t.o.conns.end(&t.proxied)
			t.proxy(ctx, client)
		})
	}
}

// refuses reports whether a client is not to be served, whatever anybody says who is asked.
func (t *tcpServer) refuses(client *net.TCPConn) bool {
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	if t.shuts(from) {
		return true
	}
	return t.reach().limited() && t.keepsOut(from, unmapped(client.LocalAddr().(*net.TCPAddr).AddrPort()).Addr(), t.arrival(client))
}

// full tells, from time to time, that clients wait for others to go.
func (t *tcpServer) full() {
	if now := time.Now(); now.Sub(t.toldFull) > toldAgain {
		t.toldFull = now
		t.o.logOf(t.b).Warn("clients of a published port wait: it has as many proxied connections as it may have beside other ports (docs/limits.md says how many)")
	}
}

// toldAgain is how long nothing more is said of clients that wait.
const toldAgain = time.Minute

// proxy serves one client until both directions have ended.
func (t *tcpServer) proxy(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	if !t.admits(ctx, client) {
		abort(client)
		return
	}
	backend, err := t.connect(ctx, unmapped(client.RemoteAddr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		t.o.logOf(t.b).Debug("connecting to the container", "target", t.b.target, "error", err)
		abort(client)
		return
	}
	defer backend.Close()
	stop := context.AfterFunc(ctx, func() {
		abort(client)
		abort(backend)
	})
	defer stop()
	defer t.outlive(client, backend)()

	oneWay := func(dst, src *net.TCPConn) error {
		err := pump(dst, src)
		if err != nil {
			stopReading(client, backend)
		}
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- oneWay(backend, client) }()
	if errors.Join(oneWay(client, backend), <-ended) != nil {
		abort(client)
		abort(backend)
	}
}

// outlive has the container told, some time after its client was reset, that nobody is there any more: while it does not read, what the
// client left behind waits for it, and no read would learn of the reset. What it returns ends that.
func (t *tcpServer) outlive(client, backend *net.TCPConn) (stop func() bool) {
	gone := false
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		if gone {
			backend.SetWriteDeadline(time.Unix(1, 0))
			return
		}
		gone = dead(client) // also when both are closed, behind stop
		timer.Reset(t.o.legacy)
	})
	timer.Reset(t.o.legacy)
	return timer.Stop
}

// connect reaches the container for a client: as the client, where that can be.
func (t *tcpServer) connect(ctx context.Context, client netip.AddrPort) (*net.TCPConn, error) {
	silent := false
	if t.asClient(client.Addr()) {
		wait := t.o.dialTimeout
		if !t.answers.Load() {
			wait = min(wait, astrayWait)
		}
		conn, err := t.dialAs(ctx, client, wait)
		if err == nil {
			t.answers.Store(true)
			return conn.(*net.TCPConn), nil
		}
		if ctx.Err() != nil || !t.recourse(err) {
			return nil, err
		}
		silent = timedOut(err)
		t.o.logOf(t.b).Debug("connecting to the container as its client", "client", client, "error", err)
	}
	dialer := net.Dialer{Timeout: t.o.dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", t.b.target.String())
	if err != nil {
		return nil, err
	}
	if silent {
		t.strays()
	}
	return conn.(*net.TCPConn), nil
}

// pump copies one direction to its end and hands the end on, while the other direction
// stays open. It copies no more at a time than is there: then a direction in which nothing moves has no pipe of splice(2), which
// would be two files, and more memory than all else of a connection.
func pump(dst, src *net.TCPConn) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	for {
		there, err := available(raw)
		if err != nil {
			return err
		}
		// Where there is something to read and it is nothing, it is the end, or an error.
		n, err := io.Copy(dst, &io.LimitedReader{R: src, N: int64(max(there, 1))})
		switch {
		case err != nil:
			return err
		case n == 0:
			return dst.CloseWrite()
		}
	}
}

// available blocks until a read has something to return, and says how many bytes that are.
func available(raw syscall.RawConn) (n int, err error) {
	if err = waitReadable(raw); err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(err, failed)
}

// stopReading ends the second direction after the first one broke. From a connection that is still alive nothing more
// is taken, since there is nobody left to give it to. What a dead one left behind is still delivered: a server that
// refuses a request early resets the connection right behind its answer.
func stopReading(conns ...*net.TCPConn) {
	for _, c := range conns {
		if !dead(c) {
			c.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// dead reports whether the connection was reset or timed out: reading from it cannot block.
func dead(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State == unix.BPF_TCP_CLOSE
	})
	return closed
}

// abort closes with a reset, so that the other side does not take a failure for an end.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// pause keeps a loop from spinning on an error that persists.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}
