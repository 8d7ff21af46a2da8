package firewall

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Change is what a change of the state means for a policy: what is in Before goes, and what is in After comes. Both hold only
// what is touched, of the slices Networks, Ports, Open, Links and Limits, and of Networks all or none. What is in neither is the same in both
// policies, and has neither a container's address nor a place on the host in common with what is. All else that makes
// rules is the same.
type Change struct{ Before, After Policy }

// IsEmpty reports whether both policies are the same.
func (c Change) IsEmpty() bool {
	for _, p := range []Policy{c.Before, c.After} {
		for _, f := range p.Families() {
			if len(f.Networks)+len(f.Ports)+len(f.Open)+len(f.Links)+len(f.Limits) > 0 {
				return false
			}
		}
	}
	return true
}

// RenderChange returns what the policies of both states on a host differ in, at a cost that depends on what was changed: all that
// it does with the rest of the state is to look over the numbers of the ports. It is false where a Change cannot say it.
func RenderChange(c state.Change, h Host) (Change, bool) {
	if c.Forwarding {
		return Change{}, false
	}
	touched := touchedBy(c)
	out := Change{Before: Policy{V6: Family{V6: true}}, After: Policy{V6: Family{V6: true}}}
	for _, v6 := range []bool{false, true} {
		if v6 && h.NoIPv6 {
			continue
		}
		before, after := renderPart(c.From, touched, h, v6), renderPart(c.To, touched, h, v6)
		if !sameRules(before, after) {
			return Change{}, false
		}
		if v6 {
			out.Before.V6, out.After.V6 = before, after
		} else {
			out.Before.V4, out.After.V4 = before, after
		}
	}
	return out, out.IsEmpty() || !touched.meets(c, out)
}

// touched is what a change touches.
type touched struct {
	endpoints map[state.EndpointID]bool
	networks  bool // they differ, so that all are rendered
}

// touchedBy returns the endpoints that differ, and all of each network that differs itself or in which the links of its
// containers may.
func touchedBy(c state.Change) touched {
	networks := maps.Clone(c.Networks)
	for _, s := range []state.Snapshot{c.From, c.To} {
		for id := range c.Endpoints {
			e, ok := s.Endpoint(id)
			if !ok || e.Name == "" && len(e.Links) == 0 {
				continue
			}
			if n, ok := s.Network(e.Network); ok && n.NoICC {
				networks[n.ID] = true
			}
		}
	}
	t := touched{maps.Clone(c.Endpoints), len(c.Networks) > 0}
	if len(networks) == 0 {
		return t
	}
	for _, s := range []state.Snapshot{c.From, c.To} {
		for _, e := range s.Endpoints {
			if networks[e.Network] {
				t.endpoints[e.ID] = true
			}
		}
	}
	return t
}

// of returns the part of a state that is touched.
func (t touched) of(s state.Snapshot) state.Snapshot {
	out := state.Snapshot{Networks: s.Networks, Forwarding: s.Forwarding}
	home := map[state.NetworkID]bool{}
	for id := range t.endpoints {
		if e, ok := s.Endpoint(id); ok {
			out.Endpoints = append(out.Endpoints, e)
			home[e.Network] = true
		}
	}
	if !t.networks {
		out.Networks = nil
		for id := range home {
			if n, ok := s.Network(id); ok {
				out.Networks = append(out.Networks, n)
			}
		}
	}
	out.Sort()
	return out
}

// renderPart returns what is touched of a family's policy.
func renderPart(s state.Snapshot, t touched, h Host, v6 bool) Family {
	part := t.of(s)
	if t.networks {
		return renderFamily(part, s, h, v6)
	}
	f := Family{V6: v6}
	f.Limits = limits(part, h, v6)
	f.exposure(s, h)
	if !slices.ContainsFunc(s.Networks, func(n state.Network) bool { return !n.Family(v6).IsZero() || stranger(n, v6) }) {
		return f // nothing of the family is on the host
	}
	f.Divert, f.Inquire = h.diverts(), h.inquires(v6)
	f.Loopback = !v6 && slices.ContainsFunc(s.Networks, h.leadsLoopback)
	f.Ports, f.Open = ports(part, h, f)
	f.Links = linksOf(part, v6)
	return f
}

// sameRules reports whether both have the same rules, whatever they have of elements.
func sameRules(a, b Family) bool {
	return a.HasBridges() == b.HasBridges() && a.Guard == b.Guard && a.Loopback == b.Loopback && a.Divert == b.Divert && a.Inquire == b.Inquire &&
		a.Limited == b.Limited && a.Learns == b.Learns && a.LearnedTime == b.LearnedTime &&
		a.BridgeNetfilter == b.BridgeNetfilter && slices.Equal(a.DockerBridges, b.DockerBridges)
}

// spot is a place on the host that one port can have. Families are not told apart, so that spots meet rather too often.
type spot struct {
	proto state.Proto
	port  uint16
	host  netip.Addr
}

// meets reports whether what is not touched has a container's address or a place on the host in common with what is.
func (t touched) meets(c state.Change, rendered Change) bool {
	addrs := map[netip.Addr]bool{}
	for _, s := range []state.Snapshot{c.From, c.To} {
		for id := range t.endpoints {
			e, _ := s.Endpoint(id)
			for _, a := range e.Addrs() {
				addrs[a] = true
			}
		}
	}
	var numbers [1 << 16 / 64]uint64 // a first look that is cheap
	spots := map[spot]bool{}
	for _, p := range []Policy{rendered.Before, rendered.After} {
		for _, f := range p.Families() {
			for _, p := range f.Ports {
				numbers[p.HostPort/64] |= 1 << (p.HostPort % 64)
				spots[spot{p.Proto, p.HostPort, p.Host}] = true
			}
			for _, l := range f.Limits {
				numbers[l.Port/64] |= 1 << (l.Port % 64)
				spots[spot{l.Proto, l.Port, l.Host}] = true
			}
		}
	}
	return slices.ContainsFunc(c.To.Endpoints, func(e state.Endpoint) bool {
		if t.endpoints[e.ID] {
			return false
		}
		for i := range e.Ports {
			p := &e.Ports[i]
			if numbers[p.HostPort/64]>>(p.HostPort%64)&1 != 0 && spots[spot{p.Proto, p.HostPort, specific(p.HostIP)}] {
				return true
			}
		}
		return addrs[e.Addr4.Addr()] || addrs[e.Addr6.Addr()]
	})
}

// Exchange returns ports, which are sorted as those of a Family, without some and with others.
func Exchange(ports, gone, come []Port) []Port {
	out := make([]Port, 0, len(ports)+len(come))
	for _, p := range ports {
		for len(come) > 0 && comparePort(come[0], p) < 0 {
			out, come = append(out, come[0]), come[1:]
		}
		if len(gone) > 0 && gone[0] == p {
			gone = gone[1:]
			continue
		}
		out = append(out, p)
	}
	return append(out, come...)
}

// turned returns the ports of now that before has in the same place, there Inside and now not.
func turned(before, now Policy) []Port {
	var out []Port
	left := map[Port]bool{}
	bare := func(p Port) Port {
		p.Inside, p.Learned, p.Proxied = false, false, false
		return p
	}
	for _, f := range before.Families() {
		for _, p := range f.Ports {
			if p.Inside {
				left[bare(p)] = true
			}
		}
	}
	for _, f := range now.Families() {
		for _, p := range f.Ports {
			if !p.Inside && left[bare(p)] {
				out = append(out, p)
			}
		}
	}
	return out
}
