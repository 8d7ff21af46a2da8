//go:build kernel

package link

import (
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// published leads the host's ports 7000 and 7001 to port 70 of a container, and 7002 to its 71.
const published = `
table inet published {
	map to { type inet_service : inet_service; elements = { 7000 : 70, 7001 : 70, 7002 : 71 } }
	chain nat {
		type nat hook output priority -100;
		ip daddr 10.9.0.1 meta l4proto { tcp, udp, sctp } dnat ip to 10.9.0.2 : th dport map @to
		ip6 daddr fd09::1 meta l4proto { tcp, udp, sctp } dnat ip6 to fd09::2 : th dport map @to
	}
}
`

// newPublishedLab is a host 10.9.0.1 and a container 10.9.0.2 on one veth pair, both with servers.
func newPublishedLab(t *testing.T) (*lab, *Flows, netns.NsHandle) {
	l := newLab(t)
	container := l.namespace()
	l.foreign(vethNamed("lan0", "lan1"), "10.9.0.1/24", "fd09::1/64")
	must(t, netlink.LinkSetNsFd(l.link("lan1"), int(container)))
	l.up("lan0")
	l.inside(container, func() {
		for _, a := range []string{"10.9.0.2/24", "fd09::2/64"} {
			addr, err := netlink.ParseAddr(a)
			must(t, err)
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			must(t, netlink.AddrAdd(l.link("lan1"), addr))
		}
		l.up("lan1")
		l.serve("10.9.0.2:70", "[fd09::2]:70", "10.9.0.2:71", "[fd09::2]:71")
	})
	l.serve("10.9.0.1:5353", "[fd09::1]:5353", "10.9.0.1:7000", "[fd09::1]:7000")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(published)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	flows, err := NewFlows(func(err error) { t.Error(err) })
	must(t, err)
	t.Cleanup(flows.Close)
	return l, flows, container
}

// inside runs do in another namespace. The thread comes back to the lab's.
func (l *lab) inside(ns netns.NsHandle, do func()) {
	l.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(l, err)
	defer home.Close()
	must(l, netns.Set(ns))
	defer func() { must(l, netns.Set(home)) }()
	do()
}

// serve answers on TCP, UDP and SCTP until the test ends.
func (l *lab) serve(addrs ...string) {
	l.Helper()
	for _, a := range addrs {
		listener, err := net.Listen("tcp", a)
		must(l, err)
		packets, err := net.ListenPacket("udp", a)
		must(l, err)
		inits, err := sctp.Listen(a)
		must(l, err)
		l.Cleanup(func() { listener.Close(); packets.Close(); inits.Close() })
		go inits.Serve(func(netip.AddrPort) string { return "x" })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go echo(conn) // until the client's end is closed
			}
		}()
		go func() {
			var b [1]byte
			for {
				_, from, err := packets.ReadFrom(b[:])
				if err != nil {
					return
				}
				_, _ = packets.WriteTo(b[:], from)
			}
		}()
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	var b [1]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
		if _, err := conn.Write(b[:]); err != nil {
			return
		}
	}
}

// talk opens a connection that is answered, from a port of choice if from is not empty.
func (l *lab) talk(proto, from, to string) {
	l.Helper()
	d := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		d.LocalAddr = local
		if proto != "tcp" {
			d.LocalAddr = &net.UDPAddr{IP: local.IP, Port: local.Port}
		}
	}
	var conn net.Conn
	var err error
	if proto == "sctp" {
		conn, err = sctp.Dial(l.Context(), d, to)
	} else {
		conn, err = d.Dial(proto, to)
	}
	must(l, err)
	l.Cleanup(func() { conn.Close() })
	must(l, conn.SetDeadline(time.Now().Add(5*time.Second)))
	var b [1]byte
	_, err = conn.Write(b[:])
	must(l, err)
	_, err = conn.Read(b[:])
	must(l, err)
}

