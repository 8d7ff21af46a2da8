package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// limits returns who may come to the ports that are not for everybody from outside, sorted and for each place once.
func limits(s state.Snapshot, h Host, v6 bool) []Limit {
	var out []Limit
	for _, e := range s.Endpoints {
		out = append(out, limitsOf(s, h, e, v6)...)
	}
	slices.SortFunc(out, compareLimit)
	return slices.CompactFunc(out, func(a, b Limit) bool { return a.Proto == b.Proto && a.Port == b.Port && a.Host == b.Host })
}

// limitsOf returns those of one endpoint. Each port has one at the host's address, whether the container has an address of that
// family or not, and one at the container's own: routed networks and trusted links lead there.
func limitsOf(s state.Snapshot, h Host, e state.Endpoint, v6 bool) []Limit {
	n, ok := s.Network(e.Network)
	if !ok || n.Internal || len(e.Ports) == 0 {
		return nil
	}
	exposure := s.Exposure(e)
	closed := h.Modes.Of(exposure, state.TCP) == state.PublishLocalhost // with every protocol
	if !closed && !exposure.Limited() {
		return nil
	}
	from := state.JoinPrefixes(exposure.From.Family(v6))
	var out []Limit
	for _, p := range e.Ports {
		if p.HostIP.IsLoopback() {
			continue
		}
		l := Limit{Proto: p.Proto, Of: e.ID, BySource: exposure.From != "", From: from, Links: exposure.Links}
		if closed {
			l.BySource, l.From, l.Links = true, "", ""
		}
		if !p.Routed() && (!p.HostIP.IsValid() || p.HostIP.Is6() == v6) {
			l.Host, l.Port = specific(p.HostIP), p.HostPort
			out = append(out, l)
		}
		if target, ok := p.Target(e, v6); ok {
			l.Host, l.Port, l.Direct = target.Addr(), target.Port(), true
			out = append(out, l)
		}
	}
	return out
}

// exposure says which kinds of rules the ports of a whole state need in the family.
func (f *Family) exposure(s state.Snapshot, h Host) {
	f.Limited = slices.ContainsFunc(s.Endpoints, func(e state.Endpoint) bool { return len(limitsOf(s, h, e, f.V6)) > 0 })
	f.Learns = slices.ContainsFunc(s.Endpoints, func(e state.Endpoint) bool { return learns(s, h, e, f.V6) })
	if f.Learns {
		f.LearnedTime = h.LearnedTime
	}
}

// learns reports whether a port of the endpoint is Learned.
func learns(s state.Snapshot, h Host, e state.Endpoint, v6 bool) bool {
	if n, ok := s.Network(e.Network); !ok || n.Internal || len(e.Ports) == 0 {
		return false
	}
	exposure := s.Exposure(e)
	return slices.ContainsFunc(e.Ports, func(p state.Port) bool {
		_, ok := p.Target(e, v6)
		return ok && h.learns(exposure, p.Proto) && !p.Routed() && !p.HostIP.IsLoopback()
	})
}

func compareLimit(a, b Limit) int {
	return cmp.Or(
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port),
		b.Host.Compare(a.Host), // as ports
		cmp.Compare(a.Of, b.Of),
	)
}

// Sources are the prefixes from which a limited port may be reached, none of them within another.
func (l Limit) Sources(v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range l.From.Family(v6) { // sorted, so that who contains another comes before it
		if !slices.ContainsFunc(out, func(wider netip.Prefix) bool { return wider.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}
