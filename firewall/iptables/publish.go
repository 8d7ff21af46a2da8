package iptables

import (
	"fmt"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// A chain of published ports holds at most leaf rules; more are spread over fanOut chains,
// each for an equal part of the port numbers. However many ports there
// are, a packet meets at most 112 rules, and a change rewrites one small chain.
const (
	leaf   = 16
	fanOut = 16
)

// dnat returns the tree of chains that redirects published ports, its root first.
func dnat(ports []firewall.Port) []Chain {
	root := Chain{Name: chainDNAT}
	var below []Chain
	for len(ports) > 0 {
		n := 1
		for n < len(ports) && ports[n].Proto == ports[0].Proto {
			n++
		}
		rules, chains := spread(ports[:n], 0, 1<<16)
		root.Rules = append(root.Rules, rules...)
		below = append(below, chains...)
		ports = ports[n:]
	}
	return append([]Chain{root}, below...)
}

// spread returns the rules for ports of one protocol, whose numbers lie in [low, low+width),
// and the chains that the rules jump to. ports is sorted by number.
func spread(ports []firewall.Port, low, width int) ([]Rule, []Chain) {
	if len(ports) <= leaf || width == 1 {
		rules := make([]Rule, 0, len(ports))
		for _, p := range ports {
			rules = append(rules, redirect(p))
		}
		return rules, nil
	}
	var rules []Rule
	var chains []Chain
	for part := width / fanOut; len(ports) > 0; low += part {
		n := 0
		for n < len(ports) && int(ports[n].HostPort) < low+part {
			n++
		}
		if n == 0 {
			continue
		}
		proto := ports[0].Proto.String()
		name := fmt.Sprintf("%s-%s-%d-%d", prefix, proto, low, low+part-1)
		inner, deeper := spread(ports[:n], low, part)
		rules = append(rules, Rule{
			Match:  fmt.Sprintf("-p %s -m %s --dport %d:%d", proto, proto, low, low+part-1),
			Why:    "published ports",
			Target: name,
		})
		chains = append(append(chains, Chain{Name: name, Rules: inner}), deeper...)
		ports = ports[n:]
	}
	return rules, chains
}

func redirect(p firewall.Port) Rule {
	match := fmt.Sprintf("-p %s -m %s --dport %d", p.Proto, p.Proto, p.HostPort)
	if p.Host.IsValid() {
		match = fmt.Sprintf("-d %s %s", p.Host, match)
	}
	return Rule{Match: match, Why: "published port", Target: "DNAT --to-destination " + p.Target.String()}
}
