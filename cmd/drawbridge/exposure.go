package main

import (
	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/state"
)

// exposures says how clients from outside come to published ports whose mode nobody but the daemon says.
type exposures struct {
	flag              state.Publish // --publish
	noRules, noRules6 bool          // --iptables=false, --ip6tables=false
	variant           func() string // of the firewall's backend
}

// auto returns what state.PublishAuto comes to, and why.
func (x exposures) auto() (state.Publish, string) {
	return state.PublishDNAT, "ports are translated, whatever firewall is active"
}

// modes returns what state.PublishInherit and state.PublishAuto come to.
func (x exposures) modes() (inherit, auto state.Publish) {
	auto, _ = x.auto()
	if x.flag == state.PublishAuto {
		return auto, auto
	}
	return x.flag, auto
}

// publishing is the same for people.
func (x exposures) publishing() control.Publishing {
	inherit, auto := x.modes()
	_, why := x.auto()
	p := control.Publishing{Modes: state.Modes{Inherit: inherit, Auto: auto}, InheritWhy: "--publish", AutoWhy: why}
	if x.flag == state.PublishAuto {
		p.InheritWhy = "--publish is auto: " + why
	}
	if x.variant != nil && x.variant() != "" && x.variant() != "nftables" {
		p.NoLearning = "only --firewall-backend=nftables can"
	}
	if x.noRules {
		p.NoRules4 = "--iptables=false: a proxy serves all"
	}
	if x.noRules || x.noRules6 {
		p.NoRules6 = "no rules for IPv6: a proxy serves all"
	}
	return p
}
