//go:build kernel

package firewalltest

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// ServeHost has the router itself serve ports on its outer addresses, as the sockets of published ports do.
func (l *Lab) ServeHost(ports ...uint16) {
	l.T.Helper()
	for _, addr := range slices.Concat(Ext0[:], Ext1[:]) {
		for _, port := range ports {
			at := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			l.serveTCP(l.router, at)
			l.serveUDP(l.router, at)
		}
	}
}

// TalkHost has the router serve a port on its first address to who goes on talking.
func (l *Lab) TalkHost(port uint16) {
	l.T.Helper()
	for _, addr := range Ext0 {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
		l.serveUDP(l.router, at)
		var ln *net.TCPListener
		var err error
		l.router.in(func() { ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)) })
		must(l.T, err)
		l.T.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.AcceptTCP()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					for buf := make([]byte, 256); err == nil; {
						if _, err = conn.Read(buf); err == nil {
							_, err = conn.Write([]byte("router"))
						}
					}
				}()
			}
		}()
	}
}

// Answer opens a connection from a host and returns who answers, and whom he sees; "" if nobody does. Of datagrams it sends a second one,
// as who goes on talking does.
func (l *Lab) Answer(from, proto, to string, wait time.Duration) string {
	l.T.Helper()
	conn := l.dial(from, proto, to, wait)
	if conn == nil {
		return ""
	}
	defer conn.Close()
	first := hello(conn, wait)
	if proto == "udp" && first != "" {
		hello(conn, wait)
	}
	return first
}

// Talk opens a connection from a host, which lasts as long as the test. What it returns speaks on it and returns who answers, and whom he
// sees.
func (l *Lab) Talk(from, proto, to string, wait time.Duration) func() string {
	l.T.Helper()
	conn := l.dial(from, proto, to, wait)
	if conn == nil {
		return func() string { return "" }
	}
	l.T.Cleanup(func() { conn.Close() })
	return func() string { return hello(conn, wait) }
}

// dial opens a connection from a host, or returns nil.
func (l *Lab) dial(from, proto, to string, wait time.Duration) net.Conn {
	l.T.Helper()
	var conn net.Conn
	var err error
	dialer := net.Dialer{Timeout: wait}
	l.hosts[from].in(func() { conn, err = dialer.DialContext(l.T.Context(), proto, to) })
	if err != nil {
		if errors.Is(err, unix.EMFILE) { // which would pass for a firewall's no
			l.T.Error(err)
		}
		return nil
	}
	return conn
}

