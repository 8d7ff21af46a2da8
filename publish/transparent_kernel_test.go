//go:build kernel

package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

// ourLab is the lab with a container behind a bridge of ours, links and rules and all:
//
//	client 192.0.2.2 --- 192.0.2.1 host 10.9.0.1 br0 --- 10.9.0.2 container 80, 81
//
// The rules are those of a state without ports, so that nothing is translated: whatever gets to the container came by a socket.
// The host forwards nothing, and its own checks of sources are as strict as can be.
type ourLab struct {
	*testing.T
	client, container client
	links             *link.Links
	backend           firewall.Backend
	state             state.Snapshot
}

const (
	hostAddr4, hostAddr6           = "192.0.2.1", "2001:db8::1"
	clientAddr4, clientAddr6       = "192.0.2.2", "2001:db8::2"
	containerAddr4, containerAddr6 = "10.9.0.2", "fd09::2"
	bridgeAddr4, bridgeAddr6       = "10.9.0.1", "fd09::1"
)

// newOurLab makes the lab with one of the backends; mode is that of the network.
func newOurLab(t *testing.T, backend string, p state.Publish) *ourLab {
	t.Helper()
	l := &ourLab{T: t, client: newLab(t)}
	for _, key := range []string{"rp_filter", "src_valid_mark"} {
		sysctl(t, "net/ipv4/conf/all/"+key, "1")
	}
	n := theNetwork(mode(p))
	e := endpoint("a", containerAddr4+"/24", containerAddr6+"/64")
	e.MAC = state.GenerateMAC("a")
	for _, proto := range []state.Proto{state.TCP, state.UDP} {
		for _, port := range []struct{ host, container uint16 }{{8080, 80}, {8081, 80}, {8082, 82}} {
			e.Ports = append(e.Ports, portOf(exact(proto, "", port.host, port.container)))
		}
	}
	l.state = snapshot(e)
	l.state.Networks = []state.Network{n}

	var err error
	l.links, err = link.New(link.Sysctl{Root: "/proc/sys"})
	l.must(err)
	t.Cleanup(l.links.Close)
	l.links.Mode = modeAsSaid
	bridges := func() ([]string, error) { return nil, nil }
	if backend == "iptables" {
		b, err := iptables.NewVariant(process.Run, bridges, "-nft")
		l.must(err)
		t.Cleanup(b.Close)
		l.backend = b
	} else {
		m, err := iptables.NewMarkedVariant(process.Run, nftables.MarkPermitted, "-nft")
		l.must(err)
		t.Cleanup(m.Close)
		b, err := nftables.New(m, bridges)
		l.must(err)
		t.Cleanup(b.Close)
		l.backend = b
	}
	l.must(l.links.Prepare().Apply(t.Context(), l.state))
	l.must(firewall.NewPlane(l.backend, firewall.Settings{
		Divert: func(s state.Snapshot) bool { return len(s.ByHost(modeAsSaid)) > 0 },
	}).Apply(t.Context(), l.unpublished()))
	l.must(l.links.Activate().Apply(t.Context(), l.state))
	l.container = l.inside(e)
	return l
}

// unpublished is the state as the firewall gets it.
func (l *ourLab) unpublished() state.Snapshot {
	s := l.state
	s.Endpoints = []state.Endpoint{with(s.Endpoints[0])}
	return s
}

func (l *ourLab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// inside puts the endpoint's link into a namespace of its own, with addresses and routes as the engine would, and serves there.
func (l *ourLab) inside(e state.Endpoint) client {
	l.Helper()
	c, ns := namespace(l.T)
	own, err := netlink.LinkByName(e.ContainerLink())
	l.must(err)
	l.must(netlink.LinkSetNsFd(own, int(ns)))
	c.do(func() {
		err = bringUp(e.ContainerLink(), []string{containerAddr4 + "/24", containerAddr6 + "/64"})
		for _, gateway := range []string{bridgeAddr4, bridgeAddr6} {
			if err == nil {
				err = netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)})
			}
		}
	})
	l.must(err)
	for _, addr := range []string{containerAddr4, containerAddr6} {
		l.serve(c, netip.AddrPortFrom(netip.MustParseAddr(addr), 80))
	}
	return c
}

