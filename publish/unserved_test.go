package publish

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestTakeAfterTraffic: the connections that a port had served until a moment ago do not keep it from being taken again, as for a
// container that is restarted. Once it is taken, no other program gets it, and nobody is served.
func TestTakeAfterTraffic(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(ip, func(t *testing.T) {
			addr := netip.AddrPortFrom(netip.MustParseAddr(ip), usedPort(t, ip))
			taken, err := take(binding{addr: addr, port: state.Port{Proto: state.TCP}})
			if err != nil {
				t.Fatal(err)
			}
			if l, err := listenAlone(addr); !errors.Is(err, syscall.EADDRINUSE) {
				t.Error("another program may have the port as well:", err)
				if err == nil {
					l.Close()
				}
			}
			if _, err := net.Dial("tcp", dialled(addr)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error("a client is not refused:", err)
			}
			if err := taken.Close(); err != nil {
				t.Error(err)
			}
			l, err := listenAlone(addr)
			if err != nil {
				t.Fatal("the port is not given back:", err)
			}
			l.Close()
		})
	}
}

// TestTakeOfAnothers: a port that somebody listens at is not taken.
func TestTakeOfAnothers(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"127.0.0.1", "0.0.0.0"} {
		addr := netip.MustParseAddrPort(net.JoinHostPort(ip, port))
		if _, err := take(binding{addr: addr, port: state.Port{Proto: state.TCP}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v was taken: %v", addr, err)
		}
	}
}

// usedPort is a port on which a server has just ended a connection, so that the kernel remembers it for a minute.
func usedPort(t *testing.T, ip string) uint16 {
	t.Helper()
	l, err := listenAlone(netip.AddrPortFrom(netip.MustParseAddr(ip), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	client, err := net.Dial("tcp", dialled(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	if _, err := io.ReadAll(client); err != nil { // until the server has closed
		t.Fatal(err)
	}
	return addr.Port()
}

// listenAlone listens in one family alone, as the sockets of ports do.
func listenAlone(addr netip.AddrPort) (net.Listener, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	return (&net.ListenConfig{}).Listen(context.Background(), network, addr.String())
}

// dialled is an address at which a socket of addr is reached.
func dialled(addr netip.AddrPort) string {
	ip := addr.Addr()
	switch {
	case ip == netip.IPv4Unspecified():
		ip = netip.MustParseAddr("127.0.0.1")
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, addr.Port()).String()
}
