package iptables

import "github.com/drawbridge-net/drawbridge/firewall"

// refuse is the chain that drops what must not be forwarded. It runs in mangle, before all
// filter rules; package firewall's documentation gives the reason for each rule.
//
// The set of networks pairs a subnet with its bridge. Looked up with the destination and the
// incoming interface ("dst,src") it says that a packet stays in its network: true for
// bridged packets where br_netfilter shows them to iptables, without a
// physdev match, which would load br_netfilter for the whole host.
func refuse(n names, v6 bool) Chain {
	rules := []Rule{
		{Match: established, Why: "established", Target: "RETURN"},
		{Match: join(fromOurs, inSet(n.nets, "dst,src")), Why: "same network", Target: "RETURN"},
	}
	return Chain{Name: chainForward, Rules: append(append(rules, onLink(v6, "RETURN")...), []Rule{
		{Match: fromInternal, Why: "internal network, out", Target: "DROP"},
		{Match: toInternal, Why: "internal network, in", Target: "DROP"},
		{Match: join(fromOurs, "-m set ! --match-set "+n.nets+" src,src"), Why: "source is not of the network", Target: "DROP"},
		{Match: join(fromOthers, inSet(n.subnets, "src")), Why: "source is of a container network", Target: "DROP"},
		{Match: join(toOurs, redirected, inSet(n.ports, "dst,dst")), Why: "published port", Target: "RETURN"},
		{Match: toOurs, Why: "not published, or another network", Target: "DROP"},
		{Match: join(fromOurs, notRedirected), Why: "perhaps a bridge of Docker", Target: chainDocker},
	}...)}
}

// onLink lets pass what the host does not route and br_netfilter shows all the same: neighbour
// discovery above all, without which IPv6 ends inside a network. The kernel takes
// link-local destinations to the link they came from, and multicast to another only where
// a multicast routing daemon runs.
func onLink(v6 bool, target string) []Rule {
	prefixes := []string{"224.0.0.0/4", "255.255.255.255/32"}
	if v6 {
		prefixes = []string{"fe80::/10", "ff00::/8"}
	}
	var rules []Rule
	for _, p := range prefixes {
		rules = append(rules, Rule{Match: join("-d "+p, fromOurs, toOurs), Why: "same link", Target: target})
	}
	return rules
}

// docker is the chain that keeps container networks away from the bridges of Docker's own
// driver, a rule for each. A set cannot hold them: hash:net,iface takes the same
// prefix with at most 64 interfaces.
func docker(bridges []string) Chain {
	c := Chain{Name: chainDocker}
	for _, name := range bridges {
		c.Rules = append(c.Rules, Rule{Match: "-o " + name, Why: "a bridge of Docker", Target: "DROP"})
	}
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
