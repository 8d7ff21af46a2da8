package iptables

import "github.com/drawbridge-net/drawbridge/firewall"

// connected is the chain of what belongs to an established flow. The kernel finds a flow by addresses and ports, whichever link a packet
// came by: who invents those of somebody else's flow has its translation, and goes out of an internal network or in to that one's
// container. So the source must be one of the link. The rules are like those for what is new, but for two things:
//
//   - What stays on its bridge is told by the bridge, not by the destination: the host's address leads back to a neighbour that is kept apart.
//   - A container on two networks answers by its default route, whichever of its addresses was asked. So the answer to a connection may
//     come by a bridge of another network, or of Docker, whose containers may be on one of ours too. By an internal network no default
//     route leads.
//
// It is the way of nearly all packets. One costs a single look at a set, be it a container's on its way out or from elsewhere: the
// directions of a connection have a rule each. Packets that have nothing to do with our bridges are looked up too, since the source
// alone tells that it is a container's.
func connected(n names, f firewall.Family) Chain {
	pass := func(match, why string) Rule { return Rule{Match: match, Why: why, Target: "RETURN"} }
	rules := []Rule{
		pass(join(fromOrdinary, toOthers, inSet(n.nets, "src,src")), "outwards"),

		{Match: join(fromOthers, asking, inSet(n.subnets, "src")), Why: "source is of a container network", Target: "DROP"},
		{Match: join(fromOthers, replying, inSet(n.subnets, "src")), Why: "source is of a container network", Target: chainAnswers, Goto: true},
		{Match: join(fromOthers, toInternal), Why: "internal network, in", Target: "DROP"},
		pass(fromOthers, "inwards, or not ours"),
	}
	// All that follows comes from a network of ours.
	rules = append(rules, onBridge(f, pass)...)
	return Chain{Name: chainEstablished, Rules: append(rules, []Rule{
		// In an internal network the host routes between linked containers.
		{Match: join(fromInternal, notInSet(n.nets, "dst,src")), Why: "internal network, out", Target: "DROP"},
		{Match: join(toInternal, notInSet(n.nets, "dst,src")), Why: "internal network, in", Target: "DROP"},
		pass(join(toOurs, inSet(n.nets, "src,src")), "to a container"),
		{Match: join(fromMade, notInSet(n.subnets, "src")), Why: "source is of no network", Target: "DROP"},
		{Match: join(asking, inSet(n.subnets, "src")), Why: "source is of another network", Target: "DROP"},
	}...)}
}

// answers is the chain of what a container seems to answer by a link that is no bridge of ours.
func answers(bridges []string) Chain {
	c := Chain{Name: chainAnswers}
	for _, bridge := range bridges {
		c.Rules = append(c.Rules, Rule{Match: "-i " + bridge, Why: "by a bridge of Docker", Target: "RETURN"})
	}
	c.Rules = append(c.Rules, Rule{Why: "the link is none of Docker", Target: "DROP"})
	return c
}
