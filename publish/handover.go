package publish

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Place is an address and port of a protocol, in JSON a text such as 127.0.0.1:8080/tcp.
type Place = place

// MarshalText makes the usual form the one on the wire.
func (p place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *place) UnmarshalText(b []byte) error {
	addr, proto, _ := strings.Cut(string(b), "/")
	var err error
	if p.addr, err = netip.ParseAddrPort(addr); err != nil {
		return fmt.Errorf("%q is no place of a socket", state.Clip(string(b)))
	}
	return p.proto.UnmarshalText([]byte(proto))
}

// Held says of a socket what it is for, so that the Publisher of another process can go on with it, or of a session of UDP.
type Held struct {
	At Place `json:"at"`
	// Session is that of a client, at the socket of the place; nil for the socket itself. Of what follows a session has nothing.
	Session *Session `json:"session,omitempty"`

	Endpoint state.EndpointID `json:"endpoint,omitempty"`
	Network  state.NetworkID  `json:"network,omitempty"`
	Port     state.Port       `json:"port,omitzero"`
	Target   netip.AddrPort   `json:"target,omitzero"`
	Helper   bool             `json:"helper,omitempty"`
	Reserved bool             `json:"reserved,omitempty"`
	Shown    bool             `json:"shown,omitempty"`
	// Idle says that nobody is served (Options.NoProxy), whatever the protocol.
	Idle bool `json:"idle,omitempty"`
	// NoFile says that the kernel has no socket for the protocol.
	NoFile bool `json:"noFile,omitempty"`
}

// Session is by what a session of UDP is known.
type Session struct {
	Client netip.AddrPort `json:"client"`
	Local  netip.Addr     `json:"local,omitzero"`
}

// Given yields all that is held, with a copy of each socket, which is nil with Held.NoFile and belongs to the caller. Sessions come
// behind their socket. Nothing may be reserved, applied or released meanwhile. Clients are served as ever, but for new datagrams: from
// the call of Given on they wait in their sockets, for who goes on, or for Resume. A session that began later would be nobody's.
func (p *Publisher) Given() iter.Seq2[Held, *os.File] {
	p.mu.Lock()
	var all []*socket
	for _, s := range p.held {
		all = append(all, s)
	}
	p.pause()
	p.mu.Unlock()
	return func(yield func(Held, *os.File) bool) {
		for _, s := range all {
			f, err := copyOf(s.server)
			if err != nil {
				p.log.Warn("a published port is not handed over", "port", s.place().String(), "error", err)
				continue
			}
			if !yield(s.given(f), f) || !sessionsOf(s, yield) {
				return
			}
		}
	}
}

func (s *socket) given(f *os.File) Held {
	_, idle := s.server.(unserved)
	return Held{
		Idle: idle, At: s.place(), Endpoint: s.endpoint, Network: s.network, Port: s.port, Target: s.target, Helper: s.helper,
		Reserved: s.reserved, Shown: s.shown, NoFile: f == nil,
	}
}

func sessionsOf(s *socket, yield func(Held, *os.File) bool) bool {
	u, ok := s.server.(*udpServer)
	if !ok {
		return true
	}
	for f, file := range u.copies() {
		if !yield(Held{At: s.place(), Session: &Session{f.client, f.local}}, file) {
			return false
		}
	}
	return true
}

// copyOf returns a copy of the socket of a server, nil for one that has none.
func copyOf(s server) (*os.File, error) {
	switch s := s.(type) {
	case unserved:
		if s.socket == nil {
			return nil, nil
		}
		return duplicate(s.socket)
	case *tcpServer:
		return s.copy()
	case *udpServer:
		return duplicate(s.conn)
	}
	return nil, fmt.Errorf("no socket of %T is known", s)
}

// duplicate leaves the file's mode as it is, which [os.File.Fd] would not, and which a copy shares.
func duplicate(c syscall.Conn) (*os.File, error) {
	fd, err := duplicateFD(c)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "copy"), nil
}

func duplicateFD(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var out int
	var failed error
	err = raw.Control(func(fd uintptr) { out, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return out, errors.Join(err, os.NewSyscallError("fcntl", failed))
}

func (t *tcpServer) copy() (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.listener != nil:
		return duplicate(t.listener)
	case t.closed:
		return nil, net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "copy"), nil
}

// copies yields the sessions with copies of their sockets. One that ends meanwhile is left out.
func (u *udpServer) copies() iter.Seq2[flow, *os.File] {
	u.mu.Lock()
	backends := map[flow]*session{}
	for f, s := range u.sessions {
		backends[f] = s
	}
	u.mu.Unlock()
	return func(yield func(flow, *os.File) bool) {
		for f, s := range backends {
			if file, err := duplicate(s.backend); err == nil && !yield(f, file) {
				return
			}
		}
	}
}

// Take goes on with what another Publisher of the same options had, and closes f when it cannot. Clients of the socket are
// served from the first Apply on.
func (p *Publisher) Take(h Held, f *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errClosed
	switch {
	case p.closed:
	case h.Session != nil:
		err = p.takeSession(h.At, *h.Session, f)
	case p.held[h.At] != nil:
		err = fmt.Errorf("port %s was handed over twice", h.At)
	default:
		err = p.takeSocket(h, f)
	}
	if err != nil && f != nil {
		f.Close() // of a socket that was used already it says so
	}
	return err
}

func (p *Publisher) takeSocket(h Held, f *os.File) error {
	b := binding{endpoint: h.Endpoint, network: h.Network, port: h.Port, addr: h.At.addr, target: h.Target, helper: h.Helper}
	if b.place() != h.At || !h.Target.IsValid() || (f == nil) != h.NoFile {
		return fmt.Errorf("the socket of port %s was handed over malformed", b.place())
	}
	srv, err := p.servers.adopt(b, h.Idle, f)
	if err != nil {
		return fmt.Errorf("the socket of port %s that was handed over: %w", b.place(), err)
	}
	s := p.keep(b, srv)
	s.reserved, s.shown = h.Reserved, h.Shown
	return nil
}

// adopt is open for a socket that there is. It keeps its filter: without one, or with another for a moment, it would let in whom it must
// not, or turn away whom it must let in.
func (o *sockets) adopt(b binding, idle bool, f *os.File) (server, error) {
	switch {
	case f == nil:
		return unserved{}, nil
	case b.port.Proto == state.SCTP || idle:
		return unserved{f}, nil
	case b.port.Proto == state.TCP:
		fd, err := duplicateFD(f)
		if err != nil {
			return nil, err
		}
		return &tcpServer{fd: fd, admission: admission{b: b, o: o, unsure: true}}, f.Close()
	}
	conn, err := net.FilePacketConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("it is no socket of UDP"), conn.Close())
	}
	server, err := newUDPServer(u, b, o)
	if err != nil {
		return nil, err
	}
	server.unsure = true
	return server, nil
}

