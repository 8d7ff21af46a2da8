package iptables

import (
	"fmt"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// A chain of a tree holds the rules of at most leaf ports; more are spread over fanOut chains,
// each for an equal part of the port numbers. However many ports there
// are, a packet meets at most 112 rules where each has one, and a change rewrites one small chain.
const (
	leaf   = 16
	fanOut = 16
)

// tree is chains that have rules for each of many ports. It may be once in a table: the chains below its root are named by what
// they are for.
type tree[P comparable] struct {
	root  string
	why   string
	place func(P) (state.Proto, uint16)
	rules func(P) []Rule
}

// chains returns those for ports that are sorted by protocol and number, the root first.
func (t tree[P]) chains(ports []P) []Chain {
	_, chains := t.change(nil, ports)
	return chains
}

// change returns the chains in which two such trees may differ, as they are in the one and in the other: their roots, and below
// them those for parts of the port numbers in which a port does.
func (t tree[P]) change(before, after []P) (gone, come []Chain) {
	gone, come = []Chain{{Name: t.root}}, []Chain{{Name: t.root}}
	for len(before)+len(after) > 0 {
		first := min(t.proto(before), t.proto(after))
		var b, a []P
		of := func(p P) bool { proto, _ := t.place(p); return proto == first }
		b, before = cut(before, of)
		a, after = cut(after, of)
		all := span[P]{t, first, 0, 1 << 16}
		gone[0].Rules = append(gone[0].Rules, all.rules(b)...)
		come[0].Rules = append(come[0].Rules, all.rules(a)...)
		g, c := all.change(b, a)
		gone, come = append(gone, g...), append(come, c...)
	}
	return gone, come
}

// proto returns the protocol of the first port, and one behind all others if there is none.
func (t tree[P]) proto(ports []P) state.Proto {
	if len(ports) == 0 {
		return 1<<8 - 1
	}
	proto, _ := t.place(ports[0])
	return proto
}

// cut returns the first ports that belong, and the rest.
func cut[P any](ports []P, belongs func(P) bool) (first, rest []P) {
	n := slices.IndexFunc(ports, func(p P) bool { return !belongs(p) })
	if n < 0 {
		n = len(ports)
	}
	return ports[:n], ports[n:]
}

// span is the port numbers of a protocol in [low, low+width), for which there is a chain.
type span[P comparable] struct {
	tree       tree[P]
	proto      state.Proto
	low, width int
}

func (s span[P]) name() string {
	return fmt.Sprintf("%s-%s-%d-%d", prefix, s.proto, s.low, s.low+s.width-1)
}

// part is a span with its ports.
type part[P comparable] struct {
	span[P]
	ports []P
}

// parts are the spans that the chain leads to, with their ports; none where it has the rules of the ports itself.
func (s span[P]) parts(ports []P) (parts [fanOut]part[P]) {
	split := len(ports) > leaf && s.width > 1
	for i := range parts {
		p := span[P]{s.tree, s.proto, s.low + i*s.width/fanOut, s.width / fanOut}
		parts[i].span = p
		if split {
			parts[i].ports, ports = cut(ports, func(port P) bool {
				_, number := s.tree.place(port)
				return int(number) < p.low+p.width
			})
		}
	}
	return parts
}

// rules returns the chain's rules for its ports.
func (s span[P]) rules(ports []P) []Rule {
	var rules []Rule
	for _, part := range s.parts(ports) {
		if len(part.ports) > 0 {
			rules = append(rules, Rule{
				Match:  fmt.Sprintf("-p %s -m %s --dport %d:%d", s.proto, s.proto, part.low, part.low+part.width-1),
				Why:    s.tree.why,
				Target: part.name(),
			})
		}
	}
	if rules != nil {
		return rules
	}
	for _, p := range ports {
		rules = append(rules, s.tree.rules(p)...)
	}
	return rules
}

// change returns the chains below it that may differ for two lists of ports.
func (s span[P]) change(before, after []P) (gone, come []Chain) {
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
