//go:build kernel

package firewalltest

import (
	"net/netip"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// option is a change of State, and how packets then fare.
type option struct {
	name     string
	settings firewall.Settings
	bridged  bool // br_netfilter shows what stays in a bridge
	change   func(*state.Snapshot)
	sysctl   string // of the router, to be 1
	want     []Packet
}

// refused is the packet that must not pass.
func refused(p Packet) Packet { p.Answers, p.Sees = "", [2]string{}; return p }

var (
	egress    = Packet{Name: "egress", From: "c1a", Proto: "tcp", To: At(Far, "80"), Answers: "far", Sees: Ext1}
	published = Packet{Name: "published", From: "out", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Out}
	direct    = Packet{Name: "published port, directly", From: "out", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a", Sees: Out}
	directOff = Packet{Name: "other port, directly", From: "out", Proto: "tcp", To: At(C1a, "7000"), Answers: "c1a", Sees: Out}
	between   = Packet{Name: "from another network", From: "c2", Proto: "tcp", To: At(C1a, "7000"), Answers: "c1a", Sees: C2}
	within    = Packet{Name: "within the network", From: "c1a", Proto: "tcp", To: At(C1b, "7000"), Answers: "c1b", Sees: C1a}
)

// byLoopback is the host's own connection.
var byLoopback = Packet{
	Name: "by 127.0.0.1", From: "router", Proto: "tcp", To: [2]string{"127.0.0.1:8080", "127.0.0.2:8080"}, Answers: "c1a", Sees: [2]string{Gw1[0], Gw1[0]},
}

// leads has the host's loopback addresses lead to one network.
func leads(bridge string) firewall.Settings {
	return firewall.Settings{Loopback: func(n state.Network) bool { return n.Bridge == bridge }}
}

// sees is the packet as it is seen by another source.
func sees(p Packet, source [2]string) Packet { p.Sees = source; return p }

func mode(m state.GatewayMode) func(*state.Snapshot) {
	return func(s *state.Snapshot) { s.Networks[0].V4.Mode, s.Networks[0].V6.Mode = m, m }
}

var optionRows = []option{
	{name: "routed", change: func(s *state.Snapshot) {
		mode(state.ModeRouted)(s)
		ports := &s.Endpoints[0].Ports
		*ports = nil
		for _, host := range []string{"0.0.0.0", "::"} {
			*ports = append(*ports, state.Port{Proto: state.TCP, HostIP: netip.MustParseAddr(host), ContainerPort: 80})
		}
	}, want: []Packet{
		direct, refused(directOff), refused(between), refused(published), sees(egress, C1a), within,
		{Name: "published port, from another network", From: "c2", Proto: "tcp", To: At(C1a, "80"), Answers: "c1a", Sees: C2},
		{Name: "with another protocol", From: "out", Proto: "udp", To: At(C1a, "80")},
		{Name: "spoofed as a neighbour", From: "out", Proto: "udp", Bind: C1b, To: At(C1a, "80")},
	}},
	{name: "unprotected", change: mode(state.ModeUnprotected), want: []Packet{
		direct, directOff, refused(between), published, egress, within,
		{Name: "from Docker's bridge", From: "d", Proto: "tcp", To: At(C1a, "7000")},
		{Name: "from somebody's bridge", From: "g1", Proto: "tcp", To: At(C1a, "7000"), Answers: "c1a", Sees: G1},
		{Name: "spoofed as a neighbour", From: "out", Proto: "udp", Bind: C1b, To: At(C1a, "80")},
	}},
	{name: "source address", change: func(s *state.Snapshot) {
		s.Networks[0].V4.SNAT, s.Networks[0].V6.SNAT = netip.MustParseAddr(Ext0[0]), netip.MustParseAddr(Ext0[1])
	}, want: []Packet{
		sees(egress, Ext0), published, within, refused(direct),
		{Name: "egress of another network", From: "c2", Proto: "tcp", To: At(Far, "80"), Answers: "far", Sees: Ext1},
		{Name: "hairpin", From: "c1a", Proto: "tcp", To: At(Ext0, "8083"), Answers: "c1b", Sees: Gw1},
	}},
	{name: "no masquerade", change: func(s *state.Snapshot) { s.Networks[0].NoMasquerade = true }, want: []Packet{
		sees(egress, C1a), published, refused(direct),
		{Name: "egress of another network", From: "c2", Proto: "tcp", To: At(Far, "80"), Answers: "far", Sees: Ext1},
	}},
	{name: "trusted link", change: func(s *state.Snapshot) { s.Networks[0].Trusted = "ext0" }, want: []Packet{
		direct, refused(directOff), published, egress, refused(between),
		{Name: "from another link", From: "far", Proto: "tcp", To: At(C1a, "80")},
		{Name: "of another network", From: "out", Proto: "tcp", To: At(C2, "80")},
	}},
	{name: "apart", bridged: true, change: func(s *state.Snapshot) {
		s.Networks[0].NoICC = true
		s.Endpoints[0].Links, s.Endpoints[1].Name = []string{"b"}, "b"
		s.Endpoints[1].Exposed = []state.ContainerPort{{Proto: state.TCP, Port: 7000}}
	}, want: []Packet{
		// With IPv6 the bridge would have to answer for the neighbour, which package link sees to.
		{Name: "link", From: "c1a", Proto: "tcp", To: [2]string{At(C1b, "7000")[0], At(C1b, "7000")[0]}, Answers: "c1b", Sees: [2]string{C1a[0], C1a[0]}},
		published, egress, refused(between),
		{Name: "link, back", From: "c1b", Proto: "tcp", To: At(C1a, "7000")},
		{Name: "link, another port", From: "c1a", Proto: "tcp", To: At(C1b, "81")},
		{Name: "link, another protocol", From: "c1a", Proto: "udp", To: At(C1b, "7000")},
		{Name: "published port", From: "c1b", Proto: "tcp", To: At(Ext0, "8080"), Answers: "c1a", Sees: Gw1},
		{Name: "within an internal network", From: "i1", Proto: "tcp", To: At(I2, "7000"), Answers: "i2", Sees: I1},
	}},
	{name: "apart, and internal", bridged: true, change: func(s *state.Snapshot) {
		s.Networks[2].NoICC = true
		at := func(name string, addr [2]string) state.Endpoint {
			return state.Endpoint{
				ID: state.EndpointID(name), Network: s.Networks[2].ID, Name: name,
				Addr4: netip.PrefixFrom(netip.MustParseAddr(addr[0]), 24), Addr6: netip.PrefixFrom(netip.MustParseAddr(addr[1]), 64),
			}
		}
		from, to := at("i1", I1), at("i2", I2)
		from.Links, to.Exposed = []string{"i2"}, []state.ContainerPort{{Proto: state.TCP, Port: 7000}}
		s.Endpoints = append(s.Endpoints, from, to)
		s.Sort()
	}, want: []Packet{
		{Name: "link", From: "i1", Proto: "tcp", To: [2]string{At(I2, "7000")[0], At(I2, "7000")[0]}, Answers: "i2", Sees: [2]string{I1[0], I1[0]}},
		{Name: "link, back", From: "i2", Proto: "tcp", To: At(I1, "7000")},
		{Name: "out", From: "i1", Proto: "tcp", To: At(Out, "80")},
	}},
	{name: "loopback", settings: leads("br-one"), sysctl: "net/ipv4/conf/br-one/route_localnet", change: func(*state.Snapshot) {}, want: []Packet{
		published, egress, byLoopback,
	}},
	{name: "loopback, to another network", settings: leads("br-two"), sysctl: "net/ipv4/conf/br-one/route_localnet", change: func(*state.Snapshot) {}, want: []Packet{
		published, egress, refused(byLoopback),
	}},
	{name: "loopback, and a trusted link", settings: leads("br-one"), sysctl: "net/ipv4/conf/br-one/route_localnet", change: func(s *state.Snapshot) {
		s.Networks[0].Trusted = "ext0"
		s.Endpoints[0].Ports = []state.Port{{Proto: state.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, ContainerPort: 80}}
	}, want: []Packet{
		sees(Packet{Name: "by 127.0.0.1", From: "router", Proto: "tcp", To: [2]string{"127.0.0.1:8080", "127.0.0.1:8080"}, Answers: "c1a"}, [2]string{Gw1[0], Gw1[0]}),
		refused(direct), refused(published),
	}},
	{name: "adopted", change: func(s *state.Snapshot) { s.Networks[0].Adopted = true }, want: []Packet{published, egress, refused(direct), within}},
}

// Options sends packets in a lab with one option at a time.
func Options(t *testing.T, variant string, backend Maker) {
	for _, o := range optionRows {
		t.Run(o.name, func(t *testing.T) {
			l := New(t, variant)
			PolicyDrop(l)
			// Docker's bridge is known by these.
			l.Both("-N DOCKER-ISOLATION-STAGE-2")
			l.Both("-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP")
			l.Both("-A FORWARD -i docker0 -j ACCEPT")
			l.Both("-A FORWARD -i virbr0 -j ACCEPT")
			if o.bridged {
				l.showBridgedHairpin()
			}
			if o.sysctl != "" {
				l.Sysctl(o.sysctl, "1")
			}
			s := State()
			o.change(&s)
			if err := firewall.NewPlane(backend(l), o.settings).Apply(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			l.Check(t, o.want, func(Packet) bool { return true })
		})
	}
}
