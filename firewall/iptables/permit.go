package iptables

// permit is the chain that accepts what others might refuse. It says for itself what may pass, rather
// than rely on refuse having dropped the rest: mangle may have been flushed a moment ago.
func permit(n names, v6 bool) Chain {
	published := join(toOurs, redirected, inSet(n.ports, "dst,dst"))
	rules := []Rule{
		{Match: join(toOurs, established), Why: "established", Target: "ACCEPT"},
		{Match: join(fromOurs, established), Why: "established", Target: "ACCEPT"},
	}
	rules = append(rules, apart(n, published, "ACCEPT")...)
	rules = append(rules, Rule{Match: join(fromOurs, inSet(n.nets, "dst,src")), Why: "same network", Target: "ACCEPT"})
	rules = append(rules, onLink(v6, "ACCEPT")...)
	return Chain{Name: chainForward, Rules: append(rules, []Rule{
		{Match: fromInternal, Why: "internal network, out", Target: "RETURN"},
		{Match: published, Why: "published port", Target: "ACCEPT"},
		{Match: join(toOurs, inSet(n.open, "dst,dst")), Why: "published port of a routed network", Target: "ACCEPT"},
		{Match: join(toOurs, "-p "+n.icmp, inSet(n.routed, "dst")), Why: "ICMP to a routed network", Target: "ACCEPT"},
		{Match: join(toOurs, inSet(n.trusted, "dst,src"), inSet(n.ports, "dst,dst")), Why: "published port, from a trusted link", Target: "ACCEPT"},
		{Match: join(fromOthers, toOurs, inSet(n.unprotected, "dst")), Why: "unprotected network", Target: chainOpen, Goto: true},
		{Match: join(fromOrdinary, toOthers, inSet(n.nets, "src,src")), Why: "outwards", Target: "ACCEPT"},
	}...)}
}
