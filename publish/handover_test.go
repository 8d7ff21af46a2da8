package publish

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestGiven: another Publisher goes on with all that one holds: sockets that listen, that only take a place, a session of udp, and what
// was reserved.
func TestGiven(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	container := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	a, b := endpoint("a", "127.0.0.77/8"), endpoint("b", "127.0.0.77/8")
	var gone []string
	old, next := New(Options{}), New(Options{Closed: func(at Place) { gone = append(gone, at.String()) }})
	closeLater(t, next)
	ports := reserve(t, old, a, ephemeral(state.UDP, "127.0.0.1", container), ephemeral(state.TCP, "127.0.0.1", 80))
	a.Ports = ports
	reserved := reserve(t, old, b, ephemeral(state.TCP, "127.0.0.1", 80))
	apply(t, old, a)
	udp, tcp := ports[1], ports[0]
	if udp.Proto != state.UDP {
		udp, tcp = tcp, udp
	}
	client, err := net.Dial("udp4", netip.AddrPortFrom(udp.HostIP, udp.HostPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	peer := thereAndBack(t, client, server)

	for held, file := range old.Given() {
		text, err := held.At.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := held.At.UnmarshalText(text); err != nil {
			t.Fatal(err)
		}
		if err := next.Take(held, file); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	apply(t, next, a)
	old.Retire()
	if err := old.Wait(t.Context()); err != nil {
		t.Errorf("without a connection of tcp it is not through: %v", err)
	}
	if held, _ := next.Count(); held != 3 {
		t.Errorf("%d sockets are held", held)
	}
	if now := thereAndBack(t, client, server); now != peer {
		t.Errorf("the session goes on from %s, it was %s", now, peer)
	}
	if _, err := old.Reserve(t.Context(), b, nil); err == nil {
		t.Error("a retired Publisher reserves")
	}
	next.EndReservations()
	apply(t, next, a)
	if at := netip.AddrPortFrom(reserved[0].HostIP, reserved[0].HostPort).String() + "/tcp"; len(gone) != 1 || gone[0] != at {
		t.Errorf("closed is %v, not %s", gone, at)
	}
	a.Ports = []state.Port{tcp}
	apply(t, next, a)
	if _, err := net.ListenPacket("udp4", netip.AddrPortFrom(udp.HostIP, udp.HostPort).String()); err != nil {
		t.Errorf("the place of a session that ended: %v", err)
	}
	_ = old.Close()
}

// TestGivenLosesNoDatagram: of clients that come all the time to a container that takes its time, each is answered, whichever Publisher it
// met, and also where nobody takes what was given.
func TestGivenLosesNoDatagram(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			buffer := make([]byte, 100)
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			time.AfterFunc(30*time.Millisecond, func() { _, _ = server.WriteTo(buffer[:n], from) })
		}
	}()
	a := endpoint("a", "127.0.0.77/8")
	many := Options{MaxSessions: 4096} // by the limit of open files there may be fewer than clients that wait for their answer
	old, next := New(many), New(many)
	closeLater(t, next)
	a.Ports = reserve(t, old, a, ephemeral(state.UDP, "127.0.0.1", server.LocalAddr().(*net.UDPAddr).AddrPort().Port()))
	apply(t, old, a)
	at := netip.AddrPortFrom(a.Ports[0].HostIP, a.Ports[0].HostPort).String()
	ended := make(chan struct{})
	var came atomic.Int64
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(500 * time.Microsecond):
			}
			n := came.Add(1)
			clients.Go(func() {
				if err := once(at); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			})
		}
	})
	moment := func() { // in which clients come
		t.Helper()
		until := came.Load() + 40
		eventually(t, "more clients have come", func() bool { return came.Load() >= until })
	}
	moment()
	for _, file := range old.Given() {
		_ = file.Close()
	}
	moment()
	old.Resume()
	moment()
	for held, file := range old.Given() {
		if err := next.Take(held, file); err != nil {
			t.Error(err)
		}
	}
	moment()
	apply(t, next, a)
	old.Retire()
	moment()
	close(ended)
	clients.Wait()
	_ = old.Close()
}

// once is a client of its own that asks once.
func once(at string) error {
	c, err := net.Dial("udp4", at)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 100))
	return err
}

// thereAndBack sends a datagram there and back, and returns from where the server got it.
func thereAndBack(t *testing.T, client net.Conn, server net.PacketConn) string {
	t.Helper()
	buffer := make([]byte, 100)
	deadline := time.Now().Add(5 * time.Second)
	if err := server.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if err := client.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	n, from, err := server.ReadFrom(buffer)
	if err == nil {
		_, err = server.WriteTo(buffer[:n], from)
	}
	if err == nil {
		_, err = client.Read(buffer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return from.String()
}

// TestTakeRefuses: what is malformed is refused, and its file closed.
func TestTakeRefuses(t *testing.T) {
	p := New(Options{})
	closeLater(t, p)
	at := place{state.UDP, netip.MustParseAddrPort("127.0.0.1:8080")}
	good := Held{At: at, Port: state.Port{Proto: state.UDP}, Target: netip.MustParseAddrPort("127.0.0.77:80")}
	for words, held := range map[string]Held{
		"malformed":                 {At: at, Port: state.Port{Proto: state.TCP}, Target: good.Target},
		"was handed over malformed": {At: at, Port: good.Port},
		"without its socket":        {At: at, Session: &Session{}},
		"that was handed over: ":    good, // of a file that is none of a socket
	} {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Take(held, file); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v", held, err)
		}
		if file.Close() == nil {
			t.Errorf("%s: the file is open", words)
		}
	}
	for _, text := range []string{"", "x", "127.0.0.1:80", "127.0.0.1:80/icmp", "127.0.0.1/tcp"} {
		if err := new(Place).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a place", text)
		}
	}
}
