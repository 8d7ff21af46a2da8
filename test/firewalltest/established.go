//go:build kernel

package firewalltest

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Flows that others intrude into: c2 and c1a ask out, and out asks a published port of c2.
var (
	ofC2, ofC1a = At(C2, "5000"), At(C1a, "5001")
	ofOut       = At(Out, "6000")
)

// intruders send packets with addresses and ports of somebody else's flow. Nobody must get one.
var intruders = []struct {
	name, from string
	as, to     [2]string
}{
	{"from an internal network, as another's container", "i1", ofC2, At(Out, "80")},
	{"from another network, as a container", "c1a", ofC2, At(Out, "80")},
	{"from outside, as a container", "far", ofC2, At(Out, "80")},
	{"from Docker's bridge, as a container", "d", ofC2, At(Out, "80")},
	{"from somebody's bridge, as a container", "g1", ofC2, At(Out, "80")},
	{"from an internal network, as a server", "i1", At(Out, "80"), At(Ext0, "5000")},
	{"from another network, as a server", "c1a", At(Out, "80"), At(Ext0, "5000")},
	{"from a container that is kept apart, as a server", "c1b", At(Out, "80"), At(Ext0, "5001")},
	{"from an internal network, as a published port", "i1", At(C2, "80"), ofOut},
	{"from outside, as a published port", "far", At(C2, "80"), ofOut},
}

// homes are second links of containers, whose default route stays where it is: what they answer there comes back by another bridge.
var homes = []struct {
	name, link string
	addr       [2]string
	port       uint16
}{
	{"c1a", "p1a2", [2]string{"10.2.0.8", "fd00:2::8"}, 9091},
	{"d", "pd2", [2]string{"10.2.0.9", "fd00:2::9"}, 9092},
}

// Established has others send into flows that are not theirs. The flows go on, and so do those of containers that are on two networks.
func Established(t *testing.T, variant string, backend Maker) {
	l := New(t, variant)
	PolicyDrop(l)
	l.Both("-N DOCKER-ISOLATION-STAGE-2") // Docker's bridge is known by it
	l.Both("-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP")
	l.Both("-A FORWARD -i docker0 -j ACCEPT")
	s := State()
	s.Networks[0].NoICC = true
	for _, h := range homes {
		l.addHome(h.name, h.link, h.addr)
		s.Endpoints = append(s.Endpoints, state.Endpoint{
			ID: state.EndpointID(h.link), Network: s.Networks[1].ID,
			Addr4: netip.PrefixFrom(netip.MustParseAddr(h.addr[0]), 24), Addr6: netip.PrefixFrom(netip.MustParseAddr(h.addr[1]), 64),
			Ports: []state.Port{
				{Proto: state.TCP, HostPort: h.port, ContainerPort: 80}, {Proto: state.UDP, HostPort: h.port, ContainerPort: 80},
			},
		})
	}
	s.Sort()
	l.Sync(backend(l), s)

	l.Check(t, []Packet{
		{Name: "on two networks of ours", From: "out", Proto: "tcp", To: At(Ext0, "9091"), Answers: "c1a", Sees: Out},
		{Name: "on two networks of ours, udp", From: "out", Proto: "udp", To: At(Ext0, "9091"), Answers: "c1a", Sees: Out},
		{Name: "on two networks of ours, from Docker's bridge", From: "d", Proto: "tcp", To: At(Ext0, "9091"), Answers: "c1a", Sees: D},
		{Name: "on a network of Docker's too", From: "out", Proto: "tcp", To: At(Ext0, "9092"), Answers: "d", Sees: Out},
		{Name: "on a network of Docker's too, udp", From: "out", Proto: "udp", To: At(Ext0, "9092"), Answers: "d", Sees: Out},
	}, func(Packet) bool { return true })
	l.Both("-P FORWARD ACCEPT") // so that what refuses is our rule
	for family, name := range []string{"v4", "v6"} {
		t.Run(name, func(t *testing.T) { l.intrude(t, family) })
	}
}

// addHome puts a host on br-two too.
func (l *Lab) addHome(name, link string, addr [2]string) {
	l.T.Helper()
	h := l.hosts[name]
	l.plug(h, "br-two", link, "eth1")
	h.addresses(l.T, "eth1", addr[0]+"/24", addr[1]+"/64")
	for _, a := range addr {
		l.serveTCP(h, netip.AddrPortFrom(netip.MustParseAddr(a), 80))
		l.serveUDP(h, netip.AddrPortFrom(netip.MustParseAddr(a), 80))
	}
}