// namespace makes a network namespace with lo up.
func namespace(t *testing.T) (client, netns.NsHandle) {
	t.Helper()
	c, ready := client{make(chan func())}, make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
		}
		ready <- ns
		for f := range c.work {
			f()
		}
	}()
	t.Cleanup(func() { close(c.work) })
	ns := <-ready
	var err error
	c.do(func() { err = bringUp("lo", nil) })
	if err != nil {
		t.Fatal(err)
	}
	return c, ns
}

// serve answers with the client's address as the container sees it, and then, of TCP, in capitals with all that it got.
func (l *ourLab) serve(c client, at netip.AddrPort) {
	l.Helper()
	var tcp *net.TCPListener
	var udp *net.UDPConn
	var err4, err6 error
	c.do(func() {
		tcp, err4 = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		udp, err6 = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	})
	l.must(errors.Join(err4, err6))
	l.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		for {
			conn, err := tcp.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, unmapped(conn.RemoteAddr().(*net.TCPAddr).AddrPort()))
				upper(conn)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			udp.WriteToUDPAddrPort([]byte(unmapped(from).String()), from)
		}
	}()
}

// publisher serves the lab's state.
func (l *ourLab) publisher(o Options) *Publisher {
	l.Helper()
	o.Mode = modeAsSaid
	p := New(o)
	l.Cleanup(func() { p.Close() })
	l.must(p.Apply(l.Context(), l.state))
	return p
}

// knock asks a published port and returns whom the container saw, "silence", "reset" or what else happened. port is the client's
// own, 0 for any. The address that the client has is returned too.
func knock(proto state.Proto, port uint16, ip string, to uint16) (seen, own string) {
	return knockFor(proto, netip.AddrPort{}, port, ip, to, 3*time.Second)
}

func knockFor(proto state.Proto, from netip.AddrPort, port uint16, ip string, to uint16, wait time.Duration) (seen, own string) {
	d := net.Dialer{Timeout: wait}
	local := &net.TCPAddr{Port: int(port)}
	if from.IsValid() {
		local = net.TCPAddrFromAddrPort(from)
		d.Control = transparent
	}
	d.LocalAddr = local
	if proto == state.UDP {
		d.LocalAddr = &net.UDPAddr{IP: local.IP, Port: local.Port}
	}
	c, err := d.Dial(proto.String(), netip.AddrPortFrom(netip.MustParseAddr(ip), to).String())
	if err == nil {
		defer c.Close()
		own = c.LocalAddr().String()
		c.SetDeadline(time.Now().Add(wait))
		if proto == state.UDP {
			c.Write([]byte("hi"))
		}
		buf := make([]byte, 100)
		var n int
		if n, err = c.Read(buf); err == nil {
			return strings.TrimSpace(string(buf[:n])), own
		}
	}
	switch {
	case isTimeout(err):
		return "silence", own
	case errors.Is(err, syscall.ECONNRESET):
		return "reset", own
	}
	return err.Error(), own
}

// outside knocks as the client.
func (l *ourLab) outside(proto state.Proto, port uint16, ip string, to uint16) (seen, own string) {
	l.client.do(func() { seen, own = knock(proto, port, ip, to) })
	return seen, own
}

var (
	bothBackends = []string{"iptables", "nftables"}
	bothProtos   = []state.Proto{state.TCP, state.UDP}
)

// each runs a test with both backends. Each has a process of its own, which knows by an argument what it is.
func each(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range bothBackends {
		t.Run(backend, func(t *testing.T) {
			if inLab(t) {
				test(t, backend)
			}
		})
	}
}

// TestTransparent: the container sees the client's own address and port.
func TestTransparent(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		l := newOurLab(t, backend, state.PublishHost)
		l.publisher(Options{})
		for _, proto := range bothProtos {
			for _, ip := range []string{hostAddr4, hostAddr6} {
				if seen, own := l.outside(proto, 0, ip, 8080); seen != own {
					t.Errorf("%s by %s: the container sees %q, the client is %s", proto, ip, seen, own)
				}
			}
		}
	})
}

