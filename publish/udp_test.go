package publish

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// udpContainer answers each datagram with the address it came from, a space, and the datagram.
func udpContainer(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte(from.String()+" "), buf[:n]...), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// udpClient is connected: the kernel gives it only what comes from the address it sends to.
func udpClient(t *testing.T, ip string, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(deadline())
	return c
}

// exchange returns the session's address, which the container saw, and what came back.
func exchange(t *testing.T, c *net.UDPConn, datagram string) (session, answer string) {
	t.Helper()
	if _, err := c.Write([]byte(datagram)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("no answer to %d bytes: %v", len(datagram), err)
	}
	from, rest, _ := bytes.Cut(buf[:n], []byte(" "))
	return string(from), string(rest)
}

func TestUDP(t *testing.T) {
	tests := []struct {
		name      string
		container string
		hostIP    string
		serveAll  bool
		clients   []string
	}{
		{"v4 container, everywhere", "127.0.0.77:0", "", false, []string{"127.0.0.1", "127.0.0.2", "::1"}},
		{"v6 container, everywhere", "[::1]:0", "", false, []string{"127.0.0.1", "::1"}},
		{"v4 container, serving all", "127.0.0.77:0", "", true, []string{"127.0.0.1", "127.0.0.2", "::1"}},
		{"v6 container, serving all", "[::1]:0", "", true, []string{"127.0.0.1", "::1"}},
		{"v4 container, loopback only", "127.0.0.77:0", "127.0.0.3", false, []string{"127.0.0.3"}},
		{"v4 container, v6 loopback", "127.0.0.77:0", "::1", false, []string{"::1"}},
		{"v6 container, v4 loopback", "[::1]:0", "127.0.0.3", false, []string{"127.0.0.3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := udpContainer(t, tt.container)
			p := realPublisher(t, Options{ServeAll: tt.serveAll})
			_, port := published(t, p, containerAt(at), state.UDP, tt.hostIP, at)
			for _, ip := range tt.clients {
				c := udpClient(t, ip, port)
				first, answer := exchange(t, c, "hello")
				if answer != "hello" {
					t.Errorf("client of %s got %q", ip, answer)
				}
				if _, answer := exchange(t, c, ""); answer != "" {
					t.Errorf("the empty datagram came back as %q", answer)
				}
				again, _ := exchange(t, c, "again")
				if first != again {
					t.Errorf("one client has sessions %s and %s", first, again)
				}
			}
		})
	}
}

func TestUDPLargestDatagram(t *testing.T) {
	at := udpContainer(t, "127.0.0.77:0")
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.UDP, "", at)
	big := string(bytes.Repeat([]byte("x"), 65507-len("127.100.100.100:65535 ")))
	if _, got := exchange(t, udpClient(t, "127.0.0.1", port), big); got != big {
		t.Errorf("%d of %d bytes came back", len(got), len(big))
	}
}

// One client socket that uses two addresses of the host gets each answer from the address it used.
func TestUDPAnswersFromTheAddressUsed(t *testing.T) {
	at := udpContainer(t, "127.0.0.77:0")
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.UDP, "", at)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(deadline())
	for _, ip := range []string{"127.0.0.1", "127.0.0.9", "127.0.0.1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(ip), port)
		if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 100))
		if err != nil || from != to {
			t.Errorf("sent to %s, answer from %s: %v", to, from, err)
		}
	}
}

func (u *udpServer) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sessions)
}

func udpServerOf(p *Publisher, addr netip.Addr, port uint16) *udpServer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[place{state.UDP, netip.AddrPortFrom(addr, port)}].server.(*udpServer)
}

// eventually polls, for what has no event to wait for.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := deadline(); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestUDPIdleSessionEnds(t *testing.T) {
	at := udpContainer(t, "127.0.0.77:0")
	const idle = 250 * time.Millisecond // longer than a busy machine takes over the answer, with which it would go
	p := realPublisher(t, Options{UDPIdle: idle})
	_, port := published(t, p, containerAt(at), state.UDP, "", at)
	u := udpServerOf(p, any4, port)
	c := udpClient(t, "127.0.0.1", port)
	for range 2 {
		start := time.Now()
		exchange(t, c, "x")
		eventually(t, "the session ends", func() bool { return u.count() == 0 })
		if lived := time.Since(start); lived < idle {
			t.Errorf("the session lived for %v only", lived)
		}
	}
}

