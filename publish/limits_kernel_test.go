//go:build kernel

package publish

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// limits are who may come to the ports of a lab. The client may, or may not.
var (
	fromOthers  = state.Exposure{Publish: state.PublishHost, From: "203.0.113.0/24,2001:db8:ffff::/64"}
	byOthers    = state.Exposure{Publish: state.PublishHost, Links: "eth7"}
	fromClients = state.Exposure{Publish: state.PublishHost, From: "192.0.2.0/24,2001:db8::/64", Links: "tohost0"}
)

// rules are those of a state as it is, ports and limits and all.
func (l *ourLab) rules(s state.Snapshot) {
	l.Helper()
	l.must(firewall.NewPlane(l.backend, firewall.Settings{
		Publish: func() state.Modes { return state.Modes{Inherit: state.PublishHost, Auto: state.PublishHost} },
		Divert:  func(state.Snapshot) bool { return true },
	}).Apply(l.Context(), s))
}

// limit gives the network limits, with rules and sockets.
func (l *ourLab) limit(p *Publisher, x state.Exposure) {
	l.Helper()
	l.state.Networks = []state.Network{theNetwork(x)}
	l.rules(l.state)
	l.must(p.Apply(l.Context(), l.state))
}

// heard is how many clients of UDP there are.
func heard(p *Publisher) (n int) {
	for s := range p.all() {
		if u, ok := s.server.(*udpServer); ok {
			u.mu.Lock()
			n += len(u.sessions)
			u.mu.Unlock()
		}
	}
	return n
}

// shout sends a datagram to whatever address, and reports whether a socket of ours took it within some time. A link needs a second or so
// until it leads to groups and anycast addresses.
func (l *ourLab) shout(p *Publisher, to string, within time.Duration) bool {
	l.Helper()
	before := heard(p)
	at := netip.AddrPortFrom(netip.MustParseAddr(to), 8080)
	network, local := "udp4", clientAddr4+":0"
	if at.Addr().Is6() {
		network, local = "udp6", "["+clientAddr6+"]:0"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
			_ = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "toclient0")
		})
	}}
	var c net.PacketConn
	var err error
	l.client.do(func() { c, err = lc.ListenPacket(l.Context(), network, local) })
	l.must(err)
	defer c.Close()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		l.client.do(func() { _, err = c.WriteTo([]byte("hi"), net.UDPAddrFromAddrPort(at)) })
		if heard(p) > before {
			return true
		}
	}
	l.must(err)
	return false
}

// expect knocks at a port by both protocols and families.
func (l *ourLab) expect(what string, port uint16, want func(state.Proto) string) {
	l.Helper()
	for _, proto := range bothProtos {
		for _, ip := range []string{hostAddr4, hostAddr6} {
			var seen string
			l.client.do(func() { seen, _ = knockFor(proto, netip.AddrPort{}, 0, ip, port, waitFor(want(proto))) })
			if seen != want(proto) {
				l.Errorf("%s: %s by %s to %d: %q, want %q", what, proto, ip, port, seen, want(proto))
			}
		}
	}
}

// forwarding makes the host one that has anycast addresses.
func forwarding(t *testing.T) {
	sysctl(t, "net/ipv4/ip_forward", "1")
	sysctl(t, "net/ipv6/conf/all/forwarding", "1")
}

// TestLimitsOfDatagrams: no rule of limits sees what is sent to all of a link, to a group or to an anycast address.
func TestLimitsOfDatagrams(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		l := newOurLab(t, backend, state.PublishHost)
		forwarding(t)
		p := l.publisher(Options{})
		for _, x := range []state.Exposure{fromClients, fromOthers, byOthers} {
			l.limit(p, x)
			admitted, within := x == fromClients, silence
			if admitted {
				within = 5 * time.Second
			}
			for _, to := range []string{"192.0.2.255", "255.255.255.255", "224.0.0.1", "2001:db8::", "ff02::1%toclient0"} {
				if got := l.shout(p, to, within); got != admitted {
					t.Errorf("%+v: a datagram to %s is taken: %v", x, to, got)
				}
			}
		}
	})
}