// TestTransparentObeys: what the host's INPUT refuses comes to no container, and what it lets in does. Nothing but that decides.
func TestTransparentObeys(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		l := newOurLab(t, backend, state.PublishHost)
		l.publisher(Options{})
		check := func(when string, open bool) {
			t.Helper()
			for _, proto := range bothProtos {
				for _, ip := range []string{hostAddr4, hostAddr6} {
					wait := 3 * time.Second
					if !open {
						wait = silence
					}
					var seen, own string
					l.client.do(func() { seen, own = knockFor(proto, netip.AddrPort{}, 0, ip, 8080, wait) })
					if open && seen != own || !open && seen != "silence" {
						t.Errorf("%s: %s by %s: %q", when, proto, ip, seen)
					}
				}
			}
		}
		// Replies of the container pass INPUT too: they belong to a connection.
		l.tables("-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-A INPUT -p icmp -j ACCEPT", "-A INPUT -p ipv6-icmp -j ACCEPT", "-P INPUT DROP", "-P FORWARD DROP")
		check("policy DROP", false)
		for _, proto := range bothProtos {
			l.tables(fmt.Sprintf("-A INPUT -p %s --dport 8080 -j ACCEPT", proto))
		}
		check("accepted", true)
		l.tables("-P INPUT ACCEPT", "-F INPUT")
		check("no rules", true)
		l.nft("add table inet host; add chain inet host in { type filter hook input priority 0; policy accept; }; add rule inet host in meta l4proto { tcp, udp } th dport 8080 drop")
		check("dropped by nft", false)
		l.nft("delete table inet host")
		check("not dropped any more", true)
	})
}

func (l *ourLab) tables(rules ...string) {
	l.Helper()
	for _, rule := range rules {
		for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
			if program == "iptables-nft" && strings.Contains(rule, "ipv6") || program != "iptables-nft" && strings.Contains(rule, "-p icmp") {
				continue
			}
			if out, err := exec.Command(program, strings.Fields(rule)...).CombinedOutput(); err != nil {
				l.Fatalf("%s %s: %v: %s", program, rule, err, out)
			}
		}
	}
}

func (l *ourLab) nft(commands string) {
	l.Helper()
	if out, err := exec.Command("nft", commands).CombinedOutput(); err != nil {
		l.Fatalf("nft %s: %v: %s", commands, err, out)
	}
}

// TestTransparentStreams: both directions end each for itself, and a port of the container that is closed is a reset.
func TestTransparentStreams(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	l.publisher(Options{})
	for _, ip := range []string{hostAddr4, hostAddr6} {
		var answer []byte
		var err error
		var own string
		question := strings.Repeat("question ", 1<<17)
		l.client.do(func() {
			var c net.Conn
			if c, err = net.Dial("tcp", net.JoinHostPort(ip, "8080")); err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(deadline())
			own = c.LocalAddr().String()
			go func() {
				io.WriteString(c, question)
				c.(*net.TCPConn).CloseWrite()
			}()
			answer, err = io.ReadAll(c)
		})
		if want := own + "\n" + strings.ToUpper(question); err != nil || string(answer) != want {
			t.Errorf("%s: %d bytes of %d: %v", ip, len(answer), len(want), err)
		}
		began := time.Now()
		if seen, _ := l.outside(state.TCP, 0, ip, 8082); seen != "reset" || time.Since(began) > astrayWait {
			t.Errorf("%s: a closed port: %q after %v", ip, seen, time.Since(began))
		}
	}
}

