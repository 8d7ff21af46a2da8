package main

import (
	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/state"
)

// describePublishing says how clients from outside come to published ports whose mode nobody but the daemon says.
func (p *planes) describePublishing(s settings) control.Publishing {
	out := control.Publishing{InheritWhy: "--publish"}
	if p.auto != nil {
		_, out.AutoWhy = p.auto.Auto()
		out.Modes = p.auto.Modes()
	}
	if s.publish == string(state.PublishAuto) {
		out.InheritWhy = "--publish is auto: " + out.AutoWhy
	}
	if p.backend != nil && p.backend.Variant() != "" && p.backend.Variant() != "nftables" {
		out.NoLearning = "only --firewall-backend=nftables can"
	}
	if !s.iptables {
		out.NoRules4 = "--iptables=false: a proxy serves all"
	}
	if !s.iptables || !s.ip6tables {
		out.NoRules6 = "no rules for IPv6: a proxy serves all"
	}
	return out
}
