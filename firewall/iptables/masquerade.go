package iptables

// postrouting rewrites sources.
//
// Hairpin: a container that reaches a container of its own network by the host's address
// would get the reply straight over the bridge, past the translation. Looked up with the
// source and the outgoing interface ("src,dst"), the set of networks tells these packets from those that
// come from elsewhere, whose real source the container shall see.
func postrouting(n names) Chain {
	return Chain{Name: chainPostrouting, Rules: []Rule{
		{Match: join(redirected, inSet(n.nets, "src,dst")), Why: "hairpin", Target: "MASQUERADE"},
		{Match: join(toOthers, inSet(n.masquerade, "src")), Why: "outwards", Target: "MASQUERADE"},
	}}
}
