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
	hashIPPortIP = "hash:ip,port,ip"
	hashNetPort  = "hash:net,port"

	hashIPPortNet = "hash:ip,port,net"
)

// Element is a member of a set; which fields count depends on the set's type.
// Elements are comparable.
type Element struct {
	Prefix netip.Prefix // an address as a full-length prefix
	Iface  string
	Proto  state.Proto
	Port   uint16
	Peer   netip.Prefix // the second address, or a prefix
}

// String returns the element as ipset(8) writes it.
func (e Element) String() string {
	s := prefixText(e.Prefix)
	if e.Iface != "" {
		s += "," + e.Iface
	}
	if e.Proto != 0 {
		s += "," + e.Proto.String() + ":" + portText(e.Port)
	}
	if e.Peer.IsValid() {
		s += "," + prefixText(e.Peer)
	}
	return s
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// sets returns the family's sets, all of them even when empty: the skeleton names them. They are in the order in which they grow: who
// may come is known before it is said that not everybody may.
func sets(f firewall.Family, n names) []Set {
	all := map[string]*Set{}
	order := []string{
		n.nets, n.subnets, n.masquerade, n.ports, n.open, n.routed, n.unprotected, n.trusted, n.apart, n.links,
		n.insideOn, n.inside, n.comersOn, n.sourcedOn, n.comers, n.sourced, n.ways, n.linkedOn,
	}
	for _, name := range order {
		all[name] = &Set{Name: name, Type: n.setType(name), V6: f.V6}
	}
	add := func(name string, e Element) { all[name].Elements = append(all[name].Elements, e) }
	for _, network := range f.Networks {
		addNetwork(add, n, network)
	}
	for _, p := range f.Ports {
		if p.Forwarded() {
			add(n.ports, targetElement(firewall.Target{Proto: p.Proto, Addr: p.Target}))
		}
		if p.Inside {
			addPlace(add, n.insideOn, n.inside, f.V6, Element{Prefix: single(p.Host), Proto: p.Proto, Port: p.HostPort})
		}
	}
	for _, l := range f.Limits {
		addLimit(add, n, f.V6, l)
	}
	for _, t := range f.Open {
		add(n.open, targetElement(t))
	}
	for _, l := range f.Links {
		e := targetElement(l.To)
		e.Peer = single(l.From)
		add(n.links, e)
	}
	out := make([]Set, 0, len(order))
	for _, name := range order {
		out = append(out, sorted(*all[name]))
	}
	return out
}

func addNetwork(add func(string, Element), n names, network firewall.Network) {
	subnet := Element{Prefix: network.Prefix}
	pair := Element{Prefix: network.Prefix, Iface: network.Bridge}
	add(n.nets, pair)
	add(n.subnets, subnet)
	if network.Masquerade {
		add(n.masquerade, subnet)
	}
	if network.Routed {
		add(n.routed, subnet)
	}
	if network.Unprotected {
		add(n.unprotected, subnet)
	}
	if network.NoICC {
		add(n.apart, pair)
	}
	for _, link := range network.Trusted {
		add(n.trusted, Element{Prefix: network.Prefix, Iface: link})
	}
}

func targetElement(t firewall.Target) Element {
	addr := t.Addr.Addr()
	return Element{Prefix: single(addr), Proto: t.Proto, Port: t.Addr.Port()}
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
		a.Peer.Addr().Compare(b.Peer.Addr()),
		cmp.Compare(a.Peer.Bits(), b.Peer.Bits()),
	)
}