// TestLimitsPastTheRules: what comes from a port that no rule of limits knows, or while there are none, is refused by the sockets.
func TestLimitsPastTheRules(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		l := newOurLab(t, backend, state.PublishHost)
		forwarding(t)
		p := l.publisher(Options{})
		l.tables("-t nat -A PREROUTING -p tcp --dport 9999 -j REDIRECT --to-ports 8080",
			"-t nat -A PREROUTING -p udp --dport 9999 -j REDIRECT --to-ports 8080")

		l.limit(p, fromClients)
		for _, port := range []uint16{8080, 9999} {
			for _, proto := range bothProtos {
				for _, ip := range []string{hostAddr4, hostAddr6} {
					if seen, own := l.outside(proto, 0, ip, port); seen != own {
						t.Errorf("admitted: %s by %s to %d: %q, want %q", proto, ip, port, seen, own)
					}
				}
			}
		}
		for _, x := range []state.Exposure{fromOthers, byOthers} {
			l.limit(p, x)
			l.expect("limited", 8080, func(state.Proto) string { return "silence" })
			l.expect("from another port", 9999, refused)

			l.rules(l.unpublished())
			l.expect("between the steps of a pass that takes the ports away", 8080, refused)

			l.rules(l.state)
			l.flush(backend)
			l.expect("no rules", 8080, refused)
			for _, ip := range []string{"127.0.0.1", "::1", hostAddr4, hostAddr6} {
				for _, proto := range bothProtos {
					seen, _ := knock(proto, 0, ip, 8080)
					if _, err := netip.ParseAddrPort(seen); err != nil {
						t.Errorf("%+v, no rules: the host itself by %s %s: %q", x, proto, ip, seen)
					}
				}
			}
		}
	})
}

// flush takes away what keeps limits.
func (l *ourLab) flush(backend string) {
	l.Helper()
	if backend == "nftables" {
		l.nft("delete table inet drawbridge")
		return
	}
	l.tables("-t mangle -F")
}

// TestLimitsOfProxiedPorts: at a port of the family that the container lacks the limits count for clients from outside, whatever source
// they bear, and not for the host itself, whose own addresses a socket of IPv6 takes for those of the link.
func TestLimitsOfProxiedPorts(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		l := newOurLab(t, backend, state.PublishDNAT)
		e := l.state.Endpoints[0]
		e.Addr6 = netip.Prefix{}
		e.Ports = nil
		for _, proto := range bothProtos {
			e.Ports = append(e.Ports, portOf(exact(proto, "::", 8080, 80)))
		}
		l.state = snapshot(e)
		p := l.publisher(Options{})
		x := fromOthers
		x.Publish = state.PublishDNAT
		for _, x.Links = range []state.LinkNames{"", "eth7"} {
			l.limit(p, x)
			for _, flushed := range []bool{false, true} {
				if flushed {
					l.flush(backend)
				}
				for _, proto := range bothProtos {
					for _, ip := range []string{"::1", hostAddr6} {
						if seen, _ := knock(proto, 0, ip, 8080); !strings.Contains(seen, bridgeAddr4) {
							t.Errorf("the host itself by %s %s: %q", proto, ip, seen)
						}
					}
					want, wait := refused(proto), silence
					if flushed {
						wait = waitFor(want)
					}
					var seen string
					l.client.do(func() { seen, _ = knockFor(proto, netip.AddrPort{}, 0, hostAddr6, 8080, wait) })
					if seen != want && (flushed || seen != "silence") {
						t.Errorf("%+v, no rules %v: %s: %q, want %q", x, flushed, proto, seen, want)
					}
				}
				before := heard(p)
				l.client.do(func() {
					knockFor(state.UDP, netip.MustParseAddrPort("["+hostAddr6+"]:7777"), 0, hostAddr6, 8080, silence)
				})
				if heard(p) > before {
					t.Errorf("%+v, no rules %v: somebody with an address of the host is taken for the host", x, flushed)
				}
			}
			l.rules(l.state)
		}
	})
}
