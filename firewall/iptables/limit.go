package iptables

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// limit are the chains that refuse who may not come to a port of the host, before its destination changes: the root first. No set
// holds a link beside a port, which takes rules for each port that has such a limit.
func limit(f firewall.Family, n names) []Chain {
	c := Chain{Name: chainLimit, Rules: []Rule{
		{Match: join(inSet(n.sourcedOn, "dst,dst"), notInSet(n.comersOn, "dst,dst,src")), Why: "not for this source", Target: "DROP"},
		{Match: join(inSet(n.sourced, "dst,dst"), notInSet(n.comers, "src,dst")), Why: "not for this source", Target: "DROP"},
	}}
	byLink := linked.chains(hostLimits(f))
	c.Rules = append(c.Rules, byLink[0].Rules...)
	return append([]Chain{c}, byLink[1:]...)
}

// limited leads to them what comes from outside; what belongs to a connection was asked with its first packet.
var limited = Jump{From: "PREROUTING", Place: Bottom, Rule: Rule{
	Match: join(fromOthers, notLo, "-m addrtype --dst-type LOCAL", notEstablished), Why: "who may come", Target: chainLimit,
}}

// limitHere are the rules that refuse who may not come to a port at the container's own address. A container's ports have the
// same links all of them.
func limitHere(f firewall.Family, n names) []Rule {
	if !f.Limited {
		return nil
	}
	inwards := join(fromOthers, toOurs)
	return []Rule{
		{Match: join(inwards, inSet(n.sourcedOn, "dst,dst"), notInSet(n.comersOn, "dst,dst,src")), Why: "not for this source", Target: "DROP"},
		{Match: join(inwards, inSet(n.linkedOn, "dst,dst"), notInSet(n.ways, "dst,src")), Why: "not by this link", Target: "DROP"},
	}
}

// linked is the tree of ports of the host that only some links lead to.
var linked = tree[firewall.Limit]{
	root: chainLimit, why: "ports of some links",
	place: func(l firewall.Limit) (state.Proto, uint16) { return l.Proto, l.Port },
	rules: func(l firewall.Limit) []Rule {
		match := fmt.Sprintf("-p %s -m %s --dport %d", l.Proto, l.Proto, l.Port)
		if l.Host.IsValid() {
			match = fmt.Sprintf("-d %s %s", l.Host, match)
		}
		var rules []Rule
		for _, name := range l.Links.All() {
			rules = append(rules, Rule{Match: join("-i "+name, match), Why: "by this link", Target: "RETURN"})
		}
		return append(rules, Rule{Match: match, Why: "not by this link", Target: "DROP"})
	},
}

// hostLimits are the limits of ports of the host to links.
func hostLimits(f firewall.Family) []firewall.Limit {
	return slices.DeleteFunc(slices.Clone(f.Limits), func(l firewall.Limit) bool { return l.Links == "" || l.Direct })
}

// addLimit adds the elements of a limit.
func addLimit(add func(string, Element), n names, v6 bool, l firewall.Limit) {
	place := Element{Prefix: single(l.Host), Proto: l.Proto, Port: l.Port}
	if l.BySource {
		addPlace(add, n.sourcedOn, n.sourced, v6, place)
	}
	for _, p := range l.Sources(v6) {
		for _, half := range halves(p) {
			if l.Host.IsValid() {
				e := place
				e.Peer = half
				add(n.comersOn, e)
			} else {
				add(n.comers, Element{Prefix: half, Proto: l.Proto, Port: l.Port})
			}
		}
	}
	if l.Links == "" || !l.Direct {
		return
	}
	add(n.linkedOn, place)
	for _, name := range l.Links.All() {
		add(n.ways, Element{Prefix: place.Prefix, Iface: name})
	}
}

// addPlace adds a port of one address to one set, and one of all addresses to another, which has prefixes.
func addPlace(add func(string, Element), here, everywhere string, v6 bool, e Element) {
	if e.Prefix.IsValid() {
		add(here, e)
		return
	}
	for _, half := range halves(allAddrs(v6)) {
		e.Prefix = half
		add(everywhere, e)
	}
}

// halves returns the prefix, in two parts where it is all addresses: a set takes no prefix of length 0.
func halves(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	high := p.Addr().AsSlice()
	high[0] = 1 << 7
	addr, _ := netip.AddrFromSlice(high)
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(addr, 1)}
}

func allAddrs(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// single is the prefix of one address, the zero Prefix for the zero Addr.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
