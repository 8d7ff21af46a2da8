package control

import (
	"fmt"

	"github.com/drawbridge-net/drawbridge/state"
)

// Publishing is what the daemon makes of ports whose mode neither the container nor the network says.
type Publishing struct {
	Modes state.Modes
	// InheritWhy and AutoWhy say in words where these come from.
	InheritWhy, AutoWhy string
	// NoLearning says why the host is asked about each connection to ports that would be learned; empty where it is not.
	NoLearning string
	// NoRules4 and NoRules6 say why there is no rule of a family; empty where there are.
	NoRules4, NoRules6 string
	// Unasked4 and Unasked6 say why DOCKER-USER has rules and cannot be asked about clients of sockets; empty where it can, or has none.
	Unasked4, Unasked6 string
}

// modeRouted is the mode of a port that is no port of the host.
const modeRouted = "routed"

// mode returns how clients from outside come to a port of an endpoint in a family, and why so. to6 is the family in which it reaches the
// container.
func (p Publishing) mode(s state.Snapshot, e state.Endpoint, port state.Port, v6, to6 bool) (mode, why string) {
	exposure := s.Exposure(e)
	decided, why := p.decide(exposure, e, port)
	noRules, unasked := p.NoRules4, p.Unasked4
	if v6 {
		noRules, unasked = p.NoRules6, p.Unasked6
	}
	if decided.ByHost() && unasked != "" {
		why += "; nobody is served, since DOCKER-USER cannot be asked: " + unasked
	}
	switch {
	case port.HostIP.IsLoopback():
		return string(state.PublishLocalhost), "published on a loopback address"
	case decided == state.PublishLocalhost:
	case port.Routed():
		return modeRouted, "gateway mode of the network, where the host's INPUT rules are not asked"
	case noRules != "" && exposure.Limited():
		return string(state.PublishLocalhost), noRules + ": no rule would keep drawbridge.publish.from and drawbridge.publish.iface"
	case noRules != "":
		return string(state.PublishHost), noRules + ": a proxy serves all"
	case v6 != to6:
		return string(state.PublishHost), "the container has no address of this family: a proxy serves all"
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

// fromText shows who may come: of the port's own family, since no other client gets there.
func fromText(p Port) string {
	own := p.From.Family(p.HostAddress.Is6())
	switch {
	case p.Mode == string(state.PublishLocalhost), p.From != "" && len(own) == 0:
		return "nobody"
	case p.From == "":
		return "all"
	case len(own) > maxShown:
		return fmt.Sprintf("%s and %d more", state.JoinPrefixes(own[:maxShown]), len(own)-maxShown)
	}
	return string(state.JoinPrefixes(own))
}

func linksText(p Port) string {
	switch {
	case p.Mode == string(state.PublishLocalhost):
		return orNone("")
	case p.Interfaces == "":
		return "all"
	}
	return string(p.Interfaces)
}
