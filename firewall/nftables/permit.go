package nftables

// MarkPermitted is the bit of a packet's mark by which the chains of this table tell iptables what they permit. No other
// program in wide use takes it alone: Kubernetes has bits 14 and 15, Tailscale 16 to 23, Weave 17 and 18, wg-quick and
// people's own policy routing small numbers; Cilium and Calico may be given all the upper half, and are not run beside
// Docker's networks.
const MarkPermitted uint32 = 1 << 27

// permit is gone to by what may pass.
func permit() Chain {
	return Chain{Name: chainPermit, Rules: []Rule{
		rule("tell iptables", setMark),
		rule("permitted", accept),
	}}
}

// divert marks what containers answer to transparent sockets of ours, so that it is led to the host (state.MarkDivert). The socket may
// be anybody's: he has it for the same reason. Who invents a container's address on another link is refused here: the kernel finds the
// socket of a flow before it asks for the way (early demux), and then what is refused on the way on would not be.
func divert(n names) []Rule {
	return []Rule{
		rule("to a transparent socket, by another link", n.only(), in(n.subnets, n.from), notIn(n.nets, n.from, iif), toTransparent, drop),
		rule("to a transparent socket", append(toSocket(n), in(n.nets, n.from, iif), setDivert)...),
	}
}

// toSocket is what of it a kernel may lack.
func toSocket(n names) []Part { return []Part{n.only(), fromOurs, toTransparent} }

// unmark takes the bit off what was permitted, on its way out. Others' packets keep theirs.
func unmark(n names) []Rule {
	return []Rule{
		rule("to a container", n.only(), marked, toOurs, clearMark),
		rule("from a container", n.only(), marked, fromOurs, clearMark),
	}
}