// hello speaks on a connection and returns the answer.
func hello(conn net.Conn, wait time.Duration) string {
	_, _ = conn.Write([]byte("hello")) // who has answered already may have closed
	buf := make([]byte, 256)
	conn.SetReadDeadline(time.Now().Add(wait))
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

// Publish are settings with which inherit and auto come to a mode.
func Publish(mode state.Publish) firewall.Settings {
	return firewall.Settings{Publish: func() state.Modes { return state.Modes{Inherit: mode, Auto: mode} }}
}

// answeredBy is the packet that somebody else answers.
func answeredBy(name string, p Packet) Packet { p.Answers = name; return p }

// in4 and in6 are the packet in one family.
func in4(p Packet) Packet { return oneFamily(p, 0) }
func in6(p Packet) Packet { return oneFamily(p, 1) }

func oneFamily(p Packet, family int) Packet {
	one := func(v [2]string) [2]string { return [2]string{v[family], v[family]} }
	p.To, p.Sees, p.Bind = one(p.To), one(p.Sees), one(p.Bind)
	return p
}

// Packets to c1a (8080, and 8081 on one address) and to c1b (8083), which the host's INPUT refuses.
var (
	publishedUDP  = Packet{Name: "published, udp", From: "out", Proto: "udp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out}
	publishedSCTP = Packet{Name: "published, sctp", From: "out", Proto: "sctp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out}
	publishedOn   = Packet{Name: "published on one address", From: "out", Proto: "tcp", To: At(Ext0, "8081"), Answers: "c1a", Sees: Out}
	shut          = Packet{Name: "refused by INPUT", From: "out", Proto: "tcp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Out}
	shutUDP       = Packet{Name: "refused by INPUT, udp", From: "out", Proto: "udp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Out}
	byFar         = Packet{Name: "published, by the other link", From: "far", Proto: "tcp", To: At(Ext1, "8080"), Answers: "c1a", Sees: Far}
	byFarUDP      = Packet{Name: "published, by the other link, udp", From: "far", Proto: "udp", To: At(Ext1, "8080"), Answers: "c1a", Sees: Far}
	byFarOn       = Packet{Name: "published on one address, by the other link", From: "far", Proto: "tcp", To: At(Ext0, "8081"), Answers: "c1a", Sees: Far}
	farDirect     = Packet{Name: "published port, directly, by the other link", From: "far", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a", Sees: Far}
	farOther      = Packet{Name: "another container, by the other link", From: "far", Proto: "tcp", To: At(Ext1, "9090"), Answers: "c2", Sees: Far}
)

// withinHost are the packets that are translated in every mode and for everybody.
var withinHost = []Packet{
	{Name: "from another network", From: "c2", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: C2},
	{Name: "from another network, udp", From: "c2", Proto: "udp", To: At(Ext0, "8080"), Answers: "c1a", Sees: C2},
	{Name: "from another network, on one address", From: "c2", Proto: "tcp", To: At(Ext0, "8081"), Answers: "c1a", Sees: C2},
	{Name: "from another network, by the gateway", From: "c2", Proto: "tcp", To: At(Gw1, "8083"), Answers: "c1b", Sees: C2},
	{Name: "hairpin", From: "c1a", Proto: "tcp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Gw1},
	{Name: "from the host", From: "router", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a"},
	{Name: "from the host, udp", From: "router", Proto: "udp", To: At(Ext1, "8083"), Answers: "c1b"},
	{Name: "from the host, on one address", From: "router", Proto: "tcp", To: At(Ext0, "8081"), Answers: "c1a"},
}

// exposure is an Exposure of network 1, and how packets then fare. What the host is left to serve is answered by the router.
type exposure struct {
	name     string
	settings firewall.Settings
	change   func(*state.Snapshot)
	want     []Packet
}

// has gives network 1 an exposure.
func has(e state.Exposure) func(*state.Snapshot) {
	return func(s *state.Snapshot) { s.Networks[0].Exposure = e }
}

func nothing(*state.Snapshot) {}

const (
	nearSources = "192.0.2.0/24,192.0.2.9/32,2001:db8:1::/64"
	farSources  = "198.51.100.9/32,2001:db8:2::9/128"
)

var modeRows = []exposure{
	{name: "dnat", change: nothing, want: []Packet{
		published, publishedUDP, publishedSCTP, publishedOn, byFar, shut, shutUDP, farOther,
		{Name: "from Docker's bridge", From: "d", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: D},
	}},
	{name: "host", settings: Publish(state.PublishHost), change: nothing, want: []Packet{
		answeredBy("router", published), answeredBy("router", publishedUDP), publishedSCTP, answeredBy("router", publishedOn),
		answeredBy("router", byFar), refused(shut), refused(shutUDP),
		{Name: "from Docker's bridge", From: "d", Proto: "tcp", To: At(Ext0, "8080"), Answers: "router", Sees: D},
		{Name: "directly", From: "out", Proto: "tcp", To: At(C1a, "80")},
	}},
	{name: "localhost", settings: Publish(state.PublishLocalhost), change: nothing, want: []Packet{
		refused(published), refused(publishedUDP), refused(publishedSCTP), refused(publishedOn), refused(byFar), refused(shut), refused(farOther),
	}},
	{name: "host for one network", change: has(state.Exposure{Publish: state.PublishHost}), want: []Packet{
		answeredBy("router", published), refused(shut), farOther,
	}},
	{name: "dnat for one container", settings: Publish(state.PublishHost), change: func(s *state.Snapshot) {
		s.Endpoints[1].Exposure.Publish = state.PublishDNAT
	}, want: []Packet{answeredBy("router", published), shut, shutUDP}},
	{name: "auto", settings: firewall.Settings{Publish: func() state.Modes { return state.Modes{Inherit: state.PublishDNAT, Auto: state.PublishHost} }}, change: func(s *state.Snapshot) {
		s.Endpoints[0].Exposure.Publish = state.PublishAuto
	}, want: []Packet{answeredBy("router", published), shut}},
}

var limitRows = []exposure{
	{name: "from", change: has(state.Exposure{From: nearSources}), want: []Packet{
		published, publishedUDP, publishedSCTP, publishedOn, shut, refused(byFar), refused(byFarUDP), refused(byFarOn), farOther,
		{Name: "from Docker's bridge", From: "d", Proto: "tcp", To: At(Ext0, "8080")},
	}},
	{name: "from, by the host", settings: Publish(state.PublishHost), change: has(state.Exposure{From: farSources}), want: []Packet{
		refused(published), refused(publishedUDP), refused(publishedSCTP), refused(publishedOn),
		answeredBy("router", byFar), answeredBy("router", byFarUDP), answeredBy("router", byFarOn),
	}},
	{name: "from all", change: has(state.Exposure{From: "0.0.0.0/0,::/0"}), want: []Packet{published, publishedOn, byFar, byFarUDP}},
	{name: "from one family", change: has(state.Exposure{From: "0.0.0.0/0"}), want: []Packet{in4(published), refused(in6(published)), in4(byFar), refused(in6(byFar)), refused(in6(publishedOn))}},
	{name: "from, for one container", change: func(s *state.Snapshot) { s.Endpoints[0].Exposure.From = farSources }, want: []Packet{
		refused(published), byFar, byFarOn, shut,
	}},
	{name: "iface", change: has(state.Exposure{Links: "ext0:wg0"}), want: []Packet{
		published, publishedUDP, publishedSCTP, publishedOn, shut, refused(byFar), refused(byFarUDP), refused(byFarOn), farOther,
		{Name: "from Docker's bridge", From: "d", Proto: "tcp", To: At(Ext0, "8080")},
	}},
	{name: "iface, by the host", settings: Publish(state.PublishHost), change: has(state.Exposure{Links: "ext1"}), want: []Packet{
		refused(published), refused(publishedUDP), refused(publishedOn), answeredBy("router", byFar), answeredBy("router", byFarUDP), answeredBy("router", byFarOn),
	}},
	{name: "iface that is not there", change: has(state.Exposure{Links: "wg0"}), want: []Packet{refused(published), refused(byFar), refused(publishedOn), farOther}},
	{name: "from and iface", change: has(state.Exposure{From: nearSources, Links: "ext1"}), want: []Packet{
		refused(published), refused(byFar),
		{Name: "an admitted source by an admitted link", From: "far", Proto: "udp", Bind: Out, To: At(Ext1, "8080"), Answers: "c1a", Sees: Out},
	}},
	{name: "routed", change: func(s *state.Snapshot) {
		optionRows[0].change(s)
		s.Networks[0].Exposure = state.Exposure{From: nearSources, Links: "ext0"}
	}, want: []Packet{
		direct, refused(farDirect), refused(directOff),
		{Name: "published port, from another network", From: "c2", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a", Sees: C2},
	}},
	{name: "routed, by another link", change: func(s *state.Snapshot) {
		optionRows[0].change(s)
		s.Networks[0].Exposure = state.Exposure{Links: "ext1"}
	}, want: []Packet{refused(direct), farDirect}},
	{name: "routed, for the host", settings: Publish(state.PublishLocalhost), change: optionRows[0].change, want: []Packet{
		refused(direct), refused(farDirect),
		{Name: "published port, from another network", From: "c2", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a", Sees: C2},
		{Name: "from the host", From: "router", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a"},
	}},
	{name: "trusted links", change: func(s *state.Snapshot) {
		s.Networks[0].Trusted = "ext0:ext1"
		s.Networks[0].Exposure.From = nearSources
	}, want: []Packet{direct, refused(farDirect), published, refused(byFar)}},
	{name: "unprotected", change: func(s *state.Snapshot) {
		mode(state.ModeUnprotected)(s)
		s.Networks[0].Exposure.Links = "ext0"
	}, want: []Packet{
		direct, refused(farDirect), published, refused(byFar),
		{Name: "another port, by the other link", From: "far", Proto: "tcp", To: At(C1a, "7000"), Answers: "c1a", Sees: Far},
	}},
	// No network has IPv6, so that nothing is translated there; the host may serve it all the same.
	{name: "without IPv6", change: func(s *state.Snapshot) {
		for i := range s.Networks {
			s.Networks[i].V6 = state.Subnet{}
		}
		for i := range s.Endpoints {
			s.Endpoints[i].Addr6 = netip.Prefix{}
		}
		s.Networks[0].Exposure.From = nearSources
	}, want: []Packet{
		in4(published), in6(answeredBy("router", published)), in4(refused(byFar)), in6(refused(byFar)), in6(refused(byFarOn)),
	}},
}

// Exposures sends packets with one exposure after the other, on one host: what is looked at and what is only followed must come to
// the same.
func Exposures(t *testing.T, variant string, backend Maker) {
	l := New(t, variant)
	l.ServeHost(8080, 8081, 8083)
	PolicyDrop(l)
	l.Both("-A FORWARD -i docker0 -j ACCEPT")
	for _, proto := range []string{"tcp", "udp"} {
		l.Both("-A INPUT -p " + proto + " --dport 8083 -j DROP")
	}
	var now exposure
	plane := firewall.NewPlane(backend(l), firewall.Settings{Publish: func() state.Modes {
		if now.settings.Publish == nil {
			return state.Modes{}
		}
		return now.settings.Publish()
	}})
	var last state.Snapshot
	for i, x := range slices.Concat(modeRows, limitRows) {
		t.Run(x.name, func(t *testing.T) {
			now = x
			s := State()
			x.change(&s)
			var err error
			if i%2 == 0 {
				err = plane.Apply(t.Context(), s)
			} else {
				err = plane.Follow(t.Context(), state.Compare(last, s))
			}
			if err != nil {
				t.Fatal(err)
			}
			last = s
			// A client that happens to have the port of an earlier one would go on with his connection.
			must(t, l.router.handle.ConntrackTableFlush(netlink.ConntrackTable))
			want := x.want
			if s.Networks[0].V4.Mode != state.ModeRouted && !s.Networks[0].V6.IsZero() {
				want = slices.Concat(want, withinHost)
			}
			l.Check(t, want, func(Packet) bool { return true })
		})
	}
}
