package iptables

import (
	"fmt"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// refuse is the chain that drops what must not be forwarded. It runs in mangle, before all
// filter rules; package firewall's documentation gives the reason for each rule.
//
// The set of networks pairs a subnet with its bridge. Looked up with the destination and the
// incoming interface ("dst,src") it says that a packet stays in its network: true for
// bridged packets where br_netfilter shows them to iptables, without a
// physdev match, which would load br_netfilter for the whole host.
func refuse(n names, f firewall.Family) Chain {
	published := join(toOurs, redirected, inSet(n.ports, "dst,dst"))
	rules := []Rule{
		{Match: syn, Why: "segment size", Target: chainMSS},
		{Match: established, Why: "established", Target: chainEstablished, Goto: true},
	}
	pass := func(match, why string) Rule { return passing(f, match, why) }
	rules = append(rules, apart(n, published, pass)...)
	rules = append(rules, within(n, f, pass)...)
	rules = append(rules, []Rule{
		{Match: join(toOurs, invalid), Why: "belongs to no connection", Target: "DROP"},
		{Match: join(fromOurs, invalid, inSet(n.masquerade, "src")), Why: "belongs to no connection, and would leave untranslated", Target: "DROP"},
		{Match: fromInternal, Why: "internal network, out", Target: "DROP"},
		{Match: toInternal, Why: "internal network, in", Target: "DROP"},
		{Match: join(fromMade, notInSet(n.nets, "src,src")), Why: "source is not of the network", Target: "DROP"},
		{Match: join(fromOurs, inSet(n.subnets, "src"), notInSet(n.nets, "src,src")), Why: "source is of another network", Target: "DROP"},
		{Match: join(fromOthers, inSet(n.subnets, "src")), Why: "source is of a container network", Target: "DROP"},
	}...)
	rules = append(rules, limitHere(f, n)...)
	rules = append(rules, []Rule{
		pass(published, "published port"),
		pass(join(toOurs, inSet(n.open, "dst,dst")), "published port of a routed network"),
		pass(join(toOurs, "-p "+n.icmp, inSet(n.routed, "dst")), "ICMP to a routed network"),
		pass(join(toOurs, inSet(n.trusted, "dst,src"), inSet(n.ports, "dst,dst")), "published port, from a trusted link"),
		{Match: join(fromOthers, toOurs, inSet(n.unprotected, "dst")), Why: "unprotected network", Target: chainUnprotected, Goto: true},
		{Match: toOurs, Why: "not published, or another network", Target: "DROP"},
		{Match: join(fromOurs, notRedirected), Why: "perhaps a bridge of Docker", Target: chainDocker},
	}...)
	if f.Latched {
		rules = append(rules, pass(fromOurs, "outwards"))
	}
	return Chain{Name: chainForward, Rules: rules}
}

// passing is a rule of refuse for what passes. The latch, where there is one, is told so.
func passing(f firewall.Family, match, why string) Rule {
	if f.Latched {
		return Rule{Match: match, Why: why, Target: chainPass, Goto: true}
	}
	return Rule{Match: match, Why: why, Target: "RETURN"}
}

// tellLatch are the rules that tell the latch, where there is one, that a packet passes.
func tellLatch(f firewall.Family) []Rule {
	if !f.Latched {
		return nil
	}
	return []Rule{{Why: "passes, for the latch", Target: fmt.Sprintf("MARK --or-mark %#x", firewall.MarkPassed)}}
}

// apart are the rules for networks that keep their containers apart. Their bridge ports are isolated, so that
// what is seen here was routed by the host, because its bridge answered for a linked container, or came by a
// port of the bridge that is not a container's. A link is a pair of rules, there and back.
func apart(n names, published string, pass func(match, why string) Rule) []Rule {
	inside := join(fromOurs, toOurs, inSet(n.apart, "dst,src"))
	return []Rule{
		pass(join(inside, inSet(n.links, "dst,dst,src")), "link"),
		pass(join(inside, answering, inSet(n.links, "src,src,dst")), "link, back"),
		pass(join(fromOurs, inSet(n.apart, "dst,src"), published), "published port, from the same network"),
		{Match: join(fromOurs, inSet(n.apart, "dst,src")), Why: "containers are kept apart", Target: "DROP"},
	}
}

// syn matches the packets that carry the segment size.
const syn = "-p tcp -m tcp --tcp-flags SYN,RST SYN"

// redirects keeps the host from telling linked containers of a shorter way to each other: there is none, and in
// IPv6 no sysctl for it either (ip6_forward in the kernel's net/ipv6/ip6_output.c).
func redirects(n names, v6 bool) Chain {
	redirect := byFamily(v6, "-p icmp -m icmp --icmp-type redirect", "-p ipv6-icmp -m icmp6 --icmpv6-type redirect")
	return Chain{Name: chainOutput, Rules: []Rule{
		{Match: join(redirect, toOurs, inSet(n.apart, "dst,dst")), Why: "there is no shorter way", Target: "DROP"},
	}}
}

// mss keeps connections from a segment size that would not pass on their way: path MTU discovery alone fails
// wherever somebody drops ICMP. The kernel wants TCPMSS in a rule that itself says SYN (xt_TCPMSS.c).
func mss() Chain {
	const clamp = "TCPMSS --clamp-mss-to-pmtu"
	return Chain{Name: chainMSS, Rules: []Rule{
		{Match: join(syn, fromOurs), Why: "from a container", Target: clamp},
		{Match: join(syn, toOurs), Why: "to a container", Target: clamp},
	}}
}

// loopbackGuard keeps containers from the services that listen on the host's loopback addresses. Where those are
// translated (route_localnet), the kernel itself no longer refuses them on the bridges.
func loopbackGuard(n names) Chain {
	return Chain{Name: chainPrerouting, Rules: []Rule{
		{Match: "-d " + n.loopback, Why: "loopback belongs to the host", Target: "DROP"},
		{Match: "-s " + n.loopback, Why: "loopback belongs to the host", Target: "DROP"},
	}}
}

// divert marks what containers answer to transparent sockets of ours, so that it is led to the host (state.MarkDivert). The socket may
// be anybody's: he has it for the same reason. Who invents a container's address on another link is refused here: the kernel finds the
// socket of a flow before it asks for the way (early demux), and then what is refused on the way on would not be.
func divert(n names) Chain {
	return Chain{Name: chainDivert, Rules: []Rule{
		{Match: join(notInSet(n.nets, "src,src"), toTransparent), Why: "to a transparent socket, by another link", Target: "DROP"},
		{
			Match: join(fromOurs, toTransparent, inSet(n.nets, "src,src")), Why: "to a transparent socket",
			Target: fmt.Sprintf("MARK --set-xmark %#x/%#[1]x", state.MarkDivert),
		},
	}}
}

// toTransparent passes over sockets that are bound to all addresses.
const toTransparent = "-m socket --transparent"

// unprotected is the way into a network that is open to the world, but not to Docker's own networks. What is not
// refused there gets the rules that follow.
func unprotected(name string, bridges []string, then ...Rule) Chain {
	c := Chain{Name: name}
	for _, bridge := range bridges {
		c.Rules = append(c.Rules, Rule{Match: "-i " + bridge, Why: "from a bridge of Docker", Target: "DROP"})
	}
	c.Rules = append(c.Rules, then...)
	return c
}

// within lets pass what stays in its network.
func within(n names, f firewall.Family, pass func(match, why string) Rule) []Rule {
	return append([]Rule{pass(join(fromOurs, inSet(n.nets, "dst,src")), "same network")}, onBridge(f, pass)...)
}

// onBridge lets pass what does not leave its bridge. Where br_netfilter is already, a physdev match says so of frames that stay on their
// bridge, wherever they go from there: by a neighbour that routes, or between other machines on an adopted bridge.
func onBridge(f firewall.Family, pass func(match, why string) Rule) []Rule {
	var rules []Rule
	if f.BridgeNetfilter {
		rules = append(rules, pass(join(fromOurs, toOurs, "-m physdev --physdev-is-bridged"), "stays on its bridge"))
	}
	return append(rules, onLink(f.V6, pass)...)
}

// onLink lets pass what the host does not route and br_netfilter shows all the same: neighbour
// discovery above all, without which IPv6 ends inside a network. The kernel takes
// link-local destinations to the link they came from, and multicast to another only where
// a multicast routing daemon runs.
func onLink(v6 bool, pass func(match, why string) Rule) []Rule {
	prefixes := []string{"224.0.0.0/4", "255.255.255.255/32"}
	if v6 {
		prefixes = []string{"fe80::/10", "ff00::/8"}
	}
	var rules []Rule
	for _, p := range prefixes {
		rules = append(rules, pass(join("-d "+p, fromOurs, toOurs), "same link"))
	}
	return rules
}

// docker is the chain that keeps container networks away from the bridges of Docker's own
// driver, a rule for each. A set cannot hold them: hash:net,iface takes the same
// prefix with at most 64 interfaces. What is not refused there gets the rules that follow.
func docker(name string, bridges []string, then ...Rule) Chain {
	c := Chain{Name: name}
	for _, bridge := range bridges {
		c.Rules = append(c.Rules, Rule{Match: "-o " + bridge, Why: "a bridge of Docker", Target: "DROP"})
	}
	c.Rules = append(c.Rules, then...)
	return c
}

// guard refuses to forward between interfaces that have nothing to do with
// containers. It is the last rule of FORWARD, where it acts like a policy: whatever
// anybody accepts is accepted before.
//
// What stays within somebody's bridge is not forwarded by the host, but br_netfilter shows it
// here. Only where br_netfilter is already may a rule look for that: a physdev match loads it.
func guard(f firewall.Family) Chain {
	c := Chain{Name: chainGuard}
	if f.BridgeNetfilter {
		c.Rules = append(c.Rules, Rule{Match: "-m physdev --physdev-is-bridged", Why: "stays within a bridge", Target: "RETURN"})
	}
	c.Rules = append(c.Rules,
		Rule{Match: fromOurs, Why: "from a container", Target: "RETURN"},
		Rule{Match: toOurs, Why: "to a container", Target: "RETURN"})
	for _, name := range f.DockerBridges {
		c.Rules = append(c.Rules,
			Rule{Match: "-i " + name, Why: "from a bridge of Docker", Target: "RETURN"},
			Rule{Match: join("-o "+name, answered), Why: "to a bridge of Docker", Target: "RETURN"})
	}
	c.Rules = append(c.Rules, Rule{Why: "the host is no router", Target: "DROP"})
	return c
}
