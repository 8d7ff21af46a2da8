package nftables

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// published redirects what arrives at published ports: a map says for the host's address and port, or for the port
// alone, where to. A map of intervals cannot shift a port's number; it holds ranges that keep theirs.
func published(n names) Chain { return Chain{Name: n.published, Rules: n.leads.dnat(n, "published")} }

// guarded does it for ports that are not translated for everybody.
func guarded(n names) Chain { return Chain{Name: n.guarded, Rules: n.guards.dnat(n, "guarded")} }

func (p places) dnat(n names, what string) []Rule {
	return []Rule{
		rule(what+" ports of one address", n.dnat(p.here, true, n.to, l4, toPort)),
		rule(what+" ranges of one address", n.dnat(p.hereRanges, false, n.to, l4, toPort)),
		rule(what+" ports", n.dnat(p.everywhere, true, l4, toPort)),
		rule(what+" ranges", n.dnat(p.ranges, false, l4, toPort)),
	}
}

// fromOutside leads to published ports. A reply to a link-local client would need its interface, which NAT does not
// keep (RFC 4007, section 6).
func fromOutside(n names) []Rule {
	parts := []Part{n.only()}
	if n.v6 {
		parts = append(parts, n.from.notIn(netip.MustParsePrefix("fe80::/10")))
	}
	parts = append(parts, n.noLoopback, isLocal)
	return []Rule{
		rule("published ports, from outside", append(slices.Clip(parts), fromOthers, notLo, jump(n.outside))...),
		rule("published ports", append(slices.Clip(parts), jump(n.published))...),
		rule("guarded ports", append(slices.Clip(parts), jump(n.guarded))...),
	}
}

// outside leaves to the host what comes from outside to guarded ports. These are in maps of their own, and not in a set of exceptions: who empties one
// of them opens nothing.
func outside(f firewall.Family, n names) Chain {
	c := Chain{Name: n.outside}
	if f.Inquire {
		c.Rules = append(c.Rules, inquiries(n, "an inquiry", jump(n.guarded))...)
	}
	if f.Learns {
		c.Rules = append(c.Rules, rule("the host let him in", in(n.learned, n.visit()...), jump(n.guarded)))
	}
	c.Rules = append(c.Rules, rule("published ports", jump(n.published)), rule("left to the host", accept))
	return c
}

// visit is who comes by which link to which port of the host.
func (n names) visit() []field { return []field{n.from, iif, n.to, l4, toPort} }

func fromHost(f firewall.Family, n names) []Rule {
	const why = "published ports, from the host"
	if !f.Loopback {
		return []Rule{
			rule(why, n.only(), n.noLoopback, isLocal, jump(n.published)),
			rule("guarded ports, from the host", n.only(), n.noLoopback, isLocal, jump(n.guarded)),
		}
	}
	return []Rule{
		rule("left to the proxy", n.loopback, in(n.proxied, l4, toPort), accept),
		rule(why, n.only(), isLocal, jump(n.published)),
		rule("guarded ports, from the host", n.only(), isLocal, jump(n.guarded)),
	}
}

// leastRange is how many ports in a row make a range. Few are cheaper by themselves: a set of intervals is copied
// with each change.
const leastRange = 8

// run is a row of published ports that follow each other on the host and lead to the same numbers of one container;
// or a single port.
type run struct {
	firewall.Port
	last uint16 // of the host's ports
}

func (r run) isRange() bool { return r.last != r.HostPort }

// ports yields the numbers of the host's ports.
func (r run) ports() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for n := int(r.HostPort); n <= int(r.last) && yield(uint16(n)); n++ {
		}
	}
}

// runs groups ports. Of ports with the same place on the host the first counts, as with rules in a row.
func runs(ports []firewall.Port) []run {
	ports = slices.Clone(ports)
	place := func(a, b firewall.Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host), cmp.Compare(a.HostPort, b.HostPort))
	}
	if !slices.IsSortedFunc(ports, place) {
		slices.SortStableFunc(ports, place)
	}
	ports = slices.CompactFunc(ports, func(a, b firewall.Port) bool { return place(a, b) == 0 })
	out := make([]run, 0, len(ports))
	for len(ports) > 0 {
		n := 1
		for n < len(ports) && follows(ports[n-1], ports[n]) {
			n++
		}
		if n < leastRange {
			n = 1
		}
		out = append(out, run{ports[0], ports[n-1].HostPort})
		ports = ports[n:]
	}
	return out
}

func follows(a, b firewall.Port) bool {
	return a.Proto == b.Proto && a.Host == b.Host && a.Proxied == b.Proxied && a.Inside == b.Inside && a.Learned == b.Learned && a.Target.Addr() == b.Target.Addr() &&
		int(a.HostPort)+1 == int(b.HostPort) && a.HostPort == a.Target.Port() && b.HostPort == b.Target.Port()
}

// addPorts adds the elements of published ports.
func addPorts(add func(set string, e Element), n names, ports []firewall.Port) {
	var targets []targetRange
	for _, r := range runs(ports) {
		leads := n.leads
		if r.Inside {
			leads = n.guards
		}
		one, many := leads.of(r)
		if r.Learned {
			n.learning.add(add, r)
		}
		if r.Proxied {
			for port := range r.ports() {
				add(n.proxied, Element{Key: packPlace(r.Host, r.Proto, port)})
			}
		}
		place, target := packPlace(r.Host, r.Proto, r.HostPort), r.Target
		if r.isRange() {
			add(many, Element{Key: place, End: packPlace(r.Host, r.Proto, r.last), Value: packAddr(target.Addr())})
			if r.Forwarded() {
				targets = append(targets, targetRange{target.Addr(), r.Proto, r.HostPort, r.last})
			}
			continue
		}
		add(one, Element{Key: place, Value: packValue(target.Addr(), target.Port())})
		if r.Forwarded() {
			add(n.ports, targetElement(firewall.Target{Proto: r.Proto, Addr: target}))
		}
	}
	for _, t := range merged(targets) {
		add(n.portRanges, Element{Key: packPlace(t.addr, t.proto, t.first), End: packPlace(t.addr, t.proto, t.last)})
	}
}

// of returns the sets for a single port of the row, and for all.
func (p places) of(r run) (one, many string) {
	if r.Host.IsValid() {
		return p.here, p.hereRanges
	}
	return p.everywhere, p.ranges
}

// add adds a row to sets.
func (p places) add(add func(set string, e Element), r run) {
	one, many := p.of(r)
	place := packPlace(r.Host, r.Proto, r.HostPort)
	if r.isRange() {
		add(many, Element{Key: place, End: packPlace(r.Host, r.Proto, r.last)})
		return
	}
	add(one, Element{Key: place})
}

// targetRange is a row of ports of a container.
type targetRange struct {
	addr        netip.Addr
	proto       state.Proto
	first, last uint16
}

// merged joins rows that overlap, as those do that are published on several addresses of the host: a set of
// intervals refuses them.
func merged(targets []targetRange) []targetRange {
	slices.SortFunc(targets, func(a, b targetRange) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto), cmp.Compare(a.first, b.first))
	})
	var out []targetRange
	for _, t := range targets {
		if n := len(out) - 1; n >= 0 && out[n].addr == t.addr && out[n].proto == t.proto && t.first <= out[n].last {
			out[n].last = max(out[n].last, t.last)
			continue
		}
		out = append(out, t)
	}
	return out
}
