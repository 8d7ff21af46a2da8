//go:build kernel

package firewalltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// Lab is a router with container networks behind it and two outside hosts before it.
//
//	out 192.0.2.9 -- ext0 router ext1 -- far 198.51.100.9
//	br-one: c1a .2, c1b .3   br-two: c2 .2   br-int: i1 .2, i2 .3   docker0: d .2
//	virbr0, somebody's: g1 .2, g2 .3
type Lab struct {
	T       *testing.T
	Variant string // of iptables, for Tables
	// BridgeSysctls is the folder by which backends know br_netfilter.
	BridgeSysctls string
	// Latch is what Sync keeps beside the backend, nil for none.
	Latch   firewall.Latch
	router  *host
	hosts   map[string]*host
	arrived *arrivals
}

// host is one network namespace.
type host struct {
	name   string
	ns     netns.NsHandle
	handle *netlink.Handle
}

// in runs f on a thread of the host's namespace; the thread ends with it.
func (h *host) in(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread must not be used again
		if err := netns.Set(h.ns); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

// network is a bridge of the lab; v4 and v6 are the gateway's addresses.
type network struct {
	bridge, v4, v6 string
	group          uint32
}

var Networks = []network{
	{"br-one", "10.1.0.1/24", "fd00:1::1/64", state.GroupBridge},
	{"br-two", "10.2.0.1/24", "fd00:2::1/64", state.GroupBridge},
	{"br-int", "10.3.0.1/24", "fd00:3::1/64", state.GroupInternal},
	{"docker0", "172.17.0.1/16", "fd00:d::1/64", 0},
	{"virbr0", "192.168.122.1/24", "fd00:e::1/64", 0},
}

// Hosts are containers (with a bridge) and outside hosts (with a link of the router).
var Hosts = []struct{ name, bridge, link, v4, v6, gw4, gw6 string }{
	{"c1a", "br-one", "p1a", "10.1.0.2/24", "fd00:1::2/64", "10.1.0.1", "fd00:1::1"},
	{"c1b", "br-one", "p1b", "10.1.0.3/24", "fd00:1::3/64", "10.1.0.1", "fd00:1::1"},
	{"c2", "br-two", "p2", "10.2.0.2/24", "fd00:2::2/64", "10.2.0.1", "fd00:2::1"},
	{"i1", "br-int", "pi1", "10.3.0.2/24", "fd00:3::2/64", "10.3.0.1", "fd00:3::1"},
	{"i2", "br-int", "pi2", "10.3.0.3/24", "fd00:3::3/64", "10.3.0.1", "fd00:3::1"},
	{"d", "docker0", "pd", "172.17.0.2/16", "fd00:d::2/64", "172.17.0.1", "fd00:d::1"},
	{"g1", "virbr0", "pg1", "192.168.122.2/24", "fd00:e::2/64", "192.168.122.1", "fd00:e::1"},
	{"g2", "virbr0", "pg2", "192.168.122.3/24", "fd00:e::3/64", "192.168.122.1", "fd00:e::1"},
	{"out", "", "ext0", "192.0.2.9/24", "2001:db8:1::9/64", "192.0.2.1", "2001:db8:1::1"},
	{"far", "", "ext1", "198.51.100.9/24", "2001:db8:2::9/64", "198.51.100.1", "2001:db8:2::1"},
}

// serverPorts are served by every host, with all protocols.
var serverPorts = []uint16{80, 81, 7000}

// State has the lab's networks and published ports.
func State() state.Snapshot {
	id := func(c string) string { return strings.Repeat(c, 64) }
	subnet := func(s string) state.Subnet {
		p := netip.MustParsePrefix(s)
		return state.Subnet{Prefix: p.Masked(), Gateway: p.Addr()}
	}
	var s state.Snapshot
	for i, n := range Networks[:3] {
		s.Networks = append(s.Networks, state.Network{
			ID: state.NetworkID(id(fmt.Sprint(i + 1))), Bridge: n.bridge, V4: subnet(n.v4), V6: subnet(n.v6),
			Internal: n.group == state.GroupInternal,
		})
	}
	endpoint := func(id4id string, network int, v4, v6 string, ports ...state.Port) {
		s.Endpoints = append(s.Endpoints, state.Endpoint{
			ID: state.EndpointID(id(id4id)), Network: s.Networks[network].ID,
			Addr4: netip.MustParsePrefix(v4), Addr6: netip.MustParsePrefix(v6), Ports: ports,
		})
	}
	on := netip.MustParseAddr
	endpoint("a", 0, "10.1.0.2/24", "fd00:1::2/64",
		state.Port{Proto: state.TCP, HostPort: 8080, ContainerPort: 80},
		state.Port{Proto: state.UDP, HostPort: 8080, ContainerPort: 80},
		state.Port{Proto: state.SCTP, HostPort: 8080, ContainerPort: 80},
		state.Port{Proto: state.TCP, HostIP: on("192.0.2.1"), HostPort: 8081, ContainerPort: 81},
		state.Port{Proto: state.TCP, HostIP: on("2001:db8:1::1"), HostPort: 8081, ContainerPort: 81})
	endpoint("b", 0, "10.1.0.3/24", "fd00:1::3/64",
		state.Port{Proto: state.TCP, HostPort: 8083, ContainerPort: 80},
		state.Port{Proto: state.UDP, HostPort: 8083, ContainerPort: 80},
		state.Port{Proto: state.SCTP, HostPort: 8083, ContainerPort: 80})
	endpoint("c", 1, "10.2.0.2/24", "fd00:2::2/64",
		state.Port{Proto: state.TCP, HostPort: 9090, ContainerPort: 80},
		state.Port{Proto: state.UDP, HostPort: 9090, ContainerPort: 80})
	s.Sort()
	return s
}

// NewBare is a host with nothing on it.
func NewBare(t *testing.T, variant string) *Lab {
	t.Helper()
	l := &Lab{T: t, Variant: variant, BridgeSysctls: "/proc/sys/net/bridge", hosts: map[string]*host{}, arrived: &arrivals{from: map[string]string{}}}
	l.router = l.newHost("router")
	return l
}

// In runs f on a thread in the router's network namespace.
func (l *Lab) In(f func()) { l.router.in(f) }

// New builds the lab; nothing of it outlives the test.
func New(t *testing.T, variant string) *Lab {
	t.Helper()
	l := NewBare(t, variant)
	l.buildRouter()
	for _, h := range Hosts {
		l.buildHost(h.name, h.bridge, h.link, h.v4, h.v6, h.gw4, h.gw6)
	}
	for _, h := range l.hosts {
		l.serve(h)
	}
	return l
}

func (l *Lab) newHost(name string) *host {
	h := &host{name: name}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		h.ns, err = netns.New()
		done <- err
	}()
	must(l.T, <-done)
	var err error
	h.handle, err = netlink.NewHandleAt(h.ns)
	must(l.T, err)
	l.T.Cleanup(func() { h.handle.Close(); h.ns.Close() })
	lo, err := h.handle.LinkByName("lo")
	must(l.T, err)
	must(l.T, h.handle.LinkSetUp(lo))
	l.hosts[name] = h
	return h
}

