//go:build kernel

package firewalltest

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Packet is a row: who knocks where, who answers and which source he sees. Addresses are given for
// IPv4 and IPv6.
type Packet struct {
	Name    string
	From    string
	Proto   string
	Bind    [2]string // source address, if not the kernel's choice
	To      [2]string
	Answers string    // host that answers, "" if the packet must not pass
	Sees    [2]string // the source address that it sees
	Control bool      // refused by our rules only: passes in a lab without them
}

var (
	C1a    = [2]string{"10.1.0.2", "fd00:1::2"}
	C1b    = [2]string{"10.1.0.3", "fd00:1::3"}
	C2     = [2]string{"10.2.0.2", "fd00:2::2"}
	I1     = [2]string{"10.3.0.2", "fd00:3::2"}
	I2     = [2]string{"10.3.0.3", "fd00:3::3"}
	D      = [2]string{"172.17.0.2", "fd00:d::2"}
	G1     = [2]string{"192.168.122.2", "fd00:e::2"}
	G2     = [2]string{"192.168.122.3", "fd00:e::3"}
	Out    = [2]string{"192.0.2.9", "2001:db8:1::9"}
	Far    = [2]string{"198.51.100.9", "2001:db8:2::9"}
	Ext0   = [2]string{"192.0.2.1", "2001:db8:1::1"}
	Ext1   = [2]string{"198.51.100.1", "2001:db8:2::1"}
	Gw1    = [2]string{"10.1.0.1", "fd00:1::1"}
	Nobody = [2]string{"203.0.113.7", "2001:db8:7::7"}
)

// At joins both families' addresses with a port.
func At(addr [2]string, port string) [2]string {
	return [2]string{addr[0] + ":" + port, "[" + addr[1] + "]:" + port}
}

