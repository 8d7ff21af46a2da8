package iptables

import (
	"fmt"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// dnat is the tree that redirects published ports.
var dnat = tree[firewall.Port]{
	root: chainDNAT, why: "published ports",
	place: func(p firewall.Port) (state.Proto, uint16) { return p.Proto, p.HostPort },
	rules: func(p firewall.Port) []Rule { return []Rule{redirect(p)} },
}

// outside is the chain of what arrives. It leaves to the host what comes from outside to ports that are not translated for it;
// those of all addresses count before what others publish on one of them, so that in doubt nothing is translated.
//
// No set holds a link beside a source and a port, so that nobody can be learned here (noLearning): such ports are left to the host always.
func outside(f firewall.Family, n names) Chain {
	from := join(fromOthers, notLo)
	var rules []Rule
	if f.Inquire {
		rules = inquiries(f.V6, "", Rule{Why: "an inquiry", Target: chainDNAT})
	}
	return Chain{Name: chainPrerouting, Rules: append(rules, []Rule{
		{Match: join(from, inSet(n.insideOn, "dst,dst")), Why: "left to the host", Target: "ACCEPT"},
		{Match: join(from, inSet(n.inside, "dst,dst")), Why: "left to the host", Target: "ACCEPT"},
		{Why: "published ports", Target: chainDNAT},
	}...)}
}

func redirect(p firewall.Port) Rule {
	match := fmt.Sprintf("-p %s -m %s --dport %d", p.Proto, p.Proto, p.HostPort)
	switch {
	case p.Host.IsValid():
		match = fmt.Sprintf("-d %s %s", p.Host, match)
	case p.Proxied:
		match = fmt.Sprintf("! -d %s %s", namesOf(p.Target.Addr().Is6()).loopback, match)
	}
	return Rule{Match: match, Why: "published port", Target: "DNAT --to-destination " + p.Target.String()}
}