func (l *Lab) buildRouter() {
	l.Sysctl("net/ipv4/ip_forward", "1")
	l.Sysctl("net/ipv6/conf/all/forwarding", "1")
	// Off, so that what drops a spoofed packet is our rule.
	l.Sysctl("net/ipv4/conf/all/rp_filter", "0")
	l.Sysctl("net/ipv4/conf/default/rp_filter", "0")
	for _, f := range []string{"iptables", "ip6tables"} {
		l.Sysctl("net/bridge/bridge-nf-call-"+f, "0")
	}
	for _, n := range Networks {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.bridge
		must(l.T, l.router.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		link := l.router.addresses(l.T, n.bridge, n.v4, n.v6)
		must(l.T, l.router.handle.LinkSetGroup(link, int(n.group)))
	}
}

func (l *Lab) buildHost(name, bridge, link, v4, v6, gw4, gw6 string) {
	h := l.newHost(name)
	l.plug(h, bridge, link, "eth0")
	if bridge == "" {
		l.router.addresses(l.T, link, withLength(gw4, v4), withLength(gw6, v6))
	}
	eth0 := h.addresses(l.T, "eth0", v4, v6)
	for _, gw := range []string{gw4, gw6} {
		must(l.T, h.handle.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gw)}))
	}
}

// plug leads a link from the router, or one of its bridges, to a host.
func (l *Lab) plug(h *host, bridge, link, peer string) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	must(l.T, l.router.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(h.ns),
	}))
	if bridge == "" {
		return
	}
	port, err := l.router.handle.LinkByName(link)
	must(l.T, err)
	master, err := l.router.handle.LinkByName(bridge)
	must(l.T, err)
	must(l.T, l.router.handle.LinkSetMaster(port, master))
	must(l.T, l.router.handle.LinkSetUp(port))
}

func withLength(addr, like string) string {
	_, length, _ := strings.Cut(like, "/")
	return addr + "/" + length
}

// addresses gives a link addresses, without duplicate address detection, and turns it on.
func (h *host) addresses(t *testing.T, name string, addrs ...string) netlink.Link {
	link, err := h.handle.LinkByName(name)
	must(t, err)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		must(t, err)
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		must(t, h.handle.AddrAdd(link, addr))
	}
	must(t, h.handle.LinkSetUp(link))
	return link
}

// Sysctl writes a switch of the router.
func (l *Lab) Sysctl(name, value string) {
	l.T.Helper()
	l.router.in(func() { must(l.T, os.WriteFile("/proc/sys/"+name, []byte(value), 0)) })
}

// Run is the Runner inside the router.
func (l *Lab) Run(ctx context.Context, stdin string, argv ...string) (out string, err error) {
	l.router.in(func() { out, err = process.Run(ctx, stdin, argv...) })
	return out, err
}

