package iptables

// permit is the chain that accepts what others might refuse. It says for itself what may pass, rather
// than rely on refuse having dropped the rest: mangle may have been flushed a moment ago.
func permit(n names, v6 bool) Chain {
	rules := []Rule{
		{Match: join(toOurs, established), Why: "established", Target: "ACCEPT"},
		{Match: join(fromOurs, established), Why: "established", Target: "ACCEPT"},
		{Match: join(fromOurs, inSet(n.nets, "dst,src")), Why: "same network", Target: "ACCEPT"},
	}
	return Chain{Name: chainForward, Rules: append(append(rules, onLink(v6, "ACCEPT")...), []Rule{
		{Match: fromInternal, Why: "internal network, out", Target: "RETURN"},
		{Match: join(toOurs, redirected, inSet(n.ports, "dst,dst")), Why: "published port", Target: "ACCEPT"},
		{Match: join(fromOrdinary, toOthers), Why: "outwards", Target: "ACCEPT"},
	}...)}
}
