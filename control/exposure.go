package control

import (
	"fmt"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// Publishing is what the daemon makes of ports whose mode neither the container nor the network says.
type Publishing struct {
	Modes state.Modes
	// InheritWhy and AutoWhy say in words where these come from.
	InheritWhy, AutoWhy string
	// NoLearning says why the host is asked about each connection to ports that would be learned; empty where it is not.
	NoLearning string
	// NoRules4 and NoRules6 say why nothing of a family is translated; empty where it is.
	NoRules4, NoRules6 string
}

// modeRouted is the mode of a port that is no port of the host.
const modeRouted = "routed"

// mode returns how clients from outside come to a port of an endpoint in a family, and why so.
func (p Publishing) mode(s state.Snapshot, e state.Endpoint, port state.Port, v6 bool) (mode, why string) {
	exposure := s.Exposure(e)
	decided, why := p.decide(exposure, e, port)
	noRules := p.NoRules4
	if v6 {
		noRules = p.NoRules6
	}
	switch {
	case port.HostIP.IsLoopback():
		return string(state.PublishLocalhost), "published on a loopback address"
	case decided == state.PublishLocalhost:
	case port.Routed():
		return modeRouted, "gateway mode of the network, where the host's INPUT rules are not asked"
	case noRules != "":
		return string(state.PublishHost), noRules
	case decided == state.PublishLearned && p.NoLearning != "":
		return string(state.PublishHost), why + "; learned: " + p.NoLearning
	}
	return string(decided), why
}

func (p Publishing) decide(exposure state.Exposure, e state.Endpoint, port state.Port) (state.Publish, string) {
	why := "drawbridge.publish of the network"
	switch {
	case e.Exposure.Publish != state.PublishInherit:
		why = "drawbridge.publish of the container"
	case exposure.Publish == state.PublishInherit:
		why = p.InheritWhy
	}
	if exposure.Publish == state.PublishAuto {
		why += " is auto: " + p.AutoWhy
	}
	mode, free := p.Modes.Of(exposure, port.Proto), p.Modes
	free.Strict = false
	switch {
	case mode != free.Of(exposure, port.Proto):
		why += "; firewalld refuses translated ports (StrictForwardPorts=yes)"
	case mode != free.Of(exposure, state.TCP):
		why += "; no socket of the host can serve SCTP"
	}
	return mode, why
}

// maxShown is how many sources a table names.
const maxShown = 3

// fromText shows who may come.
func fromText(l state.Prefixes) string {
	all := strings.Split(string(l), ",")
	switch {
	case l == "":
		return "all"
	case len(all) > maxShown:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxShown], ","), len(all)-maxShown)
	}
	return string(l)
}

func linksText(l state.LinkNames) string {
	if l == "" {
		return "all"
	}
	return string(l)
}
