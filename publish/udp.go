package publish

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// udpServer proxies the datagrams of one socket. Each client gets a session with a socket of
// its own towards the container, so that answers find their way back.
type udpServer struct {
	admission
	conn *net.UDPConn
	raw  syscall.RawConn

	running sync.WaitGroup // sessions
	waiting waitingRoom
	// gate is held while a datagram is taken in, and while none is to be (pause).
	gate sync.Mutex
	// retired says that sessions are read by another process.
	retired atomic.Bool
	oob     []byte // of the receiving goroutine, made with the first datagram

	mu       sync.Mutex
	closed   bool // guarded by mu, as is sessions
	sessions map[flow]*session
	shared   int // of these, for the share
}

// flow is what tells sessions apart: a client may use several addresses of the host from one port.
type flow struct {
	client netip.AddrPort
	local  netip.Addr // the address that the client used
}

type session struct {
	backend *net.UDPConn
	as      *pair        // that backend has, if it bears the client's address
	reply   []byte       // the control message that sets the source of answers
	used    atomic.Int64 // when the last datagram passed, as time since epoch
}

// epoch anchors the sessions' times to the monotonic clock.
var epoch = time.Now()

func (s *session) touch()                       { s.used.Store(int64(time.Since(epoch))) }
func (s *session) idleAt() time.Duration        { return time.Duration(s.used.Load()) }
func (s *session) expired(d time.Duration) bool { return time.Since(epoch)-s.idleAt() >= d }

// openUDP binds. A client from the same port, to another published port, has a socket of ours with that port of its address (dialAs), which is no
// reason not to have it on the host's: both are bound with SO_REUSEADDR then. It does not stay, so that nobody else gets the port as well.
func (o *sockets) openUDP(ctx context.Context, b binding) (server, error) {
	network := "udp4"
	if b.addr.Addr().Is6() {
		network = "udp6" // implies V6ONLY
	}
	lc := net.ListenConfig{Control: configure}
	conn, err := lc.ListenPacket(ctx, network, b.addr.String())
	if errors.Is(err, syscall.EADDRINUSE) && o.pairs.from(b.addr.Port()) {
		conn, err = openBeside(ctx, network, b.addr)
	}
	if err != nil {
		return nil, err
	}
	return newUDPServer(conn.(*net.UDPConn), b, o)
}

// openBeside binds beside sockets that have SO_REUSEADDR.
func openBeside(ctx context.Context, network string, addr netip.AddrPort) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = reuse(int(fd), 1) })
		return errors.Join(err, failed, configure(network, address, c))
	}}
	conn, err := lc.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	fd, err := descriptorOf(conn.(*net.UDPConn))
	if err == nil {
		err = reuse(fd, 0)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func newUDPServer(conn *net.UDPConn, b binding, o *sockets) (*udpServer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &udpServer{admission: admission{b: b, o: o}, conn: conn, raw: raw, sessions: map[flow]*session{}}, nil
}

func (u *udpServer) descriptor() (int, error) { return descriptorOf(u.conn) }

func (u *udpServer) admit(r reach) error {
	fd, err := u.descriptor()
	if err != nil {
		return err
	}
	let := u.unsure || u.reach().outside
	if err := u.admission.admit(fd, r); err != nil {
		return err
	}
	if let && !r.outside {
		u.endOutside()
	}
	return nil
}

// endOutside ends the sessions of clients that are not the host's own. These are translated from now on, or refused. A socket that bears a
// client's address would take what the container answers to him, and an answer by ours begin a flow that is not translated.
func (u *udpServer) endOutside() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for f, s := range u.sessions {
		if u.outlives(f.client.Addr()) {
			u.drop(f, s)
		}
	}
}

// outlives reports whether nobody but the host is let in, and the client is somebody else: what he sent came a moment before.
func (u *udpServer) outlives(client netip.Addr) bool {
	return !u.reach().outside && !client.IsLoopback() && !isLocal(client)
}

var errOutlived = errors.New("the client is not served any more")

func (u *udpServer) Close() error { return u.conn.Close() }

