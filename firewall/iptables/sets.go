package iptables

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// The set types in use, as ipset(8) names them.
const (
	hashNetIface = "hash:net,iface"
	hashNet      = "hash:net"
	hashIPPort   = "hash:ip,port"
)

// Element is a member of a set; which fields count depends on the set's type.
// Elements are comparable.
type Element struct {
	Prefix netip.Prefix // an address as a full-length prefix
	Iface  string
	Proto  state.Proto
	Port   uint16
}

// String returns the element as ipset(8) writes it.
func (e Element) String() string {
	s := e.Prefix.String()
	if e.Prefix.IsSingleIP() {
		s = e.Prefix.Addr().String()
	}
	if e.Iface != "" {
		s += "," + e.Iface
	}
	if e.Proto != 0 {
		s += "," + e.Proto.String() + ":" + portText(e.Port)
	}
	return s
}

// sets returns the family's sets, all of them even when empty: the skeleton names them.
func sets(f firewall.Family, n names) []Set {
	nets := Set{Name: n.nets, Type: hashNetIface, V6: f.V6}
	subnets := Set{Name: n.subnets, Type: hashNet, V6: f.V6}
	masquerade := Set{Name: n.masquerade, Type: hashNet, V6: f.V6}
	for _, network := range f.Networks {
		nets.Elements = append(nets.Elements, Element{Prefix: network.Prefix, Iface: network.Bridge})
		subnets.Elements = append(subnets.Elements, Element{Prefix: network.Prefix})
		if network.Masquerade {
			masquerade.Elements = append(masquerade.Elements, Element{Prefix: network.Prefix})
		}
	}
	ports := Set{Name: n.ports, Type: hashIPPort, V6: f.V6}
	for _, p := range f.Ports {
		addr := p.Target.Addr()
		ports.Elements = append(ports.Elements, Element{
			Prefix: netip.PrefixFrom(addr, addr.BitLen()), Proto: p.Proto, Port: p.Target.Port(),
		})
	}
	return []Set{sorted(nets), sorted(subnets), sorted(masquerade), sorted(ports)}
}

// sorted removes doubles too: one container port may be published on several host ports.
func sorted(s Set) Set {
	slices.SortFunc(s.Elements, compareElement)
	s.Elements = slices.Compact(s.Elements)
	return s
}

func compareElement(a, b Element) int {
	return cmp.Or(
		a.Prefix.Addr().Compare(b.Prefix.Addr()),
		cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
		cmp.Compare(a.Iface, b.Iface),
		cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.Port, b.Port),
	)
}
