//go:build kernel

package firewalltest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// Diverted: what a container answers to a socket that bears a client's address is led to that socket. What somebody else invents is not,
// be he in another network or outside, nor what containers send to others by a port at which the host has a socket for everybody's addresses.
func Diverted(t *testing.T, variant string, backend Maker) {
	l := New(t, variant)
	must(t, firewall.NewPlane(backend(l), firewall.Settings{Divert: func(state.Snapshot) bool { return true }}).Apply(t.Context(), State()))
	for family, name := range []string{"v4", "v6"} {
		l.leadDiverted(family)
		t.Run("answers, "+name, func(t *testing.T) {
			client := netip.AddrPortFrom(netip.MustParseAddr(Out[family]), 41000)
			target := netip.MustParseAddrPort(At(C1a, "80")[family])
			socket := l.dialAs(t, "router", client, target)
			ask := func() string {
				t.Helper()
				must(t, socket.SetDeadline(time.Now().Add(Patience)))
				_, err := socket.Write([]byte("question"))
				must(t, err)
				buf := make([]byte, 256)
				n, err := socket.Read(buf)
				must(t, err)
				return string(buf[:n])
			}
			if got, want := ask(), "c1a "+Out[family]; got != want {
				t.Errorf("answered by %q, want %q", got, want)
			}
			for _, other := range []string{"c2", "i1", "far", "d"} {
				_, err := l.dialAs(t, other, target, client).Write([]byte("forged"))
				must(t, err)
				if got, want := ask(), "c1a "+Out[family]; got != want {
					t.Errorf("after an answer of %s: answered by %q, want %q", other, got, want)
				}
			}
		})
		t.Run("a socket for everybody, "+name, func(t *testing.T) {
			any := netip.AddrPortFrom(netip.IPv4Unspecified(), 7000)
			if family == 1 {
				any = netip.AddrPortFrom(netip.IPv6Unspecified(), 7000)
			}
			l.listenTransparent(t, any)
			for _, proto := range []string{"tcp", "udp"} {
				if got := l.knock("c1a", proto, netip.Addr{}, netip.MustParseAddrPort(At(Out, "7000")[family]), Patience); !strings.HasPrefix(got, "out ") {
					t.Errorf("%s: answered by %q", proto, got)
				}
			}
		})
	}
}

// leadDiverted has what is marked come to the router's sockets, as package link does.
func (l *Lab) leadDiverted(family int) {
	l.T.Helper()
	ip := func(words string) {
		_, err := l.Run(l.T.Context(), "", strings.Fields(fmt.Sprintf("ip -%d ", 4+2*family)+words)...)
		must(l.T, err)
	}
	for _, n := range Networks[:2] {
		ip(fmt.Sprintf("rule add fwmark %#x/%#[1]x iif %s lookup %d", state.MarkDivert, n.bridge, state.TableDivert))
	}
	ip(fmt.Sprintf("route add local default dev lo table %d", state.TableDivert))
}

// dialAs opens a socket of UDP that bears an address which a host need not have.
func (l *Lab) dialAs(t *testing.T, name string, from, to netip.AddrPort) net.Conn {
	t.Helper()
	dialer := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(from),
		Control:   func(_, _ string, c syscall.RawConn) error { return transparent(c, from.Addr().Is6()) },
	}
	var conn net.Conn
	var err error
	l.hosts[name].in(func() { conn, err = dialer.DialContext(t.Context(), "udp", to.String()) })
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// listenTransparent opens sockets of the router that take what is for any address, as a transparent proxy's do. Nobody answers there.
func (l *Lab) listenTransparent(t *testing.T, at netip.AddrPort) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return transparent(c, at.Addr().Is6()) }}
	number := map[bool]string{false: "4", true: "6"}[at.Addr().Is6()]
	l.router.in(func() {
		tcp, err := lc.Listen(t.Context(), "tcp"+number, at.String())
		must(t, err)
		t.Cleanup(func() { tcp.Close() })
		udp, err := lc.ListenPacket(t.Context(), "udp"+number, at.String())
		must(t, err)
		t.Cleanup(func() { udp.Close() })
	})
}