func (u *udpServer) serve(ctx context.Context) {
	defer u.running.Wait()
	defer u.endAll()
	for {
		switch err := u.receive(); {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded): // as pause has it
			u.passGate()
		case err != nil:
			u.o.logOf(u.b).Debug("receiving a datagram", "error", err)
			pause(ctx)
		}
	}
}

// datagrams lends buffers for the largest datagram. They are taken only once there is something to
// read: ten thousand published ports that wait cost no buffer.
var datagrams = sync.Pool{New: func() any { return new([1 << 16]byte) }}

func (u *udpServer) receive() error {
	if err := waitReadable(u.raw); err != nil {
		return err
	}
	u.gate.Lock()
	defer u.gate.Unlock()
	if u.oob == nil {
		u.oob = make([]byte, 128) // room for one IPV6_PKTINFO, which is the larger
	}
	buf := datagrams.Get().(*[1 << 16]byte)
	defer datagrams.Put(buf)
	n, oobn, _, client, err := u.conn.ReadMsgUDPAddrPort(buf[:], u.oob)
	if err != nil {
		return err
	}
	client = unmapped(client)
	local, link := u.arrival(u.oob[:oobn])
	if u.shuts(client.Addr()) || u.shutsLink(link) {
		return nil
	}
	f := flow{client, local}
	if u.reach().limited() && !u.knows(f) && u.keepsOut(client.Addr(), local, link) { // as the rules ask: with the first of a flow
		return nil
	}
	if u.asks(link) && !u.knows(f) {
		u.hold(f, link, buf[:n])
		return nil
	}
	u.forward(f, buf[:n])
	return nil
}

// waitReadable blocks until a read has something to return, an error included. It ends
// with the connection's deadline and with its Close.
func waitReadable(raw syscall.RawConn) error {
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// arrival returns the address of the host that a client used, and the link by which it came.
func (u *udpServer) arrival(oob []byte) (local netip.Addr, link int) {
	if u.b.addr.Addr().Is4() {
		local, link = arrival4(oob)
	} else {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) == nil {
			local, _ = netip.AddrFromSlice(cm.Dst)
			link = cm.IfIndex
		}
	}
	if !u.b.addr.Addr().IsUnspecified() {
		local = u.b.addr.Addr()
	}
	return local, link
}