// TestTransparentFallsBack: who cannot be shown to the container is served all the same, as the bridge.
func TestTransparentFallsBack(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	var logged transcript.Text
	p := l.publisher(Options{Log: slog.New(slog.NewTextHandler(&logged, nil))})
	asBridge := func(what, seen, own string) {
		t.Helper()
		if host, _, _ := net.SplitHostPort(seen); host != bridgeAddr4 && host != bridgeAddr6 || seen == own {
			t.Errorf("%s: the container sees %q", what, seen)
		}
	}
	t.Log("the host itself")
	for _, proto := range bothProtos {
		for _, ip := range []string{"127.0.0.1", hostAddr4, hostAddr6} {
			seen, own := knock(proto, 0, ip, 8080)
			asBridge(fmt.Sprint(proto, " by ", ip), seen, own)
		}
	}

	t.Log("the container's answers go elsewhere")
	if strings.Contains(logged.String(), "elsewhere") {
		t.Error("told too early:", logged.String())
	}
	if out, err := exec.Command("ip", "rule", "del", "pref", "1427", "iif", "br0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, most := range []time.Duration{3 * time.Second, astrayWait / 2} { // it is remembered
		began := time.Now()
		seen, own := l.outside(state.TCP, 0, hostAddr4, 8080)
		asBridge("astray", seen, own)
		if took := time.Since(began); took > most || i == 0 && took < astrayWait {
			t.Errorf("client %d was served after %v", i, took)
		}
	}
	if n := strings.Count(logged.String(), "elsewhere"); n != 1 {
		t.Errorf("told %d times: %s", n, logged.String())
	}
	if seen, own := l.outside(state.TCP, 0, hostAddr6, 8080); seen != own {
		t.Errorf("IPv6 suffers with IPv4: %q", seen)
	}
	l.must(l.links.Activate().Apply(t.Context(), l.state))

	t.Log("whom a container does not answer that has answered others")
	drop := func(operation string) {
		var out []byte
		var err error
		l.container.do(func() {
			out, err = exec.Command("iptables-nft", operation, "INPUT", "-s", clientAddr4, "-p", "tcp", "-j", "DROP").CombinedOutput()
		})
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l.must(p.Close())
	p = l.publisher(Options{DialTimeout: 2 * astrayWait, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if seen, own := l.outside(state.TCP, 0, hostAddr4, 8080); seen != own {
		t.Errorf("before: %q", seen)
	}
	drop("-A")
	for range 2 {
		if seen, _ := l.outside(state.TCP, 0, hostAddr4, 8080); seen != "reset" && seen != "silence" {
			t.Errorf("he comes as %q", seen)
		}
	}
	drop("-D")
	if seen, own := l.outside(state.TCP, 0, hostAddr4, 8080); seen != own {
		t.Errorf("afterwards: %q", seen)
	}

	t.Log("a container of the other family")
	four := l.state.Endpoints[0]
	four.ID = endpoint("b").ID
	four.Addr6 = netip.Prefix{}
	four.Ports = []state.Port{portOf(exact(state.TCP, hostAddr6, 9080, 80)), portOf(exact(state.UDP, hostAddr6, 9080, 80))}
	s := snapshot(l.state.Endpoints[0], four)
	s.Networks = l.state.Networks
	l.must(p.Apply(t.Context(), s))
	for _, proto := range bothProtos {
		seen, own := l.outside(proto, 0, hostAddr6, 9080)
		asBridge("other family", seen, own)
	}

	t.Log("the host lacks something")
	l.must(p.Close())
	l.publisher(Options{Log: slog.New(slog.NewTextHandler(&logged, nil)), Undiverted: func() string { return "a moon" }})
	for _, proto := range bothProtos {
		for range 2 {
			seen, own := l.outside(proto, 0, hostAddr4, 8080)
			asBridge("lacks something", seen, own)
		}
	}
	if n := strings.Count(logged.String(), "a moon"); n != 1 {
		t.Errorf("told %d times: %s", n, logged.String())
	}
}

// TestClientsChooseTheirPorts: whichever port a client comes from, the container sees his address, and his port where that is free.
func TestClientsChooseTheirPorts(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	l.publisher(Options{})
	from := func(proto state.Proto, port uint16, ip string, to uint16) (seen, own string) {
		any := netip.IPv4Unspecified()
		if ip == hostAddr6 {
			any = netip.IPv6Unspecified()
		}
		l.client.do(func() { seen, own = knockFor(proto, netip.AddrPortFrom(any, port), 0, ip, to, 3*time.Second) })
		return seen, own
	}
	himself := func(what, seen, own string, port bool) {
		t.Helper()
		seenHost, _, _ := net.SplitHostPort(seen)
		ownHost, _, _ := net.SplitHostPort(own)
		if seenHost != ownHost || ownHost == "" || port != (seen == own) {
			t.Errorf("%s: %s is seen as %q", what, own, seen)
		}
	}
	for _, proto := range bothProtos {
		for _, ip := range []string{hostAddr4, hostAddr6} {
			what := fmt.Sprint(proto, " by ", ip)
			for _, port := range []uint16{1024, 5555, 40000, 65000} { // the kernel lends 40000
				seen, own := from(proto, port, ip, 8080)
				himself(what, seen, own, true)
			}
			// That of a published port, which is taken on all addresses.
			seen, own := from(proto, 8081, ip, 8080)
			himself(what+", from a published port", seen, own, false)

			var first net.Conn
			var err error
			l.client.do(func() {
				d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 41000}, Control: transparent}
				if proto == state.UDP {
					d.LocalAddr = &net.UDPAddr{Port: 41000}
				}
				if first, err = d.Dial(proto.String(), net.JoinHostPort(ip, "8081")); err == nil {
					first.SetDeadline(deadline())
					first.Write([]byte("hi"))
					_, err = first.Read(make([]byte, 100))
				}
			})
			l.must(err)
			seen, own = from(proto, 41000, ip, 8080)
			himself(what+", twice to one port of the container", seen, own, false)
			first.Close()
		}
	}
	udp, err := net.ListenPacket("udp4", ":6666")
	l.must(err)
	defer udp.Close()
	tcp, err := net.Listen("tcp4", ":6666")
	l.must(err)
	defer tcp.Close()
	for _, proto := range bothProtos {
		seen, own := from(proto, 6666, hostAddr4, 8080)
		himself(fmt.Sprint(proto, " from a port that a program of the host has"), seen, own, false)
	}
}

// TestClientsLeavePorts: a client that comes from all ports that the host lends to its own connections takes none of them.
func TestClientsLeavePorts(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	const low, high = 40000, 40099
	sysctl(t, "net/ipv4/ip_local_port_range", fmt.Sprintf("%d %d", low, high))
	l.publisher(Options{})
	var served net.Listener
	var err error
	l.client.do(func() { served, err = net.Listen("tcp", net.JoinHostPort(clientAddr4, "7000")) })
	l.must(err)
	defer served.Close()
	for _, proto := range bothProtos {
		for port := uint16(low); port <= high; port++ {
			l.client.do(func() {
				knockFor(proto, netip.AddrPortFrom(netip.IPv4Unspecified(), port), 0, hostAddr4, 8080, 3*time.Second)
			})
		}
	}
	for range 10 {
		for _, network := range []string{"tcp", "udp"} { // the connections of which we have closed our end are in TIME_WAIT
			c, err := net.DialTimeout(network, net.JoinHostPort(clientAddr4, "7000"), 3*time.Second)
			if err != nil {
				t.Fatalf("the host's own connection: %v", err)
			}
			c.Close()
		}
	}
}

// TestTransparentWithoutPermission: without CAP_NET_ADMIN and CAP_NET_RAW an ordinary connection is had recourse to, which is told.
func TestTransparentWithoutPermission(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	var logged transcript.Text
	p := New(Options{Log: slog.New(slog.NewTextHandler(&logged, nil))})
	for _, proto := range bothProtos {
		a := &admission{o: p.servers, b: binding{
			port: state.Port{Proto: proto}, target: netip.AddrPortFrom(netip.MustParseAddr(containerAddr4), 80),
		}}
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: what the thread has given up is gone
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			err := unix.Capset(&header, &none[0])
			if err == nil {
				_, err = a.dialAs(l.Context(), netip.MustParseAddrPort(clientAddr4+":5555"), time.Second)
			}
			done <- err
		}()
		if err := <-done; !errors.Is(err, syscall.EPERM) || !a.recourse(err) {
			t.Errorf("%s: %v, recourse %v", proto, err, a.recourse(err))
		}
	}
	if n := strings.Count(logged.String(), "CAP_NET_ADMIN"); n != 1 {
		t.Errorf("told %d times: %s", n, logged.String())
	}
}