func (p *Publisher) takeSession(at place, s Session, f *os.File) error {
	held, ok := p.held[at]
	if !ok || f == nil {
		return fmt.Errorf("a session of port %s was handed over without its socket", at)
	}
	u, ok := held.server.(*udpServer)
	if !ok {
		return fmt.Errorf("a session was handed over for port %s, which has none", at)
	}
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	backend, ok := c.(*net.UDPConn)
	if !ok {
		return errors.Join(errors.New("it is no socket of UDP"), c.Close())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if key := (flow{s.Client, s.Local}); u.sessions[key] == nil {
		u.o.sessions.add(&u.shared)
		u.begin(key, &session{backend: backend, as: u.borne(s.Client, backend)})
		return nil
	}
	return errors.Join(fmt.Errorf("a session of port %s was handed over twice", at), backend.Close())
}

// borne returns the pair that a session was given, if it bears its client's address.
func (u *udpServer) borne(client netip.AddrPort, backend *net.UDPConn) *pair {
	as := pair{unmapped(backend.LocalAddr().(*net.UDPAddr).AddrPort()), u.b.target}
	if as.client.Addr() != client.Addr() || !u.o.pairs.take(as) {
		return nil
	}
	return &as
}

// busy reports whether there are sessions.
func (u *udpServer) busy() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sessions) > 0
}

// Resume serves on after Given, where nobody has taken what is held.
func (p *Publisher) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.paused {
		u.resume()
	}
	p.paused = nil
}

// askingTime is for how long clients of UDP about whom DOCKER-USER was asked are waited for. An answer takes a quarter of a second at most.
const askingTime = 300 * time.Millisecond

// pause has datagrams wait in their sockets, and those that were taken out of them find their session. p.mu is held.
func (p *Publisher) pause() {
	if p.paused != nil {
		return
	}
	for _, s := range p.held {
		if u, ok := s.server.(*udpServer); ok {
			u.pause()
			p.paused = append(p.paused, u)
		}
	}
	for began := time.Now(); slices.ContainsFunc(p.paused, (*udpServer).isAsking) && time.Since(began) < askingTime; {
		<-time.After(time.Millisecond) // nobody tells when the last one was decided about
	}
}

// pause returns when the last datagram has been taken in; none is from then on, until resume or retire.
func (u *udpServer) pause() {
	_ = u.conn.SetReadDeadline(time.Now()) // ends the wait for one
	u.gate.Lock()
}

func (u *udpServer) resume() {
	_ = u.conn.SetReadDeadline(time.Time{})
	u.gate.Unlock()
}

// passGate waits until a pause is over.
func (u *udpServer) passGate() {
	u.gate.Lock()
	defer u.gate.Unlock()
}

// isAsking reports whether there are clients about whom somebody was asked.
func (u *udpServer) isAsking() bool {
	return u.waiting.deciding.Load() > 0
}

// retire closes a server that is paused. What it has read of a session it sends before that: the rest another process reads.
func (u *udpServer) retire() error {
	u.retired.Store(true)
	u.mu.Lock()
	u.closed = true
	for _, s := range u.sessions {
		_ = s.backend.SetReadDeadline(time.Now())
	}
	u.mu.Unlock()
	u.running.Wait()
	defer u.gate.Unlock()
	return u.conn.Close()
}

// Retire closes what is held and goes on with the connections of TCP that there are, for a Publisher whose sockets another one has
// copies of (Given). Only Cut, Count, Wait and Close may be called then.
func (p *Publisher) Retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.pause()
	for _, s := range p.held {
		p.rouse(s)
		// The other one's copy keeps the place.
		if u, ok := s.server.(*udpServer); ok {
			_ = u.retire()
			continue
		}
		_ = s.server.Close()
	}
	if p.waker != nil {
		_ = p.waker.Close()
		p.waker = nil
	}
}

// Cut ends the connections of a retired Publisher by ports that are not published any more.
func (p *Publisher) Cut(gone []Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range gone {
		if s, ok := p.held[at]; ok && s.stop != nil {
			s.stop()
		}
	}
}

// Wait returns when a retired Publisher has no connection left, or ctx ends.
func (p *Publisher) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EndReservations gives up what Reserve holds and no snapshot has shown, for a driver that is gone: the next Apply closes it.
func (p *Publisher) EndReservations() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.held {
		s.reserved = false
	}
}

// Count returns how many sockets are held, and how many connections of TCP are proxied.
func (p *Publisher) Count() (held, connections int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held), p.servers.conns.count()
}