// Tables runs the lab's variant of iptables or, for v6, ip6tables.
func (l *Lab) Tables(v6 bool, args string) {
	l.T.Helper()
	program := "iptables"
	if v6 {
		program = "ip6tables"
	}
	argv := append([]string{program + l.Variant, "-w"}, strings.Fields(args)...)
	if _, err := l.Run(l.T.Context(), "", argv...); err != nil {
		l.T.Fatal(err)
	}
}

// Both runs the same command in both families.
func (l *Lab) Both(args string) {
	l.T.Helper()
	l.Tables(false, args)
	l.Tables(true, args)
}

// Sync makes the router's firewall what the state wants, by a backend.
func (l *Lab) Sync(b firewall.Backend, s state.Snapshot) {
	l.T.Helper()
	leads := func(n state.Network) bool { return !n.Internal && !n.Adopted } // as by default
	if err := firewall.NewPlane(b, firewall.Settings{Loopback: leads, Latch: l.Latch}).Apply(l.T.Context(), s); err != nil {
		l.T.Fatalf("sync: %v", err)
	}
}

// arrivals remembers which datagrams reached a server and from which address.
type arrivals struct {
	mu   sync.Mutex
	from map[string]string // by token; guarded by mu
}

func (a *arrivals) put(token, who string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.from[token] = who
}

func (a *arrivals) get(token string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.from[token]
}

// serve answers "name address-of-the-peer" on every server port of the host.
func (l *Lab) serve(h *host) {
	for _, lh := range Hosts {
		if lh.name != h.name {
			continue
		}
		for _, cidr := range []string{lh.v4, lh.v6} {
			addr := netip.MustParsePrefix(cidr).Addr()
			for _, port := range serverPorts {
				l.serveTCP(h, netip.AddrPortFrom(addr, port))
				l.serveUDP(h, netip.AddrPortFrom(addr, port))
				l.serveSCTP(h, netip.AddrPortFrom(addr, port))
			}
		}
	}
}

func (l *Lab) serveTCP(h *host, at netip.AddrPort) {
	var ln *net.TCPListener
	var err error
	h.in(func() { ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)) })
	must(l.T, err)
	l.T.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s %s", h.name, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
			conn.Close()
		}
	}()
}

func (l *Lab) serveUDP(h *host, at netip.AddrPort) {
	var conn *net.UDPConn
	var err error
	h.in(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	must(l.T, err)
	l.T.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 256)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			answer := h.name + " " + from.Addr().String()
			l.arrived.put(string(buf[:n]), answer)
			conn.WriteToUDPAddrPort([]byte(answer), from)
		}
	}()
}

func (l *Lab) serveSCTP(h *host, at netip.AddrPort) {
	var s *sctp.Server
	var err error
	h.in(func() { s, err = sctp.Listen(at.String()) })
	must(l.T, err)
	l.T.Cleanup(func() { s.Close() })
	go s.Serve(func(peer netip.AddrPort) string { return h.name + " " + peer.Addr().String() })
}

// How long a packet that should pass, and one that should not, is waited for.
const (
	Patience   = 3 * time.Second
	Impatience = 250 * time.Millisecond
	// again is the time after which a datagram without an answer is sent once more.
	again = 500 * time.Millisecond
)

// knock sends one packet or opens one connection and returns the server's answer, "" if
// there was none. bind is the source address, or invalid for the kernel's choice.
func (l *Lab) knock(from, proto string, bind netip.Addr, to netip.AddrPort, wait time.Duration) string {
	dialer := net.Dialer{Timeout: wait}
	if bind.IsValid() {
		dialer.Control = func(_, _ string, c syscall.RawConn) error { return transparent(c, bind.Is6()) }
		if proto == "tcp" {
			dialer.LocalAddr = &net.TCPAddr{IP: bind.AsSlice()}
		} else {
			dialer.LocalAddr = &net.UDPAddr{IP: bind.AsSlice()}
		}
	}
	var conn net.Conn
	var err error
	l.hosts[from].in(func() {
		if proto == "sctp" {
			conn, err = sctp.Dial(l.T.Context(), dialer, to.String())
			return
		}
		conn, err = dialer.DialContext(l.T.Context(), proto, to.String())
	})
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	token := fmt.Sprintf("%s>%s from %s", from, to, conn.LocalAddr())
	buf := make([]byte, 256)
	n := 0
	for end := time.Now().Add(wait); n == 0 && err == nil && time.Now().Before(end); {
		if proto != "tcp" {
			if _, err := conn.Write([]byte(token)); err != nil {
				return ""
			}
		}
		if proto != "tcp" { // a datagram may get lost on a busy machine
			conn.SetReadDeadline(earlier(end, time.Now().Add(again)))
		}
		n, err = conn.Read(buf)
		if proto != "tcp" && errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	if n == 0 && proto == "udp" {
		return l.arrived.get(token) // it may have arrived although the answer went astray
	}
	return string(buf[:n])
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// transparent allows a source address that the host does not have.
func transparent(c syscall.RawConn, v6 bool) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
