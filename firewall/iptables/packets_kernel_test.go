//go:build kernel

package iptables

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// packet is a row: who knocks where, who answers and which source he sees. Addresses are given for
// IPv4 and IPv6.
type packet struct {
	name    string
	from    string
	proto   string
	bind    [2]string // source address, if not the kernel's choice
	to      [2]string
	answers string    // host that answers, "" if the packet must not pass
	sees    [2]string // the source address that it sees
	control bool      // refused by our rules only: passes in a lab without them
}

var (
	c1a    = [2]string{"10.1.0.2", "fd00:1::2"}
	c1b    = [2]string{"10.1.0.3", "fd00:1::3"}
	c2     = [2]string{"10.2.0.2", "fd00:2::2"}
	i1     = [2]string{"10.3.0.2", "fd00:3::2"}
	i2     = [2]string{"10.3.0.3", "fd00:3::3"}
	d      = [2]string{"172.17.0.2", "fd00:d::2"}
	g1     = [2]string{"192.168.122.2", "fd00:e::2"}
	g2     = [2]string{"192.168.122.3", "fd00:e::3"}
	out    = [2]string{"192.0.2.9", "2001:db8:1::9"}
	far    = [2]string{"198.51.100.9", "2001:db8:2::9"}
	ext0   = [2]string{"192.0.2.1", "2001:db8:1::1"}
	ext1   = [2]string{"198.51.100.1", "2001:db8:2::1"}
	gw1    = [2]string{"10.1.0.1", "fd00:1::1"}
	nobody = [2]string{"203.0.113.7", "2001:db8:7::7"}
)

func at(addr [2]string, port string) [2]string {
	return [2]string{addr[0] + ":" + port, "[" + addr[1] + "]:" + port}
}

