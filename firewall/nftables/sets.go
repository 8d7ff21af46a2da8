package nftables

import (
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// sets returns the family's sets and maps, all of them even when empty: the rules name them.
func sets(f firewall.Family, n names) []Set {
	all, order := map[string]*Set{}, declarations(n)
	if f.Loopback {
		order = append(order, Set{Name: n.proxied, Key: []datatype{proto, service}})
	}
	if f.Limited {
		order = append(order, limitSets(n)...)
	}
	if f.Learns {
		order = append(order, learnSets(f, n)...)
	}
	for i := range order {
		all[order[i].Name] = &order[i]
	}
	add := func(name string, e Element) { all[name].Elements = append(all[name].Elements, e) }
	var around []firewall.Network // those before that may contain the next: as they are sorted, who ended does not begin again
	for _, network := range f.Networks {
		around = slices.DeleteFunc(around, func(b firewall.Network) bool { return !b.Prefix.Contains(network.Prefix.Addr()) })
		addNetwork(add, n, network, around)
		around = append(around, network)
	}
	for _, name := range []string{n.ports, n.leads.everywhere} {
		all[name].Elements = make([]Element, 0, len(f.Ports)) // most are in both
	}
	addPorts(add, n, f.Ports)
	addLimits(add, n, f.Limits)
	for _, t := range f.Open {
		add(n.open, targetElement(t))
	}
	for _, l := range f.Links {
		to := l.To.Addr
		add(n.links, Element{Key: pack(packAddr(to.Addr()), packProto(l.To.Proto), packPort(to.Port()), packAddr(l.From))})
	}
	for i := range order {
		order[i] = order[i].sorted()
	}
	return append(order, dockerSet(f, n))
}

// declarations are the sets without their elements.
func declarations(n names) []Set {
	addr := n.addr
	pair, port := []datatype{addr, ifname}, []datatype{addr, proto, service}
	return append([]Set{
		{Name: n.nets, Key: pair, Interval: true},
		{Name: n.bridges, Key: []datatype{ifname, ifname}},
		{Name: n.subnets, Key: []datatype{addr}, Interval: true},
		{Name: n.masquerade, Key: []datatype{addr}, Interval: true},
		{Name: n.snat, Key: []datatype{addr}, Value: []datatype{addr}, Interval: true},
		{Name: n.ports, Key: port},
		{Name: n.portRanges, Key: port, Interval: true},
		{Name: n.open, Key: port},
		{Name: n.routed, Key: []datatype{addr}, Interval: true},
		{Name: n.unprotected, Key: []datatype{addr}, Interval: true},
		{Name: n.trusted, Key: pair, Interval: true},
		{Name: n.apart, Key: pair, Interval: true},
		{Name: n.links, Key: []datatype{addr, proto, service, addr}},
	}, append(mapSets(n.leads, n), mapSets(n.guards, n)...)...)
}

// mapSets say where ports of the host lead.
func mapSets(p places, n names) []Set {
	here, everywhere := []datatype{n.addr, proto, service}, []datatype{proto, service}
	addr, target := []datatype{n.addr}, []datatype{n.addr, service}
	return []Set{
		{Name: p.here, Key: here, Value: target},
		{Name: p.hereRanges, Key: here, Value: addr, Interval: true},
		{Name: p.everywhere, Key: everywhere, Value: target},
		{Name: p.ranges, Key: everywhere, Value: addr, Interval: true},
	}
}

// placeSets are those of ports of the host, without their elements.
func placeSets(p places, n names) []Set {
	here, everywhere := []datatype{n.addr, proto, service}, []datatype{proto, service}
	return []Set{
		{Name: p.here, Key: here},
		{Name: p.everywhere, Key: everywhere},
		{Name: p.hereRanges, Key: here, Interval: true},
		{Name: p.ranges, Key: everywhere, Interval: true},
	}
}

// dockerSet holds the bridges of Docker's own driver.
func dockerSet(f firewall.Family, n names) Set {
	s := Set{Name: n.docker, Key: []datatype{ifname}}
	for _, name := range f.DockerBridges {
		s.Elements = append(s.Elements, Element{Key: packName(name)})
	}
	return s.sorted()
}

// addNetwork adds the elements of a network; around are those that were added and in which it begins. A set of intervals
// refuses a prefix within another one. What holds for the wider one holds for the narrower, so that this can be left out.
func addNetwork(add func(string, Element), n names, network firewall.Network, around []firewall.Network) {
	unless := func(within func(firewall.Network) bool, set string, e Element) {
		for _, b := range around {
			if within(b) && b.Prefix.Bits() <= network.Prefix.Bits() {
				return
			}
		}
		add(set, e)
	}
	subnet := prefixElement(network.Prefix)
	always := func(firewall.Network) bool { return true }
	sameBridge := func(b firewall.Network) bool { return b.Bridge == network.Bridge }
	pair := pairElement(network.Prefix, network.Bridge)
	unless(sameBridge, n.nets, pair)
	unless(always, n.subnets, subnet)
	if network.Masquerade {
		unless(func(b firewall.Network) bool { return b.Masquerade }, n.masquerade, subnet)
	}
	if network.SNAT.IsValid() {
		e := subnet
		e.Value = packAddr(network.SNAT)
		unless(func(b firewall.Network) bool { return b.SNAT.IsValid() }, n.snat, e)
	}
	if network.Routed {
		unless(func(b firewall.Network) bool { return b.Routed }, n.routed, subnet)
	}
	if network.Unprotected {
		unless(func(b firewall.Network) bool { return b.Unprotected }, n.unprotected, subnet)
	}
	if !network.NoICC {
		add(n.bridges, Element{Key: pack(packName(network.Bridge), packName(network.Bridge))})
	}
	if network.NoICC {
		unless(func(b firewall.Network) bool { return b.NoICC && sameBridge(b) }, n.apart, pair)
	}
	for _, link := range network.Trusted {
		trusts := func(b firewall.Network) bool { return slices.Contains(b.Trusted, link) }
		unless(trusts, n.trusted, pairElement(network.Prefix, link))
	}
}

func prefixElement(p netip.Prefix) Element {
	return Element{Key: packAddr(p.Masked().Addr()), End: packAddr(lastOf(p))}
}

func pairElement(p netip.Prefix, link string) Element {
	return Element{Key: pack(packAddr(p.Masked().Addr()), packName(link)), End: pack(packAddr(lastOf(p)), packName(link))}
}

func targetElement(t firewall.Target) Element {
	return Element{Key: packPlace(t.Addr.Addr(), t.Proto, t.Addr.Port())}
}
