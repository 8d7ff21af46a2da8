package iptables

// permit is the chain that accepts what others might refuse. Whatever must not pass has
// been dropped in mangle, so what is left between a container network and
// the rest of the world may pass.
func permit() Chain {
	return Chain{Name: chainForward, Rules: []Rule{
		{Match: toOurs, Why: "to a container: established, same network or published", Target: "ACCEPT"},
		{Match: fromOurs, Why: "from a container", Target: "ACCEPT"},
	}}
}
