package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Render returns the policy of a state on a host. It is total and deterministic, and
// a state from which something was removed renders like one that never had it.
func Render(s state.Snapshot, h Host) Policy {
	p := Policy{V4: renderFamily(s, s, h, false), V6: Family{V6: true}}
	if !h.NoIPv6 {
		p.V6 = renderFamily(s, s, h, true)
	}
	return p
}

// renderFamily renders s, which may be a part of the whole state: what kinds of rules there are is asked of that.
func renderFamily(s, whole state.Snapshot, h Host, v6 bool) Family {
	f := Family{
		V6:        v6,
		Networks:  networks(s, v6),
		Guard:     guard(s.Forwarding, v6),
		Strangers: slices.ContainsFunc(s.Networks, func(n state.Network) bool { return stranger(n, v6) }),
	}
	f.Loopback = !v6 && slices.ContainsFunc(s.Networks, h.leadsLoopback)
	f.Limits = limits(s, h, v6)
	f.exposure(whole, h)
	f.Latched = h.Latched && f.HasBridges()
	if f.HasBridges() {
		f.Divert, f.Inquire = h.diverts(), h.inquires(v6)
		f.Links = linksOf(s, v6)
		f.Ports, f.Open = ports(s, h, f)
	}
	if !f.IsEmpty() {
		f.DockerBridges = foreignBridges(s, h)
		f.BridgeNetfilter = h.BridgeNetfilter
	}
	return f
}

// stranger reports whether the network lacks a family that its bridge could carry. On a bridge of ours without an IPv6 network
// IPv6 is switched off; an adopted one is its owner's, and IPv4 has no such switch.
func stranger(n state.Network, v6 bool) bool {
	return n.Family(v6).IsZero() && (!v6 || n.Adopted)
}

func guard(f state.Forwarding, v6 bool) bool {
	if v6 {
		return f.V6
	}
	return f.V4
}

func networks(s state.Snapshot, v6 bool) []Network {
	var out []Network
	for _, n := range s.Networks {
		if subnet := n.Family(v6); !subnet.IsZero() {
			out = append(out, networkOf(n, subnet))
		}
	}
	slices.SortFunc(out, func(a, b Network) int {
		return cmp.Or(comparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Bridge, b.Bridge))
	})
	return out
}

func networkOf(n state.Network, s state.Subnet) Network {
	out := Network{Prefix: s.Prefix, Bridge: n.Bridge, NoICC: n.NoICC}
	if n.Internal {
		return out
	}
	out.Masquerade = !n.NoMasquerade && s.Masquerades()
	if out.Masquerade {
		out.SNAT = s.SNAT
	}
	out.Routed = s.Mode == state.ModeRouted
	out.Unprotected = s.Mode == state.ModeUnprotected
	out.Trusted = n.Trusted.All()
	return out
}

// ports returns what is redirected and what is open. What comes by a loopback address is for a proxy to
// serve, unless it is translated on its way to the network. Of SCTP, whose packets name addresses, nothing is.
func ports(s state.Snapshot, h Host, f Family) (redirected []Port, open []Target) {
	for _, e := range s.Endpoints {
		n, ok := s.Network(e.Network)
		if !ok || n.Internal {
			continue
		}
		leads := f.Loopback && !h.BarsLoopback && h.leadsLoopback(n)
		exposure := s.Exposure(e)
		for _, p := range e.Ports {
			target, ok := p.Target(e, f.V6)
			loopback := leads && p.Proto != state.SCTP
			switch {
			case !ok || p.HostIP.IsLoopback() && !loopback:
			case p.Routed():
				open = append(open, Target{p.Proto, target})
			default:
				host := specific(p.HostIP)
				port := Port{Proto: p.Proto, Host: host, Proxied: f.Loopback && !loopback && !host.IsValid(), HostPort: p.HostPort, Target: target}
				if port.Forwarded() {
					port.Inside, port.Learned = h.Modes.Of(exposure, p.Proto) != state.PublishDNAT, h.learns(exposure, p.Proto)
				}
				redirected = append(redirected, port)
			}
		}
	}
	slices.SortFunc(redirected, comparePort)
	slices.SortFunc(open, compareTarget)
	return slices.Compact(redirected), slices.Compact(open)
}

// linksOf returns which exposed ports linked containers may reach.
func linksOf(s state.Snapshot, v6 bool) []Link {
	var out []Link
	for _, n := range s.Networks {
		for _, pair := range n.Linkages(s.Endpoints) {
			from, to := pair.From.Addr(v6), pair.To.Addr(v6)
			if !from.IsValid() || !to.IsValid() {
				continue
			}
			for _, p := range pair.To.Exposed {
				out = append(out, Link{From: from, To: Target{p.Proto, netip.AddrPortFrom(to, p.Port)}})
			}
		}
	}
	slices.SortFunc(out, compareLink)
	return slices.Compact(out)
}

// specific turns 0.0.0.0 and :: into the zero Addr: within a family they mean the same.
func specific(a netip.Addr) netip.Addr {
	if a.IsValid() && a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// foreignBridges leaves out a bridge of ours that Docker's rules happen to name.
func foreignBridges(s state.Snapshot, h Host) []string {
	var out []string
	for _, name := range h.DockerBridges {
		if !slices.ContainsFunc(s.Networks, func(n state.Network) bool { return n.Bridge == name }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func comparePort(a, b Port) int {
	return cmp.Or(
		cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.HostPort, b.HostPort),
		// A port on one address is looked up before one on every address.
		b.Host.Compare(a.Host),
		a.Target.Compare(b.Target),
		// Two containers may claim one address and one port: what is closed comes first.
		trueFirst(a.Inside, b.Inside), trueFirst(b.Learned, a.Learned),
	)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func compareTarget(a, b Target) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr))
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func compareLink(a, b Link) int {
	return cmp.Or(compareTarget(a.To, b.To), a.From.Compare(b.From))
}