// arrival4 reads struct in_pktinfo of ip(7). Its ipi_spec_dst is the address that answers are to come from: that of the link where ipi_addr, to
// which the datagram was sent, is for all.
func arrival4(oob []byte) (local netip.Addr, link int) {
	if len(oob) < unix.SizeofCmsghdr {
		return netip.Addr{}, 0
	}
	header, data, _, err := unix.ParseOneSocketControlMessage(oob)
	if err != nil || header.Level != unix.SOL_IP || header.Type != unix.IP_PKTINFO || len(data) < unix.SizeofInet4Pktinfo {
		return netip.Addr{}, 0
	}
	return netip.AddrFrom4([4]byte(data[4:8])), int(int32(binary.NativeEndian.Uint32(data)))
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// source returns the control message that sends an answer from local. It is nil where the kernel
// chooses right, and where local is nothing that one can send from.
func (u *udpServer) source(local netip.Addr) []byte {
	if !u.b.addr.Addr().IsUnspecified() || !local.IsValid() || local.IsUnspecified() || local.IsMulticast() || local == broadcast {
		return nil
	}
	if local.Is4() {
		return (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
}

// forward sends one datagram to the container. It tries twice: the first attempt may report that an
// earlier datagram was refused, or find that the session has just ended.
func (u *udpServer) forward(f flow, datagram []byte) {
	for range 2 {
		s, err := u.session(f)
		if err == nil {
			s.touch()
			_, err = s.backend.Write(datagram)
		}
		if err == nil {
			return
		}
		u.o.logOf(u.b).Debug("sending a datagram to the container", "target", u.b.target, "error", err)
	}
}

func (u *udpServer) session(f flow) (*session, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s, ok := u.sessions[f]; ok {
		return s, nil
	}
	if u.closed {
		return nil, net.ErrClosed
	}
	if u.outlives(f.client.Addr()) {
		return nil, errOutlived
	}
	for len(u.sessions) >= u.o.udpSessions || u.o.sessions.take(&u.shared) != nil {
		if len(u.sessions) == 0 {
			return nil, errCrowd
		}
		u.endOldest()
	}
	s, err := u.dial(f.client)
	if err != nil {
		u.o.sessions.end(&u.shared)
		return nil, err
	}
	u.begin(f, s)
	return s, nil
}

var errCrowd = errors.New("clients of other published ports have all sessions that there may be")

// begin has the datagrams of the container answered. The session has its share. u.mu is held.
func (u *udpServer) begin(f flow, s *session) {
	s.reply = u.source(f.local)
	s.touch()
	u.sessions[f] = s
	u.running.Go(func() { u.answer(f, s) })
}

// dial makes the socket of a session: as the client, where that can be. It sends nothing, and cannot block.
func (u *udpServer) dial(client netip.AddrPort) (*session, error) {
	if u.asClient(client.Addr()) {
		s, err := u.dialUDPAs(client)
		if err == nil || !u.recourse(err) {
			return s, err
		}
		u.o.logOf(u.b).Debug("sending to the container as its client", "client", client, "error", err)
	}
	backend, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.b.target))
	if err != nil {
		return nil, err
	}
	return &session{backend: backend}, nil
}

// dialUDPAs makes the socket of a session as the client, with another port where a session to the same port of the container has his.
func (u *udpServer) dialUDPAs(client netip.AddrPort) (*session, error) {
	as := pair{client, u.b.target}
	free := u.o.pairs.take(as)
	if !free {
		client = netip.AddrPortFrom(client.Addr(), 0)
	}
	conn, err := u.dialAs(context.Background(), client, 0)
	if err != nil {
		if free {
			u.o.pairs.give(as)
		}
		return nil, err
	}
	backend := conn.(*net.UDPConn)
	if got := (pair{unmapped(backend.LocalAddr().(*net.UDPAddr).AddrPort()), u.b.target}); got != as {
		if free {
			u.o.pairs.give(as)
		}
		as = got
		u.o.pairs.take(as) // nobody has it: the kernel gave the port as a free one
	}
	return &session{backend: backend, as: &as}, nil
}

// answer sends the container's datagrams to the session's client until both have been silent.
func (u *udpServer) answer(f flow, s *session) {
	defer u.end(f, s)
	raw, err := s.backend.SyscallConn()
	if err != nil {
		return
	}
	for {
		s.backend.SetReadDeadline(epoch.Add(s.idleAt() + u.o.udpIdle))
		if u.retired.Load() {
			return
		}
		switch err := u.answerOne(raw, f, s); {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.expired(u.o.udpIdle) {
				return
			}
		case errors.Is(err, syscall.ECONNREFUSED):
			// Nothing listens yet; that is no reason for the client's next datagram to come from another port.
		default:
			return
		}
	}
}

func (u *udpServer) answerOne(raw syscall.RawConn, f flow, s *session) error {
	if err := waitReadable(raw); err != nil {
		return err
	}
	buf := datagrams.Get().(*[1 << 16]byte)
	defer datagrams.Put(buf)
	n, err := s.backend.Read(buf[:])
	if err != nil {
		return err
	}
	s.touch()
	if _, _, err := u.conn.WriteMsgUDPAddrPort(buf[:n], s.reply, f.client); err != nil {
		u.o.logOf(u.b).Debug("sending a datagram to a client", "client", f.client, "error", err)
	}
	return nil
}

// end closes the session's socket and forgets the session at once, so that who meets the closed
// socket gets a new session.
func (u *udpServer) end(f flow, s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(f, s)
}

func (u *udpServer) drop(f flow, s *session) {
	s.backend.Close()
	if u.sessions[f] == s {
		delete(u.sessions, f)
		u.o.sessions.end(&u.shared)
		if s.as != nil {
			u.o.pairs.give(*s.as)
		}
	}
}

// endOldest makes room. u.mu is held.
func (u *udpServer) endOldest() {
	var oldest flow
	var victim *session
	for f, s := range u.sessions {
		if victim == nil || s.idleAt() < victim.idleAt() {
			oldest, victim = f, s
		}
	}
	if victim != nil {
		u.drop(oldest, victim)
	}
}

func (u *udpServer) endAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for f, s := range u.sessions {
		u.drop(f, s)
	}
}