func (l *Lab) intrude(t *testing.T, family int) {
	addr := func(a [2]string) netip.AddrPort { return netip.MustParseAddrPort(a[family]) }
	flows := map[string]net.Conn{
		"c2":  l.dialAs(t, "c2", addr(ofC2), addr(At(Out, "80"))),
		"c1a": l.dialAs(t, "c1a", addr(ofC1a), addr(At(Out, "80"))),
		"out": l.dialAs(t, "out", addr(ofOut), addr(At(Ext0, "9090"))),
	}
	for name, flow := range flows {
		l.ask(t, name, flow)
		l.ask(t, name, flow) // an answered flow
	}
	for name, flow := range flows {
		go l.hear(name, flow)
	}
	token := func(name string) string { return name + "/" + At(Out, "")[family] }
	for _, i := range intruders {
		_, err := l.dialAs(t, i.from, addr(i.as), addr(i.to)).Write([]byte(token(i.name)))
		must(t, err)
	}
	l.unreachable(t, "i1", addr(At(Ext0, "5000")), addr(At(Out, "80")))
	time.Sleep(Impatience)
	for _, i := range intruders {
		if who := l.arrived.get(token(i.name)); who != "" {
			t.Errorf("%s: passed, and reached %s", i.name, who)
		}
	}
	if who := l.arrived.get(refusedFlow); who != "" {
		t.Errorf("an error from an internal network reached %s", who)
	}
	for name, flow := range flows {
		flow.Close() // whoever hears it ends
		again := l.dialAs(t, name, flow.LocalAddr().(*net.UDPAddr).AddrPort(), flow.RemoteAddr().(*net.UDPAddr).AddrPort())
		l.ask(t, name, again)
	}
}

// ask has a flow's datagram answered.
func (l *Lab) ask(t *testing.T, name string, flow net.Conn) {
	t.Helper()
	buf := make([]byte, 256)
	for range int(Patience / again) { // a datagram may get lost on a busy machine
		_, err := flow.Write([]byte("question"))
		must(t, err)
		must(t, flow.SetReadDeadline(time.Now().Add(again)))
		if _, err := flow.Read(buf); err == nil {
			must(t, flow.SetReadDeadline(time.Time{}))
			return
		}
	}
	t.Errorf("%s is not answered any more", name)
}

// refusedFlow stands among arrivals for an ICMP error.
const refusedFlow = "an error"

// hear puts what a flow gets among the arrivals.
func (l *Lab) hear(name string, flow net.Conn) {
	buf := make([]byte, 256)
	for {
		n, err := flow.Read(buf)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			l.arrived.put(refusedFlow, name)
		case err != nil:
			return
		default:
			l.arrived.put(string(buf[:n]), name)
		}
	}
}

// unreachable has a host say, with its own address, that a datagram of a flow found its port closed.
func (l *Lab) unreachable(t *testing.T, name string, from, to netip.AddrPort) {
	t.Helper()
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = append(udp, 0, 8, 0, 0)
	body := make([]byte, 8)
	proto, kind := unix.IPPROTO_ICMP, unix.AF_INET
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: v4(from)}
	if from.Addr().Is6() {
		proto, kind = unix.IPPROTO_ICMPV6, unix.AF_INET6
		at = &unix.SockaddrInet6{Addr: from.Addr().As16()}
		body[0], body[1] = 1, 4
		body = append(body, 0x60, 0, 0, 0, 0, 8, unix.IPPROTO_UDP, 64)
	} else {
		body[0], body[1] = 3, 3
		body = append(body, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	}
	body = append(append(body, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	body = append(body, udp...)
	if from.Addr().Is4() { // of ICMPv6 the kernel makes the checksum
		binary.BigEndian.PutUint16(body[2:], checksum(body))
	}
	l.hosts[name].in(func() {
		fd, err := unix.Socket(kind, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.Sendto(fd, body, 0, at))
	})
}

func v4(a netip.AddrPort) (out [4]byte) {
	copy(out[:], a.Addr().AsSlice())
	return out
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
