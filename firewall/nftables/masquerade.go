package nftables

import "github.com/drawbridge-net/drawbridge/firewall"

// sources rewrites sources.
//
// Hairpin: a container that reaches a container of its own network by the host's address would get the reply straight
// over the bridge, past the translation. Looked up with the source and the outgoing interface, the set of
// networks tells these packets from those that come from elsewhere, whose real source the container shall see.
func sources(f firewall.Family, n names) Chain {
	c := Chain{Name: n.sources, Rules: []Rule{
		rule("hairpin", redirected, in(n.nets, n.from, oif), masquerade),
	}}
	if f.Loopback {
		c.Rules = append(c.Rules, rule("from 127.0.0.1", n.ofLoopback, toOurs, masquerade))
	}
	c.Rules = append(c.Rules,
		rule("outwards, by an address of its own", toOthers, n.family.snat(n.snat)),
		rule("outwards", toOthers, in(n.masquerade, n.from), masquerade))
	return c
}
