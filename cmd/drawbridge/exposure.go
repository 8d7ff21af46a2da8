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
	if p.rules != nil {
		out.NoLearning = p.rules.NoLearning()
	}
	switch {
	case !s.iptables:
		out.NoRules4, out.NoRules6 = "--iptables=false", "--iptables=false"
	case !s.ip6tables:
		out.NoRules6 = "--ip6tables=false"
	}
	p.describeUnasked(&out)
	return out
}