// packets must fare alike whatever else is on the host.
var packets = []packet{
	{name: "egress is masqueraded", from: "c1a", proto: "tcp", to: at(out, "80"), answers: "out", sees: ext0},
	{name: "egress is masqueraded, udp", from: "c2", proto: "udp", to: at(far, "80"), answers: "far", sees: ext1},
	{name: "egress is masqueraded, sctp", from: "c1a", proto: "sctp", to: at(out, "80"), answers: "out", sees: ext0},

	{name: "published", from: "out", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: out},
	{name: "published, udp", from: "out", proto: "udp", to: at(ext0, "8080"), answers: "c1a", sees: out},
	{name: "published, sctp", from: "out", proto: "sctp", to: at(ext0, "8080"), answers: "c1a", sees: out},
	{name: "published, other address", from: "far", proto: "tcp", to: at(ext1, "8080"), answers: "c1a", sees: far},
	{name: "published, address of another interface", from: "out", proto: "tcp", to: at(ext1, "9090"), answers: "c2", sees: out},
	{name: "published on one address", from: "out", proto: "tcp", to: at(ext0, "8081"), answers: "c1a", sees: out},
	{name: "published on one address, by another", from: "far", proto: "tcp", to: at(ext1, "8081")},
	{name: "published with tcp, by udp", from: "out", proto: "udp", to: at(ext0, "8081")},
	// From elsewhere than the rows that pass: ICMP errors reach all raw sockets with the same addresses.
	{name: "published with tcp, by sctp", from: "far", proto: "sctp", to: at(ext0, "8081")},

	{name: "published, from another network", from: "c2", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: c2},
	{name: "published, from another network, udp", from: "c2", proto: "udp", to: at(ext0, "8080"), answers: "c1a", sees: c2},
	{name: "published, from another network, sctp", from: "c2", proto: "sctp", to: at(ext0, "8080"), answers: "c1a", sees: c2},
	{name: "published, from another network by the gateway", from: "c2", proto: "tcp", to: at(gw1, "8080"), answers: "c1a", sees: c2},
	{name: "hairpin to itself", from: "c1a", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: gw1},
	{name: "hairpin to itself, udp", from: "c1a", proto: "udp", to: at(ext0, "8080"), answers: "c1a", sees: gw1},
	{name: "hairpin to itself, sctp", from: "c1a", proto: "sctp", to: at(ext0, "8080"), answers: "c1a", sees: gw1},
	{name: "hairpin to a neighbour", from: "c1a", proto: "tcp", to: at(ext0, "8083"), answers: "c1b", sees: gw1},
	{name: "hairpin to a neighbour, sctp", from: "c1a", proto: "sctp", to: at(ext0, "8083"), answers: "c1b", sees: gw1},
	{name: "hairpin to a neighbour by the gateway, udp", from: "c1a", proto: "udp", to: at(gw1, "8083"), answers: "c1b", sees: gw1},
	{name: "from the host by its address", from: "router", proto: "tcp", to: at(ext0, "8080"), answers: "c1a"},
	{name: "from the host by its address, udp", from: "router", proto: "udp", to: at(ext1, "9090"), answers: "c2"},
	{name: "from the host by its address, sctp", from: "router", proto: "sctp", to: at(ext0, "8080"), answers: "c1a"},
	{name: "from the host to the container", from: "router", proto: "tcp", to: at(c1a, "7000"), answers: "c1a"},
	{name: "from the host to an internal container", from: "router", proto: "tcp", to: at(i1, "7000"), answers: "i1"},

	{name: "same network", from: "c1a", proto: "tcp", to: at(c1b, "7000"), answers: "c1b", sees: c1a},
	{name: "same network, udp", from: "c1b", proto: "udp", to: at(c1a, "7000"), answers: "c1a", sees: c1b},
	{name: "inside an internal network", from: "i1", proto: "tcp", to: at(i2, "7000"), answers: "i2", sees: i1},
	{name: "inside an internal network, udp", from: "i2", proto: "udp", to: at(i1, "7000"), answers: "i1", sees: i2},

	{name: "unpublished port by the host", from: "out", proto: "tcp", to: at(ext0, "7000")},
	{name: "direct routing, unpublished port", from: "out", proto: "tcp", to: at(c1a, "7000"), control: true},
	{name: "direct routing, published port", from: "out", proto: "tcp", to: at(c1a, "80"), control: true},
	{name: "direct routing, host's port number", from: "out", proto: "udp", to: at(c1a, "80"), control: true},
	{name: "direct routing, published port, sctp", from: "out", proto: "sctp", to: at(c1a, "80"), control: true},
	{name: "between networks, sctp", from: "c1a", proto: "sctp", to: at(c2, "7000"), control: true},
	{name: "between networks", from: "c1a", proto: "tcp", to: at(c2, "7000"), control: true},
	{name: "between networks, back", from: "c2", proto: "udp", to: at(c1a, "7000"), control: true},
	{name: "between networks, published port", from: "c2", proto: "tcp", to: at(c1a, "80"), control: true},
	{name: "to docker0", from: "c1a", proto: "tcp", to: at(d, "7000"), control: true},
	{name: "from docker0", from: "d", proto: "tcp", to: at(c1a, "7000"), control: true},
	{name: "from docker0 to a published port", from: "d", proto: "tcp", to: at(ext0, "8080"), answers: "c1a", sees: d},

	{name: "internal, out", from: "i1", proto: "udp", to: at(out, "80"), control: true},
	{name: "internal, in", from: "out", proto: "udp", to: at(i1, "80"), control: true},
	{name: "internal to another network", from: "i1", proto: "tcp", to: at(c1a, "7000"), control: true},
	{name: "another network to internal", from: "c1a", proto: "tcp", to: at(i1, "7000"), control: true},
	{name: "internal to a published port", from: "i1", proto: "tcp", to: at(ext0, "8080")},
	{name: "internal to docker0", from: "i1", proto: "tcp", to: at(d, "7000"), control: true},
	{name: "docker0 to internal", from: "d", proto: "tcp", to: at(i1, "7000"), control: true},

	{name: "spoofed from a container", from: "c1a", proto: "udp", bind: nobody, to: at(out, "80"), control: true},
	{name: "spoofed from a container as another network", from: "c1a", proto: "udp", bind: c2, to: at(out, "81"), control: true},
	{name: "spoofed from a container to a published port", from: "c1a", proto: "udp", bind: out, to: at(ext0, "9090")},
	{name: "spoofed from outside as a neighbour", from: "out", proto: "udp", bind: c1b, to: at(c1a, "7000"), control: true},
	{name: "spoofed from outside as a neighbour to a published port", from: "out", proto: "udp", bind: c1b, to: at(ext0, "8080")},
	{name: "spoofed from outside as another network to a published port", from: "out", proto: "udp", bind: c2, to: at(ext0, "8080")},
	{name: "spoofed from outside as internal to a published port", from: "out", proto: "udp", bind: i1, to: at(ext0, "8080")},
}

// world is what else may be on the host. Its commands are for both families.
type world struct {
	name   string
	before func(*lab) // before our rules come
	after  func(*lab) // after they came
}