// Traffic in one direction only keeps the session as well. Where a busy machine made a pause in it that a session need not live through,
// it is tried again.
func TestUDPSessionLivesWithTraffic(t *testing.T) {
	for _, direction := range []string{"client to container", "container to client"} {
		t.Run(direction, func(t *testing.T) {
			const idle = 200 * time.Millisecond
			for range 3 {
				sessions, pause := sessionsOfTraffic(t, direction, idle)
				if sessions == 1 {
					return
				}
				if pause < idle {
					t.Fatalf("%d sessions, want 1, though nobody was silent for more than %v", sessions, pause)
				}
			}
			t.Error("each time the session ended, or was silent for too long")
		})
	}
}

// sessionsOfTraffic lets datagrams pass in one direction for three times as long as a session lives without, and returns how many sessions
// they had, and the longest that may have been between two of them. It gives up when one is lost, as with the end of a session.
func sessionsOfTraffic(t *testing.T, direction string, idle time.Duration) (sessions int, pause time.Duration) {
	t.Helper()
	container, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 77)})
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	container.SetDeadline(deadline())
	at := unmapped(container.LocalAddr().(*net.UDPAddr).AddrPort())
	p := New(Options{UDPIdle: idle})
	defer p.Close()
	_, port := published(t, p, containerAt(at), state.UDP, "", at)
	c := udpClient(t, "127.0.0.1", port)
	from := make(map[netip.AddrPort]bool)
	last := time.Now()
	c.Write([]byte("x"))
	_, session, err := container.ReadFromUDPAddrPort(make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	from[session] = true
	for end := time.Now().Add(3 * idle); time.Now().Before(end); time.Sleep(idle / 20) {
		began := time.Now()
		if direction == "client to container" {
			c.Write([]byte("x"))
			_, session, err = container.ReadFromUDPAddrPort(make([]byte, 1))
			from[session] = true
		} else {
			container.WriteToUDPAddrPort([]byte("x"), session)
			c.SetReadDeadline(began.Add(2 * idle))
			_, err = c.Read(make([]byte, 1))
		}
		pause = max(pause, time.Since(last))
		if err != nil {
			return 0, pause
		}
		last = began
	}
	return len(from), pause
}

func TestUDPSessionsAreBounded(t *testing.T) {
	at := udpContainer(t, "127.0.0.77:0")
	p := realPublisher(t, Options{UDPSessions: 2})
	_, port := published(t, p, containerAt(at), state.UDP, "", at)
	a, b, c := udpClient(t, "127.0.0.1", port), udpClient(t, "127.0.0.1", port), udpClient(t, "127.0.0.1", port)
	ofA, _ := exchange(t, a, "x")
	exchange(t, b, "x")
	u := udpServerOf(p, any4, port)
	ofClient := func(c *net.UDPConn) *session { // its address may be given again
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.sessions[flow{c.LocalAddr().(*net.UDPAddr).AddrPort(), self4}]
	}
	ofB := ofClient(b)
	if ofB == nil {
		t.Fatal("b has no session")
	}
	if again, _ := exchange(t, a, "x"); again != ofA {
		t.Errorf("a's session changed from %s to %s", ofA, again)
	}
	exchange(t, c, "x") // b has been idle for longest
	if n := u.count(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	if again, _ := exchange(t, a, "x"); again != ofA {
		t.Errorf("a lost its session %s to c: now %s", ofA, again)
	}
	exchange(t, b, "x")
	if ofClient(b) == ofB {
		t.Error("b still has its session")
	}
}

// TestUDPSessionsOfAllAreBounded: clients of one port leave sessions to those of others.
func TestUDPSessionsOfAllAreBounded(t *testing.T) {
	at := udpContainer(t, "127.0.0.78:0")
	p := realPublisher(t, Options{MaxSessions: 8})
	e := containerAt(at)
	e.Ports = reserve(t, p, e, ephemeral(state.UDP, "", at.Port()), ephemeral(state.UDP, "", at.Port()))
	apply(t, p, e)
	crowded, other := e.Ports[0].HostPort, e.Ports[1].HostPort
	for range 20 {
		exchange(t, udpClient(t, "127.0.0.1", crowded), "x")
	}
	if n := udpServerOf(p, any4, crowded).count(); n != 4 {
		t.Errorf("%d sessions, want half of 8", n)
	}
	exchange(t, udpClient(t, "127.0.0.1", other), "x")
	apply(t, p, with(e))
	eventually(t, "no session is counted when all have ended", func() bool { return p.servers.sessions.count() == 0 })
}

// A container that starts late gets the client's next datagram, although the one before was refused.
func TestUDPContainerStartsLate(t *testing.T) {
	free := udpPort(t)
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(free), state.UDP, "127.0.0.1", free) // on all addresses it could have the container's
	c := udpClient(t, "127.0.0.1", port)
	c.Write([]byte("lost"))
	eventually(t, "the session exists", func() bool { return udpServerOf(p, self4, port).count() == 1 })
	udpContainer(t, free.String())
	if _, got := exchange(t, c, "late"); got != "late" && got != "lost" {
		t.Errorf("got %q", got)
	}
}