// Packets must fare alike whatever else is on the host.
var Packets = []Packet{
	{Name: "egress is masqueraded", From: "c1a", Proto: "tcp", To: At(Out, "80"), Answers: "out", Sees: Ext0},
	{Name: "egress is masqueraded, udp", From: "c2", Proto: "udp", To: At(Far, "80"), Answers: "far", Sees: Ext1},
	{Name: "egress is masqueraded, sctp", From: "c1a", Proto: "sctp", To: At(Out, "80"), Answers: "out", Sees: Ext0},

	{Name: "published", From: "out", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out},
	{Name: "published, udp", From: "out", Proto: "udp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out},
	{Name: "published, sctp", From: "out", Proto: "sctp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out},
	{Name: "published, other address", From: "far", Proto: "tcp", To: At(Ext1, "8080"), Answers: "c1a", Sees: Far},
	{Name: "published, address of another interface", From: "out", Proto: "tcp", To: At(Ext1, "9090"), Answers: "c2", Sees: Out},
	{Name: "published on one address", From: "out", Proto: "tcp", To: At(Ext0, "8081"), Answers: "c1a", Sees: Out},
	{Name: "published on one address, by another", From: "far", Proto: "tcp", To: At(Ext1, "8081")},
	{Name: "published with tcp, by udp", From: "out", Proto: "udp", To: At(Ext0, "8081")},
	// From elsewhere than the rows that pass: ICMP errors reach all raw sockets with the same addresses.
	{Name: "published with tcp, by sctp", From: "far", Proto: "sctp", To: At(Ext0, "8081")},

	{Name: "published, from another network", From: "c2", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: C2},
	{Name: "published, from another network, udp", From: "c2", Proto: "udp", To: At(Ext0, "8080"), Answers: "c1a", Sees: C2},
	{Name: "published, from another network, sctp", From: "c2", Proto: "sctp", To: At(Ext0, "8080"), Answers: "c1a", Sees: C2},
	{Name: "published, from another network by the gateway", From: "c2", Proto: "tcp", To: At(Gw1, "8080"), Answers: "c1a", Sees: C2},
	{Name: "hairpin to itself", From: "c1a", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Gw1},
	{Name: "hairpin to itself, udp", From: "c1a", Proto: "udp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Gw1},
	{Name: "hairpin to itself, sctp", From: "c1a", Proto: "sctp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Gw1},
	{Name: "hairpin to a neighbour", From: "c1a", Proto: "tcp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Gw1},
	{Name: "hairpin to a neighbour, sctp", From: "c1a", Proto: "sctp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Gw1},
	{Name: "hairpin to a neighbour by the gateway, udp", From: "c1a", Proto: "udp", To: At(Gw1, "8083"), Answers: "c1b", Sees: Gw1},
	{Name: "from the host by its address", From: "router", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a"},
	{Name: "from the host by its address, udp", From: "router", Proto: "udp", To: At(Ext1, "9090"), Answers: "c2"},
	{Name: "from the host by its address, sctp", From: "router", Proto: "sctp", To: At(Ext0, "8080"), Answers: "c1a"},
	{Name: "from the host to the container", From: "router", Proto: "tcp", To: At(C1a, "7000"), Answers: "c1a"},
	{Name: "from the host to an internal container", From: "router", Proto: "tcp", To: At(I1, "7000"), Answers: "i1"},

	{Name: "same network", From: "c1a", Proto: "tcp", To: At(C1b, "7000"), Answers: "c1b", Sees: C1a},
	{Name: "same network, udp", From: "c1b", Proto: "udp", To: At(C1a, "7000"), Answers: "c1a", Sees: C1b},
	{Name: "inside an internal network", From: "i1", Proto: "tcp", To: At(I2, "7000"), Answers: "i2", Sees: I1},
	{Name: "inside an internal network, udp", From: "i2", Proto: "udp", To: At(I1, "7000"), Answers: "i1", Sees: I2},

	{Name: "unpublished port by the host", From: "out", Proto: "tcp", To: At(Ext0, "7000")},
	{Name: "direct routing, unpublished port", From: "out", Proto: "tcp", To: At(C1a, "7000"), Control: true},
	{Name: "direct routing, published port", From: "out", Proto: "tcp", To: At(C1a, "80"), Control: true},
	{Name: "direct routing, host's port number", From: "out", Proto: "udp", To: At(C1a, "80"), Control: true},
	{Name: "direct routing, published port, sctp", From: "out", Proto: "sctp", To: At(C1a, "80"), Control: true},
	{Name: "between networks, sctp", From: "c1a", Proto: "sctp", To: At(C2, "7000"), Control: true},
	{Name: "between networks", From: "c1a", Proto: "tcp", To: At(C2, "7000"), Control: true},
	{Name: "between networks, back", From: "c2", Proto: "udp", To: At(C1a, "7000"), Control: true},
	{Name: "between networks, published port", From: "c2", Proto: "tcp", To: At(C1a, "80"), Control: true},
	{Name: "to docker0", From: "c1a", Proto: "tcp", To: At(D, "7000"), Control: true},
	{Name: "from docker0", From: "d", Proto: "tcp", To: At(C1a, "7000"), Control: true},
	{Name: "from docker0 to a published port", From: "d", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: D},

	{Name: "internal, out", From: "i1", Proto: "udp", To: At(Out, "80"), Control: true},
	{Name: "internal, in", From: "out", Proto: "udp", To: At(I1, "80"), Control: true},
	{Name: "internal to another network", From: "i1", Proto: "tcp", To: At(C1a, "7000"), Control: true},
	{Name: "another network to internal", From: "c1a", Proto: "tcp", To: At(I1, "7000"), Control: true},
	{Name: "internal to a published port", From: "i1", Proto: "tcp", To: At(Ext0, "8080")},
	{Name: "internal to docker0", From: "i1", Proto: "tcp", To: At(D, "7000"), Control: true},
	{Name: "docker0 to internal", From: "d", Proto: "tcp", To: At(I1, "7000"), Control: true},

	{Name: "spoofed from a container", From: "c1a", Proto: "udp", Bind: Nobody, To: At(Out, "80"), Control: true},
	{Name: "spoofed from a container as another network", From: "c1a", Proto: "udp", Bind: C2, To: At(Out, "81"), Control: true},
	{Name: "spoofed from a container to a published port", From: "c1a", Proto: "udp", Bind: Out, To: At(Ext0, "9090")},
	{Name: "spoofed from outside as a neighbour", From: "out", Proto: "udp", Bind: C1b, To: At(C1a, "7000"), Control: true},
	{Name: "spoofed from outside as a neighbour to a published port", From: "out", Proto: "udp", Bind: C1b, To: At(Ext0, "8080")},
	{Name: "spoofed from outside as another network to a published port", From: "out", Proto: "udp", Bind: C2, To: At(Ext0, "8080")},
	{Name: "spoofed from outside as internal to a published port", From: "out", Proto: "udp", Bind: I1, To: At(Ext0, "8080")},
}

// World is what else may be on the host. Its commands are for both families.
type World struct {
	Name   string
	Before func(*Lab) // before our rules come
	After  func(*Lab) // after they came
}

// Worlds are what Packets are sent in.
var Worlds = []World{
	{Name: "policy ACCEPT"},
	{Name: "policy DROP", Before: PolicyDrop},
	{Name: "Docker's rules first", Before: PolicyDrop, After: func(l *Lab) { Docker20(l, "-I") }},
	{Name: "Docker's rules before ours came", Before: func(l *Lab) { PolicyDrop(l); Docker20(l, "-A") }},
	{Name: "everything accepted first", After: func(l *Lab) { l.Both("-I FORWARD 1 -j ACCEPT") }},
	{Name: "bridge-nf-call-iptables", Before: func(l *Lab) {
		PolicyDrop(l)
		l.showBridgedHairpin()
	}},
}

// showBridgedHairpin is ShowBridged where containers reach their own published ports.
func (l *Lab) showBridgedHairpin() {
	l.T.Helper()
	l.ShowBridged()
	// br_netfilter keeps redirected packets on the bridge: to reach the port that they came
	// from needs its hairpin mode, which package link sets.
	for _, h := range Hosts {
		if h.bridge != "" {
			port, err := l.router.handle.LinkByName(h.link)
			must(l.T, err)
			must(l.T, l.router.handle.LinkSetHairpin(port, true))
		}
	}
}

// ShowBridged lets br_netfilter show bridged packets to iptables.
func (l *Lab) ShowBridged() {
	l.T.Helper()
	l.Sysctl("net/bridge/bridge-nf-call-iptables", "1")
	l.Sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
}

// PolicyDrop has iptables refuse what Nobody accepts.
func PolicyDrop(l *Lab) { l.Both("-P FORWARD DROP") }

// Docker20 makes the rules of Docker 20.10, with op -I as dockerd inserts them when it starts
// after us.
func Docker20(l *Lab, op string) {
	for _, chain := range []string{"DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"} {
		l.Both("-N " + chain)
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
		l.Both(op + " FORWARD " + rule)
	}
	l.Both("-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2")
	l.Both("-A DOCKER-ISOLATION-STAGE-1 -j RETURN")
	l.Both("-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP")
	l.Both("-A DOCKER-ISOLATION-STAGE-2 -j RETURN")
}

// Check sends all packets at once and compares who answered.
func (l *Lab) Check(t *testing.T, rows []Packet, want func(Packet) bool) {
	t.Helper()
	var wg sync.WaitGroup
	for _, p := range rows {
		if !want(p) {
			continue
		}
		for family, v := range []string{"v4", "v6"} {
			wg.Go(func() {
				if msg := l.try(p, family); msg != "" {
					t.Errorf("%s, %s: %s", p.Name, v, msg)
				}
			})
		}
	}
	wg.Wait()
}

func (l *Lab) try(p Packet, family int) string {
	var bind netip.Addr
	if p.Bind[family] != "" {
		bind = netip.MustParseAddr(p.Bind[family])
	}
	wait := Patience
	if p.Answers == "" {
		wait = Impatience
	}
	got := l.knock(p.From, p.Proto, bind, netip.MustParseAddrPort(p.To[family]), wait)
	name, sees, _ := strings.Cut(got, " ")
	switch {
	case p.Answers == "" && got != "":
		return "passed, and reached " + got
	case name != p.Answers:
		return "did not reach " + p.Answers + " but: " + got
	case p.Sees[family] != "" && sees != p.Sees[family]:
		return p.Answers + " sees " + sees + ", not " + p.Sees[family]
	}
	return ""
}

// Maker returns the backend under test in the router of a lab.
type Maker func(*Lab) firewall.Backend

// Variants are those of iptables.
var Variants = []string{"-nft", "-legacy"}

// EachVariant runs a test of a backend on a host of each variant.
func EachVariant(t *testing.T, backend Maker, test func(t *testing.T, variant string, backend Maker)) {
	for _, variant := range Variants {
		t.Run("iptables"+variant, func(t *testing.T) { test(t, variant, backend) })
	}
}

// PacketsInWorlds sends Packets in all Worlds.
func PacketsInWorlds(t *testing.T, variant string, backend Maker) {
	for _, w := range Worlds {
		t.Run(w.Name, func(t *testing.T) {
			l := New(t, variant)
			b := backend(l)
			if w.Before != nil {
				w.Before(l)
			}
			l.Sync(b, State())
			if w.After != nil {
				w.After(l)
				l.Sync(b, State())
			} else if strings.HasPrefix(w.Name, "Docker's") {
				l.Sync(b, State())
			}
			// Docker's bridge is known by Docker's chains, so only where they are.
			hasDocker := strings.HasPrefix(w.Name, "Docker's")
			l.Check(t, Packets, func(p Packet) bool { return hasDocker || p.Name != "to docker0" })
		})
	}
}

// Control shows that what the other tests find refused is refused by our rules and not by the lab.
func Control(t *testing.T) {
	l := New(t, "-nft")
	var open []Packet
	for _, p := range Packets {
		if p.Control {
			p.Answers, p.Sees = nameOf(p.To[0]), [2]string{}
			open = append(open, p)
		}
	}
	l.Check(t, open, func(Packet) bool { return true })
}

func nameOf(to string) string {
	for _, h := range Hosts {
		if strings.HasPrefix(to, strings.TrimRight(strings.Split(h.v4, "/")[0], "/")+":") {
			return h.name
		}
	}
	return ""
}
