package nftables

import (
	"net/netip"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// refuse is the chain of all forwarded packets of a family. It drops what must not be forwarded and marks what is
// permitted; package firewall's documentation gives the reason for each rule, and firewall/iptables has the same in two
// chains. What neither comes from nor goes to a network of ours leaves it as it came.
//
// The set of networks pairs a subnet with its bridge. Looked up with the destination and the incoming interface it
// says that a packet stays in its network: true for bridged packets where br_netfilter shows them.
func refuse(f firewall.Family, n names) Chain {
	c := Chain{Name: n.forward}
	add := func(why string, parts ...Part) { c.Rules = append(c.Rules, rule(why, parts...)) }
	pass := then(chainPermit)

	add("segment size, from a container", fromOurs, syn, clamp)
	add("segment size, to a container", toOurs, syn, clamp)
	add("established", established, then(n.established))
	c.Rules = append(c.Rules, apart(n, pass)...)
	add("same network", fromOurs, in(n.nets, n.to, iif), pass)
	add("stays on its bridge", in(n.bridges, iif, oif), pass)
	c.Rules = append(c.Rules, onLink(n, pass)...)
	add("belongs to no connection", toOurs, invalid, drop)
	add("belongs to no connection, and would leave untranslated", fromOurs, invalid, in(n.masquerade, n.from), drop)
	add("internal network, out", fromInternal, drop)
	add("internal network, in", toInternal, drop)
	add("source is not of the network", fromMade, notIn(n.nets, n.from, iif), drop)
	add("source is of another network", fromOurs, in(n.subnets, n.from), notIn(n.nets, n.from, iif), drop)
	add("source is of a container network", fromOthers, in(n.subnets, n.from), drop)
	if f.Limited {
		add("who may come to a container", fromOthers, toOurs, jump(n.limitHere))
	}
	c.Rules = append(c.Rules, inwards(n, pass)...)
	add("not published, or another network", toOurs, drop)
	// What was redirected is what Docker publishes. It is told first: a packet of no connection has no status to
	// deny.
	add("published by Docker", fromOurs, redirected, pass)
	add("a bridge of Docker", fromOurs, in(n.docker, oif), drop)
	add("outwards", fromOurs, in(n.nets, n.from, iif), pass)
	if f.Latched {
		add("left to others, for the latch", fromOurs, setPassed)
	}
	return c
}

// inwards are the ways to a container from elsewhere.
func inwards(n names, pass Part) []Rule {
	var rules []Rule
	add := func(why string, parts ...Part) { rules = append(rules, rule(why, parts...)) }
	for _, p := range n.toPublished() {
		add("published port", toOurs, redirected, p, pass)
	}
	add("published port of a routed network", toOurs, in(n.open, n.to, l4, toPort), pass)
	add("ICMP to a routed network", toOurs, n.icmp, in(n.routed, n.to), pass)
	for _, p := range n.toPublished() {
		add("published port, from a trusted link", toOurs, in(n.trusted, n.to, iif), p, pass)
	}
	unprotected := in(n.unprotected, n.to)
	add("unprotected network, from a bridge of Docker", fromOthers, toOurs, unprotected, in(n.docker, iif), drop)
	add("unprotected network", fromOthers, toOurs, unprotected, pass)
	return rules
}

// apart are the rules for networks that keep their containers apart. Their bridge ports are isolated, so that
// what is seen here was routed by the host, because its bridge answered for a linked container, or came by a
// port of the bridge that is not a container's. A link is a pair of rules, there and back.
func apart(n names, pass Part) []Rule {
	within := in(n.apart, n.to, iif)
	rules := []Rule{
		rule("link", fromOurs, toOurs, within, in(n.links, n.to, l4, toPort, n.from), pass),
		rule("link, back", fromOurs, toOurs, within, answering, in(n.links, n.from, l4, ofPort, n.to), pass),
	}
	for _, p := range n.toPublished() {
		rules = append(rules, rule("published port, from the same network", fromOurs, within, toOurs, redirected, p, pass))
	}
	return append(rules, rule("containers are kept apart", fromOurs, within, drop))
}

// onLink lets pass what the host does not route and br_netfilter shows all the same: neighbour discovery above all, without
// which IPv6 ends inside a network. The kernel takes link-local destinations to the link they came from, and
// multicast to another only where a multicast routing daemon runs.
func onLink(n names, pass Part) []Rule {
	prefixes := []string{"224.0.0.0/4", "255.255.255.255/32"}
	if n.v6 {
		prefixes = []string{"fe80::/10", "ff00::/8"}
	}
	var rules []Rule
	for _, p := range prefixes {
		rules = append(rules, rule("same link", fromOurs, toOurs, n.to.in(netip.MustParsePrefix(p)), pass))
	}
	return rules
}

// redirects keeps the host from telling linked containers of a shorter way to each other: there is none, and in
// IPv6 no sysctl for it either (ip6_forward in the kernel's net/ipv6/ip6_output.c).
func redirects(n names) Rule {
	return rule("there is no shorter way", n.redirect, toOurs, in(n.apart, n.to, oif), drop)
}

// loopbackGuard keeps containers from the services that listen on the host's loopback addresses. Where those are
// translated (route_localnet), the kernel itself no longer refuses them on the bridges.
func loopbackGuard(n names) []Rule {
	return []Rule{
		rule("loopback belongs to the host", n.loopback, fromOurs, drop),
		rule("loopback belongs to the host", n.ofLoopback, fromOurs, drop),
	}
}

// guard refuses to forward between interfaces that have nothing to do with containers. Beside iptables it is the last
// rule of its FORWARD, where whatever anybody accepts is accepted before. Here an accept of another chain does not count:
// only where no iptables is installed is the guard this chain.
//
// Frames that stay within somebody's bridge are not forwarded by the host, and br_netfilter shows them all the same.
// nftables cannot tell them from what is routed between two bridges, so that this passes too.
func guard(f firewall.Family, n names) []Rule {
	var rules []Rule
	add := func(why string, parts ...Part) {
		rules = append(rules, rule(why, append([]Part{n.only()}, parts...)...))
	}
	if f.BridgeNetfilter {
		add("perhaps stays within a bridge", bridged, accept)
	}
	add("from a container", fromOurs, accept)
	add("to a container", toOurs, accept)
	add("from a bridge of Docker", in(n.docker, iif), accept)
	add("to a bridge of Docker", in(n.docker, oif), established, accept)
	add("to a bridge of Docker", in(n.docker, oif), redirected, accept)
	add("the host is no router", drop)
	return rules
}
