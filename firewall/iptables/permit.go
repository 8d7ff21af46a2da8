package iptables

import "github.com/drawbridge-net/drawbridge/firewall"

// permit is the chain that accepts what others might refuse. It says for itself what may pass, and what may not, rather
// than rely on refuse having dropped the rest: mangle may have been flushed a moment ago.
func permit(n names, f firewall.Family) Chain {
	published := join(toOurs, redirected, inSet(n.ports, "dst,dst"))
	rules := []Rule{
		{Match: join(toOurs, established), Why: "established", Target: "ACCEPT"},
		{Match: join(fromOurs, established), Why: "established", Target: "ACCEPT"},
	}
	if f.Inquire {
		rules = append(rules, inquiries(f.V6, toOurs, Rule{Why: "an inquiry", Target: chainInquiry, Goto: true})...)
	}
	accept := func(match, why string) Rule { return Rule{Match: match, Why: why, Target: "ACCEPT"} }
	rules = append(rules, apart(n, published, accept)...)
	rules = append(rules, within(n, f, accept)...)
	rules = append(rules, Rule{Match: fromInternal, Why: "internal network, out", Target: "DROP"})
	rules = append(rules, limitHere(f, n)...)
	return Chain{Name: chainForward, Rules: append(rules, []Rule{
		accept(published, "published port"),
		accept(join(toOurs, inSet(n.open, "dst,dst")), "published port of a routed network"),
		accept(join(toOurs, "-p "+n.icmp, inSet(n.routed, "dst")), "ICMP to a routed network"),
		accept(join(toOurs, inSet(n.trusted, "dst,src"), inSet(n.ports, "dst,dst")), "published port, from a trusted link"),
		{Match: join(fromOthers, toOurs, inSet(n.unprotected, "dst")), Why: "unprotected network", Target: chainOpen, Goto: true},
		{Match: toOurs, Why: "not published, or another network", Target: "DROP"},
		{Match: join(fromOrdinary, inSet(n.nets, "src,src"), notRedirected), Why: "outwards, or a bridge of Docker", Target: chainOut},
		{Match: join(fromOrdinary, inSet(n.nets, "src,src")), Why: "published by Docker", Target: "ACCEPT"},
	}...)}
}
