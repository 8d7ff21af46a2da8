package iptables

import (
	"fmt"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// A chain of published ports holds at most leaf rules; more are spread over fanOut chains,
// each for an equal part of the port numbers. However many ports there
// are, a packet meets at most 112 rules, and a change rewrites one small chain.
const (
	leaf   = 16
	fanOut = 16
)

// dnat returns the tree of chains that redirects published ports, its root first. ports are sorted by protocol and number.
func dnat(ports []firewall.Port) []Chain {
	_, chains := dnatChange(nil, ports)
	return chains
}

// dnatChange returns the chains in which two such trees may differ, as they are in the one and in the other: their roots, and below
// them those for parts of the port numbers in which a port does.
func dnatChange(before, after []firewall.Port) (gone, come []Chain) {
	gone, come = []Chain{{Name: chainDNAT}}, []Chain{{Name: chainDNAT}}
	for len(before)+len(after) > 0 {
		first := min(protoOf(before), protoOf(after))
		var b, a []firewall.Port
		b, before = cut(before, func(p firewall.Port) bool { return p.Proto == first })
		a, after = cut(after, func(p firewall.Port) bool { return p.Proto == first })
		gone[0].Rules = append(gone[0].Rules, span{first, 0, 1 << 16}.rules(b)...)
		come[0].Rules = append(come[0].Rules, span{first, 0, 1 << 16}.rules(a)...)
		g, c := span{first, 0, 1 << 16}.change(b, a)
		gone, come = append(gone, g...), append(come, c...)
	}
	return gone, come
}

// protoOf returns the protocol of the first port, and one behind all others if there is none.
func protoOf(ports []firewall.Port) state.Proto {
	if len(ports) == 0 {
		return 1<<8 - 1
	}
	return ports[0].Proto
}

// cut returns the first ports that belong, and the rest.
func cut(ports []firewall.Port, belongs func(firewall.Port) bool) (first, rest []firewall.Port) {
	n := slices.IndexFunc(ports, func(p firewall.Port) bool { return !belongs(p) })
	if n < 0 {
		n = len(ports)
	}
	return ports[:n], ports[n:]
}

// span is the port numbers of a protocol in [low, low+width), for which there is a chain.
type span struct {
	proto      state.Proto
	low, width int
}

func (s span) name() string {
	return fmt.Sprintf("%s-%s-%d-%d", prefix, s.proto, s.low, s.low+s.width-1)
}

// parts are the spans that the chain leads to, with their ports; none where it redirects by itself.
func (s span) parts(ports []firewall.Port) (parts [fanOut]struct {
	span
	ports []firewall.Port
},
) {
	split := len(ports) > leaf && s.width > 1
	for i := range parts {
		part := span{s.proto, s.low + i*s.width/fanOut, s.width / fanOut}
		parts[i].span = part
		if split {
			parts[i].ports, ports = cut(ports, func(p firewall.Port) bool { return int(p.HostPort) < part.low+part.width })
		}
	}
	return parts
}

// rules returns the chain's rules for its ports.
func (s span) rules(ports []firewall.Port) []Rule {
	var rules []Rule
	for _, part := range s.parts(ports) {
		if len(part.ports) > 0 {
			rules = append(rules, Rule{
				Match:  fmt.Sprintf("-p %s -m %s --dport %d:%d", s.proto, s.proto, part.low, part.low+part.width-1),
				Why:    "published ports",
				Target: part.name(),
			})
		}
	}
	if rules != nil {
		return rules
	}
	for _, p := range ports {
		rules = append(rules, redirect(p))
	}
	return rules
}

// change returns the chains below it that may differ for two lists of ports.
func (s span) change(before, after []firewall.Port) (gone, come []Chain) {
	parts := s.parts(after)
	for i, b := range s.parts(before) {
		a := parts[i]
		if slices.Equal(b.ports, a.ports) {
			continue
		}
		if len(b.ports) > 0 {
			gone = append(gone, Chain{Name: b.name(), Rules: b.rules(b.ports)})
		}
		if len(a.ports) > 0 {
			come = append(come, Chain{Name: a.name(), Rules: a.rules(a.ports)})
		}
		g, c := b.change(b.ports, a.ports)
		gone, come = append(gone, g...), append(come, c...)
	}
	return gone, come
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
