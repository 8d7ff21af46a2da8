package nftables

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
func connected(n names) Chain {
	c := Chain{Name: n.established}
	add := func(why string, parts ...Part) { c.Rules = append(c.Rules, rule(why, parts...)) }
	pass := then(chainPermit)

	add("outwards", fromOrdinary, toOthers, in(n.nets, n.from, iif), pass)

	add("source is of a container network", fromOthers, asking, in(n.subnets, n.from), drop)
	add("source is of a container network, and the link is none of Docker", fromOthers, replying, in(n.subnets, n.from), notIn(n.docker, iif), drop)
	add("internal network, in", fromOthers, toInternal, drop)
	add("inwards", fromOthers, toOurs, pass)
	add("not ours", fromOthers, accept)

	// All that follows comes from a network of ours.
	add("stays on its bridge", toOurs, in(n.bridges, iif, oif), pass)
	c.Rules = append(c.Rules, onLink(n, pass)...)
	// In an internal network the host routes between linked containers.
	add("internal network, out", fromInternal, notIn(n.nets, n.to, iif), drop)
	add("internal network, in", toInternal, notIn(n.nets, n.to, iif), drop)
	add("to a container", toOurs, in(n.nets, n.from, iif), pass)
	add("source is of no network", fromMade, notIn(n.subnets, n.from), drop)
	add("source is of another network", asking, in(n.subnets, n.from), drop)
	add("an answer by another network, or from a bridge shared with others", pass)
	return c
}