// TestContainersDoNotGetAround: who is on a network of ours is refused at sockets that are there for others, with or without a
// source that is his. Rules would have translated him.
func TestContainersDoNotGetAround(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	p := l.publisher(Options{})
	for _, name := range []string{"all", "br0"} { // which would refuse one before we do
		sysctl(t, "net/ipv4/conf/"+name+"/rp_filter", "0")
	}
	spoofed := netip.MustParseAddrPort("203.0.113.7:7777")
	l.container.do(func() {
		if seen, _ := knock(state.TCP, 0, hostAddr4, 8080); seen != "reset" {
			t.Errorf("tcp: %q", seen)
		}
		for _, from := range []netip.AddrPort{{}, spoofed} {
			if seen, _ := knockFor(state.UDP, from, 0, hostAddr4, 8080, silence); seen != "silence" {
				t.Errorf("udp from %s: %q", from, seen)
			}
		}
	})
	sessions := 0
	for s := range p.all() {
		if u, ok := s.server.(*udpServer); ok {
			u.mu.Lock()
			sessions += len(u.sessions)
			u.mu.Unlock()
		}
	}
	if sessions > 0 {
		t.Errorf("%d datagrams came to the container", sessions)
	}
}

// TestBroadcast: who asks all of a link is answered from an address that the host has there.
func TestBroadcast(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	l.publisher(Options{})
	for _, to := range []string{hostAddr4, "192.0.2.255", "255.255.255.255"} {
		var seen, own string
		var from net.Addr
		l.client.do(func() {
			c, err := net.ListenPacket("udp4", clientAddr4+":0")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			own = c.LocalAddr().String()
			c.SetDeadline(deadline())
			if _, err := c.WriteTo([]byte("hi"), &net.UDPAddr{IP: net.ParseIP(to), Port: 8080}); err != nil {
				t.Errorf("%s: %v", to, err)
			}
			buf := make([]byte, 100)
			var n int
			n, from, err = c.ReadFrom(buf)
			if err != nil {
				t.Errorf("%s: %v", to, err)
				return
			}
			seen = string(buf[:n])
		})
		if from == nil || from.String() != hostAddr4+":8080" || seen != own {
			t.Errorf("%s: an answer from %v, the container sees %q and the client is %s", to, from, seen, own)
		}
	}
}

