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
	return Policy{
		V4: renderFamily(s, h, false),
		V6: renderFamily(s, h, true),
	}
}

func renderFamily(s state.Snapshot, h Host, v6 bool) Family {
	f := Family{
		V6:       v6,
		Networks: networks(s, v6),
		Ports:    ports(s, v6),
		Guard:    guard(s.Forwarding, v6),
		// On the bridge of an IPv4 network IPv6 is switched off; IPv4 has no such switch.
		Strangers: !v6 && slices.ContainsFunc(s.Networks, func(n state.Network) bool { return n.V4.IsZero() }),
	}
	if !f.IsEmpty() {
		f.DockerBridges = foreignBridges(s, h)
		f.BridgeNetfilter = h.BridgeNetfilter
	}
	return f
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
		subnet := n.V4
		if v6 {
			subnet = n.V6
		}
		if subnet.IsZero() {
			continue
		}
		out = append(out, Network{Prefix: subnet.Prefix, Bridge: n.Bridge, Masquerade: !n.Internal})
	}
	slices.SortFunc(out, func(a, b Network) int {
		return cmp.Or(comparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Bridge, b.Bridge))
	})
	return out
}

// ports leaves out what is bound to a loopback address: no packet that DNAT could
// see may be addressed to it.
func ports(s state.Snapshot, v6 bool) []Port {
	var out []Port
	for _, e := range s.Endpoints {
		if n, ok := s.Network(e.Network); !ok || n.Internal {
			continue
		}
		for _, p := range e.Ports {
			target, ok := p.Target(e, v6)
			if !ok || p.HostIP.IsLoopback() {
				continue
			}
			out = append(out, Port{Proto: p.Proto, Host: specific(p.HostIP), HostPort: p.HostPort, Target: target})
		}
	}
	slices.SortFunc(out, comparePort)
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
	)
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
