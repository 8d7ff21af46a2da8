package iptables

import "github.com/drawbridge-net/drawbridge/firewall"

// postrouting rewrites sources.
//
// Hairpin: a container that reaches a container of its own network by the host's address
// would get the reply straight over the bridge, past the translation. Looked up with the
// source and the outgoing interface ("src,dst"), the set of networks tells these packets from those that
// come from elsewhere, whose real source the container shall see.
//
// A network with a source address of its own is a rule, since no set can hold an address to rewrite to.
func postrouting(f firewall.Family, n names) Chain {
	c := Chain{Name: chainPostrouting, Rules: []Rule{
		{Match: join(redirected, inSet(n.nets, "src,dst")), Why: "hairpin", Target: "MASQUERADE"},
	}}
	if f.Loopback {
		c.Rules = append(c.Rules, Rule{Match: join("-s "+n.loopback, toOurs), Why: "from 127.0.0.1", Target: "MASQUERADE"})
	}
	for _, network := range f.Networks {
		if network.Masquerade && network.SNAT.IsValid() {
			c.Rules = append(c.Rules, Rule{
				Match: join("-s "+network.Prefix.String(), toOthers), Why: "outwards", Target: "SNAT --to-source " + network.SNAT.String(),
			})
		}
	}
	c.Rules = append(c.Rules, Rule{Match: join(toOthers, inSet(n.masquerade, "src")), Why: "outwards", Target: "MASQUERADE"})
	return c
}