// TestModeChangesUnderClients: a port that changes its mode keeps the connections that are there.
func TestModeChangesUnderClients(t *testing.T) {
	if !inLab(t) {
		return
	}
	l := newOurLab(t, "nftables", state.PublishHost)
	p := l.publisher(Options{})
	var c net.Conn
	var err error
	l.client.do(func() { c, err = net.Dial("tcp", hostAddr4+":8080") })
	l.must(err)
	defer c.Close()
	c.SetDeadline(deadline())
	line := make([]byte, len(c.LocalAddr().String())+1)
	if _, err := io.ReadFull(c, line); err != nil {
		t.Fatal(err)
	}
	change := func(m state.Publish) {
		t.Helper()
		next := l.state
		next.Networks = []state.Network{theNetwork(mode(m))}
		l.must(p.Follow(context.Background(), state.Compare(l.state, next)))
		l.state = next
	}
	for _, m := range []state.Publish{state.PublishDNAT, state.PublishLocalhost} {
		change(m)
		var seen string
		l.client.do(func() { seen, _ = knockFor(state.TCP, netip.AddrPort{}, 0, hostAddr4, 8080, silence) })
		if seen != "silence" {
			t.Errorf("%s: a new client gets %q", m, seen)
		}
	}
	io.WriteString(c, "still there")
	c.(*net.TCPConn).CloseWrite()
	if answer, err := io.ReadAll(c); string(answer) != "STILL THERE" {
		t.Errorf("the old client got %q: %v", answer, err)
	}
	change(state.PublishLearned)
	if seen, own := l.outside(state.TCP, 0, hostAddr4, 8080); seen != own {
		t.Errorf("learned: a new client gets %q", seen)
	}
}