var worlds = []world{
	{name: "policy ACCEPT"},
	{name: "policy DROP", before: policyDrop},
	{name: "Docker's rules first", before: policyDrop, after: func(l *lab) { docker20(l, "-I") }},
	{name: "Docker's rules before ours came", before: func(l *lab) { policyDrop(l); docker20(l, "-A") }},
	{name: "everything accepted first", after: func(l *lab) { l.both("-I FORWARD 1 -j ACCEPT") }},
	{name: "bridge-nf-call-iptables", before: func(l *lab) {
		policyDrop(l)
		l.showBridged()
		// br_netfilter keeps redirected packets on the bridge: to reach the port that they came
		// from needs its hairpin mode, which package link sets.
		for _, h := range labHosts {
			if h.bridge != "" {
				port, err := l.router.handle.LinkByName(h.link)
				must(l.t, err)
				must(l.t, l.router.handle.LinkSetHairpin(port, true))
			}
		}
	}},
}

// showBridged lets br_netfilter show bridged packets to iptables.
func (l *lab) showBridged() {
	l.t.Helper()
	l.sysctl("net/bridge/bridge-nf-call-iptables", "1")
	l.sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
}

func policyDrop(l *lab) { l.both("-P FORWARD DROP") }

// docker20 makes the rules of Docker 20.10, with op -I as dockerd inserts them when it starts
// after us.
func docker20(l *lab, op string) {
	for _, chain := range []string{"DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"} {
		l.both("-N " + chain)
	}
	forward := []string{
		"-j DOCKER-ISOLATION-STAGE-1",
		"-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-o docker0 -j DOCKER",
		"-i docker0 ! -o docker0 -j ACCEPT",
		"-i docker0 -o docker0 -j ACCEPT",
	}
	for i := range forward {
		rule := forward[i]
		if op == "-I" {
			rule = forward[len(forward)-1-i]
		}
		l.both(op + " FORWARD " + rule)
	}
	l.both("-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2")
	l.both("-A DOCKER-ISOLATION-STAGE-1 -j RETURN")
	l.both("-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP")
	l.both("-A DOCKER-ISOLATION-STAGE-2 -j RETURN")
}

var variants = []string{"-nft", "-legacy"}

func TestPackets(t *testing.T) {
	for _, variant := range variants {
		for _, w := range worlds {
			t.Run(variant[1:]+"/"+w.name, func(t *testing.T) {
				l := newLab(t, variant)
				if w.before != nil {
					w.before(l)
				}
				l.sync(labState())
				if w.after != nil {
					w.after(l)
					l.sync(labState())
				} else if strings.HasPrefix(w.name, "Docker's") {
					l.sync(labState())
				}
				// Docker's bridge is known by Docker's chains, so only where they are.
				hasDocker := strings.HasPrefix(w.name, "Docker's")
				l.check(t, packets, func(p packet) bool { return hasDocker || p.name != "to docker0" })
			})
		}
	}
}

// TestPacketsControl shows that what TestPackets finds refused is refused by our rules
// and not by the lab.
func TestPacketsControl(t *testing.T) {
	l := newLab(t, "-nft")
	var open []packet
	for _, p := range packets {
		if p.control {
			p.answers, p.sees = nameOf(p.to[0]), [2]string{}
			open = append(open, p)
		}
	}
	l.check(t, open, func(packet) bool { return true })
}

func nameOf(to string) string {
	for _, h := range labHosts {
		if strings.HasPrefix(to, strings.TrimRight(strings.Split(h.v4, "/")[0], "/")+":") {
			return h.name
		}
	}
	return ""
}

// check sends all packets at once and compares who answered.
func (l *lab) check(t *testing.T, rows []packet, want func(packet) bool) {
	t.Helper()
	var wg sync.WaitGroup
	for _, p := range rows {
		if !want(p) {
			continue
		}
		for family, v := range []string{"v4", "v6"} {
			wg.Go(func() {
				if msg := l.try(p, family); msg != "" {
					t.Errorf("%s, %s: %s", p.name, v, msg)
				}
			})
		}
	}
	wg.Wait()
}

func (l *lab) try(p packet, family int) string {
	var bind netip.Addr
	if p.bind[family] != "" {
		bind = netip.MustParseAddr(p.bind[family])
	}
	wait := patience
	if p.answers == "" {
		wait = impatience
	}
	got := l.knock(p.from, p.proto, bind, netip.MustParseAddrPort(p.to[family]), wait)
	name, sees, _ := strings.Cut(got, " ")
	switch {
	case p.answers == "" && got != "":
		return "passed, and reached " + got
	case name != p.answers:
		return "did not reach " + p.answers + " but: " + got
	case p.sees[family] != "" && sees != p.sees[family]:
		return p.answers + " sees " + sees + ", not " + p.sees[family]
	}
	return ""
}

var _ = state.TCP