// The report of an earlier refusal takes the place of a send; the datagram must not be lost to it.
func TestUDPForwardTriesAgain(t *testing.T) {
	free := udpPort(t)
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(free), state.UDP, "127.0.0.1", free) // on all addresses it could have the container's
	backend, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(free))
	if err != nil {
		t.Fatal(err)
	}
	// A session from which no goroutine reads: the refusal stays where the next send meets it.
	u := udpServerOf(p, self4, port)
	f := flow{netip.AddrPortFrom(self4, 9), self4}
	u.mu.Lock()
	u.o.sessions.add(&u.shared)
	u.sessions[f] = &session{backend: backend}
	u.mu.Unlock()
	backend.Write([]byte("lost"))
	raw, err := backend.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := waitReadable(raw); err != nil {
		t.Fatal(err)
	}
	container, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(free))
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	container.SetDeadline(deadline())
	u.forward(f, []byte("x"))
	if _, err := container.Read(make([]byte, 1)); err != nil {
		t.Errorf("the container got nothing: %v", err)
	}
}

func udpPort(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

func TestUDPEndsWithThePort(t *testing.T) {
	at := udpContainer(t, "127.0.0.77:0")
	p := realPublisher(t, Options{})
	e, port := published(t, p, containerAt(at), state.UDP, "", at)
	u := udpServerOf(p, any4, port)
	c := udpClient(t, "127.0.0.1", port)
	exchange(t, c, "x")
	apply(t, p, with(e))
	eventually(t, "the sessions end", func() bool { return u.count() == 0 })
	if _, err := u.session(flow{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a session after the end: %v", err)
	}
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read: %v, want a refusal", err)
	}
}

func TestWaitReadableEndsWithDeadline(t *testing.T) {
	c := udpClient(t, "127.0.0.1", 9)
	c.SetReadDeadline(time.Now().Add(-time.Second))
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := waitReadable(raw); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestUDPSource(t *testing.T) {
	tests := []struct {
		name  string
		bound string
		local netip.Addr
		set   bool
	}{
		{"v4", "0.0.0.0", netip.MustParseAddr("192.0.2.1"), true},
		{"v6", "::", netip.MustParseAddr("2001:db8::1"), true},
		{"bound to one", "192.0.2.1", netip.MustParseAddr("192.0.2.1"), false},
		{"unknown", "0.0.0.0", netip.Addr{}, false},
		{"multicast", "0.0.0.0", netip.MustParseAddr("224.0.0.1"), false},
		{"multicast v6", "::", netip.MustParseAddr("ff02::1"), false},
		{"no address", "0.0.0.0", netip.MustParseAddr("0.0.0.0"), false},
		{"broadcast", "0.0.0.0", netip.MustParseAddr("255.255.255.255"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := &udpServer{admission: admission{b: binding{addr: netip.AddrPortFrom(netip.MustParseAddr(tt.bound), 53)}}}
			if got := u.source(tt.local); (got != nil) != tt.set {
				t.Errorf("control message %x", got)
			}
		})
	}
}
