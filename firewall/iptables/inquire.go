package iptables

import (
	"fmt"

	"github.com/drawbridge-net/drawbridge/state"
)

// asks matches the packets of a protocol that ask about a client (package inquiry).
func asks(p state.Proto, v6 bool) string {
	least, greatest := state.LengthInquiry(p, v6)
	if v6 { // of which the match counts the header too
		const header = 40
		least, greatest = least+header, greatest+header
	}
	return fmt.Sprintf("-p %s -m mark --mark %#x/%#[2]x -m length --length %d:%d -m conntrack --ctstate NEW", p, state.MarkInquiry, least, greatest)
}

// inquiries are rules for such packets, whatever the protocol.
func inquiries(v6 bool, match string, r Rule) []Rule {
	var rules []Rule
	for _, p := range state.InquiryProtos {
		r.Match = join(asks(p, v6), match)
		rules = append(rules, r)
	}
	return rules
}

// inquiry is the chain that shows what has passed DOCKER-USER, and keeps it from the container.
func inquiry() Chain {
	return Chain{Name: chainInquiry, Rules: []Rule{
		{Why: "an inquiry, answered", Target: fmt.Sprintf("NFLOG --nflog-group %d", state.GroupInquiry)},
		{Why: "an inquiry, answered", Target: "DROP"},
	}}
}

// inquire adds it to a table, and, to mangle, the way to it of what DOCKER-USER accepts: that ends filter's FORWARD.
func (t *Table) inquire(v6 bool) {
	t.Chains = append(t.Chains, inquiry())
	if t.Name == "mangle" {
		for _, r := range inquiries(v6, toOurs, Rule{Why: "an inquiry", Target: chainInquiry}) {
			t.Jumps = append(t.Jumps, Jump{From: "POSTROUTING", Place: Top, Rule: r})
		}
	}
}