// TestForgetPublished ends what came by a port that is gone, and nothing else: not what the
// container opened itself, nor what reached it by another port or without a translation.
func TestForgetPublished(t *testing.T) {
	all := []string{ // by destination as the opener sees it
		"10.9.0.1:5353",                                 // of the container's own
		"10.9.0.1:7000",                                 // by a port, and of the container's own
		"10.9.0.1:7001", "10.9.0.1:7002", "10.9.0.2:70", // by others; by none
		"[fd09::1]:5353", // the same in IPv6
		"[fd09::1]:7000", "[fd09::1]:7001", "[fd09::1]:7002", "[fd09::2]:70",
	}
	port := func(p state.Proto, ip string, host, container uint16) state.Port {
		out := state.Port{Proto: p, HostPort: host, ContainerPort: container}
		if ip != "" {
			out.HostIP = netip.MustParseAddr(ip)
		}
		return out
	}
	e := state.Endpoint{Addr4: netip.MustParsePrefix("10.9.0.2/24"), Addr6: netip.MustParsePrefix("fd09::2/64")}
	other := state.Endpoint{Addr4: netip.MustParsePrefix("10.9.0.3/24"), Addr6: netip.MustParsePrefix("fd09::3/64")}
	v4only := state.Endpoint{Addr4: e.Addr4}
	tcp, udp, sctp := state.TCP, state.UDP, state.SCTP
	tests := []struct {
		name string
		e    state.Endpoint
		gone []state.Port
		want []string // what ends, with the protocol
	}{
		{"tcp", e, []state.Port{port(tcp, "", 7000, 70)}, []string{"tcp 10.9.0.1:7000", "tcp [fd09::1]:7000"}},
		{"udp", e, []state.Port{port(udp, "", 7000, 70)}, []string{"udp 10.9.0.1:7000", "udp [fd09::1]:7000"}},
		{"sctp", e, []state.Port{port(sctp, "", 7000, 70)}, []string{"sctp 10.9.0.1:7000", "sctp [fd09::1]:7000"}},
		{"both", e, []state.Port{port(tcp, "", 7000, 70), port(udp, "", 7001, 70)}, []string{
			"tcp 10.9.0.1:7000", "tcp [fd09::1]:7000", "udp 10.9.0.1:7001", "udp [fd09::1]:7001",
		}},
		{"every IPv4 address", e, []state.Port{port(tcp, "0.0.0.0", 7000, 70)}, []string{"tcp 10.9.0.1:7000"}},
		{"every IPv6 address", e, []state.Port{port(udp, "::", 7000, 70)}, []string{"udp [fd09::1]:7000"}},
		{"one address", e, []state.Port{port(tcp, "10.9.0.1", 7000, 70)}, []string{"tcp 10.9.0.1:7000"}},
		{"one IPv6 address", e, []state.Port{port(tcp, "fd09::1", 7000, 70)}, []string{"tcp [fd09::1]:7000"}},
		{"another address", e, []state.Port{port(tcp, "10.9.0.9", 7000, 70)}, nil},
		{"another container port", e, []state.Port{port(tcp, "", 7000, 71)}, nil},
		{"port of the container's own connections", e, []state.Port{port(tcp, "", 5353, 70), port(udp, "", 70, 70)}, nil},
		{"another container", other, []state.Port{port(tcp, "", 7000, 70)}, nil},
		{"container without IPv6", v4only, []state.Port{port(tcp, "", 7000, 70)}, []string{"tcp 10.9.0.1:7000"}},
		{"no ports", e, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, flows, container := newPublishedLab(t)
			var before []string
			for _, proto := range []string{"tcp", "udp", "sctp"} {
				for _, to := range all {
					before = append(before, proto+" "+to)
					if !strings.HasSuffix(to, ":5353") {
						l.talk(proto, "", to)
					}
				}
				l.inside(container, func() {
					for _, ip := range []string{"10.9.0.%:", "[fd09::%]:"} {
						at := func(n, port string) string { return strings.Replace(ip, "%", n, 1) + port }
						l.talk(proto, "", at("1", "5353"))
						// From and to the numbers of a published port.
						l.talk(proto, at("2", "4000"), at("1", "7000"))
						before = append(before, proto+" "+at("1", "7000"))
					}
				})
			}
			slices.Sort(before)
			if d := cmp.Diff(before, l.flows()); d != "" {
				t.Fatalf("flows before (-want +got):\n%s", d)
			}
			want := slices.Clone(before)
			for _, s := range tt.want { // one of two that look alike; the next check tells them apart
				i := slices.Index(want, s)
				want = slices.Delete(want, i, i+1)
			}
			for range 2 {
				flows.ForgetPublished(tt.e, tt.gone)
				must(t, flows.Settle(t.Context()))
				if d := cmp.Diff(want, l.flows()); d != "" {
					t.Errorf("flows left (-want +got):\n%s", d)
				}
			}
			if got := l.opened("10.9.0.2", "fd09::2"); got != 12 {
				t.Errorf("%d connections are left of the 12 that the container opened", got)
			}
		})
	}
}

// opened counts the flows that began at one of the addresses.
func (l *lab) opened(addrs ...string) int {
	l.Helper()
	n := 0
	for _, f := range l.tracked() {
		if slices.Contains(addrs, f.sent.from.Addr().String()) {
			n++
		}
	}
	return n
}
